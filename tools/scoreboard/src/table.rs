//! The score: outcomes, added up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use heapcheck::checks::finding::Unrestored;

use crate::judge::{Outcome, SLOW};
use crate::plant::Sort;

/// Sums of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Plants.
    pub planted: u64,
    /// Plants that can be seen.
    pub evident: u64,
    /// Of those: something was said.
    pub found: u64,
    /// Of those found: the kind is right.
    pub kind: u64,
    /// Of those found: the address is right.
    pub address: u64,
    /// Plants found that have a culprit.
    pub culprits: u64,
    /// Of those: it was named.
    pub culprit: u64,
    /// Plants found whose loss is known.
    pub losses: u64,
    /// Of those: the number is right.
    pub lost: u64,
    /// Findings for plants that can be seen.
    pub findings: u64,
    /// Critical findings that nothing explains, over all plants.
    pub false_critical: u64,
    /// Plants that cannot be seen of which something was said.
    pub invented: u64,
    /// Words told as they had been.
    pub restored: u64,
    /// Words told wrong.
    pub misrestored: u64,
    /// Plants that can be seen, of which no word was told: a link of which more than one value fits.
    pub ambiguous: u64,
    /// The same: a link of which none fits.
    pub nothing_fits: u64,
    /// Panics.
    pub panics: u64,
    /// Plants whose analysis took longer than a second.
    pub slow: u64,
}

impl Score {
    /// Adds an outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        let one = |yes: bool| u64::from(yes);
        self.planted += 1;
        self.panics += one(outcome.panicked);
        self.slow += one(outcome.took > SLOW);
        self.false_critical += outcome.false_critical as u64;
        self.restored += outcome.restored.0 as u64;
        self.misrestored += outcome.restored.1 as u64;
        if !outcome.evidence {
            self.invented += one(outcome.found);
            return;
        }
        self.evident += 1;
        self.findings += outcome.findings as u64;
        if !outcome.found {
            return;
        }
        self.found += 1;
        self.ambiguous += one(outcome.unrestored == Some(Unrestored::Ambiguous));
        self.nothing_fits += one(outcome.unrestored == Some(Unrestored::NothingFits));
        self.kind += one(outcome.kind);
        self.address += one(outcome.address);
        self.culprits += one(outcome.culprit.is_some());
        self.culprit += one(outcome.culprit == Some(true));
        self.losses += one(outcome.lost.is_some());
        self.lost += one(outcome.lost == Some(true));
    }

    /// Adds another row.
    pub fn merge(&mut self, other: &Score) {
        self.planted += other.planted;
        self.evident += other.evident;
        self.found += other.found;
        self.kind += other.kind;
        self.address += other.address;
        self.culprits += other.culprits;
        self.culprit += other.culprit;
        self.losses += other.losses;
        self.lost += other.lost;
        self.findings += other.findings;
        self.false_critical += other.false_critical;
        self.invented += other.invented;
        self.restored += other.restored;
        self.misrestored += other.misrestored;
        self.ambiguous += other.ambiguous;
        self.nothing_fits += other.nothing_fits;
        self.panics += other.panics;
        self.slow += other.slow;
    }

    /// Parts per hundred; 100 of nothing.
    pub fn percent(part: u64, whole: u64) -> f64 {
        if whole == 0 {
            100.0
        } else {
            part as f64 * 100.0 / whole as f64
        }
    }
}

/// Scores of one allocator by release and sort.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: BTreeMap<(String, Sort), Score>,
}

impl Table {
    /// Adds an outcome.
    pub fn add(&mut self, release: &str, sort: Sort, outcome: &Outcome) {
        self.rows
            .entry((release.to_owned(), sort))
            .or_default()
            .add(outcome);
    }

    /// The sum of all rows.
    pub fn total(&self) -> Score {
        self.sum(|_, _| true)
    }

    /// The sum of some rows.
    pub fn sum(&self, takes: impl Fn(&str, Sort) -> bool) -> Score {
        let mut total = Score::default();
        for ((release, sort), score) in &self.rows {
            if takes(release, *sort) {
                total.merge(score);
            }
        }
        total
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| release | planted | plants | with evidence | found | right kind | right address | right culprit | \
             findings per plant | lost count right | invented | false critical | words restored | restored wrong | ambiguous | nothing fits |"
        )?;
        writeln!(
            f,
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
        )?;
        let mut releases: Vec<&str> = self
            .rows
            .keys()
            .map(|(release, _)| release.as_str())
            .collect();
        releases.dedup();
        let sorts: BTreeSet<Sort> = self.rows.keys().map(|(_, sort)| *sort).collect();
        for release in &releases {
            for sort in &sorts {
                let score = self.sum(|other, row| other == *release && row == *sort);
                if score.planted > 0 {
                    line(f, release, sort.name, &score)?;
                }
            }
            let score = self.sum(|other, _| other == *release);
            line(f, release, "**all**", &score)?;
        }
        if releases.len() > 1 {
            for sort in &sorts {
                let score = self.sum(|_, row| row == *sort);
                if score.planted > 0 {
                    line(f, "all", sort.name, &score)?;
                }
            }
        }
        line(f, "**all**", "**all**", &self.total())
    }
}

fn line(f: &mut fmt::Formatter<'_>, release: &str, name: &str, score: &Score) -> fmt::Result {
    let share = |part: u64, whole: u64| {
        if whole == 0 {
            "-".to_owned()
        } else {
            format!("{:.1} %", Score::percent(part, whole))
        }
    };
    writeln!(
        f,
        "| {release} | {name} | {} | {} | {} | {} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} | {} |",
        score.planted,
        score.evident,
        share(score.found, score.evident),
        share(score.kind, score.found),
        share(score.address, score.found),
        share(score.culprit, score.culprits),
        if score.evident == 0 {
            0.0
        } else {
            score.findings as f64 / score.evident as f64
        },
        share(score.lost, score.losses),
        score.invented,
        score.false_critical,
        score.restored,
        score.misrestored,
        score.ambiguous,
        score.nothing_fits,
    )
}
