//! Counters that disagree with what they count, when nothing else is wrong.

use heaps::anomaly::AnomalyKind;

use super::finding::{Confidence, Evidence, Finding, FindingKind, Found};
use super::{Check, Subject, double_free, wording};

/// See the module.
pub struct CountMismatch;

impl Check for CountMismatch {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::CountMismatch]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let next = "something wrote over the counter, or a damaged list was used since: look at the other findings";
        let mut finding = match &subject.anomaly.kind {
            AnomalyKind::Length {
                list,
                at,
                recorded,
                walked,
            } => {
                if double_free::below_zero(list, *recorded).is_some() {
                    return None; // said of the block, or of the list
                }
                let message = format!(
                    "the {} counts {recorded} blocks and holds {walked}",
                    wording::list(list)
                );
                let mut finding =
                    wording::finding(subject, FindingKind::CountMismatch, list.at, None, message);
                finding.evidence = vec![Evidence {
                    at: *at,
                    bytes: 4,
                    what: "recorded length".into(),
                    expected: format!("{walked}, the entries of the list"),
                    found: Found::number(*recorded),
                }];
                finding
            }
            AnomalyKind::Metadata {
                word,
                counts_only: true,
            } => {
                let message = format!(
                    "{} is {}, expected {}",
                    wording::field(word.what),
                    wording::value(&word.found),
                    wording::expected(&word.expected)
                );
                let mut finding =
                    wording::finding(subject, FindingKind::CountMismatch, word.of, None, message);
                finding.evidence = vec![wording::broken_evidence(word)];
                finding
            }
            _ => return None,
        };
        finding.confidence = finding.confidence.min(Confidence::Likely);
        finding.next_steps = vec![next.to_owned()];
        Some(finding)
    }
}
