//! Steps operations and keeps the count.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::effect::{self, Effect};
use crate::image::{Image, Written};
use crate::judge::{Ask, Judgement, Reader};
use crate::process::{Process, Registers, Stepped};

/// What is stepped.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program, made from `testdata/stepped.c`.
    pub program: PathBuf,
    /// Its arguments: operations.
    pub operations: Vec<String>,
    /// Its environment (`LD_PRELOAD`, `GLIBC_TUNABLES`, ...), beside this process's.
    pub environment: Vec<(String, String)>,
    /// Where images that gave an alarm are kept; `None`: nowhere.
    pub keep: Option<PathBuf>,
    /// Instructions per operation, at most.
    pub limit: u64,
    /// Within a window, how often a boundary is read at which no memory has changed since the same instruction changed some:
    /// what differs are addresses and counts.
    pub repeats: u64,
}

/// A boundary at which something was said that is not true.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// Instructions since the operation began.
    pub step: u64,
    /// Program counter.
    pub pc: u64,
    /// It was critical.
    pub critical: bool,
    /// What was said.
    pub said: Vec<String>,
    /// The image, if it was kept.
    pub core: Option<PathBuf>,
}

/// Where a window opens: a run of boundaries at which a naive reader is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Instructions since the operation began.
    pub step: u64,
    /// Program counter.
    pub pc: u64,
}

/// What came of one operation.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Its name.
    pub operation: String,
    /// Boundaries between instructions.
    pub boundaries: u64,
    /// Boundaries at which the heap was read: its memory had changed, or was damaged for a naive reader.
    pub read: u64,
    /// Boundaries at which a naive reader would have called the heap damaged.
    pub naive: u64,
    /// Those at which heapcheck had a note.
    pub noted: u64,
    /// Boundaries at which no heap was recognised.
    pub unrecognised: u64,
    /// The first instruction of each run of boundaries at which a naive reader is wrong.
    pub windows: Vec<Window>,
    /// Boundaries with a warning, none critical.
    pub warned: u64,
    /// Boundaries with a critical finding.
    pub critical: u64,
    /// The first of both.
    pub alarms: Vec<Alarm>,
    /// The operation was not stepped to its end: `limit` instructions were reached, or it waits for
    /// a parked thread, in the kernel or turning.
    pub cut: bool,
}

/// Alarms that are remembered per operation.
const MAX_ALARMS: usize = 20;

/// What the other thread of two does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// There is none.
    Nobody,
    /// It waits before its operation.
    Waiting,
    /// It is parked in a window of its operation, which stays open.
    Parked,
}

pub(crate) struct Stepper<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) process: Process,
    pub(crate) image: Image,
    reader: Reader,
}

/// Instructions without a change of memory after which a thread beside a parked one counts as waiting for it.
const TURNING: u64 = 20_000;

/// Starts the program and steps every operation that it announces; `done` is told of each at its end.
///
/// # Errors
/// If the program cannot be traced or its image not be written.
pub fn run(plan: &Plan, mut done: impl FnMut(Tally)) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut process = Process::start(&plan.program, &plan.operations, &plan.environment)?;
    let all = process.threads().to_vec();
    let Some(mut thread) = process.run_to_mark(&all)? else {
        return Ok(());
    };
    let mut stepper = Stepper::new(plan, process, &directory.path().join("core"))?;
    loop {
        // The mark at an operation's end has no name.
        if let Some(operation) = stepper.announced(thread)? {
            stepper.image.rebuild(&stepper.process)?;
            done(stepper.operation(thread, operation, Other::Nobody)?);
        }
        let all = stepper.process.threads().to_vec();
        match stepper.process.run_to_mark(&all)? {
            Some(next) => thread = next,
            None => return Ok(()),
        }
    }
}

impl<'p> Stepper<'p> {
    pub(crate) fn new(plan: &'p Plan, process: Process, core: &Path) -> io::Result<Self> {
        Ok(Self {
            image: Image::new(core, &process)?,
            reader: Reader::new(core, &plan.program),
            plan,
            process,
        })
    }

    /// The name of the operation that a thread at a mark announces.
    pub(crate) fn announced(&self, thread: Pid) -> io::Result<Option<String>> {
        let registers = self.process.registers(thread)?;
        Ok(self.process.text(registers.rdi))
    }

    /// Steps a thread to its next mark or its end.
    pub(crate) fn operation(
        &mut self,
        thread: Pid,
        operation: String,
        other: Other,
    ) -> io::Result<Tally> {
        let mut tally = Tally {
            operation,
            ..Tally::default()
        };
        let beside = other != Other::Nobody;
        let ask = |changed| match other {
            Other::Parked => Ask::OnlyTrue,
            _ => Ask::Naive { changed },
        };
        let mut naive = self.read(&mut tally, thread, ask(true))?;
        // What the other thread shows while it waits opens no window.
        let of_other = beside.then(|| self.reader.naive().cloned()).flatten();
        let mut last_change = 0;
        let mut changed_by = 0;
        let mut seen: HashMap<(u64, u64), u64> = HashMap::new();
        loop {
            let registers = self.process.registers(thread)?;
            let effect = effect::of(self.process.code_at(registers.rip), &registers);
            if effect.mark {
                return Ok(tally);
            }
            let turns = beside && tally.boundaries - last_change > TURNING;
            if tally.boundaries >= self.plan.limit || turns {
                tally.cut = true;
                return Ok(tally);
            }
            match self.process.step(thread)? {
                Stepped::Ended => return Ok(tally),
                Stepped::Blocked => {
                    tally.cut = beside;
                    return Ok(tally);
                }
                Stepped::Done => tally.boundaries += 1,
            }
            let changed = self.follow(&effect, &registers)?;
            if changed {
                last_change = tally.boundaries;
                changed_by = registers.rip;
            }
            let at = self.process.registers(thread)?.rip;
            let mut is_new = || {
                let times = seen.entry((changed_by, at)).or_insert(0);
                *times += 1;
                *times <= self.plan.repeats
            };
            // The window of a parked thread is open all the time.
            let open = naive || other == Other::Parked;
            if changed || open && is_new() {
                let before = naive;
                naive = self.read(&mut tally, thread, ask(changed))?
                    && (other == Other::Parked || self.reader.naive() != of_other.as_ref());
                if naive && !before {
                    tally.windows.push(Window {
                        step: tally.boundaries,
                        pc: at,
                    });
                }
            }
        }
    }

    /// Keeps the image true after a step; whether memory beside the stack has changed.
    fn follow(&mut self, effect: &Effect, before: &Registers) -> io::Result<bool> {
        /// sched_yield, nanosleep, futex, clock_nanosleep (x86-64): whoever waits for a lock changes no memory.
        const WAITS: [u64; 4] = [24, 35, 202, 230];
        if effect.system_call && WAITS.contains(&before.rax) {
            return Ok(false);
        }
        if effect.system_call {
            self.image.rebuild(&self.process)?;
            return Ok(true);
        }
        let mut changed = false;
        for range in &effect.writes {
            let written = self.image.refresh(&self.process, range)?;
            if written == Written::Nowhere {
                self.image.rebuild(&self.process)?;
            }
            changed |= written != Written::Same && !self.image.is_stack(range.start, before);
        }
        Ok(changed)
    }

    /// Reads the heap; whether a naive reader would call it damaged.
    fn read(&mut self, tally: &mut Tally, thread: Pid, ask: Ask) -> io::Result<bool> {
        self.image.refresh_registers(&self.process)?;
        let judgement = self
            .reader
            .judge(self.image.generation(), ask)
            .map_err(io::Error::other)?;
        tally.read += 1;
        tally.unrecognised += u64::from(judgement.heaps == 0);
        tally.naive += u64::from(judgement.naive > 0);
        tally.noted += u64::from(judgement.notes > 0);
        tally.critical += u64::from(judgement.critical);
        tally.warned += u64::from(!judgement.critical && !judgement.alarms.is_empty());
        let naive = judgement.naive > 0;
        if !judgement.alarms.is_empty() && tally.alarms.len() < MAX_ALARMS {
            let registers = self.process.registers(thread)?;
            let alarm = self.alarm(tally, &registers, judgement)?;
            tally.alarms.push(alarm);
        }
        Ok(naive)
    }

    fn alarm(
        &self,
        tally: &Tally,
        registers: &Registers,
        judgement: Judgement,
    ) -> io::Result<Alarm> {
        let core = self
            .plan
            .keep
            .as_ref()
            .map(|keep| keep.join(format!("{}-{}.core", tally.operation, tally.boundaries)));
        if let Some(core) = &core {
            keep_copy(self.image.path(), core)?;
        }
        Ok(Alarm {
            step: tally.boundaries,
            pc: registers.rip,
            critical: judgement.critical,
            said: judgement.alarms,
            core,
        })
    }
}

fn keep_copy(image: &Path, core: &Path) -> io::Result<()> {
    if let Some(directory) = core.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::copy(image, core).map(drop)
}

impl Tally {
    /// Adds another operation's counts.
    pub fn add(&mut self, other: &Tally) {
        self.boundaries += other.boundaries;
        self.read += other.read;
        self.naive += other.naive;
        self.noted += other.noted;
        self.unrecognised += other.unrecognised;
        self.warned += other.warned;
        self.critical += other.critical;
        self.windows.extend_from_slice(&other.windows);
        self.alarms.extend_from_slice(&other.alarms);
    }
}
