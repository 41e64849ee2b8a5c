//! Every frame of every thread, as gdb shows it.
//!
//! gdb runs on this machine, with the same files; what it is known to say differently stands in [`KNOWN`], with who is right.

use std::process::Command;

use crate::common::stacks::{Row, Stacks, first_difference, ours, stacks_of};
use crate::common::{a_sample, every, in_parallel, root};
use crate::{GUEST_ROOT, cases, directory, is_guest, report};

/// Seconds that gdb is given for one core.
const GDB_SECONDS: &str = "60";

/// A difference that is known.
struct Known {
    /// What the fixture's name holds.
    fixture: &'static str,
    /// gdb's function at the first frame that differs; "" for the end of its stack.
    gdb: &'static str,
    /// Ours.
    ours: &'static str,
    /// Who is right, and why.
    #[allow(dead_code, reason = "for the reader")]
    why: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        fixture: "-push",
        gdb: "?",
        ours: "main",
        why: "heapcheck: main calls assembler_push, which has no call-frame information; gdb takes a saved register for the \
              return address, 0, and ends",
    },
    Known {
        fixture: "stripped-push",
        gdb: "?",
        ours: "?",
        why: "heapcheck: as above; a_stripped_program_has_the_stack_of_its_twin",
    },
    Known {
        fixture: "stripped-frame",
        gdb: "?",
        ours: "?",
        why: "heapcheck: gdb cannot guess assembler_frame's prologue without a symbol; the twin with symbols agrees with us",
    },
    Known {
        fixture: "stripped-nocfi",
        gdb: "?",
        ours: "?",
        why: "heapcheck: likewise for without_cfi",
    },
    Known {
        fixture: "-smash",
        gdb: "?",
        ours: "__libc_start_call_main",
        why: "both guess, and heapcheck says so (trust scan, stack_end overwritten): gdb goes on through the overwriting bytes",
    },
    Known {
        fixture: "arm64-O0-plt",
        gdb: "_start",
        ours: "?",
        why: "heapcheck: this program has made its list of modules unreadable, so that the C library is known to neither; \
              0x5500377858 is in it, in __libc_start_main",
    },
    Known {
        fixture: "-go",
        gdb: "?",
        ours: "go_outer",
        why: "heapcheck: go_outer called go_inner; gdb does not know Go's frames, and takes a word for a return address, 0",
    },
    Known {
        fixture: "stripped-go",
        gdb: "?",
        ours: "?",
        why: "heapcheck: as above; a_stripped_program_has_the_stack_of_its_twin",
    },
    Known {
        fixture: "arm64-stripped-go",
        gdb: "",
        ours: "?",
        why: "heapcheck: as above; a_stripped_program_has_the_stack_of_its_twin",
    },
    Known {
        fixture: "arm64-stripped-handler",
        gdb: "?",
        ours: "?",
        why: "heapcheck: gdb cannot tell that assembler_leaf has no frame without a symbol; the twin with symbols agrees with us",
    },
    Known {
        fixture: "arm64-stripped-leaf",
        gdb: "?",
        ours: "?",
        why: "heapcheck: as above",
    },
    Known {
        fixture: "arm64-stripped-smash",
        gdb: "?",
        ours: "?",
        why: "both guess, and heapcheck says so, as above",
    },
    Known {
        fixture: "-smash",
        gdb: "?",
        ours: "__libc_start_main",
        why: "both guess, and heapcheck says so, as above",
    },
];

fn gdbs(case: &str) -> Stacks {
    let directory = directory(case);
    let program = match is_guest(case) {
        true => "gdb-multiarch",
        false => "gdb",
    };
    let sysroot = match is_guest(case) {
        true => GUEST_ROOT,
        false => "/",
    };
    let output = Command::new("timeout")
        .args([GDB_SECONDS, program])
        .args([
            "-q",
            "-nx",
            "-batch",
            "-ex",
            "set debuginfod enabled off",
            "-ex",
        ])
        .arg(format!("set sysroot {sysroot}"))
        .arg("-ex")
        .arg(format!("file {}", directory.join("binary").display()))
        .arg("-ex")
        .arg(format!("core {}", directory.join("core").display()))
        .arg("-x")
        .arg(root().join("testdata/stacks/gdb.py"))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stacks = stacks_of(&text);
    assert!(
        !stacks.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stacks
}

/// How two stacks differ, if they do and it is not known.
fn difference(case: &str, gdb: &[Row], ours: &[Row]) -> Option<String> {
    let (frame, left, right) = first_difference(gdb, ours)?;
    let name = |row: Option<&Row>| row.map_or(String::new(), |row| row.function.clone());
    let known = KNOWN.iter().any(|known| {
        case.contains(known.fixture) && known.gdb == name(left) && known.ours == name(right)
    });
    (!known).then(|| format!("frame {frame}: gdb {left:?}, heapcheck {right:?}"))
}

#[test]
fn every_stack_is_the_one_that_gdb_shows() {
    // gdb does not find where a program without a fixed place was, if the core has no list of files, and follows no signed
    // return address, if it has no note about their signatures. Both are compared with their twins (arm64.rs).
    let mut cases = a_sample(cases());
    cases.retain(|case| !case.starts_with("arm64-pie-") && !case.starts_with("arm64-signed-"));
    let results = in_parallel(&cases, |case| {
        let (_, report) = report(case, &[]);
        let (ours, gdb) = (ours(&report), gdbs(case));
        let mut errors = Vec::new();
        let mut frames = 0;
        for (thread, gdb) in &gdb {
            frames += gdb.len();
            match ours.get(thread) {
                Some(ours) => errors.extend(
                    difference(case, gdb, ours)
                        .map(|what| format!("{case}, thread {thread}: {what}")),
                ),
                None => errors.push(format!("{case}: thread {thread} is missing")),
            }
        }
        (errors, gdb.len(), frames)
    });
    let threads: usize = results.iter().map(|result| result.1).sum();
    let frames: usize = results.iter().map(|result| result.2).sum();
    println!("{threads} threads with {frames} frames compared");
    let errors: Vec<_> = results.into_iter().flat_map(|result| result.0).collect();
    assert!(
        errors.is_empty(),
        "{} stacks differ:\n{}",
        errors.len(),
        errors.join("\n")
    );
    assert!(frames * every() > 1000);
}
