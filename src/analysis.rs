//! The read-only result of walking every heap: what checks and reports look at.

use heaps::allocators::{Detail, HeapIdentity, Limit, Statistics};
use heaps::anomaly::Anomaly;

/// One heap, walked.
pub struct HeapAnalysis {
    /// Who it is.
    pub identity: HeapIdentity,
    /// What it holds.
    pub statistics: Statistics,
    /// The allocator's own facts for the report.
    pub details: Vec<(&'static str, Detail)>,
    /// What the walker saw that a heap at rest does not show.
    pub anomalies: Vec<Anomaly>,
}

/// All heaps of the process.
#[derive(Default)]
pub struct Analysis {
    /// The heaps that serve or served the process.
    pub heaps: Vec<HeapAnalysis>,
    /// What was not analysed.
    pub limits: Vec<Limit>,
}
