//! Checks: from the walkers' facts to findings. A check sees the analysis, never an allocator's internals.

pub mod finding;

/// What all checks say.
#[derive(Default)]
pub struct Verdict {
    /// Most severe first.
    pub findings: Vec<finding::Finding>,
    /// Findings beyond the bound per kind.
    pub findings_dropped: u64,
}
