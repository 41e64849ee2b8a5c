//! What heapcheck says of an image, and what a reader would say who knows nothing of threads.

use std::path::{Path, PathBuf};

use heapcheck::checks::finding::{Finding, Severity};
use heapcheck::modules::SearchPaths;
use heapcheck::progress::Silent;
use heapcheck::session::{Session, SessionOptions};
use heapcheck::{analysis, checks};
use heaps::target::{
    Address, Frame, FrameTrust, LocateLimit, LocatedBy, RegisterSet, Target, Thread, Threads,
};

/// What was said of an image.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Heaps that were recognised.
    pub heaps: usize,
    /// Findings that are more than notes, most severe first, one line each.
    pub alarms: Vec<String>,
    /// One of them is critical.
    pub critical: bool,
    /// States that were taken for passing ones.
    pub notes: usize,
    /// Findings of a reader who believes that no thread is inside the allocator.
    pub naive: usize,
}

/// Threads that are certainly somewhere else.
struct Elsewhere {
    threads: Vec<Thread>,
    frames: Vec<Frame>,
}

impl Elsewhere {
    fn of(threads: &dyn Threads) -> Self {
        let outside = |thread: &Thread| Thread {
            pc: Address::default(),
            registers: RegisterSet::empty(),
            ..thread.clone()
        };
        Self {
            threads: threads.list().iter().map(outside).collect(),
            frames: vec![Frame {
                pc: Address::default(),
                lookup: Address::default(),
                sp: Address::default(),
                module: None,
                trust: FrameTrust::Context,
                interrupted: false,
                function: None,
                registers: RegisterSet::empty(),
            }],
        }
    }
}

impl Threads for Elsewhere {
    fn list(&self) -> &[Thread] {
        &self.threads
    }

    fn frames(&self, _index: usize) -> &[Frame] {
        &self.frames
    }
}

fn findings(target: Target<'_>) -> Result<(usize, Vec<Finding>), String> {
    let analysis = analysis::analyse(target, None, &Silent).map_err(|error| error.to_string())?;
    let findings = checks::run(target, &analysis).findings;
    Ok((analysis.heaps.len(), findings))
}

/// Reads an image, as if all files were stripped: the hardest way, and the fastest to do a million times.
///
/// # Errors
/// If it is no core.
pub fn judge(core: &Path, binary: &Path) -> Result<Judgement, String> {
    let session = Session::open(&SessionOptions {
        files: vec![PathBuf::from(core), PathBuf::from(binary)],
        search: SearchPaths::default(),
        limit: LocateLimit(LocatedBy::Structure),
        jobs: None,
        open: Default::default(),
    })
    .map_err(|error| error.to_string())?;
    let target = session.target();
    let elsewhere = Elsewhere::of(target.threads);
    let (heaps, naive) = findings(Target {
        threads: &elsewhere,
        ..target
    })?;
    let mut judgement = Judgement {
        heaps,
        naive: naive.len(),
        ..Judgement::default()
    };
    if naive.is_empty() {
        return Ok(judgement);
    }
    for finding in findings(target)?.1 {
        match finding.severity() {
            Severity::Note => judgement.notes += 1,
            severity => {
                judgement.critical |= severity == Severity::Critical;
                let (kind, at) = (finding.kind.code(), finding.at);
                let text = format!("{} {kind} at {at}: {}", severity.name(), finding.message);
                judgement.alarms.push(text);
            }
        }
    }
    Ok(judgement)
}
