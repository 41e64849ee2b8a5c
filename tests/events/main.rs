//! `--events`: logs of runs joined with the cores of the same runs. The programs are built and run here, so that log and core are of one run.

#[path = "../common/mod.rs"]
mod common;

mod samples;
mod shown;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{heapcheck, items, text};
use serde_json::Value;
use tempfile::TempDir;

/// A program of several bugs; each line that counts is named by a comment.
const PROGRAM: &str = r#"#include <mcheck.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void *keep[600];
static void *volatile lost;
__attribute__((noinline)) static void *make(size_t bytes) {
  char *made = malloc(bytes); /* make */
  memset(made, 1, bytes);
  return made;
}
__attribute__((noinline)) static void drop_once(void *block) {
  free(block); /* once */
}
__attribute__((noinline)) static void drop_twice(void *block) {
  free(block); /* twice */
}
__attribute__((noinline)) static void lose(int count, size_t bytes) {
  for (int i = 0; i < count; i++) lost = malloc(bytes); /* lose */
  lost = 0;
}
__attribute__((noinline)) static char *shout(void) {
  char *volatile short_one = malloc(40); /* shout */
  char *volatile next = malloc(40); /* next */
  keep[598] = short_one;
  keep[599] = next;
  memset(short_one, 'A', 60);
  return short_one;
}
int main(int argc, char **argv) {
  const char *what = argv[1];
  mtrace();
  for (int i = 0; i < 500; i++) keep[i] = make(100 + i % 50);
  for (int i = 0; i < 500; i += 3) { free(keep[i]); keep[i] = 0; }
  for (int i = 0; i < 90; i += 3) keep[i] = realloc(malloc(20), 3000); /* grow */
  if (!strcmp(what, "leak")) { lose(7, 40); lose(5, 88); }
  if (!strcmp(what, "double")) {
    void *a = make(32);
    drop_once(a);
    drop_twice(a);
  }
  if (!strcmp(what, "later")) {
    void *full[7], *a, *b;
    for (int i = 0; i < 7; i++) full[i] = make(64);
    a = make(64);
    b = make(64);
    for (int i = 0; i < 7; i++) free(full[i]);
    drop_once(a);
    free(b);
    drop_twice(a);
    keep[596] = make(500);
  }
  if (!strcmp(what, "inner")) drop_once((char *)make(64) + 16);
  if (!strcmp(what, "overrun")) shout();
  abort();
}
"#;

struct Run {
    folder: TempDir,
}

impl Run {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn json(&self, command: &str, log: &Path, more: &[&str]) -> Value {
        let outcome = self.outcome(command, log, more);
        outcome
            .json()
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn outcome(&self, command: &str, log: &Path, more: &[&str]) -> common::Outcome {
        let core = self.path("core");
        let mut arguments = vec![command, "--format", "json", core.to_str().unwrap()];
        arguments.extend(["--events", log.to_str().unwrap()]);
        arguments.extend(more);
        heapcheck(arguments)
    }
}

/// Builds the program anew, so that runs do not share a build unless they mean to.
fn built(folder: &Path, source: &str, options: &[&str]) -> PathBuf {
    let (from, to) = (folder.join("run.c"), folder.join("run"));
    fs::write(&from, source).unwrap();
    let mut gcc = Command::new("gcc");
    let all = ["-g", "-O1", "-fno-omit-frame-pointer", "-w"];
    gcc.args(all).arg("-o").arg(&to).arg(&from).args(options);
    assert!(gcc.status().unwrap().success());
    to
}

/// Runs it until it dies, with a log.
fn run_with(what: &str, options: &[&str], environment: &[(&str, &str)]) -> Run {
    run_source(PROGRAM, what, options, environment)
}

fn run_source(source: &str, what: &str, options: &[&str], environment: &[(&str, &str)]) -> Run {
    let folder = TempDir::new().unwrap();
    let program = built(folder.path(), source, options);
    let run = Run { folder };
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -c unlimited && exec \"$0\" \"$1\" 2>/dev/null",
        ])
        .arg(&program)
        .arg(what)
        .current_dir(run.folder.path())
        .env("MALLOC_TRACE", run.path("log"));
    for (name, value) in environment {
        command.env(name, value);
    }
    command.process_group(0);
    assert!(!command.status().unwrap().success(), "it dies");
    let mut files = fs::read_dir(run.folder.path()).unwrap();
    let core = files.find_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?.to_owned();
        (name == "core" || name.starts_with("core.")).then_some(path)
    });
    let core =
        core.expect("a core is written where the program runs: kernel.core_pattern is `core`");
    if core != run.path("core") {
        fs::rename(core, run.path("core")).unwrap();
    }
    run
}

fn run(what: &str) -> Run {
    run_with(what, &[], &[("LD_PRELOAD", "libc_malloc_debug.so.0")])
}

/// The line of the program with this comment.
fn line(mark: &str) -> u64 {
    let mark = format!("/* {mark} */");
    let mut lines = PROGRAM.lines();
    let line = lines.position(|line| line.contains(&mark)).unwrap();
    line as u64 + 1
}

fn assert_first(frames: &Value, function: &str, mark: &str) {
    let first = &items(frames)[0];
    assert_eq!(text(first, "function"), function, "{frames}");
    assert_eq!(first["line"], line(mark), "{frames}");
    assert!(text(first, "file").ends_with("run.c"));
}

fn finding<'r>(report: &'r Value, kind: &str) -> &'r Value {
    let mut all = items(&report["findings"]).iter();
    all.find(|finding| finding["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}: {}", report["findings"]))
}

#[test]
fn a_double_free_that_was_detected_has_both_frees_and_the_allocation() {
    let run = run("double");
    let report = run.json("check", &run.path("log"), &[]);
    let found = finding(&report, "double-free");
    assert_first(&found["allocated_at"], "make", "make");
    assert_first(&found["freed_at"], "drop_once", "once");
    assert_first(&found["freed_again_at"], "drop_twice", "twice");
    let events = &report["events"];
    assert_eq!(
        (text(events, "tool"), &events["contradicting"]),
        ("mtrace", &0.into())
    );
    assert!(events["unwritten_bytes"].as_u64().unwrap() > 0, "{events}");
    assert!(events["compared"].as_u64().unwrap() > 330, "{events}");
    let at = text(found, "address").to_owned();
    let inspected = run.json("inspect", &run.path("log"), &[&at]);
    assert_first(&inspected["addresses"][0]["allocated_at"], "make", "make");
    assert_first(&inspected["addresses"][0]["freed_at"], "drop_once", "once");
    let outcome = heapcheck([
        "--events",
        run.path("log").to_str().unwrap(),
        run.path("core").to_str().unwrap(),
    ]);
    let screen = outcome.text().replace("\n               ", " ");
    assert!(
        screen.contains("freed in drop_once (run)")
            && screen.contains("freed again in drop_twice (run)"),
        "{screen}"
    );
}

#[test]
fn a_double_free_that_went_unnoticed_has_both_frees() {
    let run = run("later");
    let report = run.json("check", &run.path("log"), &[]);
    let found = finding(&report, "double-free");
    assert_first(&found["allocated_at"], "make", "make");
    assert_first(&found["freed_at"], "drop_once", "once");
    assert_first(&found["freed_again_at"], "drop_twice", "twice");
}

#[test]
fn every_lost_block_has_its_line() {
    for options in [&[][..], &["-no-pie"]] {
        let run = run_with("leak", options, &[("LD_PRELOAD", "libc_malloc_debug.so.0")]);
        let report = run.json("leaks", &run.path("log"), &["--blocks"]);
        let leaks = &report["leaks"];
        let lost: Vec<&Value> = items(&leaks["blocks"])
            .iter()
            .filter(|block| block["class"] == "definite")
            .collect();
        assert_eq!(lost.len(), 12, "{}", leaks["groups"]);
        for block in lost {
            assert_first(&block["allocated_at"], "lose", "lose");
        }
        for group in items(&leaks["groups"]) {
            assert_first(&group["allocated_at"], "lose", "lose");
        }
    }
}

#[test]
fn an_overrun_has_the_line_of_its_culprit() {
    let run = run("overrun");
    let report = run.json("check", &run.path("log"), &[]);
    let found = finding(&report, "heap-overrun");
    assert_first(&found["culprit"]["allocated_at"], "shout", "shout");
    let out = heapcheck([
        "--events",
        run.path("log").to_str().unwrap(),
        run.path("core").to_str().unwrap(),
    ]);
    let shown = out.text();
    assert!(
        shown.contains("culprit from") && shown.contains("shout"),
        "{shown}"
    );
}

#[test]
fn an_inner_pointer_has_the_free_and_the_blocks_allocation() {
    let run = run_with(
        "inner",
        &["-O0"],
        &[("LD_PRELOAD", "libc_malloc_debug.so.0")],
    );
    let report = run.json("check", &run.path("log"), &[]);
    let all = items(&report["findings"]);
    assert_eq!(all.len(), 1, "{}", report["findings"]);
    assert_first(&all[0]["allocated_at"], "make", "make");
    assert_first(&all[0]["freed_at"], "drop_once", "once");
}

#[test]
fn a_log_of_another_run_or_program_is_refused() {
    let run1 = run("leak");
    let run2 = run("leak");
    for command in ["check", "leaks"] {
        let outcome = run1.outcome(command, &run2.path("log"), &[]);
        assert_eq!(outcome.status, 2);
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", outcome.stderr);
        let log = run2.path("log");
        assert!(lines[0].contains(log.to_str().unwrap()), "{}", lines[0]);
        assert!(lines[0].contains("do not belong together"), "{}", lines[0]);
        assert_eq!(outcome.json().unwrap()["status"], "ERROR");
    }
    let no_log = run1.outcome("check", &run1.path("run.c"), &[]);
    assert_eq!(no_log.status, 2);
    assert!(
        no_log.stderr.contains("no log of allocations"),
        "{}",
        no_log.stderr
    );
    assert_eq!(run1.outcome("leaks", &run1.path("nothing"), &[]).status, 2);
}

/// One record in 100 may be wrong, two may not.
#[test]
fn a_log_that_was_changed_is_refused() {
    let run = run("leak");
    let log = fs::read_to_string(run.path("log")).unwrap();
    let changed = |every: usize| {
        // Blocks of which nothing more is said: odd sizes are of the first loop, every third of which was freed.
        let text: Vec<String> = log
            .lines()
            .enumerate()
            .map(|(number, line)| match line.rsplit_once(" 0x") {
                Some((before, size)) if line.contains(" + ") && number % every == 0 => {
                    let size = u64::from_str_radix(size, 16).unwrap_or(0);
                    format!("{before} {:#x}", size + 5000)
                }
                _ => line.to_owned(),
            })
            .collect();
        let path = run.path("changed");
        let end = if log.ends_with('\n') { "\n" } else { "" };
        fs::write(&path, text.join("\n") + end).unwrap();
        run.outcome("leaks", &path, &[]).status
    };
    assert_eq!(changed(10_000), 1);
    assert_eq!(changed(400), 1, "one or two of some 370");
    assert_eq!(changed(20), 2);
    assert_eq!(changed(2), 2);
}

/// What the process had not written is in the core; a log that was cut elsewhere loses a line.
#[test]
fn a_log_that_is_cut_in_the_middle_of_a_line_loses_one() {
    let run = run_with("leak", &[], &[("LD_PRELOAD", "libc_malloc_debug.so.0")]);
    let log = fs::read(run.path("log")).unwrap();
    let whole = run.json("leaks", &run.path("log"), &[]);
    // Without libc's file nothing leads to its streams: the log ends where it was cut.
    let outcome = run.outcome("leaks", &run.path("log"), &["--no-default-paths"]);
    let cut = outcome.json().unwrap();
    let count = |report: &Value| report["events"]["records"].as_u64().unwrap();
    let written = log.iter().filter(|byte| **byte == b'\n').count() as u64;
    let starts = 1;
    assert_eq!(count(&cut), written - starts);
    assert!(count(&whole) > count(&cut));
    assert_eq!(cut["events"]["unwritten_bytes"], 0);
    assert_eq!(whole["events"]["contradicting"], 0);
    // What came later is not of this core: the log goes on as the process would have.
    let missing = whole["events"]["unwritten_bytes"].as_u64().unwrap();
    assert!(missing > 0);
}

/// Threads that race in and out of malloc: lines of the log come late, and it still belongs.
#[test]
fn a_log_of_many_threads_belongs() {
    const THREADS: &str = r#"#include <mcheck.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *slots[8][8];
static void *work(void *arg) {
  unsigned s = (unsigned)(long)arg + 1;
  for (;;) {
    s = s * 1103515245 + 12345;
    void **slot = &slots[(s >> 20) % 8][(s >> 8) % 8];
    void *old = __atomic_exchange_n(slot, (void *)0, __ATOMIC_ACQ_REL);
    free(old);
    old = malloc((s >> 6) % 2000 + 1);
    memset(old, 1, 1);
    free(__atomic_exchange_n(slot, old, __ATOMIC_ACQ_REL));
  }
}
int main(void) {
  pthread_t thread;
  mtrace();
  for (long i = 0; i < 8; i++) pthread_create(&thread, 0, work, (void *)i);
  usleep(200000);
  abort();
}
"#;
    let run = run_source(
        THREADS,
        "",
        &[],
        &[("LD_PRELOAD", "libc_malloc_debug.so.0")],
    );
    let report = run.json("check", &run.path("log"), &[]);
    assert!(
        report["events"]["records"].as_u64().unwrap() > 1000,
        "{}",
        report["events"]
    );
    assert!(
        items(&report["findings"]).is_empty(),
        "{}",
        report["findings"]
    );
}
