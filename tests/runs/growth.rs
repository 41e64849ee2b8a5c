//! Cores of one process in time: what grows, how, and who holds it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use super::common::{self, heapcheck};
use super::{compile, path, said, shell};

/// Twelve moments; at each a child of `fork` dies and leaves a core: the process as it was. What is held grows in six ways.
const PROGRAM: &str = r#"#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
struct node { struct node *next; char payload[104]; };
struct node *linear, *doubling, *logarithm, *cache, *noise, *stepped;
static void *volatile lost;
static void add(struct node **list, int count) {
  while (count-- > 0) { struct node *n = malloc(sizeof *n); memset(n->payload, 7, sizeof n->payload); n->next = *list; *list = n; }
}
static void set(struct node **list, int count) {
  int have = 0;
  for (struct node *n = *list; n; n = n->next) have++;
  for (; have > count; have--) { struct node *n = *list; *list = n->next; free(n); }
  add(list, count - have);
}
int main(void) {
  int wobble[12] = {0, 9, 3, 7, 1, 8, 2, 6, 4, 9, 0, 5};
  for (int t = 0; t < 12; t++) {
    add(&linear, 100);
    set(&doubling, 8 << t);
    set(&logarithm, (int)(1000 * log(1 + 8.0 * t)));
    set(&cache, 3000 - (int)(3000 * exp(-0.9 * t)));
    set(&noise, 1000 + wobble[t]);
    set(&stepped, t < 5 ? 50 : 900);
    for (int i = 0; i < 40; i++) { lost = malloc(56); memset(lost, 1, 56); }
    lost = 0;
    if (fork() == 0) abort();
    wait(0);
    char name[32];
    sprintf(name, "core.%02d", t);
    rename("core", name);
  }
  return 0;
}
"#;

/// The cores, a minute apart.
fn cores(folder: &Path, library: &str) -> Vec<String> {
    compile(
        folder,
        PROGRAM,
        &format!("gcc -g -O1 -lm -Wl,--no-as-needed {library}"),
    );
    let command = "ulimit -c unlimited; echo 0 > /dev/null; ./prog 2>/dev/null; ls";
    let made = shell(folder, command);
    assert!(
        made.contains("core.11"),
        "cores are written where the program runs: {made}"
    );
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    (0..12)
        .map(|number| {
            let core = folder.join(format!("core.{number:02}"));
            let file = fs::File::options().write(true).open(&core).unwrap();
            file.set_modified(start + Duration::from_secs(60 * number))
                .unwrap();
            core.display().to_string()
        })
        .collect()
}

fn by_container(growth: &Value) -> BTreeMap<String, Value> {
    let series = growth["series"].as_array().unwrap().iter();
    series
        .filter_map(|series| Some((series["container"].as_str()?.to_owned(), series.clone())))
        .collect()
}

#[test]
fn what_grows_is_told_with_its_container() {
    for (library, speed) in [
        ("", 200.0),
        ("-l:libjemalloc.so.2", 100.0 * 112.0 / 60.0),
        ("-l:libtcmalloc_minimal.so.4", 100.0 * 112.0 / 60.0),
    ] {
        containers(library, speed);
    }
}

/// `speed`: bytes a second of the list that grows by a hundred nodes a minute.
fn containers(library: &str, speed: f64) {
    let folder = TempDir::new().unwrap();
    let cores = cores(folder.path(), library);
    let out = path(folder.path(), "usage.ndjson");
    let mut arguments = vec!["batch", "--run", "usage", "--jobs", "2", "-o", &out];
    arguments.extend(cores.iter().map(String::as_str));
    assert!(heapcheck(&arguments).status <= 1);
    // A child of fork has a number of its own: the series is the program's.
    let lines = fs::read_to_string(&out).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["core"]["time"].as_f64().unwrap() >= 1_700_000_000.0);
    let as_one = path(folder.path(), "one.ndjson");
    let one: Vec<String> = lines
        .lines()
        .map(|line| {
            let mut report: Value = serde_json::from_str(line).unwrap();
            report["pid"] = 7.into();
            report.to_string()
        })
        .collect();
    fs::write(&as_one, one.join("\n") + "\n").unwrap();
    let growth: Value = serde_json::from_str(&said(&[
        "triage", "growth", "--all", "--format", "json", &as_one,
    ]))
    .unwrap();
    let found = by_container(&growth);
    let shape = |name: &str| {
        let key = format!("variable {name} of prog");
        let series = found
            .get(&key)
            .unwrap_or_else(|| panic!("{key} in {:?}", found.keys()));
        series["shape"].as_str().unwrap().to_owned()
    };
    assert_eq!(shape("linear"), "linear");
    assert_eq!(shape("doubling"), "exponential");
    assert_eq!(shape("logarithm"), "flattening");
    assert_eq!(shape("cache"), "flattening");
    assert_eq!(shape("noise"), "constant");
    assert_eq!(shape("stepped"), "step");
    let found = found["variable linear of prog"]["bytes_per_second"].as_f64();
    assert!((found.unwrap() - speed).abs() < 1.0, "{library}: {found:?}");
}

/// The leak itself, by the groups of `leaks`, whose pid is the process's where gcore or the program's own death made the cores.
#[test]
fn a_leak_grows_and_the_recipes_catch_its_site() {
    let folder = TempDir::new().unwrap();
    let cores = cores(folder.path(), "");
    let out = path(folder.path(), "leaks.ndjson");
    let reports: Vec<String> = cores
        .iter()
        .map(|core| {
            let outcome = heapcheck(["leaks", "--format", "json", core]);
            let mut report = outcome.json().unwrap();
            report["pid"] = 7.into();
            report.to_string()
        })
        .collect();
    fs::write(&out, reports.join("\n") + "\n").unwrap();
    let growth: Value =
        serde_json::from_str(&said(&["triage", "growth", "--format", "json", &out])).unwrap();
    let series = growth["series"].as_array().unwrap();
    let leak = series
        .iter()
        .find(|series| series["shape"] == "linear")
        .expect("the leak grows");
    assert_eq!(leak["blocks"].as_u64().unwrap() / 12, 40, "{leak}");
    let steps: Vec<&str> = leak["next_steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(steps.len(), 4);
    assert!(
        steps[0].starts_with("memleak-bpfcc -p 7 -a -z 41 -Z 56 60 1 "),
        "{}",
        steps[0]
    );

    memleak_catches_the_site(steps[0]);
    // The others are for the next run. Each as printed.
    let heapcheck = env!("CARGO_BIN_EXE_heapcheck");
    let source = PROGRAM
        .replace("abort()", "_exit(0)")
        .replace("return 0;\n}\n", "exit(0);\n}\n");
    for (step, library) in [
        (steps[1], ""),
        (steps[2], "-l:libjemalloc.so.2"),
        (steps[3], "-l:libtcmalloc.so.4"),
    ] {
        let folder = TempDir::new().unwrap();
        compile(
            folder.path(),
            &source,
            &format!("gcc -g -O1 -fno-omit-frame-pointer -lm -Wl,--no-as-needed {library}"),
        );
        let program = folder.path().join("prog").canonicalize().unwrap();
        let line = step
            .replace("PROGRAM", program.to_str().unwrap())
            .replace("heapcheck import", &format!("{heapcheck} import"));
        let text = shell(folder.path(), &format!("{{ {line}\n}} 2>errors"));
        let errors = fs::read_to_string(folder.path().join("errors")).unwrap();
        let mut records = super::lines(&text).into_iter();
        let is_leak = |record: &Value| {
            let frames = record["stacks"][0]["frames"].as_array();
            let mut frames = frames.into_iter().flatten();
            frames.any(|frame| {
                frame["function"] == "main"
                    && frame["file"]
                        .as_str()
                        .is_some_and(|file| file.ends_with("prog.c"))
            })
        };
        assert!(
            records.any(|record| is_leak(&record)),
            "{step}: {text} {errors}"
        );
    }
}

/// As printed, but for the minute that it would watch: a process that leaks now. It needs root, bcc, headers of the kernel and one that lets it:
/// where these are not, this is said, and nothing is shown.
fn memleak_catches_the_site(step: &str) {
    let can = shell(
        Path::new("/"),
        "id -u; command -v memleak-bpfcc; ls -d /lib/modules/$(uname -r)/build",
    );
    if can.lines().count() < 3 || !can.starts_with("0\n") {
        eprintln!("memleak is not run here (root, bpfcc-tools, headers of the kernel): {can}");
        return;
    }
    let folder = TempDir::new().unwrap();
    let source = PROGRAM
        .replace("if (fork() == 0) abort();", "sleep(5);")
        .replace("wait(0);", "");
    compile(
        folder.path(),
        &source,
        "gcc -g -O1 -fno-omit-frame-pointer -lm",
    );
    let mut program = std::process::Command::new(folder.path().join("prog"))
        .spawn()
        .unwrap();
    let line = step
        .replace("-p 7 ", &format!("-p {} ", program.id()))
        .replace(" 60 1 >", " 12 1 >")
        .replace(
            "heapcheck import",
            concat!(env!("CARGO_BIN_EXE_heapcheck"), " import"),
        );
    let text = shell(folder.path(), &format!("{{ {line}\n}} 2>errors"));
    program.kill().unwrap();
    program.wait().unwrap();
    let errors = fs::read_to_string(folder.path().join("errors")).unwrap();
    let records = super::lines(&text);
    let site = records.iter().find(|record| {
        record["stacks"][0]["frames"][0]["function"] == "main"
            && record["bytes"].as_u64().unwrap() / record["blocks"].as_u64().unwrap() == 56
    });
    assert!(site.is_some(), "{line}: {text} {errors}");
}

/// A core has the time of its file; a report without one has its own file's.
#[test]
fn five_points_are_asked_for() {
    let folder = TempDir::new().unwrap();
    let cores = cores(folder.path(), "");
    let out = path(folder.path(), "few.ndjson");
    let mut arguments = vec!["batch", "--run", "leaks", "-o", &out];
    arguments.extend(cores.iter().take(4).map(String::as_str));
    heapcheck(&arguments);
    let text = said(&["triage", "growth", "--all", "--format", "json", &out]);
    let growth: Value = serde_json::from_str(&text).unwrap();
    let series = growth["series"].as_array().unwrap();
    assert!(
        !series.is_empty() && series.iter().all(|it| it["shape"] == "too-few"),
        "{text}"
    );
    let _ = common::root();
}
