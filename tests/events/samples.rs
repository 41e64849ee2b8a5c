//! Profiles: stacks with sums.

use std::fs;

use super::common::{items, text};
use super::{assert_first, run, run_source};

/// A profile has no addresses of blocks: a group is told by its size.
#[test]
fn a_heap_profile_names_the_site_of_a_group() {
    const LEAKY: &str = r#"#include <stdlib.h>
#include <string.h>
int mallctl(const char *, void *, size_t *, void *, size_t);
static void *keep[100];
static void *volatile lost;
__attribute__((noinline)) static void *node(void) { return memset(malloc(48), 1, 48); }
__attribute__((noinline)) static void lose(int count) {
  for (int i = 0; i < count; i++) lost = node();
  lost = 0;
}
int main(void) {
  const char *name = "log";
  for (int i = 0; i < 100; i++) keep[i] = memset(malloc(4000), 1, 4000);
  lose(300);
  mallctl("prof.dump", 0, 0, &name, sizeof name);
  lost = keep[0];
  abort();
}
"#;
    let settings = [("MALLOC_CONF", "prof:true,lg_prof_sample:0")];
    let run = run_source(LEAKY, "", &["-l:libjemalloc.so.2"], &settings);
    let report = run.json("leaks", &run.path("log"), &[]);
    let groups = items(&report["leaks"]["groups"]).iter();
    let mut groups = groups.filter(|group| group["block_bytes"] == 48);
    let group = groups.next().expect("48 bytes are lost");
    let names: Vec<&str> = items(&group["allocated_at"])
        .iter()
        .filter_map(|frame| frame["function"].as_str())
        .collect();
    assert!(
        names.windows(2).any(|pair| pair == ["node", "lose"]),
        "{names:?}"
    );
    assert_eq!(text(&report["events"], "tool"), "jemalloc");
    assert_eq!(report["events"]["complete"], false);
    let other = run_source(LEAKY, "", &["-l:libjemalloc.so.2"], &settings);
    assert_eq!(run.outcome("leaks", &other.path("log"), &[]).status, 2);
}

/// memleak needs a kernel's permission: its output is written here as its source prints it, with the addresses of a real run.
#[test]
fn memleak_names_the_site_of_a_group() {
    let run = run("leak");
    let traced = run.json("leaks", &run.path("log"), &[]);
    let group = &items(&traced["leaks"]["groups"])[0];
    let frame = &items(&group["allocated_at"])[0];
    let (blocks, at) = (&group["blocks"], text(frame, "resume_address").to_owned());
    let asked = if group["block_bytes"] == 40 { 40 } else { 88 };
    let log = run.path("memleak");
    let bytes = asked * blocks.as_u64().unwrap();
    let write = |at: &str| {
        let lines = format!(
            "Attaching to pid 7, Ctrl+C to quit.\n[10:12:14] Top 10 stacks with outstanding allocations:\n\taddr = {} size = {asked}\n\t{bytes} bytes in {blocks} allocations from stack\n\t\t{at}\tlose+0x1b [run]\n",
            &items(&group["examples"])[0].as_str().unwrap()[2..]
        );
        fs::write(&log, lines).unwrap();
    };
    write(&at);
    let report = run.json("leaks", &log, &[]);
    let mut groups = items(&report["leaks"]["groups"]).iter();
    let found = groups
        .find(|it| it["block_bytes"] == group["block_bytes"])
        .unwrap();
    assert_first(&found["allocated_at"], "lose", "lose");
    write("0x0000700000001234");
    assert_eq!(run.outcome("leaks", &log, &[]).status, 2);
}
