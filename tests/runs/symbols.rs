//! Frames without names are named where the module is at hand, and only where it is the same build.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::{common, compile, lines, path, said, shell};

const PROGRAM: &str = r#"#include <stdlib.h>
#include <string.h>
static void *volatile kept;
__attribute__((noinline)) static void sink(char *boat) { free(boat); }
__attribute__((noinline)) static char look(char *boat) { return boat[1]; }
__attribute__((noinline)) static void lose(void) { for (int i = 0; i < 4; i++) kept = malloc(100); kept = 0; }
int main(int argc, char **argv) {
  if (argc > 1) { lose(); return 0; }
  char *boat = malloc(40);
  memset(boat, 1, 40);
  sink(boat);
  return look(boat);
}
"#;

fn functions(record: &Value, role: &str) -> Vec<String> {
    let stacks = record["stacks"].as_array().unwrap();
    let stack = stacks.iter().find(|stack| stack["role"] == role);
    let frames = stack.unwrap_or_else(|| panic!("no {role}: {record}"))["frames"].as_array();
    frames
        .unwrap()
        .iter()
        .map(|frame| frame["function"].as_str().unwrap_or("-").to_owned())
        .collect()
}

fn import(arguments: &[&str]) -> (Vec<Value>, String) {
    let all = [&["import"][..], arguments].concat();
    let outcome = common::heapcheck(all);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    (lines(outcome.text()), outcome.stderr)
}

/// The two logs of one program: named by the tool, and not.
fn logs(folder: &Path, compiler: &str) {
    compile(folder, PROGRAM, compiler);
    let run = "$(readlink -f prog) 2>&1 >/dev/null";
    let named = shell(
        folder,
        &format!(
            "ASAN_SYMBOLIZER_PATH=$(command -v llvm-symbolizer) ASAN_OPTIONS=detect_leaks=0 {run}"
        ),
    );
    let bare = shell(
        folder,
        &format!("ASAN_OPTIONS=symbolize=0:detect_leaks=0 {run}"),
    );
    assert!(
        bare.contains("use-after-free") && !bare.contains("in sink"),
        "{bare}"
    );
    fs::write(folder.join("named.log"), named).unwrap();
    fs::write(folder.join("bare.log"), bare).unwrap();
}

#[test]
fn one_bug_is_one_group_with_and_without_symbols() {
    for compiler in [
        "gcc -g -O1 -fsanitize=address",
        "clang -g -O1 -fsanitize=address",
    ] {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        logs(folder, compiler);
        let (bare, notes) = import(&[&path(folder, "bare.log")]);
        assert_eq!(
            functions(&bare[0], "free")[1],
            "sink",
            "{compiler}: {notes}"
        );
        let look = &bare[0]["stacks"][0]["frames"][0];
        assert_eq!(
            (&look["function"], &look["line"]),
            (&"look".into(), &5.into())
        );
        assert!(look["file"].as_str().unwrap().ends_with("prog.c"));
        assert!(notes.contains("frames named by files at hand: "), "{notes}");
        let (all, _) = import(&[&path(folder, "bare.log"), &path(folder, "named.log")]);
        assert_eq!(
            all[0]["key"], all[1]["key"],
            "{} | {}",
            all[0]["key_text"], all[1]["key_text"]
        );
        // Where nothing may be looked for nothing is named.
        let (none, _) = import(&["--no-default-paths", &path(folder, "bare.log")]);
        assert_eq!(functions(&none[0], "free")[1], "-");
    }
}

#[test]
fn a_stripped_program_is_named_by_its_debug_file_and_no_other_build_ever_is() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    logs(folder, "clang -g -O1 -fsanitize=address");
    let made = shell(
        folder,
        "id=$(readelf -n prog | sed -n 's/.*Build ID: //p'); first=$(echo $id | cut -c1-2); rest=$(echo $id | cut -c3-); \
         mkdir -p debug/.build-id/$first && objcopy --only-keep-debug prog debug/.build-id/$first/$rest.debug && cp prog whole && strip prog && echo $id",
    );
    assert!(made.len() > 16, "clang makes build IDs: {made}");
    let log = path(folder, "bare.log");
    let (stripped, _) = import(&["--no-default-paths", &log]);
    assert_eq!(functions(&stripped[0], "free")[1], "-");
    let (by_debug, notes) = import(&["--debug-dir", &path(folder, "debug"), &log]);
    assert_eq!(functions(&by_debug[0], "free")[1], "sink", "{notes}");
    // The image is gone, its debug file is there.
    fs::remove_file(folder.join("prog")).unwrap();
    let (gone, _) = import(&["--debug-dir", &path(folder, "debug"), &log]);
    assert_eq!(functions(&gone[0], "free")[1], "sink");
    // Another build is where the program was: its ID differs, and nothing is said by it.
    let other = PROGRAM.replace("sink", "drown").replace("40", "48");
    compile(folder, &other, "clang -g -O0 -fsanitize=address");
    shell(folder, "touch -d 2001-01-01 prog");
    let (other, notes) = import(&[&log]);
    assert_eq!(functions(&other[0], "free")[1], "-", "{notes}");
    assert!(notes.contains("its build ID is another one"), "{notes}");
    // A root of a file system has it by its path.
    let root = folder.join("root");
    let inside = root.join(folder.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::copy(folder.join("whole"), inside.join("prog")).unwrap();
    let (rooted, notes) = import(&["--sysroot", root.to_str().unwrap(), &log]);
    assert_eq!(functions(&rooted[0], "free")[1], "sink", "{notes}");
}

/// gcc 12's runtime prints no build IDs: a file that is newer than the log is another build.
#[test]
fn without_a_build_id_a_newer_file_is_not_used() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    logs(folder, "gcc -g -O1 -fsanitize=address");
    let log = path(folder, "bare.log");
    let (named, notes) = import(&[&log]);
    assert_eq!(functions(&named[0], "free")[1], "sink");
    assert!(notes.contains("is used unverified"), "{notes}");
    shell(folder, "touch -d 2001-01-01 bare.log");
    let (newer, _) = import(&[&log]);
    assert_eq!(functions(&newer[0], "free")[1], "-");
}

/// Addresses of a run, with the map that the profile ends with; a caller of mtrace; valgrind's of a program whose symbols it did not have.
#[test]
fn addresses_of_a_run_are_named_by_the_logs_map() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    compile(
        folder,
        PROGRAM,
        "gcc -g -O1 -fno-omit-frame-pointer -Wl,--no-as-needed -l:libjemalloc.so.2",
    );
    shell(
        folder,
        "MALLOC_CONF=prof:true,lg_prof_sample:0,prof_final:true,prof_prefix:je $(readlink -f prog) leak && mv je.*.heap je.heap",
    );
    let (records, notes) = import(&[&path(folder, "je.heap")]);
    let lost = records
        .iter()
        .find(|record| record["blocks"] == 4)
        .expect("four blocks");
    assert!(
        functions(lost, "allocation")
            .iter()
            .any(|name| name == "lose"),
        "{lost} {notes}"
    );
    assert!(
        lost["key_text"].as_str().unwrap().contains("| lose | main"),
        "{}",
        lost["key_text"]
    );

    compile(folder, PROGRAM, "gcc -g -O1");
    shell(
        folder,
        "echo 'extern void mtrace(void); __attribute__((constructor)) static void start(void) { mtrace(); }' | gcc -shared -fPIC -x c -o m.so - && \
         LD_PRELOAD=./m.so:libc_malloc_debug.so.0 MALLOC_TRACE=trace.log $(readlink -f prog) leak",
    );
    let (records, notes) = import(&[&path(folder, "trace.log")]);
    let frame = &records[0]["stacks"][0]["frames"][0];
    assert_eq!(
        (&frame["function"], &frame["line"]),
        (&"lose".into(), &6.into()),
        "{notes} {records:?}"
    );

    shell(
        folder,
        "cp prog whole && strip prog && valgrind --leak-check=full --xml=yes --xml-file=v.xml $(readlink -f prog) leak 2>/dev/null",
    );
    let (records, _) = import(&["--no-default-paths", &path(folder, "v.xml")]);
    assert!(!functions(&records[0], "allocation").contains(&"lose".to_owned()));
    shell(folder, "cp whole prog && touch -d 2001-01-01 prog");
    let (records, notes) = import(&[&path(folder, "v.xml")]);
    assert!(
        functions(&records[0], "allocation").contains(&"lose".to_owned()),
        "{notes} {records:?}"
    );
}

/// Every frame of the answer keeps what the log said of it.
#[test]
fn what_the_log_said_stays() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    logs(folder, "clang -g -O1 -fsanitize=address");
    let before = lines(&said(&[
        "import",
        "--no-default-paths",
        &path(folder, "bare.log"),
    ]));
    let after = lines(&said(&["import", &path(folder, "bare.log")]));
    let first = |records: &[Value]| records[0]["stacks"][0]["frames"][0].clone();
    let (before, after) = (first(&before), first(&after));
    for field in ["module", "module_offset", "address", "build_id"] {
        assert_eq!(before[field], after[field]);
    }
}
