//! Some hundred plants in a few cores of each allocator, held against recorded floors. The full table is in
//! `docs/accuracy.md`.

use std::path::Path;

use scoreboard::run::{self, Core};
use scoreboard::table::{Score, Table};

/// What was recorded of some plants.
struct Floors {
    /// Release, core and first seed.
    cores: &'static [(&'static str, &'static str, u64)],
    /// Seeds of each.
    seeds: u64,
    /// Plants that must find a place.
    planted: u64,
    /// Least percentages.
    found: f64,
    kind: f64,
    address: f64,
    culprit: f64,
    lost: f64,
    /// Most false critical findings.
    false_critical: u64,
}

/// Whether `build-fixtures.sh` could not have a release.
fn is_missing(fixtures: &Path, release: &str) -> bool {
    let list = std::fs::read_to_string(fixtures.join("missing-releases")).unwrap_or_default();
    list.lines()
        .any(|line| line.split(':').next() == Some(release))
}

impl Floors {
    fn hold(&self) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let mut table = Table::default();
        let mut wrong = Vec::new();
        let mut planted = self.planted;
        for (release, name, first) in self.cores {
            if is_missing(&fixtures, release) {
                println!("{release} is left out: build-fixtures.sh could not have it");
                planted -= self.planted / self.cores.len() as u64;
                continue;
            }
            let core = Core::at(&fixtures.join(release).join(name).join("core"));
            let seeds: Vec<u64> = (*first..first + self.seeds).collect();
            let trials =
                run::run(&core, None, &seeds, |_| true).expect("build-fixtures.sh made the core");
            for trial in trials.trials {
                table.add(release, trial.sort, &trial.outcome);
                if !trial.outcome.is_fine() {
                    wrong.push(format!(
                        "{release}/{name} --seed {}: {}",
                        trial.seed, trial.plant.story
                    ));
                }
            }
        }
        let total = table.total();
        let at_least = |what: &str, part: u64, whole: u64, floor: f64| {
            let percent = Score::percent(part, whole);
            assert!(
                percent >= floor,
                "{what}: {percent:.1} % < {floor} %\n{table}\n{}",
                wrong.join("\n")
            );
        };
        assert!(total.planted >= planted, "{table}");
        at_least("found", total.found, total.evident, self.found);
        at_least("right kind", total.kind, total.found, self.kind);
        at_least("right address", total.address, total.found, self.address);
        at_least("right culprit", total.culprit, total.culprits, self.culprit);
        at_least("lost count", total.lost, total.losses, self.lost);
        assert!(total.findings * 10 <= total.evident * 11, "{table}");
        let false_critical = total.false_critical <= self.false_critical;
        assert!(false_critical, "{table}\n{}", wrong.join("\n"));
        assert_eq!((total.invented, total.panics), (0, 0), "{table}");
    }
}

#[test]
fn tcmalloc_is_as_good_as_recorded() {
    Floors {
        cores: &[
            ("2.8.1", "healthy-released", 0),
            ("2.10", "healthy-stats", 1000),
            ("2.10", "healthy-threads-01", 2000),
            ("2.16", "healthy-large", 3000),
            ("2.18.1", "healthy-exited-threads", 4000),
        ],
        seeds: 102,
        planted: 400,
        found: 99.0,
        kind: 98.5,
        address: 98.5,
        culprit: 95.0,
        lost: 99.0,
        false_critical: 3,
    }
    .hold();
}

#[test]
fn ptmalloc_is_as_good_as_recorded() {
    Floors {
        cores: &[
            ("glibc-2.31", "healthy-stats", 0),
            ("glibc-2.36", "healthy-arenas", 1000),
            ("glibc-2.41", "healthy-large", 2000),
            ("glibc-2.43", "healthy-exited", 3000),
        ],
        seeds: 72,
        planted: 220,
        found: 98.0,
        kind: 99.0,
        address: 98.5,
        culprit: 95.0,
        lost: 99.0,
        false_critical: 2,
    }
    .hold();
}

#[test]
fn jemalloc_is_as_good_as_recorded() {
    Floors {
        cores: &[
            ("jemalloc-5.2.1", "healthy-stats", 0),
            ("jemalloc-5.3.0", "healthy-junk", 1000),
            ("jemalloc-5.3.0", "healthy-tcaches", 2000),
            ("jemalloc-5.3.0-trixie", "healthy-waiting", 3000),
            ("jemalloc-5.3.0-redis-stripped", "healthy-waiting", 4000),
            ("jemalloc-5.3.1", "healthy-purged", 5000),
        ],
        seeds: 72,
        planted: 350,
        found: 98.0,
        kind: 98.0,
        address: 98.0,
        culprit: 93.0,
        // It chains nothing, so that nothing is lost.
        lost: 0.0,
        false_critical: 3,
    }
    .hold();
}
