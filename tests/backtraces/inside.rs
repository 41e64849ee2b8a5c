//! Whether a thread is inside the allocator, and whether a signal interrupted it there: what the heap checks ask of stacks.

use ground::target::{Address, LocateLimit, LocatedBy};
use heaps::anomaly::Proof;
use heaps::presence::{Code, Presence, Presences};
use postmortem::corefile::OpenOptions;
use postmortem::modules::SearchPaths;
use postmortem::session::{Session, SessionOptions};

use crate::directory;

/// The fixture's own words: thread and program counter inside, thread outside.
fn truth() -> (u32, Address, u32) {
    let output = std::fs::read_to_string(directory("inside-tcmalloc").join("output")).unwrap();
    let line = output.lines().find(|line| line.starts_with("inside "));
    let words: Vec<_> = line.unwrap().split(' ').collect();
    let pc = u64::from_str_radix(words[2].trim_start_matches("0x"), 16);
    let number = |at: usize| words[at].parse().unwrap();
    (number(1), Address::new(pc.unwrap()), number(4))
}

#[test]
fn a_thread_inside_the_allocator_is_told_and_that_a_signal_interrupted_it_there() {
    let directory = directory("inside-tcmalloc");
    let session = Session::open(&SessionOptions {
        files: vec![directory.join("core"), directory.join("binary")],
        search: SearchPaths::default(),
        limit: LocateLimit(LocatedBy::DebugInfo),
        jobs: None,
        open: OpenOptions::default(),
    })
    .unwrap();
    let target = session.target();
    let allocator = target
        .modules
        .iter()
        .find(|module| module.name.contains("tcmalloc"));
    let threads = Presences::new(target, allocator.unwrap(), Code::Module);
    let (inside, pc, outside) = truth();
    let index = |tid| {
        (0..threads.count())
            .find(|&index| threads.tid(index) == Some(tid))
            .unwrap()
    };

    let within = index(inside);
    // abort(), the handler and the signal's frame are further in.
    assert!(
        matches!(threads.of(within), Presence::Inside { frame, pc: at } if frame > 2 && at == pc)
    );
    assert!(threads.was_interrupted(within));
    assert!(matches!(
        threads.at_work(within).proof,
        Proof::AtWork {
            interrupted: true,
            ..
        }
    ));

    let without = index(outside);
    assert_eq!(threads.of(without), Presence::Outside);
    assert!(!threads.was_interrupted(without));
}
