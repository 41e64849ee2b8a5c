//! What the integration tests share: running the built program, and the truth that fixtures tell about themselves.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

pub mod compare;
pub mod misses;
pub mod small;
pub mod stacks;
pub mod suite;
pub mod table;
pub mod way;

/// What the program did.
pub struct Outcome {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("output is UTF-8")
    }

    /// Its output as JSON, checked against the published schema.
    pub fn json(&self) -> Result<Value, String> {
        let value: Value = serde_json::from_slice(&self.stdout)
            .map_err(|error| format!("no JSON: {error}; standard error: {}", self.stderr))?;
        let errors: Vec<String> = validator()
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if errors.is_empty() {
            Ok(value)
        } else {
            Err(format!("against the schema: {}", errors.join("; ")))
        }
    }
}

fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: std::sync::OnceLock<jsonschema::Validator> = std::sync::OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let schema = heapcheck(["schema"]);
        assert_eq!(schema.status, 0);
        let schema = serde_json::from_slice(&schema.stdout).expect("the schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is a schema")
    })
}

/// Runs the built program.
pub fn heapcheck(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
    heapcheck_with_input(arguments, Vec::new())
}

/// Runs the built program with something on its standard input.
pub fn heapcheck_with_input(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: Vec<u8>,
) -> Outcome {
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_heapcheck"))
        .args(arguments)
        .env_remove("NO_COLOR")
        .env_remove("RUST_BACKTRACE")
        .write_stdin(input)
        .timeout(Duration::from_secs(120))
        .output()
        .expect("the program runs and ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let status = output
        .status
        .code()
        .unwrap_or_else(|| panic!("ended by itself, not by a signal or timeout: {stderr}"));
    Outcome {
        status,
        stdout: output.stdout,
        stderr,
    }
}

/// The directory of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A line of a truth: `KEYWORD key=value ...`.
#[derive(Clone, Debug)]
pub struct Fact {
    pub keyword: String,
    pub words: Vec<String>,
    pub values: BTreeMap<String, String>,
}

impl Fact {
    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split_whitespace();
        let keyword = parts.next()?.to_owned();
        let mut fact = Self {
            keyword,
            words: Vec::new(),
            values: BTreeMap::new(),
        };
        for part in parts {
            match part.split_once('=') {
                Some((key, value)) => {
                    fact.values.insert(key.to_owned(), value.to_owned());
                }
                None => fact.words.push(part.to_owned()),
            }
        }
        Some(fact)
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)
            .map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value}")))
    }
}

/// Which files of the dead process are at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// All, where they were when it died: it died on this machine.
    Here,
    /// The program, and below a root of their own the libraries that the tests bring along.
    Below(PathBuf),
    /// None.
    None,
}

/// A core with its program and its truth.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub release: String,
    pub name: String,
    pub core: PathBuf,
    pub binary: PathBuf,
    pub files: Files,
    pub truth: Vec<Fact>,
}

impl Fixture {
    fn read(fixtures: &Path, release: &str, name: &str) -> Self {
        let directory = fixtures.join(release).join(name);
        let truth = std::fs::read_to_string(directory.join("truth")).unwrap_or_else(|_| {
            panic!("fixture {release}/{name} is not made: run ./build-fixtures.sh first")
        });
        Self {
            release: release.to_owned(),
            name: name.to_owned(),
            core: directory.join("core"),
            binary: directory.join("binary"),
            files: Files::Here,
            truth: Self::facts_of(&truth),
        }
    }

    /// The lines of a truth.
    pub fn facts_of(truth: &str) -> Vec<Fact> {
        truth.lines().filter_map(Fact::parse).collect()
    }

    pub fn facts<'f>(&'f self, keyword: &'f str) -> impl Iterator<Item = &'f Fact> {
        self.truth
            .iter()
            .filter(move |fact| fact.keyword == keyword)
    }

    /// The allocator whose fixture it is, by the name that the report gives it.
    pub fn allocator(&self) -> &str {
        let allocator = self.facts("ALLOCATOR").next();
        allocator.map_or("tcmalloc", |fact| &fact.words[0])
    }

    pub fn is(&self, keyword: &str) -> bool {
        self.facts(keyword).next().is_some()
    }
}

/// The directory of all fixtures that are built.
pub fn fixtures_dir() -> PathBuf {
    root().join("fixtures")
}

/// All fixtures: with the feature `fixtures` those that `build-fixtures.sh` has built, else those in the repository. No fixtures are a
/// failure, not a success of nothing.
pub fn fixtures() -> Vec<Fixture> {
    if !cfg!(feature = "fixtures") {
        return small::fixtures();
    }
    let directory = fixtures_dir();
    let index = std::fs::read_to_string(directory.join("index"))
        .unwrap_or_else(|_| panic!("there are no fixtures: run ./build-fixtures.sh first"));
    let fixtures: Vec<Fixture> = index
        .lines()
        .map(|line| {
            let (release, name) = line.split_once(' ').expect("a line is: release name");
            Fixture::read(&directory, release, name)
        })
        .collect();
    assert!(
        !fixtures.is_empty(),
        "there are no fixtures: run ./build-fixtures.sh first"
    );
    fixtures
}

/// Releases that `build-fixtures.sh` could not have, as it said: their suite has moved on. What is held against all releases
/// leaves them out.
pub fn missing_releases() -> Vec<String> {
    let list = std::fs::read_to_string(fixtures_dir().join("missing-releases"));
    list.unwrap_or_default()
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect()
}

/// What `testdata/healthy-storm.sh` has made.
pub fn storms() -> Vec<Fixture> {
    let directory = fixtures_dir().join("storm");
    let names_in = |directory: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let releases = names_in(&directory);
    releases
        .iter()
        .filter(|release| *release != "work")
        .flat_map(|release| {
            let made = names_in(&directory.join(release)).into_iter();
            let made =
                made.filter(|name| directory.join(release).join(name).join("stamp").exists());
            made.map(|name| Fixture::read(&directory, release, &name))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// One fixture by its release and name.
pub fn fixture(release: &str, name: &str) -> Fixture {
    fixtures()
        .into_iter()
        .find(|fixture| fixture.release == release && fixture.name == name)
        .unwrap_or_else(|| panic!("no fixture {release}/{name}"))
}

/// How many of the fixtures' readings are left out: of each `every()` one is made. `HEAPCHECK_EVERY` says; 1 if it is not set.
pub fn every() -> usize {
    let every = std::env::var("HEAPCHECK_EVERY").map(|text| text.parse().expect("a number"));
    every.unwrap_or(1).max(1)
}

/// One of each `every()` items; its place in its group goes on by one from group to group, so that each way has its turn.
pub fn a_sample<T>(items: Vec<T>) -> Vec<T> {
    let every = every();
    let items = items.into_iter().enumerate();
    let chosen = items.filter(|(index, _)| index % every == index / every % every);
    chosen.map(|(_, item)| item).collect()
}

/// `work` on every item, on as many threads as there are processors; results in the items' order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    done.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("")
}

/// A few cores of different kinds, for the tests that read each many times; of those in the repository, the ones among them.
pub fn a_few() -> Vec<Fixture> {
    let few = [
        ("2.10", "double-free-O0"),
        ("2.10", "cross-thread-O2"),
        ("2.10", "overrun-text-O0"),
        ("2.10", "healthy-threads-01"),
        ("2.18.1", "double-free-central-O2"),
        ("glibc-2.31", "write-after-free-cache-text-O2"),
        ("glibc-2.36", "overrun-nul-O2"),
        ("glibc-2.43", "healthy-threads-01"),
        ("jemalloc-5.2.1", "double-free-O2"),
        ("jemalloc-5.3.0", "bitmap-smashed-O2"),
    ];
    let all = fixtures();
    let find = |(release, name): &(&str, &str)| {
        let mut all = all.iter();
        all.find(|fixture| fixture.release == *release && fixture.name == *name)
            .cloned()
    };
    let found: Vec<Fixture> = few.iter().filter_map(find).collect();
    let missing = missing_releases();
    let may_be_missing = |release: &str| missing.iter().any(|missing| missing == release);
    let least = few.iter().filter(|(release, _)| !may_be_missing(release));
    let left_out = usize::from(!cfg!(feature = "fixtures")); // it is too large for a repository
    assert!(found.len() + left_out >= least.count(), "{found:?}");
    found
}
