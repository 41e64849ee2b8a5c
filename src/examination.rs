//! What is wrong with the heap of a core, from beginning to end: walk, crash, checks. Whoever wants the verdict, the program
//! or a tool that measures it, takes it from here.

use ground::target::Target;

use crate::analysis::{self, Analysis, AnalysisError};
use crate::checks::{self, Verdict};
use crate::crash::{self, Crash};
use crate::progress::Progress;
use postmortem::session::Session;

/// A core, examined.
pub struct Examination<'t> {
    /// All heaps, walked.
    pub analysis: Analysis<'t>,
    /// How the process died; `None` for the image of a living one.
    pub crash: Option<Crash>,
    /// What is wrong, most severe first.
    pub verdict: Verdict,
}

/// Walks all heaps, or those of the allocator `only`, reads how the process died, and weighs both.
///
/// `target` is the session's; a tool that plants damage changes its memory, one that asks what threads excuse its threads. The
/// death is always the session's.
///
/// # Errors
/// Only when one allocator was asked for and is unknown, absent or unreadable.
pub fn examine<'t>(
    session: &Session,
    target: Target<'t>,
    only: Option<&str>,
    progress: &dyn Progress,
) -> Result<Examination<'t>, AnalysisError> {
    let analysis = analysis::analyse(target, only, progress)?;
    progress.phase("checking", None);
    let crash = crash::read(session);
    let verdict = checks::run(target, &analysis, crash.as_ref());
    Ok(Examination {
        analysis,
        crash,
        verdict,
    })
}
