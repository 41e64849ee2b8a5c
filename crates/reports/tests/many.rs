//! Many reports: the classic case, twelve bugs over hundreds of runs and two builds, the gate, and what people decide.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use reports::import::{Options, Summary, import};
use reports::triage::{
    BASELINE, Gate, Gather, Groups, Recurrence, TriageFile, Versions, gate, introduced,
};
use reports::{Kind, Record, Strength};

fn options(attributes: &[(&str, &str)]) -> Options {
    Options {
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Options::default()
    }
}

fn read(name: &str, text: &str, options: &Options) -> (Vec<Record>, Summary) {
    let mut records = Vec::new();
    let mut summary = Summary::default();
    import(
        text.as_bytes(),
        name,
        options,
        &mut summary,
        &mut |record| {
            records.push(record);
            Ok(())
        },
    )
    .unwrap();
    (records, summary)
}

fn decisions(text: &str) -> TriageFile {
    TriageFile::parse(text, "2026-06-01").unwrap()
}

fn with<T>(record: &Record, take: impl FnOnce(&reports::triage::Item<'_>) -> T) -> T {
    let text = serde_json::to_string(record).unwrap();
    take(&serde_json::from_str(&text).unwrap())
}

fn groups(records: &[Record], file: &TriageFile) -> Groups {
    let mut gather = Gather::new(file);
    records
        .iter()
        .for_each(|record| with(record, |item| gather.add(item)));
    gather.finish(0, file)
}

fn compare(baseline: &[Record], new: &[Record], file: &TriageFile) -> Gate {
    let mut gather = Gather::new(file);
    baseline
        .iter()
        .for_each(|record| with(record, |item| gather.add_labelled(item, BASELINE)));
    new.iter()
        .for_each(|record| with(record, |item| gather.add(item)));
    gate(gather, 0, file, false)
}

/// A build of the shop: where its functions are, in which compiler's words.
struct Build {
    shift: u64,
    file: &'static str,
    clang: bool,
}

/// Functions of twelve bugs, innermost first; `keep` and `take` are shared by several.
const BUGS: [(&str, &[&str], &[&str]); 12] = [
    (
        "heap-use-after-free",
        &["Shelf::look", "serve", "main"],
        &["Shelf::drop", "clean_shelf", "main"],
    ),
    (
        "heap-use-after-free",
        &["Shelf::look", "count", "main"],
        &["Shelf::drop", "sell_out", "main"],
    ),
    (
        "heap-buffer-overflow",
        &["write_label", "label_all", "main"],
        &["keep", "label_all", "main"],
    ),
    (
        "heap-buffer-overflow",
        &["write_label", "price_tag", "label_all"],
        &["keep", "price_tag", "label_all"],
    ),
    (
        "double-free",
        &["give_back", "close_till", "main"],
        &["give_back", "open_till", "main"],
    ),
    (
        "double-free",
        &["give_back", "return_goods", "counter"],
        &["give_back", "counter", "main"],
    ),
    (
        "bad-free",
        &["give_back", "empty_bin", "main"],
        &["keep", "fill_bin", "main"],
    ),
    ("leak", &["keep", "take_order", "serve"], &[]),
    ("leak", &["keep", "book_order", "serve"], &[]),
    ("leak", &["keep", "Circle::area", "draw"], &[]),
    ("leak", &["keep", "Square::area", "draw"], &[]),
    (
        "stack-buffer-overflow",
        &["parse_code", "scan", "counter"],
        &[],
    ),
];

/// The report of a bug by AddressSanitizer of a build, with addresses of the run.
fn report(bug: usize, build: &Build, run: u64) -> String {
    let (kind, functions, other) = BUGS[bug];
    let mut random = fastrand::Rng::with_seed(run * 100 + bug as u64);
    let pid = 1000 + run;
    let base = 0x5500_0000_0000 + random.u64(..1 << 30) * 4096;
    let stack = |functions: &[&str], library: &str| {
        let mut text = String::new();
        let mut number = 0;
        let mut push = |line: String| {
            let _ = writeln!(text, "    #{number} {line}");
            number += 1;
        };
        if !library.is_empty() {
            push(if build.clang {
                format!(
                    "0x{base:x} in {library} (/src/shop/shop+0xa3ec2) (BuildId: 5fd722d81d5121858c3b34095069dd77fe9a9b43)"
                )
            } else {
                format!(
                    "0x{base:x} in __interceptor_{library} ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69"
                )
            });
        }
        for (depth, function) in functions.iter().enumerate() {
            let name = match (build.clang, *function) {
                (_, "main") => "main".to_owned(),
                (true, name) => {
                    format!("shop::{name}(int, std::vector<int, std::allocator<int> > const&)")
                }
                // What is local to a file has no scope in gcc's runtime.
                (false, name) => name.rsplit("::").next().map_or_else(
                    || name.to_owned(),
                    |last| {
                        if depth == 0 && !name.contains("::") {
                            last.to_owned()
                        } else {
                            format!(
                                "shop::{name}(int, std::vector<int, std::allocator<int> > const&)"
                            )
                        }
                    },
                ),
            };
            let line = 10 + depth as u64 * 7 + build.shift + bug as u64;
            push(format!(
                "0x{:x} in {name} /src/shop/{}:{line}{}",
                base + line * 16,
                build.file,
                if build.clang { ":9" } else { "" }
            ));
        }
        push(format!(
            "0x7f0 in __libc_start_call_main {}../sysdeps/nptl/libc_start_call_main.h:58",
            if build.clang { "csu/" } else { "" }
        ));
        text
    };
    let address = 0x6020_0000_0010 + random.u64(..1 << 20) * 16;
    match kind {
        "leak" => format!(
            "==={pid}\n==={}\n=={pid}==ERROR: LeakSanitizer: detected memory leaks\n\nDirect leak of {} byte(s) in {} object(s) allocated from:\n{}\nSUMMARY: AddressSanitizer: x\n",
            run,
            40 * (1 + run % 7),
            1 + run % 7,
            stack(functions, "malloc")
        ),
        "double-free" | "bad-free" => {
            let head = if kind == "double-free" {
                format!("attempting double-free on 0x{address:x} in thread T0:")
            } else {
                format!(
                    "attempting free on address which was not malloc()-ed: 0x{address:x} in thread T0"
                )
            };
            let error = stack(functions, "free");
            let second = if kind == "double-free" {
                format!("freed by thread T0 here:\n{}\n", stack(other, "free"))
            } else {
                String::new()
            };
            format!(
                "=={pid}==ERROR: AddressSanitizer: {head}\n{error}\n0x{address:x} is located 0 bytes inside of 64-byte region [0x1,0x41)\n{second}previously allocated by thread T0 here:\n{}\nSUMMARY: AddressSanitizer: x\n",
                stack(&["keep", "main"], "malloc")
            )
        }
        _ => {
            let error = stack(functions, "");
            let block = match kind {
                "heap-use-after-free" => format!(
                    "0x{address:x} is located 4 bytes inside of 64-byte region [0x1,0x41)\nfreed by thread T0 here:\n{}\n",
                    stack(other, "free")
                ),
                "heap-buffer-overflow" => format!(
                    "0x{address:x} is located {} 24-byte region [0x1,0x19)\nallocated by thread T0 here:\n{}\n",
                    if build.clang {
                        "0 bytes after"
                    } else {
                        "0 bytes to the right of"
                    },
                    stack(other, "malloc")
                ),
                _ => {
                    "Address 0x7ffc is located in stack of thread T0 at offset 48 in frame\n"
                        .to_owned()
                        + &stack(&functions[..1], "")
                }
            };
            format!(
                "=={pid}==ERROR: AddressSanitizer: {kind} on address 0x{address:x} at pc 0x1 bp 0x2 sp 0x3\nWRITE of size 4 at 0x{address:x} thread T0\n{error}\n{block}\nSUMMARY: AddressSanitizer: x\n"
            )
        }
    }
}

#[test]
fn twelve_bugs_in_two_hundred_runs_of_two_builds() {
    let builds = [
        Build {
            shift: 0,
            file: "shop.cpp",
            clang: false,
        },
        Build {
            shift: 31,
            file: "shop_main.cpp",
            clang: true,
        },
    ];
    let mut records = Vec::new();
    let mut bug_of = BTreeMap::new();
    for build in &builds {
        for run in 0..200 {
            for bug in 0..BUGS.len() {
                let (found, summary) = read(
                    &format!("run-{run}-{}", build.clang),
                    &report(bug, build, run),
                    &Options::default(),
                );
                assert_eq!(
                    (found.len(), summary.failures),
                    (1, 0),
                    "{}",
                    report(bug, build, run)
                );
                for record in found {
                    bug_of
                        .entry(record.key.clone())
                        .or_insert_with(BTreeSet::new)
                        .insert(bug);
                    records.push(record);
                }
            }
        }
    }
    assert!(
        bug_of.values().all(|bugs| bugs.len() == 1),
        "a key with two bugs"
    );
    let file = decisions("");
    let found = groups(&records, &file);
    for group in &found.groups {
        let bugs: BTreeSet<usize> = std::iter::once(&group.key)
            .chain(&group.also)
            .flat_map(|key| &bug_of[key])
            .copied()
            .collect();
        assert_eq!(bugs.len(), 1, "{}: two bugs", group.key_text);
        assert_eq!(group.key_strength, Strength::Full);
    }
    assert_eq!(found.errors, 4800);
    assert!(
        found.groups.len() as f64 <= 1.1 * BUGS.len() as f64,
        "{} groups: {:?}",
        found.groups.len(),
        found
            .groups
            .iter()
            .map(|group| &group.key_text)
            .collect::<Vec<_>>()
    );
}

#[test]
fn sixty_four_logs_with_1153_errors_are_five_bugs() {
    // Five bugs as five tools see them, from logs that were made; each log is one process.
    let log = |name: &str| {
        std::fs::read_to_string(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/logs")
                .join(name),
        )
        .unwrap()
    };
    let one = |text: &str, at: usize| {
        let (records, _) = read("x", text, &Options::default());
        let from = records[at].source.line as usize - 1;
        let to = records
            .get(at + 1)
            .map_or(usize::MAX, |next| next.source.line as usize - 1);
        text.lines()
            .skip(from)
            .take(to - from)
            .fold(String::new(), |text, line| text + line + "\n")
    };
    let asan = log("asan-gcc-O0.log");
    let parts = [
        one(&asan, 0),
        one(&asan, 1),
        one(&log("asan-clang-O2.log"), 0),
        one(&log("valgrind-gcc-O2-text.log"), 0),
        one(&log("valgrind-clang-O0-text.log"), 1),
        one(&log("msan-clang-O0.log"), 0),
        one(&log("tsan-gcc-O2.log"), 0),
        one(&log("tsan-clang-O0.log"), 0),
        log("ubsan-gcc-O0.log")
            .lines()
            .skip(1)
            .take(5)
            .fold(String::new(), |text, line| text + line + "\n"),
    ];
    let mut total = 0;
    let mut records = Vec::new();
    let mut all = Summary::default();
    for number in 0..64_usize {
        let count = if number == 63 {
            1153 - total
        } else {
            10 + number * 7 % 17
        };
        let mut text = String::new();
        for error in 0..count {
            let part = &parts[(number * 3 + error) % parts.len()];
            // Each log is of one process.
            let pid = read("x", part, &Options::default()).0[0]
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            text.push_str(
                &part
                    .replace(&format!("=={pid}=="), &format!("=={}==", 5000 + number))
                    .replace(&format!("pid={pid}"), &format!("pid={}", 5000 + number)),
            );
            text.push('\n');
        }
        total += count;
        let (found, summary) = read(&format!("log.{number}"), &text, &Options::default());
        assert_eq!(found.len(), count, "log {number}");
        all.created += summary.created;
        all.failures += summary.failures;
        records.extend(found);
    }
    assert_eq!((records.len(), all.created, all.failures), (1153, 1153, 0));
    let found = groups(&records, &decisions(""));
    assert_eq!(
        (found.errors, found.groups.len()),
        (1153, 5),
        "{:?}",
        found
            .groups
            .iter()
            .map(|group| &group.key_text)
            .collect::<Vec<_>>()
    );
    assert_eq!(
        found.groups.iter().map(|group| group.errors).sum::<u64>(),
        1153
    );
    let tools: BTreeSet<&String> = found
        .groups
        .iter()
        .flat_map(|group| group.tools.keys())
        .collect();
    assert_eq!(tools.len(), 5);
}

#[test]
fn the_gate() {
    let old = Build {
        shift: 0,
        file: "shop.cpp",
        clang: false,
    };
    let rebuilt = Build {
        shift: 31,
        file: "store.cpp",
        clang: true,
    };
    let run = |bugs: &[usize], build: &Build, runs: u64| -> Vec<Record> {
        bugs.iter()
            .flat_map(|&bug| {
                (0..runs).flat_map(move |run| {
                    read(
                        &format!("{run}"),
                        &report(bug, build, run),
                        &Options::default(),
                    )
                    .0
                })
            })
            .collect()
    };
    let baseline = run(&[0, 4, 7], &old, 3);
    let open = decisions("");
    assert!(!compare(&baseline, &baseline, &open).fails());
    assert!(
        !compare(&baseline, &run(&[0, 4, 7], &rebuilt, 3), &open).fails(),
        "an unrelated rebuild"
    );
    let new = run(&[0, 4, 7, 11], &rebuilt, 3);
    let answer = compare(&baseline, &new, &open);
    assert_eq!(
        (answer.fails(), answer.new.len(), answer.errors),
        (true, 1, 12)
    );
    let key = &answer.new[0].key;
    let rule = |more: &str| {
        decisions(&format!(
            "[[group]]\nkey = \"{key}\"\nstate = \"muted\"\n{more}"
        ))
    };
    assert!(
        !compare(
            &baseline,
            &new,
            &rule("reason = \"vendor\"\nuntil = \"2026-06-01\"\n")
        )
        .fails(),
        "muted"
    );
    let expired = compare(
        &baseline,
        &new,
        &rule("reason = \"vendor\"\nuntil = \"2026-05-31\"\n"),
    );
    assert_eq!(
        (expired.fails(), expired.new.len(), expired.problems.len()),
        (true, 1, 1)
    );
    assert!(
        compare(&baseline, &new, &rule("")).fails(),
        "a mute without a reason"
    );
    let ticket = decisions(&format!(
        "[[group]]\nkey = \"{key}\"\nstate = \"ticket\"\ninto = \"SHOP-7\"\n"
    ));
    assert!(!compare(&baseline, &new, &ticket).fails());
    // A leak that happens once in each process is not counted.
    let once: Vec<Record> = (0..6)
        .flat_map(|run| {
            read(
                &format!("{run}"),
                &report(8, &old, 7 * run),
                &Options::default(),
            )
            .0
        })
        .collect();
    let answer = compare(&baseline, &once, &open);
    assert_eq!((answer.fails(), answer.one_time.len()), (false, 1));
    assert_eq!(answer.one_time[0].recurrence, Recurrence::OneTime);
}

#[test]
fn merged_and_split_groups() {
    let build = Build {
        shift: 0,
        file: "shop.cpp",
        clang: true,
    };
    let of = |bug: usize, run: u64| {
        read("x", &report(bug, &build, run), &Options::default())
            .0
            .remove(0)
    };
    let (a, b) = (of(7, 1), of(8, 2));
    let merged = decisions(&format!(
        "[[group]]\nkey = \"{}\"\nstate = \"merged\"\ninto = \"{}\"\n",
        b.key, a.key
    ));
    let found = groups(&[a.clone(), b.clone()], &merged);
    assert_eq!(
        (
            found.groups.len(),
            found.groups[0].errors,
            &found.groups[0].also
        ),
        (1, 2, &vec![b.key.clone()])
    );
    // Two uses of what one function frees have one key; split, they are told apart by the access.
    let (mut c, d) = (of(0, 1), of(0, 2));
    for frame in &mut c.stacks[0].frames {
        frame.function = frame
            .function
            .take()
            .map(|name| name.replace("serve", "weigh"));
    }
    assert_eq!(c.key, d.key);
    let split = decisions(&format!(
        "[[group]]\nkey = \"{}\"\nstate = \"split\"\n",
        c.key
    ));
    let found = groups(&[c, d], &split);
    assert_eq!(
        found.groups.len(),
        2,
        "{:?}",
        found
            .groups
            .iter()
            .map(|group| &group.key_text)
            .collect::<Vec<_>>()
    );
}

#[test]
fn first_seen_and_clean_before() {
    let build = Build {
        shift: 0,
        file: "shop.cpp",
        clang: true,
    };
    let file = decisions("");
    let mut versions = Versions::new(&file, "version");
    for (version, bugs) in [
        ("1.0", &[7_usize][..]),
        ("1.1", &[7]),
        ("1.2", &[7, 0]),
        ("1.3", &[0]),
    ] {
        for &bug in bugs {
            let (records, _) = read(
                version,
                &report(bug, &build, 1),
                &options(&[("version", version)]),
            );
            records
                .iter()
                .for_each(|record| with(record, |item| versions.add(item)));
        }
    }
    let order: Vec<String> = ["0.9", "1.0", "1.1", "1.2", "1.3"]
        .map(str::to_owned)
        .to_vec();
    let found = introduced(versions, &file, &order);
    let of = |kind: &str| {
        found
            .iter()
            .find(|group| group.key_text.starts_with(kind))
            .map(|group| (group.first_seen.as_deref(), group.clean_before))
            .unwrap()
    };
    assert_eq!(
        of("memory-leak"),
        (Some("1.0"), false),
        "nobody looked at 0.9"
    );
    // 1.1 was looked at with LeakSanitizer only: that says nothing of a use after free.
    assert_eq!(of("use-after-free"), (Some("1.2"), false));
}

#[test]
fn leaks_of_one_process_over_time_are_not_added() {
    let snapshot = |time: &str, bytes: u64, blocks: u64| {
        format!(
            "[{time}] Top 1 stacks with outstanding allocations:\n\t{bytes} bytes in {blocks} allocations from stack\n\t\t0x000055d0c3a2b1f9\tqueue_order+0x19 [shop]\n\t\t0x000055d0c3a2b22d\tserve+0x1d [shop]\n"
        )
    };
    let log = snapshot("11:00:00", 100, 1)
        + &snapshot("11:00:05", 300, 3)
        + &snapshot("11:00:10", 200, 2);
    let (records, _) = read("a", &log, &Options::default());
    let found = groups(&records, &decisions(""));
    assert_eq!(
        (
            found.groups[0].bytes,
            found.groups[0].blocks,
            found.groups[0].processes,
            found.groups[0].recurrence
        ),
        (Some(300), Some(3), 1, Recurrence::Recurring)
    );
}

#[test]
fn text_that_is_no_stack_does_not_split() {
    let mut log = String::new();
    for (number, word) in [
        "0x622d36313a383475",
        "0x0000746174732f35",
        "0x00726f702d706f74",
        "0x0000746174732f00",
    ]
    .iter()
    .enumerate()
    {
        let _ = writeln!(
            log,
            "{} bytes in {} allocations from stack\n0x00007fc75f6a33ef      __strdup+0x1f [libc.so.6]\n{word}      [unknown]",
            30 + number,
            number + 1
        );
    }
    let (records, _) = read("a", &log, &Options::default());
    assert_eq!(records.len(), 4);
    assert!(
        records
            .iter()
            .all(|record| record.is(Kind::MemoryLeak) && record.message.contains("no code"))
    );
    let found = groups(&records, &decisions(""));
    assert_eq!(
        (
            found.groups.len(),
            found.groups[0].key_text.as_str(),
            found.groups[0].key_strength
        ),
        (1, "memory-leak | __strdup", Strength::Weak)
    );
}
