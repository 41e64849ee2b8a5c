//! Evidence checks itself: every word that a finding of any fixture rests on is read again with gdb, from the same core.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use common::{Fixture, a_sample, every, fixtures, heapcheck, in_parallel, items, text};
use serde_json::Value;

/// A run of bytes that the report says stands in the core.
#[derive(Clone)]
struct Claim {
    at: u64,
    bytes: u64,
    /// The bytes, from a hex dump.
    dump: Option<Vec<u8>>,
    /// The value of the word, from `found`.
    value: Option<u64>,
    /// For the message of a failure.
    what: String,
}

fn address(value: &Value, key: &str) -> Option<u64> {
    u64::from_str_radix(text(value, key).strip_prefix("0x")?, 16).ok()
}

/// The number that `found` begins with: an address, or a count.
fn number(found: &str) -> Option<u64> {
    let word = found.split([' ', ',', ':', ';']).next()?;
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if word == "null" => Some(0),
        None => word.parse().ok(),
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn is_text(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// What a finding claims of the core. Every finding has a word whose value can be compared.
fn claims(finding: &Value) -> Result<Vec<Claim>, String> {
    let mut claims = Vec::new();
    for evidence in items(&finding["evidence"]) {
        let what = format!("{} {evidence}", text(finding, "kind"));
        let at = address(evidence, "address").ok_or_else(|| format!("no address: {what}"))?;
        let bytes = evidence["size"].as_u64().unwrap_or(0);
        if let Some(value) = number(text(evidence, "found")).filter(|_| (1..=8).contains(&bytes)) {
            claims.push(Claim {
                at,
                bytes,
                dump: None,
                value: Some(value),
                what: what.clone(),
            });
        }
        // Words that are text are shown as what they are.
        let found = text(evidence, "found");
        let shown = found.as_bytes().get(..bytes as usize);
        if let Some(shown) = shown.filter(|_| bytes > 8) {
            claims.push(Claim {
                at,
                bytes,
                dump: Some(shown.to_vec()),
                value: None,
                what: what.clone(),
            });
        }
        let dump = &evidence["dump"];
        if let Some(at) = address(dump, "address") {
            let bytes = unhex(text(dump, "bytes")).ok_or_else(|| format!("no hex: {what}"))?;
            claims.push(Claim {
                at,
                bytes: bytes.len() as u64,
                dump: Some(bytes),
                value: None,
                what,
            });
        }
    }
    let compared = |claim: &Claim| {
        claim.value.is_some() || claim.dump.as_ref().is_some_and(|dump| is_text(dump))
    };
    if claims.iter().any(compared) {
        Ok(claims)
    } else {
        Err(format!("no word of {finding} has a value to compare"))
    }
}

/// Cores that one gdb reads, one after the other: its start costs more than a core does.
const CORES_OF_ONE_GDB: usize = 16;

/// A core and what its report claims of it.
struct Claimed<'f> {
    fixture: &'f Fixture,
    claims: Vec<Claim>,
    wrong: Vec<String>,
}

/// What gdb reads at each claim's address, for each core; `None` where it reads nothing.
fn read_with_gdb(all: &[Claimed<'_>]) -> Vec<Vec<Option<Vec<u8>>>> {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("settings");
    let text = "set pagination off\nset confirm off\nset auto-solib-add off\n";
    std::fs::write(&settings, text).unwrap();
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-batch", "-x"]).arg(&settings);
    // A script ends at its first error: each core has its own.
    for (number, claimed) in all.iter().enumerate() {
        let mut script = String::from("file\n");
        let _ = writeln!(script, "echo core {number}\\n");
        let _ = writeln!(script, "core-file {}", claimed.fixture.core.display());
        for (index, claim) in claimed.claims.iter().enumerate() {
            let _ = writeln!(
                script,
                "echo claim {index}\\n\nx/{}xb {:#x}",
                claim.bytes, claim.at
            );
        }
        let path = directory.path().join(format!("core-{number}"));
        std::fs::write(&path, script).unwrap();
        gdb.arg("-x").arg(&path);
    }
    let output = gdb.output().expect("gdb runs");
    let mut read: BTreeMap<(usize, usize), Vec<u8>> = BTreeMap::new();
    let (mut core, mut current) = (None, None);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(number) = line.strip_prefix("core ") {
            (core, current) = (number.parse().ok(), None);
        } else if let Some(index) = line.strip_prefix("claim ") {
            current = index.parse().ok();
        } else if let (Some(core), Some(index), Some((_, bytes))) =
            (core, current, line.split_once(":\t"))
        {
            let bytes = bytes.split_whitespace();
            let bytes =
                bytes.filter_map(|byte| u8::from_str_radix(byte.strip_prefix("0x")?, 16).ok());
            read.entry((core, index)).or_default().extend(bytes);
        }
    }
    let of_core = |(number, claimed): (usize, &Claimed<'_>)| {
        let indices = 0..claimed.claims.len();
        indices.map(|index| read.remove(&(number, index))).collect()
    };
    all.iter().enumerate().map(of_core).collect()
}

fn is_true(claim: &Claim, read: &[u8]) -> bool {
    let word = read
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    read.len() as u64 == claim.bytes
        && claim.dump.as_ref().is_none_or(|dump| dump == read)
        && claim.value.is_none_or(|value| value == word)
}

#[test]
fn gdb_reads_what_every_finding_says() {
    let fixtures = a_sample(fixtures());
    let all: Vec<&Fixture> = fixtures.iter().collect();
    let claimed: Vec<Claimed<'_>> = in_parallel(&all, |&fixture| {
        let place = format!("{}/{}", fixture.release, fixture.name);
        let paths = [fixture.core.as_os_str(), fixture.binary.as_os_str()];
        let mut claimed = Claimed {
            fixture,
            claims: Vec::new(),
            wrong: Vec::new(),
        };
        let report = match heapcheck(
            ["--format".as_ref(), "json".as_ref()]
                .into_iter()
                .chain(paths),
        )
        .json()
        {
            Ok(report) => report,
            Err(error) => {
                claimed.wrong.push(format!("{place}: {error}"));
                return claimed;
            }
        };
        for finding in items(&report["findings"]) {
            match claims(finding) {
                Ok(claims) => claimed.claims.extend(claims),
                Err(error) => claimed.wrong.push(format!("{place}: {error}")),
            }
        }
        claimed
    });
    let mut results: Vec<(usize, Vec<String>)> = Vec::new();
    let (claiming, silent): (Vec<Claimed<'_>>, Vec<Claimed<'_>>) = claimed
        .into_iter()
        .partition(|claimed| !claimed.claims.is_empty());
    results.extend(silent.into_iter().map(|claimed| (0, claimed.wrong)));
    let chunks: Vec<&[Claimed<'_>]> = claiming.chunks(CORES_OF_ONE_GDB).collect();
    let compared = in_parallel(&chunks, |chunk| {
        let compare = |(claimed, read): (&Claimed<'_>, Vec<Option<Vec<u8>>>)| {
            let Fixture { release, name, .. } = claimed.fixture;
            let mut wrong = claimed.wrong.clone();
            for (claim, read) in claimed.claims.iter().zip(read) {
                if !read.as_ref().is_some_and(|read| is_true(claim, read)) {
                    wrong.push(format!(
                        "{release}/{name}: {}: gdb reads {read:x?}",
                        claim.what
                    ));
                }
            }
            (claimed.claims.len(), wrong)
        };
        let read = read_with_gdb(chunk);
        chunk.iter().zip(read).map(compare).collect::<Vec<_>>()
    });
    results.extend(compared.into_iter().flatten());
    let compared: usize = results.iter().map(|(count, _)| count).sum();
    let wrong: Vec<String> = results.into_iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(
        wrong.is_empty(),
        "{} claims are not true:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        compared * every() > 500,
        "only {compared} words were compared"
    );
}
