//! Cores that are cut off or damaged anywhere: whatever they hold, an analysis ends, and says what it could not see.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

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
        let outcome = run(Way::DebugInfo.or_bare(&cut), &cut);
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
            let expected = fixture.facts("EXPECT").any(|expected| {
                // What it died of may lie in the part that is gone.
                let place = finding["address"].as_str();
                place.is_none() || expected.get("address") == place
            });
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

/// A word of a core, by its place in the file, and what stands there instead.
type Write = (usize, [u8; 8]);

const PAGE: usize = 4096;

/// Where the pages of a core begin in which anything stands.
fn used_pages(core: &[u8]) -> Vec<usize> {
    let used = |page: &usize| core[*page..*page + PAGE].iter().any(|&byte| byte != 0);
    (PAGE..core.len() - PAGE)
        .step_by(PAGE)
        .filter(used)
        .collect()
}

/// Damage in words where something stands, by values that a reader might believe: near ones, other words of the core, limits
/// of numbers, flipped bits.
fn damaged_words(
    core: &[u8],
    pages: &[usize],
    count: usize,
    rng: &mut fastrand::Rng,
) -> Vec<Write> {
    let word = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().unwrap());
    let place =
        |rng: &mut fastrand::Rng| pages[rng.usize(..pages.len())] + 8 * rng.usize(..PAGE / 8);
    let damage = |_| {
        let at = place(rng);
        let new = match rng.u8(..4) {
            0 => [0, 1, 1 << 63, u64::MAX, !15, 1 << 20][rng.usize(..6)],
            1 => word(place(rng)),
            2 => word(at) ^ 1 << rng.u32(..64),
            _ => word(at).wrapping_add([1, 8, 16, PAGE as u64][rng.usize(..4)]),
        };
        (at, new.to_le_bytes())
    };
    (0..count).map(damage).collect()
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
            _ => {
                let count = [1, 10, 100, 1000][rng.usize(..4)];
                let pages = used_pages(&core);
                for (at, word) in damaged_words(&core, &pages, count, &mut rng) {
                    core[at..at + 8].copy_from_slice(&word);
                }
            }
        }
        let path = directory.path().join(seed.to_string());
        fs::write(&path, &core).unwrap();
        let damaged = Fixture {
            core: path.clone(),
            ..fixture.clone()
        };
        let ways = Way::all_of(fixture);
        let way = ways[rng.usize(..ways.len())];
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

/// A number that the environment may set.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Up to 300 words of any fixture's core, read with all files, by structure, and without any file. For many:
/// `HEAPCHECK_HOSTILE_CORES=5000 HEAPCHECK_HOSTILE_FIRST=0 cargo test --release --features fixtures --test hostile many -- --nocapture`.
#[test]
fn many_damaged_cores_end_in_a_document_in_time() {
    const LONG: Duration = Duration::from_secs(10);
    let fixtures = common::fixtures();
    let count = setting("HEAPCHECK_HOSTILE_CORES", 12);
    let first = setting("HEAPCHECK_HOSTILE_FIRST", 0);
    // Far apart, so that a few seeds reach all allocators.
    let of_seed = |seed: u64| (seed.wrapping_mul(0x9e37_79b9) % fixtures.len() as u64) as usize;
    let mut seeds_of: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for seed in first..first + count {
        seeds_of.entry(of_seed(seed)).or_default().push(seed);
    }
    let seeds_of: Vec<(usize, Vec<u64>)> = seeds_of.into_iter().collect();
    let directory = tempfile::tempdir().unwrap();
    let results = in_parallel(&seeds_of, |(index, seeds)| {
        let copy = directory.path().join(index.to_string());
        let result = damage_in_turn(&fixtures[*index], &copy, seeds);
        let _ = fs::remove_file(copy);
        result
    });
    let longest = results.iter().map(|(_, longest)| *longest).max();
    println!("{count} cores, the longest analysis took {longest:?}");
    let failures: Vec<String> = results.into_iter().flat_map(|(said, _)| said).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(longest < Some(LONG), "an analysis took {longest:?}");
}

/// Damages a copy of a core by each seed in turn; what is wrong with the answers, and how long the slowest one took.
fn damage_in_turn(fixture: &Fixture, copy: &Path, seeds: &[u64]) -> (Vec<String>, Duration) {
    const MOST: usize = 300;
    const WAYS: [Way; 3] = [Way::DebugInfo, Way::Structure, Way::Bare];
    let core = fs::read(&fixture.core).unwrap();
    let pages = used_pages(&core);
    fs::write(copy, &core).unwrap();
    let file = fs::OpenOptions::new().write(true).open(copy).unwrap();
    let damaged = Fixture {
        core: copy.to_owned(),
        ..fixture.clone()
    };
    let mut failures = Vec::new();
    let mut longest = Duration::ZERO;
    for &seed in seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(1..=MOST);
        let writes = damaged_words(&core, &pages, count, &mut rng);
        for (at, word) in &writes {
            file.write_all_at(word, *at as u64).unwrap();
        }
        for way in WAYS.map(|way| way.or_bare(fixture)) {
            let start = Instant::now();
            let outcome = std::panic::catch_unwind(|| run(way, &damaged));
            let took = start.elapsed();
            longest = longest.max(took);
            let name = format!(
                "seed {seed} ({}/{}, {})",
                fixture.release,
                fixture.name,
                way.name()
            );
            let wrong = match outcome.map(|outcome| (outcome.json(), outcome.status)) {
                Ok((Ok(_), 0..=3)) => None,
                Ok((Ok(_), status)) => Some(format!("status {status}")),
                Ok((Err(error), _)) => Some(error),
                Err(_) => Some("it panicked or did not end".to_owned()),
            };
            failures.extend(wrong.map(|wrong| format!("{name}: {wrong} ({took:?})")));
        }
        for (at, _) in &writes {
            file.write_all_at(&core[*at..*at + 8], *at as u64).unwrap();
        }
    }
    (failures, longest)
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
