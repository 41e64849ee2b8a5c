//! What heapcheck says of an image, and what a reader would say who knows nothing of threads.

use std::path::{Path, PathBuf};

use ground::target::{
    Address, Frame, FrameTrust, LocateLimit, LocatedBy, RegisterSet, Target, Thread, Threads,
};
use heapcheck::checks::finding::{Finding, Severity};
use heapcheck::examination::examine;
use heapcheck::progress::Silent;
use heaps::allocators::Limit;
use postmortem::session::{Session, SessionOptions};

/// What was said of an image.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Heaps that were recognised.
    pub heaps: usize,
    /// Findings that are more than notes, most severe first, and limits because of which the analysis is called incomplete, a line each.
    pub alarms: Vec<String>,
    /// One of them is critical.
    pub critical: bool,
    /// States that were taken for passing ones.
    pub notes: usize,
    /// Findings of a reader who believes that no thread is inside the allocator, and what he could not analyse.
    pub naive: usize,
}

/// What was said of a heap.
struct Said {
    heaps: usize,
    findings: Vec<Finding>,
    /// What makes the analysis incomplete: nothing is missing from the process.
    incomplete: Vec<Limit>,
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

/// The number of heaps, and what is said of them.
fn said(session: &Session, target: Target<'_>) -> Result<Said, String> {
    let mut examination =
        examine(session, target, None, &Silent).map_err(|error| error.to_string())?;
    let limits = std::mem::take(&mut examination.analysis.limits);
    let incomplete = limits.into_iter().filter(|limit| limit.incomplete);
    let heaps = examination.analysis.heaps.len();
    Ok(Said {
        heaps,
        findings: examination.verdict.findings,
        // Where no heap was recognised there is nothing to be incomplete; that is counted apart.
        incomplete: incomplete.filter(|_| heaps > 0).collect(),
    })
}

/// Reads the images of one process, one after the other.
pub struct Reader {
    core: PathBuf,
    binary: PathBuf,
    /// With the number of the mappings of files that it was opened for.
    session: Option<(u64, Session)>,
    naive: Option<Naive>,
}

/// What is said of memory by a reader who believes that nobody is inside the allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naive {
    /// Heaps that were recognised.
    pub heaps: usize,
    /// Kinds and places of the findings.
    pub said: Vec<(&'static str, Address)>,
    /// What could not be analysed.
    pub limits: usize,
}

impl Naive {
    fn is_silent(&self) -> bool {
        self.said.is_empty() && self.limits == 0
    }
}

impl Reader {
    /// Of this image and the program that it is of.
    pub fn new(core: &Path, binary: &Path) -> Self {
        Self {
            core: core.to_owned(),
            binary: binary.to_owned(),
            session: None,
            naive: None,
        }
    }

    /// What a naive reader said last.
    pub fn naive(&self) -> Option<&Naive> {
        self.naive.as_ref()
    }

    /// Reads the image, as if all files were stripped: the hardest way, and the fastest to do a million times. Of what is
    /// known of the process the mappings of files are kept while `generation` stays the same.
    ///
    /// # Errors
    /// If it is no core.
    pub fn judge(&mut self, generation: u64, ask: Ask) -> Result<Judgement, String> {
        let session = match self.session.take() {
            Some((known, session)) if known == generation => session.reopened(),
            _ => Session::open(&SessionOptions {
                limit: LocateLimit(LocatedBy::Structure),
                ..SessionOptions::of([&self.core, &self.binary])
            }),
        };
        let session = session.map_err(|error| error.to_string())?;
        let judgement = match ask {
            Ask::OnlyTrue => judgement(&session),
            Ask::Naive { changed } => {
                let naive = match self.naive.take().filter(|_| !changed) {
                    Some(known) => known,
                    None => naive(&session)?,
                };
                let judgement = match naive.is_silent() {
                    true => Ok(Judgement::default()),
                    false => judgement(&session),
                };
                let judgement = judgement.map(|judgement| Judgement {
                    heaps: naive.heaps,
                    naive: naive.said.len() + naive.limits,
                    ..judgement
                });
                self.naive = Some(naive);
                judgement
            }
        };
        self.session = Some((generation, session));
        judgement
    }
}

/// Who is asked what the image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A naive reader first, whose answer stands while memory has not `changed`; heapcheck where that one calls it damaged.
    Naive {
        /// Memory is not what it was.
        changed: bool,
    },
    /// heapcheck: where a naive reader would be wrong everywhere.
    OnlyTrue,
}

fn naive(session: &Session) -> Result<Naive, String> {
    let target = session.target();
    let elsewhere = Elsewhere::of(target.threads);
    let target = Target {
        threads: &elsewhere,
        ..target
    };
    let said = said(session, target)?;
    let findings = said.findings.iter();
    Ok(Naive {
        heaps: said.heaps,
        limits: said.incomplete.len(),
        said: findings
            .map(|finding| (finding.kind.code(), finding.at.unwrap_or_default()))
            .collect(),
    })
}

fn judgement(session: &Session) -> Result<Judgement, String> {
    let said = said(session, session.target())?;
    let mut judgement = Judgement {
        heaps: said.heaps,
        naive: said.findings.len() + said.incomplete.len(),
        ..Judgement::default()
    };
    for finding in said.findings {
        match finding.severity() {
            Severity::Note => judgement.notes += 1,
            severity => {
                judgement.critical |= severity == Severity::Critical;
                let (kind, at) = (finding.kind.code(), finding.at.unwrap_or_default());
                let text = format!("{} {kind} at {at}: {}", severity.name(), finding.message);
                judgement.alarms.push(text);
            }
        }
    }
    for limit in said.incomplete {
        let text = format!("not analysed: {}: {}", limit.what, limit.why);
        judgement.alarms.push(text);
    }
    Ok(judgement)
}
