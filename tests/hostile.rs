//! Cores that are cut off or damaged anywhere: whatever they hold, an analysis ends, and says what it could not see.

mod common;

use std::fs;

use common::compare::short;
use common::way::{Way, run};
use common::{Fixture, fixture, heapcheck, in_parallel, items};

/// Cores that are damaged at random, over all allocators.
const SEEDS: u64 = 240;

/// A core cut anywhere after its headers is analysed as far as it reaches: nothing at all may be said only if it says so.
#[test]
fn a_core_that_is_cut_off_is_analysed_as_far_as_it_reaches() {
    let directory = tempfile::tempdir().unwrap();
    let mut cuts = Vec::new();
    for fixture in common::a_few() {
        let whole = fs::read(&fixture.core).unwrap();
        let headers = headers_end(&whole);
        let length = whole.len();
        let places = [headers, headers + 1, headers + 4096]
            .into_iter()
            .chain((1..8).map(|eighth| length * eighth / 8))
            .chain([length - 1]);
        for place in places {
            let path = directory.path().join(format!("{}-{place}", fixture.name));
            fs::write(&path, &whole[..place]).unwrap();
            cuts.push((fixture.clone(), place, path));
        }
    }
    let failures: Vec<String> = in_parallel(&cuts, |(fixture, place, path)| {
        let cut = Fixture {
            core: path.clone(),
            ..fixture.clone()
        };
        let outcome = run(Way::DebugInfo, &cut);
        let _ = fs::remove_file(path);
        let name = format!("{} cut at {place}", fixture.name);
        let report = match outcome.json() {
            Ok(report) => report,
            Err(error) => return vec![format!("{name}: {error}")],
        };
        let mut errors = Vec::new();
        if ![1, 3].contains(&outcome.status) {
            errors.push(format!(
                "{name}: status {}: {}",
                outcome.status, outcome.stderr
            ));
        }
        if report["core"]["truncated"] != true {
            errors.push(format!("{name}: not said to be cut off"));
        }
        for finding in items(&report["findings"]) {
            let expected = fixture
                .facts("EXPECT")
                .any(|expected| expected.get("address") == finding["address"].as_str());
            if finding["severity"] == "critical" && !expected {
                errors.push(format!("{name}: not expected: {}", short(finding)));
            }
        }
        errors
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Where the program headers and the notes end: up to there a core is needed whole.
fn headers_end(core: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| u16::from_le_bytes(core[at..at + 2].try_into().unwrap()) as usize;
    word(32) + half(54) * half(56)
}

/// Damage of one seed, in bytes of the headers or anywhere.
fn damage_bytes(core: &mut [u8], rng: &mut fastrand::Rng) {
    let headers = headers_end(core) + 16 * 1024; // and the notes
    let (end, count) = match rng.u8(..3) {
        0 => (headers, 20),
        1 => (headers, 400),
        _ => (core.len(), 20_000),
    };
    let kept: [u8; 20] = core[..20].try_into().unwrap();
    for _ in 0..count {
        core[rng.usize(..end)] = rng.u8(..);
    }
    core[..20].copy_from_slice(&kept); // still a core
}

/// Damage of one seed in words where something stands, by values that a reader might believe: near ones, other words of the core,
/// limits of numbers, flipped bits.
fn damage_words(core: &mut [u8], rng: &mut fastrand::Rng) {
    const PAGE: usize = 4096;
    let used = |page: &usize| core[*page..*page + PAGE].iter().any(|&byte| byte != 0);
    let pages: Vec<usize> = (PAGE..core.len() - PAGE)
        .step_by(PAGE)
        .filter(used)
        .collect();
    for _ in 0..[1, 10, 100, 1000][rng.usize(..4)] {
        let place = |rng: &mut fastrand::Rng| {
            let at = pages[rng.usize(..pages.len())] + 8 * rng.usize(..PAGE / 8);
            at..at + 8
        };
        let at = place(rng);
        let old = u64::from_le_bytes(core[at.clone()].try_into().unwrap());
        let new = match rng.u8(..4) {
            0 => [0, 1, 1 << 63, u64::MAX, !15, 1 << 20][rng.usize(..6)],
            1 => u64::from_le_bytes(core[place(rng)].try_into().unwrap()),
            2 => old ^ 1 << rng.u32(..64),
            _ => old.wrapping_add([1, 8, 16, PAGE as u64][rng.usize(..4)]),
        };
        core[at].copy_from_slice(&new.to_le_bytes());
    }
}

/// Damage anywhere in the file is input like any other: a document comes out and the program ends, whatever it says.
#[test]
fn a_core_with_random_damage_ends_in_a_document() {
    let directory = tempfile::tempdir().unwrap();
    let few = common::a_few();
    let seeds: Vec<u64> = (0..SEEDS).collect();
    let failures: Vec<String> = in_parallel(&seeds, |&seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let fixture = &few[seed as usize % few.len()];
        let mut core = fs::read(&fixture.core).unwrap();
        match seed % 4 {
            0 => damage_bytes(&mut core, &mut rng),
            _ => damage_words(&mut core, &mut rng),
        }
        let path = directory.path().join(seed.to_string());
        fs::write(&path, &core).unwrap();
        let damaged = Fixture {
            core: path.clone(),
            ..fixture.clone()
        };
        let way = Way::ALL[rng.usize(..Way::ALL.len())];
        let outcome = run(way, &damaged);
        let _ = fs::remove_file(path);
        let name = format!("seed {seed} ({}, {})", fixture.name, way.name());
        match outcome.json() {
            Ok(_) if (0..=3).contains(&outcome.status) => None,
            Ok(_) => Some(format!("{name}: status {}", outcome.status)),
            Err(error) => Some(format!("{name}: {error}")),
        }
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn stacks_that_are_cut_off_are_incomplete() {
    let fixture = fixture("2.10", "double-free-O0");
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(&fixture.core).unwrap();
    let path = directory.path().join("core");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for (core, status) in [(&fixture.core, 0), (&path, 3)] {
        let outcome = heapcheck(["--minidump".as_ref(), &**core, &fixture.binary]);
        assert_eq!(outcome.status, status, "{}", outcome.text());
    }
}
