//! Which thread uses which arena, and which arenas wait for a thread.

use ground::target::Address;
use heaps::anomaly::{AnomalyKind, BrokenWord, Field, Value};

use crate::bench::{ARENA, Bench, DATA, LIBC, TLS, TLS_DISTANCE, V2_31, V2_36, V2_43};
use crate::{definite, walked};

/// `thread_arena`, where thread `thread` of the bench has it.
fn thread_arena(thread: u64) -> u64 {
    TLS + 0x10_0000 * thread - TLS_DISTANCE - 0x10
}

/// Four threads with blocks in their caches; the words that name their arenas.
fn bench(words: [u64; 4]) -> Bench {
    let mut bench = Bench::new(V2_36, 4);
    for thread in 0..4 {
        bench.cached(thread, 0x40);
    }
    let mut bench = bench.finish();
    for (thread, word) in (0..).zip(words) {
        bench.write(thread_arena(thread), word);
    }
    bench
}

/// Where words of threads are called wrong.
fn wrong(bench: &Bench) -> Vec<Address> {
    let walked = walked(bench);
    let named = definite(&walked).into_iter().filter_map(|kind| match kind {
        AnomalyKind::Metadata {
            word: BrokenWord { at, what, .. },
            ..
        } if *what == Field::ThreadArena => Some(*at),
        _ => None,
    });
    named.collect()
}

#[test]
fn a_thread_uses_an_arena_or_none() {
    assert_eq!(wrong(&bench([ARENA, ARENA, 0, ARENA])), []);
    let damaged = bench([ARENA, ARENA, 0x4141_4141, ARENA]);
    assert_eq!(wrong(&damaged), [Address::new(thread_arena(2))]);
}

#[test]
fn a_thread_of_another_runtime_has_words_of_its_own() {
    let mut foreign = bench([ARENA, ARENA, 0x4141_4141, ARENA]);
    foreign.write(TLS + 0x20_0000, 0);
    assert_eq!(wrong(&foreign), []);
}

#[test]
fn where_threads_do_not_agree_nothing_is_said() {
    assert_eq!(wrong(&bench([ARENA, 0, 0x4141_4141, 0])), []);
    assert_eq!(wrong(&bench([ARENA, 0x5151_5151, 0x4141_4141, ARENA])), []);
}

#[test]
fn a_free_arena_has_no_thread() {
    const FREE_LIST: u64 = DATA + 0x2f00;
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = crate::healthy::furnished(release);
        let symbols = &mut bench.process.symbols;
        symbols.object(0, "free_list", FREE_LIST, 8);
        assert_eq!(definite(&walked(&bench)), Vec::<&AnomalyKind>::new());
        bench.write(FREE_LIST, ARENA);
        let walked = walked(&bench);
        let [
            AnomalyKind::Metadata {
                word: BrokenWord {
                    of, what, found, ..
                },
                ..
            },
        ] = definite(&walked)[..]
        else {
            panic!("{:?}", walked.anomalies);
        };
        assert_eq!(
            (of.get(), *what),
            (ARENA, Field::MallocStateAttachedThreads)
        );
        assert_eq!(*found, Value::Number(1));
        for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
            bench.process.symbols.object(0, name, address, 0x100);
        }
        let inside = vec![synth::frame(LIBC + 0x9100, &[])];
        bench.process.threads.set_frames(0, inside);
        assert_eq!(definite(&crate::walked(&bench)), Vec::<&AnomalyKind>::new());
    }
}
