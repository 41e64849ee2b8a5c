//! Checks: from the walkers' facts to findings. A check sees the analysis, never an allocator's internals.
//!
//! One file per check, one line in [`CHECKS`]. Which programmer's error explains a damaged word is
//! weighed by their order there, so that exactly one check claims each anomaly.

pub mod aliased;
mod count_mismatch;
mod cyclic_list;
mod dangling;
mod double_free;
pub mod explains;
mod filling;
pub mod finding;
pub mod fingerprint;
mod followed_link;
mod free_entry;
mod free_word;
mod header;
mod inner;
mod join;
mod link_damage;
mod metadata;
mod mismatch;
pub mod place;
mod ran_over;
mod refused;
pub mod residue;
mod stack_overflow;
pub mod type_conflict;
mod uninitialised;
pub mod values;
mod wording;

use ground::target::Target;
use heaps::anomaly::Anomaly;

use crate::analysis::{Analysis, HeapAnalysis};
use crate::crash::Crash;
use explains::source::Source;
use finding::{ExplainsCrash, Finding, FindingKind, Findings};

/// What a check looks at: one anomaly of one heap.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The process.
    pub target: Target<'a>,
    /// All heaps of the process.
    pub heaps: &'a [HeapAnalysis<'a>],
    /// Index of the heap in the analysis.
    pub index: usize,
    /// The heap.
    pub heap: &'a HeapAnalysis<'a>,
    /// The anomaly.
    pub anomaly: &'a Anomaly,
}

/// Turns anomalies into findings of its kinds.
pub trait Check: Sync {
    /// Kinds that it may give.
    fn kinds(&self) -> &'static [FindingKind];

    /// What it says of an anomaly; `None` if that is another check's business.
    fn run(&self, subject: Subject<'_>) -> Option<Finding>;
}

/// All checks.
pub static CHECKS: &[&dyn Check] = &[
    &double_free::DoubleFree,
    &cyclic_list::CyclicList,
    &free_entry::FreeEntry,
    &link_damage::LinkDamage,
    &header::Header,
    &free_word::FreeWord,
    &filling::Filling,
    &followed_link::FollowedLink,
    &metadata::Metadata,
    &count_mismatch::CountMismatch,
];

/// What all checks say.
#[derive(Default)]
pub struct Verdict {
    /// Most severe first, and among these what the process died of.
    pub findings: Vec<Finding>,
    /// Findings beyond the bound per kind.
    pub findings_dropped: u64,
    /// Where the value came from that the process died of.
    pub source: Option<Source>,
}

/// The whole verdict: what all checks say of all anomalies, and what the process's death says of the heap.
pub fn run(target: Target<'_>, analysis: &Analysis<'_>, crash: Option<&Crash>) -> Verdict {
    let mut verdict = of_anomalies(target, analysis);
    if let Some(crash) = crash {
        refused::explain(target, analysis, crash, &mut verdict);
        // Before what a read of freed memory adds to findings: those words are not damaged.
        explains::by_damage(target, analysis, crash, &mut verdict.findings);
        dangling::explain(target, analysis, crash, &mut verdict);
        uninitialised::explain(target, analysis, crash, &mut verdict);
        // What an allocator filled its blocks with is no run of a write.
        ran_over::explain(target, analysis, crash, &mut verdict);
        stack_overflow::explain(target, crash, &mut verdict);
        explains::by_another(target, analysis, crash, &mut verdict.findings);
        verdict.source = explains::source::of_fault(target, analysis, crash);
    }
    verdict.sort();
    verdict
}

impl Verdict {
    /// The order of the report.
    fn sort(&mut self) {
        self.findings.sort_by_key(|finding| {
            let explains = finding.explains_crash == ExplainsCrash::Yes;
            std::cmp::Reverse((finding.severity(), explains, finding.confidence))
        });
    }
}

/// What all checks say of all anomalies.
fn of_anomalies(target: Target<'_>, analysis: &Analysis<'_>) -> Verdict {
    let mut findings = Findings::default();
    for (index, heap) in analysis.heaps.iter().enumerate() {
        for anomaly in &heap.anomalies {
            let subject = Subject {
                target,
                heaps: &analysis.heaps,
                index,
                heap,
                anomaly,
            };
            if let Some(mut finding) = CHECKS.iter().find_map(|check| check.run(subject)) {
                wording::values_first(target, &mut finding.evidence);
                if let Some(finding) = join::absorb(&mut findings, finding) {
                    findings.push(finding);
                }
            }
        }
    }
    let (mut findings, findings_dropped) = findings.into_sorted();
    join::join(target, &analysis.heaps, &mut findings);
    Verdict {
        findings,
        findings_dropped,
        source: None,
    }
}
