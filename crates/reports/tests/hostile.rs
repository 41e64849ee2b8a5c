//! Hostile logs: cut anywhere, enormous, mixed, with characters that mean something to a terminal. An answer comes, in order.

use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;

use proptest::prelude::*;
use reports::events;
use reports::import::{Options, Summary, formats, import, import_by};
use reports::{Record, Strength};

fn read(reader: impl Read) -> (Vec<Record>, Summary) {
    let mut records = Vec::new();
    let mut summary = Summary::default();
    import(
        BufReader::new(reader),
        "log",
        &Options::default(),
        &mut summary,
        &mut |record| {
            records.push(record);
            Ok(())
        },
    )
    .unwrap();
    (records, summary)
}

fn samples() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut samples: Vec<(String, Vec<u8>)> = ["logs", "forms"]
        .iter()
        .flat_map(|name| fs::read_dir(folder.join(name)).unwrap())
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read(&path).unwrap(),
            )
        })
        .collect();
    samples.sort();
    samples
}

#[test]
fn every_prefix_of_every_sample_is_read() {
    for (name, text) in samples() {
        let whole = read(&text[..]).0;
        // Each end of a line, and places within lines; all of them in short samples.
        let step = if text.len() < 3000 { 1 } else { 97 };
        let ends = (0..text.len())
            .filter(|&at| at % step == 0 || (text.len() < 20_000 && text[at] == b'\n'));
        for end in ends {
            let (records, _) = read(&text[..end]);
            assert!(
                records.len() <= whole.len() + 1,
                "{name} to {end}: {} records",
                records.len()
            );
            // What is complete in the prefix is as in the whole.
            for (cut, full) in records
                .iter()
                .zip(&whole)
                .take(records.len().saturating_sub(2))
            {
                assert!(
                    cut.kind == full.kind || cut.tool != full.tool || cut.source != full.source,
                    "{name} to {end}"
                );
            }
        }
    }
}

/// As if the file had said that it is of this format.
#[test]
fn every_reader_reads_every_sample() {
    for format in formats() {
        let mut records = 0;
        for (name, text) in samples() {
            let cut = &text[..text.len() / 2];
            for text in [&text[..], cut] {
                let read = import_by(format, text, &mut |_| {
                    records += 1;
                    Ok(())
                });
                assert!(read.unwrap().is_ok(), "{format}: {name}");
            }
        }
        assert!(records > 0, "{format} reads nothing of its own");
    }
    assert!(import_by("no such format", &b""[..], &mut |_| Ok(())).is_none());
}

#[test]
fn every_reader_has_a_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/parsers/fuzz_targets");
    let targets = fs::read_dir(folder).unwrap();
    let targets = targets.map(|entry| entry.unwrap().path());
    let mut targets: Vec<String> = targets
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    targets.sort();
    let mut names: Vec<&str> = formats().collect();
    names.sort_unstable();
    assert_eq!(targets, names);
}

#[test]
fn every_suffix_is_read() {
    for (name, text) in samples() {
        for start in (0..text.len()).step_by(211) {
            let (records, _) = read(&text[start..]);
            assert!(records.len() < 100, "{name} from {start}");
        }
    }
}

#[test]
fn samples_in_one_file_give_what_they_give_alone() {
    let named: Vec<_> = samples()
        .into_iter()
        .filter(|(name, _)| !name.contains("libmemleak") && !name.contains("mtrace"))
        .collect();
    let alone: usize = named.iter().map(|(_, text)| read(&text[..]).0.len()).sum();
    let mut all = Vec::new();
    for (_, text) in &named {
        all.extend_from_slice(text);
        all.extend_from_slice(b"\nthe program's own output: 12 bytes in 3 blocks, #1 f (a.c)\n");
    }
    let (together, summary) = read(&all[..]);
    assert_eq!(together.len(), alone, "{summary:?}");
    assert_eq!(summary.failures, 0);
}

#[test]
fn a_killed_valgrind_and_several_documents() {
    let text = String::from_utf8(
        samples()
            .into_iter()
            .find(|(name, _)| name == "valgrind-gcc-O0-xml.log")
            .unwrap()
            .1,
    )
    .unwrap();
    let whole = read(text.as_bytes()).0;
    let killed = &text[..text.find("<kind>Leak_").unwrap()];
    let (records, summary) = read(killed.as_bytes());
    assert_eq!(
        (records.len(), summary.failures),
        (
            whole
                .iter()
                .filter(|record| record.kind != "memory-leak")
                .count(),
            1
        )
    );
    let twice = format!("{killed}\n{text}");
    assert_eq!(
        read(twice.as_bytes()).0.len(),
        whole.len() + read(killed.as_bytes()).0.len()
    );
    // The same document on one line.
    let flat = text.lines().skip(1).collect::<String>();
    assert_eq!(
        read(flat.as_bytes())
            .0
            .iter()
            .map(|record| &record.key)
            .collect::<Vec<_>>(),
        whole.iter().map(|record| &record.key).collect::<Vec<_>>()
    );
    // An error that is broken inside costs itself.
    let broken = text.replacen("<fn>scrap_ship</fn>", "<fn>scrap_ship</gn>", 1);
    let (records, summary) = read(broken.as_bytes());
    assert_eq!((records.len(), summary.failures), (whole.len() - 1, 1));
}

/// So many bytes of one letter, then a line end.
struct Flood(u64, u8);

impl Read for Flood {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer
            .len()
            .min(usize::try_from(self.0).unwrap_or(usize::MAX));
        buffer[..count].fill(self.1);
        self.0 -= count as u64;
        Ok(count)
    }
}

#[test]
fn a_line_of_100_megabytes_between_two_errors() {
    let (_, text) = samples()
        .into_iter()
        .find(|(name, _)| name == "asan-gcc-one-uaf.log")
        .unwrap();
    let count = read(&text[..]).0.len();
    for letter in [b'a', b'<', b'{', b'"', b' ', b'#', b'(', 0x1b, 0xff] {
        let flood = Flood(100 << 20, letter);
        let log = text.chain(flood).chain(&b"\n"[..]).chain(&text[..]);
        assert_eq!(read(log).0.len(), 2 * count, "{:?}", char::from(letter));
    }
    // A document that has no end is let go.
    let log = (&b"{\"schema_version\": 1, \"x\": \""[..])
        .chain(Flood(100 << 20, b'a'))
        .chain(&b"\n"[..])
        .chain(&text[..]);
    let (records, summary) = read(log);
    assert_eq!((records.len(), summary.failures), (count, 1));
}

#[test]
fn a_stack_of_a_million_frames() {
    let mut log =
        "==7==ERROR: AddressSanitizer: stack-overflow on address 0x7f (pc 0x1 bp 0x2 sp 0x3 T0)\n"
            .to_owned();
    for frame in 0..1_000_000 {
        log.push_str(&format!("    #{frame} 0x4 in recurse /src/a.c:3\n"));
    }
    log.push_str("SUMMARY: AddressSanitizer: stack-overflow /src/a.c:3 in recurse\n");
    let (records, _) = read(log.as_bytes());
    assert_eq!(records.len(), 1);
    assert!(records[0].stacks[0].frames.len() <= 256);
    assert_eq!(records[0].key_text, "stack-overflow | recurse");
}

#[test]
fn nothing_that_a_terminal_obeys_comes_out() {
    let evil = "f\u{202e}\u{7}\u{2066}oo\u{85}";
    let log = format!(
        "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\nREAD of size 1 at 0x1 thread T0\n    #0 0x4 in {evil}(int) /src/\u{200f}a.c:3\n    #1 0x5 in main /src/a.c:9\n\nSUMMARY: x\n"
    );
    let (records, _) = read(log.as_bytes());
    let line = serde_json::to_string(&records[0]).unwrap();
    assert!(
        records[0].stacks[0].frames[0]
            .function
            .as_deref()
            .unwrap()
            .contains("\\u{202e}")
    );
    assert!(
        !line.chars().any(|c| c.is_control()
            || ('\u{200e}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)),
        "{line}"
    );
}

#[test]
fn strangers_are_not_grouped_by_nothing() {
    let head = "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x602 at pc 0x55 bp 0x7f sp 0x7f\n";
    let (records, summary) = read(head.as_bytes());
    assert_eq!((records.len(), summary.failures), (1, 0));
    assert_eq!(
        (records[0].key_strength, records[0].key_text.as_str()),
        (Strength::Weak, "use-after-free | in log")
    );
}

/// Lines that look like those of a log, put together at random.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let sample: Vec<String> = samples()
        .into_iter()
        .flat_map(|(_, text)| {
            String::from_utf8_lossy(&text)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let line = prop_oneof![
        8 => proptest::sample::select(sample.clone()),
        2 => (proptest::sample::select(sample), any::<prop::sample::Index>(), "\\PC{0,8}").prop_map(|(line, at, text)| {
            // A line with something else in it from some place on.
            let mut end = at.index(line.len() + 1);
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}{text}{}", &line[..end], &line[end..])
        }),
        1 => ".{0,60}",
    ];
    prop::collection::vec(line, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_mix_of_lines_is_read(lines in lines()) {
        let log = lines.join("\n");
        let (records, _) = read(log.as_bytes());
        prop_assert!(records.len() <= lines.len() + 1);
        for record in records {
            prop_assert!(record.key.starts_with("v1:") && !record.kind.is_empty());
            let line = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes[..]);
    }
}

/// What `--events` reads: bounded by what is in the log, whatever it says.
#[test]
fn every_prefix_of_every_sample_is_read_as_events() {
    let wanted = || events::Wanted::new(std::iter::once(0..u64::MAX));
    for (name, text) in samples() {
        let step = if text.len() < 3000 { 7 } else { 997 };
        for end in (0..=text.len()).step_by(step) {
            let cut = &text[..end];
            let trace = events::trace(cut, &wanted()).unwrap();
            let lines = cut.iter().filter(|byte| **byte == b'\n').count();
            assert!(trace.events <= lines as u64, "{name} to {end}");
            assert!(trace.live.len() <= lines && trace.histories.len() <= lines);
            let samples = events::samples(cut, "log").unwrap();
            assert!(samples.samples.len() <= lines + 1, "{name} to {end}");
            let _ = events::is_trace_text(cut);
            let _ = events::goes_on(cut, &text[end..]);
        }
    }
}

#[test]
fn events_of_enormous_lines_and_of_sizes_beyond_reason() {
    let long = format!("@ {}:[0x1] + 0x10 0x20\n", "a".repeat(3 << 20));
    let odd = "= Start\n@ a:[0xffffffffffffffff] + 0xffffffffffffffff 0xffffffffffffffff\n@ a:[0x1] - (nil)\n@ a:[0x1] < 0x\n@ a:[0x1] > 0x1 0x\n- 0x5\n+ 0x6 0x7\n";
    let found = events::trace(&b"= Start\n"[..], &events::Wanted::default()).unwrap();
    assert_eq!(found.events, 0);
    let found = events::trace(
        format!("{long}{odd}").as_bytes(),
        &events::Wanted::default(),
    )
    .unwrap();
    assert!(found.live.contains_key(&u64::MAX) && found.live.contains_key(&6));
    assert!(
        !found.live.contains_key(&0x10),
        "a line that is longer than a piece is none"
    );
}
