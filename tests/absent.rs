//! Healthy cores from which memory is missing: absent is a third answer, neither valid nor damaged.
//!
//! Each writable segment in turn is taken out of a core, as a filter, `MADV_DONTDUMP` or a full disk would, by setting its size in
//! the file to 0; so are single pages, by a program header of their own. Nothing may be called damaged, and where heap was lost the
//! status is 3.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::compare::short;
use common::way::{Way, run};
use common::{Fixture, Outcome, fixtures, in_parallel, items};

/// A segment of a core that the program could write to, with memory in the file.
#[derive(Clone, Copy)]
struct Segment {
    /// Its number among the program headers.
    index: usize,
    /// Where the core has the header.
    header: u64,
    /// Its address.
    start: u64,
    /// Where its bytes are in the file.
    offset: u64,
    /// Its bytes in the file.
    bytes: u64,
}

impl Segment {
    /// Whether it holds a heap for sure: variables of a module are smaller, and stacks are where stacks are. Those of threads may be
    /// one segment, with the pages that guard them.
    fn is_heap(&self) -> bool {
        self.bytes >= LARGE_BYTES && !self.is_stack()
    }

    fn is_stack(&self) -> bool {
        let guarded = THREAD_STACK_BYTES + PAGE;
        let of_threads = [THREAD_STACK_BYTES, guarded];
        of_threads
            .iter()
            .any(|bytes| self.bytes.is_multiple_of(*bytes))
            || self.start >> 36 == 0x7ff
    }
}

/// Bytes from the start of a program header to its `p_filesz` (elf.h, `Elf64_Phdr`).
const FILE_SIZE: u64 = 32;

/// A smaller segment holds a module's variables.
const LARGE_BYTES: u64 = 128 << 10;

const PAGE: u64 = 4096;

/// Bytes of a thread's stack, unless the program says otherwise.
const THREAD_STACK_BYTES: u64 = 8 << 20;

/// All of them.
fn writable_segments(core: &File) -> Vec<Segment> {
    let word = |at: u64| -> u64 {
        let mut bytes = [0; 8];
        core.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let (table, sizes) = (word(32), word(54));
    let (each, count) = (sizes & 0xffff, sizes >> 16 & 0xffff);
    (0..count)
        .map(|index| (index as usize, table + index * each))
        .filter(|(_, header)| word(*header) == 1 | 6 << 32) // PT_LOAD, readable and writable
        .map(|(index, header)| Segment {
            index,
            header,
            start: word(header + 16),
            offset: word(header + 8),
            bytes: word(header + FILE_SIZE),
        })
        .filter(|segment| segment.bytes > 0)
        .collect()
}

/// A copy of a fixture's core to take memory out of.
fn copy_of(fixture: &Fixture, directory: &Path) -> (Fixture, File) {
    let path = directory.join(format!("{}-{}", fixture.release, fixture.name));
    fs::copy(&fixture.core, &path).unwrap();
    let core = File::options().read(true).write(true).open(&path).unwrap();
    let copy = Fixture {
        core: path,
        ..fixture.clone()
    };
    (copy, core)
}

/// What is wrong in an answer: what is called damaged, and a status that is none of these.
fn errors_of(outcome: &Outcome, allowed: &[i32], place: &str) -> Vec<String> {
    let report = match outcome.json() {
        Ok(report) => report,
        Err(error) => return vec![format!("{place}: {error}")],
    };
    let mut errors = Vec::new();
    if !allowed.contains(&outcome.status) {
        errors.push(format!("{place}: status {}", outcome.status));
    }
    for finding in items(&report["findings"]) {
        if finding["severity"] != "note" {
            errors.push(format!("{place}: {}", short(finding)));
        }
    }
    errors
}

/// What is wrong in the answers about a core without one of its segments: each in turn.
fn without_each(fixture: &Fixture, directory: &Path, way: Way) -> Vec<String> {
    let (cut, core) = copy_of(fixture, directory);
    let mut errors = Vec::new();
    for segment in writable_segments(&core) {
        let set = |bytes: u64| {
            core.write_all_at(&bytes.to_le_bytes(), segment.header + FILE_SIZE)
                .unwrap();
        };
        set(0);
        let outcome = run(way, &cut);
        set(segment.bytes);
        let place = format!(
            "{}/{} {} without segment {} at {:#x} ({:#x} bytes)",
            fixture.release,
            fixture.name,
            way.name(),
            segment.index,
            segment.start,
            segment.bytes
        );
        // jemalloc's books lie elsewhere: that blocks which nobody ever touched are not in the core tells nothing.
        let allowed: &[i32] = match segment.is_heap() && fixture.allocator() != "jemalloc" {
            true => &[3],
            false => &[0, 3],
        };
        errors.extend(errors_of(&outcome, allowed, &place));
    }
    fs::remove_file(cut.core).unwrap();
    errors
}

/// What is wrong in the answers about a core without one page that holds anything: `count` of them in turn, stacks left out, so
/// that each segment has some.
fn without_pages(fixture: &Fixture, directory: &Path, count: usize) -> Vec<String> {
    let (cut, core) = copy_of(fixture, directory);
    let mut pages: Vec<(usize, Segment, u64)> = Vec::new();
    for segment in writable_segments(&core) {
        if segment.is_stack() {
            continue;
        }
        let mut bytes = vec![0; segment.bytes as usize];
        core.read_exact_at(&mut bytes, segment.offset).unwrap();
        let filled = bytes.chunks(PAGE as usize).zip(0u64..);
        let filled = filled.filter(|(page, _)| page.iter().any(|byte| *byte != 0));
        let places: Vec<u64> = filled.map(|(_, index)| index * PAGE).collect();
        // Both ends, where structures are, and some between.
        let step = places.len().div_ceil(count).max(1);
        let chosen = places.iter().step_by(step).chain(places.last());
        pages.extend(chosen.zip(0..).map(|(at, order)| (order, segment, *at)));
    }
    pages.sort_by_key(|(order, segment, _)| (*order, segment.start));
    let mut errors = Vec::new();
    for (_, segment, at) in pages.into_iter().take(count) {
        let whole = leave_out(&core, &segment, at);
        let outcome = run(Way::Bare, &cut);
        core.write_all_at(&whole, 0).unwrap();
        let place = format!(
            "{}/{} without the page {:#x}",
            fixture.release,
            fixture.name,
            segment.start + at
        );
        errors.extend(errors_of(&outcome, &[0, 3], &place));
    }
    fs::remove_file(cut.core).unwrap();
    errors
}

/// Gives a core program headers, behind its end, of which one says that a page of a segment is not there. The file's own header as it was.
fn leave_out(core: &File, segment: &Segment, at: u64) -> Vec<u8> {
    const HEADER: usize = 64;
    const ROW: usize = 56;
    let mut header = vec![0; HEADER];
    core.read_exact_at(&mut header, 0).unwrap();
    let whole = header.clone();
    let half = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let mut table = vec![0; half(&header) * ROW];
    core.read_exact_at(&mut table, segment.header - (segment.index * ROW) as u64)
        .unwrap();
    let rows: Vec<&[u8]> = table.chunks(ROW).collect();
    let part = |from: u64, held: u64, bytes: u64| -> Vec<u8> {
        let mut row = rows[segment.index].to_vec();
        let words = [
            (8, segment.offset + from),
            (16, segment.start + from),
            (32, held),
            (40, bytes),
        ];
        for (place, word) in words {
            row[place..place + 8].copy_from_slice(&word.to_le_bytes());
        }
        row
    };
    let rest = segment.bytes - at - PAGE;
    let parts = [
        part(0, at, at),
        part(at, 0, PAGE),
        part(at + PAGE, rest, rest),
    ];
    let mut new = rows[..segment.index].concat();
    let filled = parts.iter().filter(|row| row[40..48] != [0; 8]);
    new.extend(filled.flat_map(|row| row.iter().copied()));
    new.extend(rows[segment.index + 1..].concat());
    let end = core.metadata().unwrap().len().next_multiple_of(PAGE);
    core.write_all_at(&new, end).unwrap();
    header[32..40].copy_from_slice(&end.to_le_bytes());
    header[56..58].copy_from_slice(&((new.len() / ROW) as u16).to_le_bytes());
    core.write_all_at(&header, 0).unwrap();
    whole
}

/// Whether a fixture's heap is in order, and known to heapcheck.
fn is_healthy(fixture: &Fixture) -> bool {
    !fixture.is("EXPECT") && !fixture.is("OTHER")
}

fn check(chosen: &[Fixture], ways: &[Way]) {
    let directory = tempfile::tempdir().unwrap();
    assert!(!chosen.is_empty());
    let all: Vec<(&Fixture, Way)> = chosen
        .iter()
        .flat_map(|fixture| ways.iter().map(move |way| (fixture, *way)))
        .filter(|(fixture, way)| Way::all_of(fixture).contains(way))
        .collect();
    let errors: Vec<String> = in_parallel(&all, |(fixture, way)| {
        let own = directory.path().join(way.name());
        fs::create_dir_all(&own).unwrap();
        without_each(fixture, &own, *way)
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(
        errors.is_empty(),
        "{} :\n{}",
        errors.len(),
        errors.join("\n")
    );
}

/// Whether a release is an allocator as a distribution has it, and not one of the ways to link or to strip it.
fn is_plain(release: &str) -> bool {
    let families = ["glibc-", "jemalloc-"];
    let version = families
        .iter()
        .find_map(|family| release.strip_prefix(family));
    !version.unwrap_or(release).contains('-')
}

/// One healthy core of this name of each plain release.
fn one_of_each(name: &str) -> Vec<Fixture> {
    let all = fixtures().into_iter().filter(is_healthy);
    all.filter(|fixture| fixture.name == name && is_plain(&fixture.release))
        .collect()
}

#[test]
fn what_is_not_in_the_core_is_not_damaged() {
    check(&one_of_each("healthy-stats"), &[Way::DebugInfo, Way::Bare]);
}

/// What shows that a thread was at work may be what was taken out.
#[test]
fn what_threads_at_work_left_is_not_damaged_where_memory_is_missing() {
    check(&one_of_each("healthy-threads-01"), &[Way::Bare]);
}

/// A handler may stand on top of an allocator at work; without its stack only the blocked signals tell.
#[test]
fn what_a_handler_interrupted_is_not_damaged_where_memory_is_missing() {
    check(&one_of_each("healthy-handler-01"), &[Way::Bare]);
}

/// What nothing that the thread may have been doing can explain. A core that was cut off lacks its end first, and there are the stacks.
#[test]
fn damage_is_told_although_the_stack_is_not_in_the_core() {
    const NAMES: [&str; 4] = [
        "overrun-nul-O2",
        "double-free-O2",
        "misaligned-free-O2",
        "write-after-free-O2",
    ];
    let directory = tempfile::tempdir().unwrap();
    let chosen: Vec<Fixture> = fixtures()
        .into_iter()
        .filter(|fixture| NAMES.contains(&fixture.name.as_str()) && is_plain(&fixture.release))
        .collect();
    assert!(chosen.len() > NAMES.len());
    let errors: Vec<String> = in_parallel(&chosen, |fixture| {
        let (cut, core) = copy_of(fixture, directory.path());
        // The stack that the kernel made lies behind all else.
        let stack = *writable_segments(&core).last().unwrap();
        core.write_all_at(&0u64.to_le_bytes(), stack.header + FILE_SIZE)
            .unwrap();
        let outcome = run(Way::Bare, &cut);
        fs::remove_file(&cut.core).unwrap();
        let place = format!("{}/{}", fixture.release, fixture.name);
        let report = outcome.json().unwrap();
        let expected = fixture
            .facts("EXPECT")
            .filter_map(|fact| fact.get("kind"))
            .filter(|kind| {
                !items(&report["findings"])
                    .iter()
                    .any(|finding| finding["kind"] == **kind && finding["severity"] == "critical")
            });
        let lost: Vec<String> = expected.map(|kind| format!("{place}: {kind}")).collect();
        match outcome.status {
            1 => lost,
            status => vec![format!("{place}: status {status}")],
        }
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(
        errors.is_empty(),
        "{} :\n{}",
        errors.len(),
        errors.join("\n")
    );
}

/// A block that is free, and whose list is not in the core, is not known to be in use: that it was read before anything was written
/// there is no more than suspected.
#[test]
#[cfg_attr(not(feature = "fixtures"), ignore = "needs --features fixtures")]
fn a_freed_block_whose_list_is_missing_is_not_called_unset() {
    let directory = tempfile::tempdir().unwrap();
    let is_read = |fixture: &Fixture| {
        ["dangling-link-O2", "dangling-call-O2", "dangling-member-O2"].contains(&&*fixture.name)
            && fixture.release.starts_with("glibc-")
    };
    let chosen: Vec<Fixture> = fixtures().into_iter().filter(is_read).collect();
    assert!(chosen.len() >= 7, "{}", chosen.len());
    let told = in_parallel(&chosen, |fixture| {
        let (cut, core) = copy_of(fixture, directory.path());
        let mut told = Vec::new();
        for segment in writable_segments(&core) {
            let set = |bytes: u64| {
                core.write_all_at(&bytes.to_le_bytes(), segment.header + FILE_SIZE)
                    .unwrap();
            };
            set(0);
            let outcome = run(Way::DebugInfo, &cut);
            set(segment.bytes);
            let report = outcome.json().unwrap();
            for finding in items(&report["findings"]) {
                if finding["kind"] == "uninitialised-use" {
                    let confidence = finding["confidence"].as_str().unwrap().to_owned();
                    told.push((confidence, finding["explains_crash"] == "unknown"));
                }
            }
        }
        fs::remove_file(&cut.core).unwrap();
        told
    })
    .concat();
    // The thread's own memory, by which its cache is found, is one of the segments.
    assert!(!told.is_empty());
    let is_right = |it: &(String, bool)| it.0 == "suspected" && it.1;
    assert!(told.iter().all(is_right), "{told:?}");
}

#[test]
fn a_page_that_is_not_in_the_core_is_not_damaged() {
    /// Pages of each core.
    const PAGES: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let chosen = one_of_each("healthy-stats");
    assert!(!chosen.is_empty());
    let errors: Vec<String> = in_parallel(&chosen, |fixture| {
        without_pages(fixture, directory.path(), PAGES)
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(
        errors.is_empty(),
        "{} :\n{}",
        errors.len(),
        errors.join("\n")
    );
}

/// Every healthy core, with files and without.
#[test]
#[ignore = "half an hour, with all fixtures"]
fn what_is_not_in_any_core_is_not_damaged() {
    let chosen: Vec<Fixture> = fixtures().into_iter().filter(is_healthy).collect();
    check(&chosen, &[Way::DebugInfo, Way::Bare]);
}
