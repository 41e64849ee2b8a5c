//! What could not be told of the heap, for the report.

use super::PtmallocHeap;
use super::damage::Report;
use crate::allocators::Limit;
use crate::anomaly::Anomaly;
use ground::target::{Address, InstructionSet};

impl PtmallocHeap<'_> {
    /// All limits, once the damage is described.
    pub(super) fn limits(&self, report: &Report) -> Vec<Limit> {
        let mut limits = Vec::new();
        let missing: u64 = self.walks().iter().map(|walk| walk.missing).sum();
        if missing > 0 {
            limits.push(Limit {
                what: format!("{missing} bytes of glibc's heap"),
                why: "they are not in the core".into(),
                incomplete: true,
            });
        }
        let absent = self.arenas.absent.filter(|_| missing == 0);
        limits.extend(absent.map(absent_limit));
        limits.extend(self.odd_limit());
        limits.extend(unreached_limit(report.unreached));
        limits.extend(self.unproved_limit(&report.anomalies));
        limits.extend(self.mapped_limit());
        limits
    }

    /// What is excused without proof that a thread was inside, because its code cannot be read here.
    fn unproved_limit(&self, anomalies: &[Anomaly]) -> Option<Limit> {
        let excused = anomalies.iter().filter(|found| found.transient.is_some());
        let count = excused.count();
        let is_known = self.target.threads.instruction_set() == InstructionSet::X86_64;
        (count > 0 && !is_known).then(|| Limit {
            what: format!("whether {count} irregularities of glibc's heap are damage"),
            why: "whether a thread was at work in malloc is not told for certain on this architecture".into(),
            incomplete: true,
        })
    }

    /// What is said if the walk met more than it keeps.
    fn odd_limit(&self) -> Option<Limit> {
        let walks = self.walks().iter();
        let dropped: u64 = walks
            .map(|walk| walk.odd_count.saturating_sub(walk.odd.len() as u64))
            .fold(0, u64::saturating_add);
        (dropped > 0).then(|| Limit {
            what: format!("{dropped} more headers that are out of order"),
            why: "of each run of chunks the first few hundred are looked at".into(),
            incomplete: true,
        })
    }
}

/// What is said if a word that leads to memory of the arenas leads to nothing that is in the core.
fn absent_limit(at: Address) -> Limit {
    Limit {
        what: format!("memory of glibc's arenas at {at}"),
        why: "it is not in the core: its chunks, and memory to which it leads, were not read"
            .into(),
        incomplete: true,
    }
}

/// What is said if lists lead into memory that was not found.
fn unreached_limit(lists: u64) -> Option<Limit> {
    (lists > 0).then(|| Limit {
        what: format!("memory to which {lists} lists of glibc's heap lead"),
        why: "what names it was written over, or is not in the core: its blocks were not read"
            .into(),
        incomplete: true,
    })
}
