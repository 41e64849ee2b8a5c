//! What heapcheck says of a plant, held against the truth.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ground::target::{MemoryExt, Target};
use heapcheck::checks::finding::{Finding, Severity, Unrestored};
use heapcheck::examination::examine;
use heapcheck::progress::Silent;
use postmortem::session::Session;

use crate::overlay::Overlay;
use crate::plant::{Evidence, Plant};

/// The outcome of one plant.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// It could be seen.
    pub evidence: bool,
    /// Something was said that is more than a note.
    pub found: bool,
    /// The finding that is nearest to the truth has a right kind, address, culprit, lost count.
    pub kind: bool,
    /// See `kind`.
    pub address: bool,
    /// See `kind`; `None` where there is no culprit.
    pub culprit: Option<bool>,
    /// See `kind`; `None` where no number is known.
    pub lost: Option<bool>,
    /// Findings that are more than notes.
    pub findings: usize,
    /// Critical ones that nothing true explains.
    pub false_critical: usize,
    /// Words that were told as they had been, and words that were told wrong.
    pub restored: (usize, usize),
    /// Why a damaged link was not told as it had been, if none was.
    pub unrestored: Option<Unrestored>,
    /// The analysis panicked.
    pub panicked: bool,
    /// It took this long.
    pub took: Duration,
    /// What was said.
    pub said: Vec<String>,
}

impl Outcome {
    /// Whether there is anything to complain about.
    pub fn is_fine(&self) -> bool {
        let right = self.found
            && self.kind
            && self.address
            && self.culprit != Some(false)
            && self.lost != Some(false)
            && self.restored.1 == 0;
        let findings = if self.evidence {
            right && self.findings == 1
        } else {
            !self.found
        };
        findings && self.false_critical == 0 && !self.panicked && self.took < SLOW
    }
}

/// Longer is slow.
pub const SLOW: Duration = Duration::from_secs(1);

/// Everything that heapcheck says of a session's target, perhaps changed, but notes. With `notes`, those too.
pub fn findings(session: &Session, target: Target<'_>, notes: bool) -> Vec<Finding> {
    let Ok(examination) = examine(session, target, None, &Silent) else {
        return Vec::new();
    };
    let mut findings = examination.verdict.findings;
    findings.retain(|finding| notes || finding.severity() != Severity::Note);
    findings
}

fn say(finding: &Finding) -> String {
    let culprit = finding.culprit.as_ref();
    format!(
        "{} {} at {}{}, lost {}: {}",
        finding.severity().name(),
        finding.kind.code(),
        finding.at.unwrap_or_default(),
        culprit.map_or(String::new(), |culprit| format!(
            " by {}",
            culprit.block.address
        )),
        finding.lost_blocks,
        finding.message
    )
}

/// Plants, analyses, compares. `None` if the core does not hold the memory.
pub fn judge(session: &Session, plant: &Plant) -> Option<Outcome> {
    let target = session.target();
    let mut overlay = Overlay::new(target.memory);
    for (at, bytes) in &plant.writes {
        if !overlay.write(*at, bytes) {
            return None;
        }
    }
    let damaged = Target {
        memory: &overlay,
        ..target
    };
    let start = Instant::now();
    let said = catch_unwind(AssertUnwindSafe(|| findings(session, damaged, true)));
    let took = start.elapsed();
    let truth = &plant.truth;
    let Ok(all) = said else {
        return Some(Outcome {
            evidence: truth.evidence == Evidence::Present,
            panicked: true,
            took,
            ..Outcome::default()
        });
    };
    let said: Vec<&Finding> = all
        .iter()
        .filter(|finding| finding.severity() != Severity::Note)
        .collect();
    let address = |finding: &Finding| {
        let at = finding.at.unwrap_or_default().get();
        truth
            .addresses
            .iter()
            .any(|&(from, to)| (from..to).contains(&at))
    };
    let kind = |finding: &Finding| truth.kinds.contains(&finding.kind);
    let culprit = |finding: &Finding| {
        finding
            .culprit
            .as_ref()
            .map(|culprit| culprit.block.address.get())
            == truth.culprit
    };
    let best = said
        .iter()
        .max_by_key(|finding| (address(finding), kind(finding), culprit(finding)));
    let evidence = match truth.evidence {
        Evidence::Present => true,
        Evidence::Absent => false,
        Evidence::Open => best.is_some(),
    };
    // The core itself holds what the words were.
    let repairs = all.iter().flat_map(|finding| &finding.repairs);
    let (right, wrong): (Vec<_>, Vec<_>) =
        repairs.partition(|repair| target.memory.read_u64(repair.at) == Ok(repair.original));
    let restored = (right.len(), wrong.len());
    let unrestored = said.iter().filter_map(|finding| finding.unrestored);
    let unrestored = unrestored.max_by_key(|why| *why == Unrestored::Ambiguous);
    let lost: u64 = said.iter().map(|finding| finding.lost_blocks).sum();
    let explained = |finding: &Finding| evidence && address(finding);
    Some(Outcome {
        evidence,
        found: !said.is_empty(),
        kind: best.is_some_and(|best| kind(best)),
        address: best.is_some_and(|best| address(best)),
        culprit: truth
            .culprit
            .filter(|_| evidence)
            .map(|_| best.is_some_and(|best| culprit(best))),
        lost: truth.lost.filter(|_| evidence).map(|truth| truth == lost),
        findings: said.len(),
        false_critical: said
            .iter()
            .filter(|finding| finding.severity() == Severity::Critical && !explained(finding))
            .count(),
        restored,
        unrestored: unrestored.filter(|_| restored == (0, 0)),
        panicked: false,
        took,
        said: all
            .iter()
            .map(say)
            .chain(wrong.iter().map(|repair| {
                let was = target.memory.read_u64(repair.at).unwrap_or(0);
                format!(
                    "the word at {} was {:#x}, but it was {was:#x}",
                    repair.at, repair.original
                )
            }))
            .collect(),
    })
}
