//! Whose error it was, against programs that are built and run here, one case a run, and say what they are about to do (`testdata/causes`).

mod common;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Fact, heapcheck, in_parallel, items, text};
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian has its libraries.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
/// The allocators: the library, and how a report names it.
const ALLOCATORS: [(&str, &str); 2] = [
    ("libtcmalloc_minimal.so.4", "tcmalloc"),
    ("libjemalloc.so.2", "jemalloc"),
];

/// A program, built.
struct Program {
    folder: TempDir,
}

impl Program {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(compiler: &str, options: &[&str], source: &str) -> Self {
        let program = Self {
            folder: TempDir::new().unwrap(),
        };
        program.add("program", compiler, options, source);
        program
    }

    fn add(&self, name: &str, compiler: &str, options: &[&str], source: &str) {
        let mut command = Command::new(compiler);
        command.args(["-g", "-w"]).args(options);
        command.arg("-o").arg(self.path(name));
        command.arg(common::root().join(source)).arg("-ldl");
        assert!(command.status().expect("a compiler").success(), "{source}");
    }

    /// Lets it die, with another malloc perhaps; what it said, and what the report of its core is.
    fn run(&self, arguments: &[&str], malloc: Option<&str>) -> (Vec<Fact>, Value) {
        let (_folder, core, said) = self.die(arguments, malloc);
        let facts = said.lines().filter_map(Fact::parse).collect();
        (facts, self.report("check", &core, &[]))
    }

    /// What a command says of a core.
    fn report(&self, command: &str, core: &Path, addresses: &[String]) -> Value {
        let mut all = [command, "--format", "json"].map(OsString::from).to_vec();
        all.extend([core.into(), self.path("program").into()]);
        all.extend(addresses.iter().map(OsString::from));
        heapcheck(all).json().unwrap()
    }

    /// Lets it die, with another malloc perhaps; its core, and what it said.
    fn die(&self, arguments: &[&str], malloc: Option<&str>) -> (TempDir, PathBuf, String) {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new("sh");
        command.current_dir(&folder);
        command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]);
        command.arg(self.path("program")).args(arguments);
        if let Some(malloc) = malloc {
            // The shell allocates, too.
            let script = "ulimit -c unlimited; export LD_PRELOAD=$1; shift; exec \"$0\" \"$@\"";
            command = Command::new("sh");
            command.current_dir(&folder);
            command.args(["-c", script]).arg(self.path("program"));
            command
                .arg(Path::new(LIBRARIES).join(malloc))
                .args(arguments);
        }
        let said = command.output().expect("the program runs");
        let said = String::from_utf8(said.stdout).unwrap();
        let files = std::fs::read_dir(&folder).unwrap();
        let core = files
            .map(|file| file.unwrap().path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("core")
            })
            .unwrap_or_else(|| panic!("{arguments:?} {malloc:?}: no core, {said}"));
        (folder, core, said)
    }
}

/// The one finding is of the kind and the address that the program said, and its message has the words.
fn differences(place: &str, facts: &[Fact], report: &Value) -> Vec<String> {
    let found: Vec<&Value> = items(&report["findings"]).iter().collect();
    let expected: Vec<&Fact> = facts
        .iter()
        .filter(|fact| fact.keyword == "EXPECT")
        .collect();
    if found.len() != expected.len() {
        return vec![format!("{place}: {expected:?}, but {found:#?}")];
    }
    let mut errors = Vec::new();
    for (fact, found) in expected.iter().zip(found) {
        let message = text(found, "message");
        let is_it = |key: &str| found[key].as_str() == fact.get(key);
        let words = fact.get("says").unwrap_or("").split('|');
        let mut missing = words.filter(|words| !message.contains(&words.replace('_', " ")));
        if !is_it("kind") || !is_it("address") || missing.next().is_some() {
            errors.push(format!("{place}: {fact:?}, but {found:#?}"));
        }
    }
    errors
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn a_block_of_another_allocator_is_said_to_be_one() {
    let source = "testdata/causes/mismatch.c";
    let programs = ["-O0", "-O2"].map(|level| {
        let program = Program::build("gcc", &[level], source);
        program.add(
            "plugin.so",
            "gcc",
            &[level, "-shared", "-fPIC", "-fno-optimize-sibling-calls"],
            "testdata/causes/plugin.c",
        );
        program
    });
    let runs: Vec<(usize, usize)> = (0..5).flat_map(|case| [(case, 0), (case, 1)]).collect();
    let errors = in_parallel(&runs, |(case, allocator)| {
        let program = &programs[(case + allocator) % 2];
        let (library, name) = ALLOCATORS[*allocator];
        let plugin = program.path("plugin.so");
        let number = case.to_string();
        let (facts, report) =
            program.run(&[&number, plugin.to_str().unwrap(), name], Some(library));
        assert!(!facts.is_empty(), "{case} {name}");
        differences(&format!("mismatch {case} {name}"), &facts, &report)
    });
    let errors = errors.concat();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn why_an_inner_pointer_was_freed_is_told_by_the_block() {
    let errors = of_all_cases(
        "testdata/causes/inner.cc",
        8,
        |place, (_, _), facts, report| {
            assert!(!facts.is_empty(), "{place}");
            differences(place, facts, &report)
        },
    );
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Runs each case of a program with each allocator, at levels in turn, and gathers what `check` has against the reports.
fn of_all_cases(
    source: &str,
    cases: usize,
    check: impl Fn(&str, (usize, usize), &[Fact], Value) -> Vec<String> + Sync,
) -> Vec<String> {
    let programs = ["-O0", "-O2"].map(|level| Program::build("g++", &[level], source));
    let mallocs = [None, Some(ALLOCATORS[0].0), Some(ALLOCATORS[1].0)];
    let runs: Vec<(usize, usize)> = (0..cases)
        .flat_map(|case| (0..3).map(move |malloc| (case, malloc)))
        .collect();
    let errors = in_parallel(&runs, |(case, malloc)| {
        let program = &programs[(case + malloc) % 2];
        let (facts, report) = program.run(&[&case.to_string()], mallocs[*malloc]);
        let place = format!("{source} {case} {:?}", mallocs[*malloc]);
        check(&place, (*case, *malloc), &facts, report)
    });
    errors.concat()
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn two_holders_of_one_block_are_compared() {
    let check = |place: &str, (case, malloc), facts: &[Fact], mut report: Value| {
        // What was written to the block while it was free is an error of its own.
        let findings = report["findings"].as_array_mut().unwrap();
        findings.retain(|finding| text(finding, "kind") == "aliased-block");
        // That the block is the same is glibc's and gperftools' habit.
        if malloc < 2 {
            let is_said = facts.iter().any(|fact| fact.keyword == "EXPECT");
            assert_eq!(is_said, case < 3, "{place}");
        }
        differences(place, facts, &report)
    };
    let errors = of_all_cases("testdata/causes/aliased.cc", 7, check);
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Where an allocator keeps nothing between blocks.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn a_word_behind_a_block_that_is_too_small_for_another_definition_is_told() {
    for level in ["-O0", "-O2"] {
        let options = [level, "testdata/causes/odr_other.cc"];
        let program = Program::build("g++", &options, "testdata/causes/odr.cc");
        for (library, _) in ALLOCATORS {
            for case in [2, 3] {
                let (facts, report) = program.run(&[&case.to_string()], Some(library));
                let fact = facts.iter().find(|fact| fact.keyword == "EXPECT").unwrap();
                let all: Vec<&Value> = items(&report["findings"]).iter().collect();
                let place = format!("{level} {library} {case}: {fact:?}, but {all:#?}");
                let told: Vec<&&Value> = (all.iter())
                    .filter(|found| found["kind"] == "type-conflict")
                    .collect();
                assert_eq!(told.len(), usize::from(case == 2), "{place}");
                for found in told {
                    assert_eq!(found["address"].as_str(), fact.get("address"), "{place}");
                    let word = found["evidence"][0]["address"].as_str();
                    assert_eq!(word, fact.get("word"), "{place}");
                    assert!(text(found, "message").contains("of 56 bytes"), "{place}");
                }
            }
        }
    }
}

/// glibc alone keeps a word between blocks that shows it.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn two_definitions_of_one_type_are_a_conflict_and_inner_pointers_name_members() {
    for level in ["-O0", "-O2"] {
        let options = [level, "testdata/causes/odr_other.cc"];
        let program = Program::build("g++", &options, "testdata/causes/odr.cc");
        for case in 0..2 {
            let (facts, report) = program.run(&[&case.to_string()], None);
            let found = &report["findings"][0];
            let place = format!("{level} {case}: {facts:?}, but {found:#?}");
            let fact = facts.iter().find(|fact| fact.keyword == "EXPECT").unwrap();
            let culprit = &found["culprit"];
            assert_eq!(fact.get("kind"), found["kind"].as_str(), "{place}");
            assert_eq!(fact.get("culprit"), culprit["address"].as_str(), "{place}");
            let names = ["Session", "Other"];
            assert_eq!(text(&culprit["type"], "name"), names[case], "{place}");
            let conflict = culprit["type"]["conflict"].as_str();
            let says = conflict.is_some_and(|it| it.contains("two definitions of one name"));
            assert_eq!(says, case == 0, "{place}");
            // A pointer into the block is said to lead to the member that stands there.
            let holders = items(&culprit["referenced_by"]).iter();
            let mut inner = holders.filter(|holder| holder["symbol"] == "inner");
            let member = inner.next().map(|holder| text(holder, "points_at_member"));
            assert_eq!(member, [None, Some("state[1]")][case], "{place}");
        }
        let (_folder, core, said) = program.die(&["1"], None);
        let block = said.split("culprit=0x").nth(1).unwrap().trim();
        let inside = u64::from_str_radix(block, 16).unwrap() + 24;
        let report = program.report("inspect", &core, &[format!("{inside:#x}")]);
        let found = &report["addresses"][0];
        assert_eq!(found["member"], "state[1]", "{found:#}");
    }
}

/// The word or the block that a program of the sets of tools/provenance.py said that it would die of.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn what_accessors_return_and_indices_led_to_is_named() {
    let all: [(&str, &[&str], &[usize]); 6] = [
        ("second.cc", &["-O0"], &[4, 6, 11]),
        ("second.cc", &["-O2"], &[4, 11]),
        ("second.c", &["-O0", "-O2"], &[3]),
        ("third.cc", &["-O0"], &[2, 3, 8]),
        ("third.cc", &["-O2"], &[8]),
        ("fresh.cc", &["-O0"], &[23]),
    ];
    let mut errors = Vec::new();
    for (source, levels, cases) in all {
        let path = format!("testdata/causes/{source}");
        for level in levels {
            let (compiler, options): (&str, &[&str]) = match source.ends_with(".c") {
                true => ("gcc", &[level]),
                false => ("g++", &[level, "-std=c++20", "-pthread"]),
            };
            let program = Program::build(compiler, options, &path);
            for case in cases {
                let (_folder, core, said) = program.die(&[&case.to_string()], None);
                let report = program.report("check", &core, &[]);
                let came = &report["crash_info"]["came_from"];
                let named: Vec<&str> = [&came["address"], &came["block"]["address"]]
                    .into_iter()
                    .filter_map(Value::as_str)
                    .collect();
                let mut truths = said.lines().filter_map(|line| {
                    let (key, value) = line.split_once(' ')?;
                    ["BLOCK", "WORD"].contains(&key).then_some(value)
                });
                let is_named = truths.any(|value| named.contains(&value));
                let is_call = said.contains("n_cast_fails")
                    && text(came, "meaning").starts_with("what __dynamic_cast returned, if");
                if !is_named && !is_call {
                    errors.push(format!("{source} {level} {case}: {said}{came}"));
                }
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// The last word of a freed block that lies in front of the top chunk is the block's: the process died of it.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn the_last_word_of_the_last_freed_block_is_known_as_freed() {
    let options = ["-O0", "-std=c++20", "-pthread"];
    let program = Program::build("g++", &options, "testdata/causes/fourth.cc");
    let (_folder, core, said) = program.die(&["13"], None);
    let truth = said
        .lines()
        .find_map(|line| line.strip_prefix("BLOCK "))
        .unwrap();
    let report = program.report("check", &core, &[]);
    let findings = report["findings"].as_array().unwrap();
    let is_told = findings.iter().any(|finding| {
        finding["kind"] == "dangling-reference" && finding["block"]["address"] == truth
    });
    assert!(is_told, "{said}{findings:#?}");
}

/// Where a stack ends for want of a file, nothing is said about the stack itself; with the file it has all
/// its frames.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn a_stack_that_ends_for_want_of_a_file_is_not_called_overwritten() {
    let options = ["-O2", "-std=c++20", "-pthread"];
    let program = Program::build("g++", &options, "testdata/causes/fourth.cc");
    let (folder, core, _) = program.die(&["0"], None);
    let with = program.report("check", &core, &[]);
    assert_eq!(with["threads"][0]["stack_end"], "complete");

    let bare = |more: &[&str]| {
        let mut all: Vec<OsString> = more.iter().map(OsString::from).collect();
        all.extend(["--no-default-paths", "--sysroot"].map(OsString::from));
        all.extend([folder.path().into(), core.clone().into()]);
        heapcheck(all)
    };
    let report = bare(&["--format", "json"]).json().unwrap();
    assert_eq!(report["threads"][0]["stack_end"], "no-file");
    let text = bare(&[]).text().to_owned();
    assert!(text.contains("without the file of a module"), "{text}");
    assert!(!text.contains("overwritten"), "{text}");
}

/// Two headers are written over, by two blocks, and the second one's block is freed: the first has nothing to do with that.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn another_damaged_header_does_not_explain_a_refused_call() {
    let options = ["-O0", "-std=c++20", "-pthread"];
    let program = Program::build("g++", &options, "testdata/causes/fresh.cc");
    for more in [&[][..], &["beside"]] {
        let (_folder, core, said) = program.die(&[&["15"], more].concat(), None);
        let report = program.report("check", &core, &[]);
        let word = said.lines().find_map(|line| line.strip_prefix("WORD "));
        let mut yes = items(&report["findings"]).iter();
        let found = yes.find(|found| found["explains_crash"] == "yes").unwrap();
        assert_eq!(found["kind"], "heap-overrun", "{said}{found:#}");
        assert_eq!(found["address"].as_str(), word, "{said}{found:#}");
    }
}
