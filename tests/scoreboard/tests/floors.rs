//! Some hundred plants in a few cores, held against recorded floors. The full table is in `docs/accuracy.md`.

use std::path::Path;

use scoreboard::run::{self, Core};
use scoreboard::table::{Score, Table};

#[test]
fn heapcheck_is_as_good_as_recorded() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut table = Table::default();
    let mut wrong = Vec::new();
    for (release, name, first) in [
        ("2.8.1", "healthy-released", 0),
        ("2.10", "healthy-stats", 1000),
        ("2.10", "healthy-threads-01", 2000),
        ("2.16", "healthy-large", 3000),
        ("2.18.1", "healthy-exited-threads", 4000),
    ] {
        let core = fixtures.join(release).join(name).join("core");
        let seeds: Vec<u64> = (first..first + 102).collect();
        for trial in run::run(&Core::at(&core), &seeds).expect("build-fixtures.sh made the core") {
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
    assert!(total.planted >= 400, "{table}");
    at_least("found", total.found, total.evident, 98.0);
    at_least("right kind", total.kind, total.found, 98.0);
    at_least("right address", total.address, total.found, 98.0);
    at_least("right culprit", total.culprit, total.culprits, 93.0);
    assert!(total.findings * 10 <= total.evident * 11, "{table}");
    assert!(total.false_critical <= 6, "{table}\n{}", wrong.join("\n"));
    assert_eq!((total.invented, total.panics), (0, 0), "{table}");
}
