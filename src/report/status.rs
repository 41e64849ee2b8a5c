//! The exit status, from a document and the threshold alone.

use super::schema::{Document, Report, Severity};

/// Analysed completely, nothing at or above the threshold.
pub const CLEAN: u8 = 0;
/// Something at or above the threshold.
pub const FOUND: u8 = 1;
/// Not analysed: bad usage, not a core, an unreadable file, a refused `--allocator`.
pub const NOT_ANALYSED: u8 = 2;
/// Nothing at or above the threshold, but not wholly analysed.
pub const INCOMPLETE: u8 = 3;

/// The exit status for a document. `threshold` is the lowest severity that counts as found; `None`: none does.
pub fn of(document: &Document, threshold: Option<Severity>) -> u8 {
    match document {
        Document::Report(report) => exit_status(report, threshold),
        Document::Error(_) => NOT_ANALYSED,
        Document::Schema(_) => CLEAN,
    }
}

/// The exit status for a report. `threshold` is the lowest severity that counts as found; `None`: none does.
fn exit_status(report: &Report, threshold: Option<Severity>) -> u8 {
    let summary = report.summary;
    let found = match threshold {
        None => 0,
        Some(Severity::Critical) => summary.critical,
        Some(Severity::Warning) => summary.critical + summary.warning,
        Some(Severity::Note) => summary.critical + summary.warning + summary.note,
    };
    if found > 0 || report.is_found && threshold.is_some() {
        FOUND
    } else if report.limits.iter().any(|limit| limit.incomplete) {
        INCOMPLETE
    } else {
        CLEAN
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Limit, Summary};
    use super::*;

    fn report([critical, warning, note]: [u64; 3], limits: &[bool]) -> Report {
        Report {
            summary: Summary {
                critical,
                warning,
                note,
                dropped: 0,
            },
            limits: limits
                .iter()
                .map(|&incomplete| Limit {
                    incomplete,
                    ..Limit::default()
                })
                .collect(),
            ..Report::default()
        }
    }

    #[test]
    fn the_threshold_decides_what_counts_and_a_finding_wins_over_an_incomplete_analysis() {
        use Severity::{Critical, Note, Warning};
        for (counts, limits, threshold, expected) in [
            ([0, 0, 0], &[][..], Some(Critical), CLEAN),
            ([1, 0, 0], &[], Some(Critical), FOUND),
            ([0, 1, 1], &[], Some(Critical), CLEAN),
            ([0, 1, 0], &[], Some(Warning), FOUND),
            ([1, 0, 0], &[], Some(Warning), FOUND),
            ([0, 0, 1], &[], Some(Warning), CLEAN),
            ([0, 0, 1], &[], Some(Note), FOUND),
            ([9, 9, 9], &[], None, CLEAN),
            ([0, 0, 0], &[false], Some(Critical), CLEAN),
            ([0, 0, 0], &[false, true], Some(Critical), INCOMPLETE),
            ([1, 0, 0], &[true], Some(Critical), FOUND),
            ([0, 1, 0], &[true], Some(Critical), INCOMPLETE),
            ([1, 0, 0], &[true], None, INCOMPLETE),
        ] {
            assert_eq!(
                exit_status(&report(counts, limits), threshold),
                expected,
                "{counts:?} {limits:?} {threshold:?}"
            );
        }
    }
}
