//! What is wrong with the heap of a core, from beginning to end: walk, crash, checks. Whoever wants the verdict, the program
//! or a tool that measures it, takes it from here.

use ground::target::Target;

use crate::analysis::{self, Analysis, AnalysisError};
use crate::checks::{self, Verdict, aliased, type_conflict};
use crate::crash::{self, Crash};
use crate::graph::propagation::Limits;
use crate::graph::roots;
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

/// Asks the program's types about the word of which the process died, where nothing else explains it.
pub fn ask_types(session: &Session, examination: &mut Examination<'_>) {
    let Examination {
        analysis, verdict, ..
    } = examination;
    let Some(watch) = aliased::wanted(verdict) else {
        return;
    };
    let ground = roots::ground(session, analysis);
    ground.follow_types(Limits {
        watch: Some(watch),
        ..Limits::ASIDE
    });
    let Some(typed) = ground.typed() else { return };
    if let Some(found) = typed.disagreement() {
        aliased::explain(session.target(), analysis, verdict, watch, found);
        return;
    }
    let lookup = &ground.universe.lookup;
    let word = watch.block.checked_add(watch.offset);
    let behind = word.and_then(|at| Some((type_conflict::in_front(analysis, at)?, at)));
    let two = behind.and_then(|(block, _)| {
        let hit = lookup.find(block.address.get())?;
        typed.two_definitions(lookup, hit.node)
    });
    if let Some((behind, two)) = behind.zip(two) {
        type_conflict::explain(session.target(), analysis, verdict, behind, two);
    }
}
