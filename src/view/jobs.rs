//! What the viewer's threads do: one opens the core, walks and checks its heaps and then answers questions of them, one by one; one
//! unwinds stacks and reads frames meanwhile. Whoever looks at the screen never waits for either.
//!
//! ```text
//! Job ──> Queue ──> heap thread: Task (given up when its view is left) ──> Told
//!                   stack thread: frames ────────────────────────────────> Told
//! ```

mod answers;
mod queue;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use ground::parallel::Task;

use super::model::View;
use crate::cli::{CoreArgs, SearchArgs};
use crate::examination;
use crate::graph::holders::variables::Variables;
use crate::graph::roots;
use crate::progress::Progress;
use crate::report::compose::{self, ReportOptions};
use crate::report::schema::{InspectedAddress, Report, Tree};
use crate::{analysis, unforeseen};
use postmortem::session::{Session, SessionOptions};
use queue::{Queue, Queued};

/// Bytes of a block that are shown with a finding: who looks at a core on a terminal may see it.
const SHOWN_BYTES: usize = 64;

/// What is viewed.
#[derive(Clone, Debug)]
pub struct Opening {
    /// How the core is opened.
    pub session: SessionOptions,
    /// The allocator to take instead of detecting it.
    pub allocator: Option<String>,
}

/// Which way a tree of references goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To who points at a block.
    Up,
    /// To what its words point at.
    Down,
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// What is in this frame?
    Frame(FrameId),
    /// And what do the values mean?
    Meanings(FrameId),
    /// What is this address?
    Address(u64),
    /// One step of a tree from this block.
    Step(u64, Direction),
    /// What does nobody point at?
    Leaks,
    /// Where is the memory?
    Usage,
    /// What do the blocks hold?
    Types,
}

/// A frame: indices of its thread and of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameId {
    /// Index of the thread.
    pub thread: usize,
    /// Index of the frame.
    pub frame: usize,
}

impl Job {
    /// The view that shows the answer; whoever leaves that does not want it any more. `None`: always shown.
    pub fn view(self) -> Option<View> {
        Some(match self {
            Job::Frame(_) | Job::Meanings(_) => return None,
            Job::Address(_) => View::Address,
            Job::Step(..) => View::Holders,
            Job::Leaks => View::Leaks,
            Job::Usage | Job::Types => View::Usage,
        })
    }

    fn phase(self) -> &'static str {
        match self {
            Job::Frame(_) | Job::Meanings(_) => "reading the frame",
            Job::Address(_) | Job::Step(..) => "looking for references",
            Job::Leaks | Job::Usage => "following pointers",
            Job::Types => "following types",
        }
    }
}

/// What is in a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameContents {
    /// Which.
    pub id: FrameId,
    /// Its variables that have a place.
    pub variables: Vec<Value>,
    /// Its registers that are known.
    pub registers: Vec<Value>,
    /// Meanings were asked for.
    pub is_explained: bool,
}

/// A variable's part, or a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Where a variable is: a register, or its address.
    pub place: Option<String>,
    /// Its bytes, where they fit into a word and the core holds them.
    pub value: Option<u64>,
    /// Bytes, where that is known.
    pub bytes: Option<u64>,
    /// What the value is.
    pub meaning: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub enum Told {
    /// The core is open: threads, crash, no heap yet.
    Opened(Box<Report>),
    /// The heaps were checked.
    Checked(Box<Report>),
    /// What is in a frame.
    Frame(Job, FrameContents),
    /// What an address is.
    Address(u64, Box<InspectedAddress>),
    /// A step of a tree.
    Step(u64, Direction, Box<Tree>),
    /// What is lost.
    Leaks(Box<Report>),
    /// Where the memory is.
    Usage(Box<Report>),
    /// What the blocks hold.
    Types(Box<Report>),
    /// Nobody wanted the answer any more.
    GivenUp(Job),
    /// It cannot be answered.
    Failed(Job, String),
    /// Nothing can be viewed.
    Closed(String),
}

impl Told {
    /// The question that this answers.
    pub fn job(&self) -> Option<Job> {
        Some(match self {
            Told::Opened(_) | Told::Checked(_) | Told::Closed(_) => return None,
            Told::Frame(job, _) | Told::GivenUp(job) | Told::Failed(job, _) => *job,
            Told::Address(at, _) => Job::Address(*at),
            Told::Step(at, direction, _) => Job::Step(*at, *direction),
            Told::Leaks(_) => Job::Leaks,
            Told::Usage(_) => Job::Usage,
            Told::Types(_) => Job::Types,
        })
    }
}

/// Where answers go.
pub type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// The threads, and what they have to do.
pub struct Work {
    queue: Arc<Queue>,
    tell: Tell,
}

impl Work {
    /// Begins: opens the core, checks its heaps, and answers what is asked.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start<M: Send + 'static>(
        opening: Opening,
        to: Sender<M>,
        message: fn(Told) -> M,
    ) -> std::io::Result<Self> {
        let tell: Tell = Arc::new(move |told| {
            // Nobody listens any more: the viewer was left.
            let _ = to.send(message(told));
        });
        let work = Self {
            queue: Arc::new(Queue::default()),
            tell: Arc::clone(&tell),
        };
        let queue = Arc::clone(&work.queue);
        thread::Builder::new().name("heap".into()).spawn(move || {
            let done = unforeseen::caught(|| view(&opening, &queue, &tell));
            let done = done.unwrap_or_else(|panicked| Err(panicked.to_string()));
            if let Err(message) = done {
                tell(Told::Closed(message));
            }
        })?;
        Ok(work)
    }

    /// Asks something.
    pub fn ask(&self, job: Job) {
        for dropped in self.queue.push(job) {
            (self.tell)(Told::GivenUp(dropped));
        }
    }

    /// Gives up what only this view shows.
    pub fn leave(&self, view: View) {
        for dropped in self.queue.leave(view) {
            (self.tell)(Told::GivenUp(dropped));
        }
    }

    /// What is being done, in words: the phase, how far, how fast. `None`: nothing.
    pub fn busy(&self) -> Option<String> {
        self.queue.busy()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Progress for Queue {
    fn phase(&self, name: &'static str, _steps: Option<u64>) {
        self.begin(name, Task::default());
    }

    fn done(&self, _steps: u64) {}
}

/// Everything, from opening to the last answer.
fn view(opening: &Opening, queue: &Queue, tell: &Tell) -> Result<(), String> {
    queue.phase("opening the core", None);
    let session = Session::open(&opening.session).map_err(|error| error.to_string())?;
    thread::scope(|scope| {
        let frames = thread::Builder::new().name("stacks".into());
        let (session, opened) = (&session, Arc::clone(tell));
        let frames = frames.spawn_scoped(scope, move || {
            let done = unforeseen::caught(|| stacks(session, queue, &opened));
            if let Err(panicked) = done {
                opened(Told::Closed(panicked.to_string()));
            }
        });
        frames.map_err(|error| error.to_string())?;
        let done = unforeseen::caught(|| heaps(session, opening, queue, tell));
        // The other thread ends, too, or the scope would wait for it.
        let done = done.unwrap_or_else(|panicked| Err(panicked.to_string()));
        if done.is_err() {
            queue.close();
        }
        done
    })
}

fn options() -> ReportOptions {
    ReportOptions {
        include_bytes: SHOWN_BYTES,
        ..ReportOptions::default()
    }
}

/// Unwinds the stacks, then answers what is in frames.
fn stacks(session: &Session, queue: &Queue, tell: &Tell) {
    tell(Told::Opened(Box::new(compose::stacks(session, &options()))));
    let variables = Variables::default();
    while let Some(job) = queue.next_frame() {
        let Job::Frame(id) = job else { continue };
        tell(answered(job, || {
            let found = answers::frame(session, &variables, id, None);
            Some(Ok(Told::Frame(job, found)))
        }));
    }
}

/// Walks and checks the heaps, then answers questions of them.
fn heaps(session: &Session, opening: &Opening, queue: &Queue, tell: &Tell) -> Result<(), String> {
    let only = opening.allocator.as_deref();
    let examined = examination::examine(session, session.target(), only, queue);
    let mut examination = examined.map_err(|error| error.to_string())?;
    examination::ask_types(session, &mut examination);
    analysis::strangers::survey(session, &mut examination.analysis, only.is_some());
    queue.phase("writing the report", None);
    tell(Told::Checked(Box::new(compose::check(
        session,
        &examination,
        &options(),
    ))));
    queue.phase("looking for roots", None);
    let ground = roots::ground(session, &examination.analysis);
    queue.rest();
    while let Some(Queued { job, task }) = queue.next() {
        queue.begin(job.phase(), task.clone());
        let threads = opening.session.jobs;
        let told = answered(job, || task.run(threads, || answers::of(&ground, job)));
        queue.rest();
        tell(told);
    }
    Ok(())
}

/// What is told of a question: there is an answer whatever happens. `work` gives nothing if it was given up.
fn answered(job: Job, work: impl FnOnce() -> Option<Result<Told, String>>) -> Told {
    match unforeseen::caught(work) {
        Ok(Some(Ok(told))) => told,
        Ok(Some(Err(message))) => Told::Failed(job, message),
        Ok(None) => Told::GivenUp(job),
        Err(panicked) => Told::Failed(job, panicked.to_string()),
    }
}

/// How the core that a command line names is opened.
pub fn opening(core: &CoreArgs, search: &SearchArgs, allocator: Option<String>) -> Opening {
    Opening {
        session: SessionOptions {
            files: core.files(),
            search: search.paths(),
            limit: search.limit(),
            jobs: core.jobs(),
            open: core.open_options(),
        },
        allocator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_has_an_answer() {
        let task = Task::default();
        let panics = answered(Job::Leaks, || task.run(Some(1), || panic!("no such case")));
        let Told::Failed(Job::Leaks, message) = panics else {
            panic!("{panics:?}");
        };
        assert!(message.contains("panicked") && message.contains("no such case"));
        let fails = answered(Job::Leaks, || Some(Err("a reason".into())));
        assert!(matches!(fails, Told::Failed(Job::Leaks, message) if message == "a reason"));
        task.give_up();
        let endless = answered(Job::Usage, || {
            task.run(Some(1), || {
                loop {
                    ground::parallel::passed(1);
                }
            })
        });
        assert!(matches!(endless, Told::GivenUp(Job::Usage)));
    }

    #[test]
    fn what_cannot_be_opened_closes_the_viewer() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let opening = Opening {
            session: SessionOptions::of(["no/such/core"]),
            allocator: None,
        };
        let _work = Work::start(opening, sender, |told| told).unwrap();
        let told = receiver.recv().unwrap();
        assert!(matches!(told, Told::Closed(message) if message.contains("no/such/core")));
    }
}
