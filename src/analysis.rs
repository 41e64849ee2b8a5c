//! The read-only result of walking every heap: what checks and reports look at.

pub mod census;
pub mod strangers;

use ground::target::{InstructionSet, Target};
use heaps::absent;
use heaps::allocators::{
    ALLOCATORS, Detail, Detection, Family, Heap, HeapIdentity, Limit, Statistics,
};
use heaps::anomaly::Anomaly;
use heaps::map::HeapMap;
use heaps::unclaimed::{self, Unclaimed};
use heaps::walk;

use crate::progress::Progress;
use census::Census;
use strangers::{SanitizerReport, Stranger};

/// What was not analysed where no heap was found at all.
const WHOLE_HEAP: &str = "the heap";

/// One heap, walked.
pub struct HeapAnalysis<'t> {
    /// Who it is.
    pub identity: HeapIdentity,
    /// Its blocks.
    pub map: HeapMap,
    /// What it holds.
    pub statistics: Statistics,
    /// The allocator's own facts for the report.
    pub details: Vec<(&'static str, Detail)>,
    /// What the walker saw that a heap at rest does not show.
    pub anomalies: Vec<Anomaly>,
    /// The heap itself, for what is asked of single blocks.
    pub heap: Box<dyn Heap + 't>,
}

/// All heaps of the process.
#[derive(Default)]
pub struct Analysis<'t> {
    /// The heaps that serve or served the process.
    pub heaps: Vec<HeapAnalysis<'t>>,
    /// What was not analysed.
    pub limits: Vec<Limit>,
    /// Writable anonymous memory, and what of it the walked heaps are.
    pub memory: Unclaimed,
    /// Whose allocator each module uses. Empty before [`strangers::survey`].
    pub census: Census,
    /// Allocators that are there and are not walked. Empty before [`strangers::survey`].
    pub strangers: Vec<Stranger>,
    /// What a sanitizer said, if one is there.
    pub sanitizer_report: Option<SanitizerReport>,
}

/// Why an analysis that was asked for cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// `--allocator` names none that is known.
    #[error("unknown allocator '{name}'; known are: {known}")]
    UnknownAllocator {
        /// As given.
        name: String,
        /// All names.
        known: String,
    },
    /// `--allocator` names one that this process does not have.
    #[error("the allocator '{name}' is not in this process: {looked_for}")]
    NotThere {
        /// As given.
        name: String,
        /// What was looked for.
        looked_for: String,
    },
    /// `--allocator` names one that is there and cannot be read.
    #[error("{what} cannot be read: {why}")]
    Unusable {
        /// What.
        what: String,
        /// Why not.
        why: String,
    },
}

/// Names of all known allocators, for messages.
pub fn allocator_names() -> Vec<&'static str> {
    ALLOCATORS
        .iter()
        .map(|allocator| allocator.name())
        .collect()
}

/// Names memory that looks like a heap that none of the walked ones claims.
fn say_unclaimed(target: Target<'_>, analysis: &mut Analysis<'_>) {
    let maps: Vec<&HeapMap> = analysis.heaps.iter().map(|heap| &heap.map).collect();
    let unclaimed = unclaimed::find(target, &maps);
    if let Some(first) = unclaimed.ranges.first() {
        analysis.limits.push(Limit {
            what: format!(
                "{} bytes of anonymous memory, the first at {}",
                unclaimed.bytes, first.start
            ),
            why: "they look like chunks of glibc's malloc, and no heap that was found claims them"
                .into(),
            incomplete: unclaimed.is_significant(),
        });
    }
    analysis.memory = unclaimed;
}

/// Names heaps that were walked on a processor on which their threads' caches lie where nobody has looked.
fn say_half_known(target: Target<'_>, analysis: &mut Analysis<'_>) {
    if target.threads.instruction_set() == InstructionSet::X86_64 {
        return;
    }
    let heaps = analysis.heaps.iter().map(|heap| heap.identity.family);
    let others = heaps.filter(|family| *family != Family::Ptmalloc);
    analysis.limits.extend(others.map(|family| Limit {
        what: format!("the caches of threads in the heap of {}", family.name()),
        why: "on this processor only those of glibc's malloc are found for certain by this version".into(),
        incomplete: true,
    }));
}

/// Finds and walks all heaps, or those of one allocator.
///
/// # Errors
/// Only when one allocator was asked for and is unknown, absent or unreadable.
pub fn analyse<'t>(
    target: Target<'t>,
    only: Option<&str>,
    progress: &dyn Progress,
) -> Result<Analysis<'t>, AnalysisError> {
    if let Some(name) = only
        && ALLOCATORS.iter().all(|allocator| allocator.name() != name)
    {
        return Err(AnalysisError::UnknownAllocator {
            name: name.into(),
            known: allocator_names().join(", "),
        });
    }
    let mut analysis = Analysis::default();
    for allocator in ALLOCATORS {
        if only.is_some_and(|name| name != allocator.name()) {
            continue;
        }
        progress.phase("looking for allocators", None);
        match allocator.detect(target) {
            Detection::Found { heaps, limits } => {
                analysis.limits.extend(limits);
                for heap in heaps {
                    progress.phase("walking the heap", None);
                    let mut walked = walk::walk(heap.as_ref(), target.memory);
                    absent::stacks(target, &mut walked.anomalies, &mut walked.limits);
                    analysis.limits.extend(walked.limits);
                    analysis.heaps.push(HeapAnalysis {
                        identity: heap.identity(),
                        map: walked.map,
                        statistics: walked.statistics,
                        details: walked.details,
                        anomalies: walked.anomalies,
                        heap,
                    });
                }
            }
            Detection::Absent { looked_for } => {
                if let Some(name) = only {
                    return Err(AnalysisError::NotThere {
                        name: name.into(),
                        looked_for,
                    });
                }
            }
            Detection::Unusable(Limit { what, why, .. }) if only.is_some() => {
                return Err(AnalysisError::Unusable { what, why });
            }
            Detection::Unusable(limit) => analysis.limits.push(limit),
        }
    }
    if analysis.heaps.is_empty() && analysis.limits.is_empty() {
        analysis.limits.push(Limit {
            what: WHOLE_HEAP.into(),
            why: format!(
                "no known allocator was recognised (looked for: {})",
                allocator_names().join(", ")
            ),
            incomplete: true,
        });
    }
    say_unclaimed(target, &mut analysis);
    say_half_known(target, &mut analysis);
    for heap in &analysis.heaps {
        let unknown = heap.statistics.coverage.unknown;
        if unknown > 0 {
            analysis.limits.push(Limit {
                what: format!(
                    "{unknown} bytes that {} holds from the system",
                    heap.identity.name()
                ),
                why: "no structure of it that could be read accounts for them".into(),
                incomplete: false,
            });
        }
    }
    Ok(analysis)
}
