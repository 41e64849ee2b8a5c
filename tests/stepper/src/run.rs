//! Steps operations and keeps the count.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::effect;
use crate::image::Image;
use crate::judge::{self, Judgement};
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
    pub windows: Vec<u64>,
    /// Boundaries with a warning, none critical.
    pub warned: u64,
    /// Boundaries with a critical finding.
    pub critical: u64,
    /// The first of both.
    pub alarms: Vec<Alarm>,
    /// The operation was not stepped to its end: `limit` instructions were reached, or it waits for
    /// a parked thread.
    pub cut: bool,
}

/// Alarms that are remembered per operation.
const MAX_ALARMS: usize = 20;

struct Stepper<'p> {
    plan: &'p Plan,
    process: Process,
    image: Image,
}

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
    let image = Image::new(&directory.path().join("core"), &process)?;
    let mut stepper = Stepper {
        plan,
        process,
        image,
    };
    loop {
        // The mark at an operation's end has no name.
        if let Some(operation) = stepper.announced(thread)? {
            stepper.image.rebuild(&stepper.process)?;
            done(stepper.operation(thread, operation, None)?);
        }
        let all = stepper.process.threads().to_vec();
        match stepper.process.run_to_mark(&all)? {
            Some(next) => thread = next,
            None => return Ok(()),
        }
    }
}

/// Two threads: the first is stepped `parked` instructions into its operation and left there, then
/// the second is stepped through its own. Without `parked` the first one is stepped, alone.
///
/// # Errors
/// If the program cannot be traced or its image not be written.
pub fn run_pair(plan: &Plan, parked: Option<u64>) -> io::Result<Option<Tally>> {
    let directory = tempfile::tempdir()?;
    let mut process = Process::start(&plan.program, &plan.operations, &plan.environment)?;
    let all = process.threads().to_vec();
    let Some(one) = process.run_to_mark(&all)? else {
        return Ok(None);
    };
    let rest: Vec<Pid> = process
        .threads()
        .iter()
        .copied()
        .filter(|it| *it != one)
        .collect();
    let Some(two) = process.run_to_mark(&rest)? else {
        return Ok(None);
    };
    // Which thread comes first is chance; which operation is parked is not.
    let image = Image::new(&directory.path().join("core"), &process)?;
    let mut stepper = Stepper {
        plan,
        process,
        image,
    };
    let first = plan.operations.last().and_then(|pair| pair.split_once('+'));
    let (Some(name_one), Some(name_two)) = (stepper.announced(one)?, stepper.announced(two)?)
    else {
        return Ok(None);
    };
    let swap = first.is_some_and(|(first, _)| first != name_one);
    let (held, stepped) = if swap { (two, one) } else { (one, two) };
    let (held_name, name) = if swap {
        (name_two, name_one)
    } else {
        (name_one, name_two)
    };
    let Some(parked) = parked else {
        return stepper.operation(held, held_name, Some(stepped)).map(Some);
    };
    for _ in 0..parked {
        if stepper.process.step(held)? != Stepped::Done {
            return Ok(None);
        }
    }
    stepper.image.rebuild(&stepper.process)?;
    stepper.operation(stepped, name, Some(held)).map(Some)
}

impl Stepper<'_> {
    /// The name of the operation that a thread at a mark announces.
    fn announced(&self, thread: Pid) -> io::Result<Option<String>> {
        let registers = self.process.registers(thread)?;
        Ok(self.process.text(registers.rdi))
    }

    /// Steps a thread to its next mark or its end.
    fn operation(
        &mut self,
        thread: Pid,
        operation: String,
        parked: Option<Pid>,
    ) -> io::Result<Tally> {
        let mut tally = Tally {
            operation,
            ..Tally::default()
        };
        let mut naive = self.read(&mut tally, thread)?;
        loop {
            let registers = self.process.registers(thread)?;
            let effect = effect::of(self.process.code_at(registers.rip), &registers);
            if effect.mark {
                return Ok(tally);
            }
            if tally.boundaries >= self.plan.limit {
                tally.cut = true;
                return Ok(tally);
            }
            match self.process.step(thread)? {
                Stepped::Ended => return Ok(tally),
                Stepped::Blocked => {
                    tally.cut = parked.is_some();
                    return Ok(tally);
                }
                Stepped::Done => tally.boundaries += 1,
            }
            if effect.system_call {
                self.image.rebuild(&self.process)?;
            }
            let mut changed = effect.system_call;
            for range in &effect.writes {
                if !self.image.refresh(&self.process, range)? {
                    self.image.rebuild(&self.process)?;
                }
                changed |= !self.image.is_stack(range.start, &registers);
            }
            if changed || naive {
                let before = naive;
                naive = self.read(&mut tally, thread)?;
                if naive && !before {
                    tally.windows.push(tally.boundaries);
                }
            }
        }
    }

    /// Reads the heap; whether a naive reader would call it damaged.
    fn read(&mut self, tally: &mut Tally, thread: Pid) -> io::Result<bool> {
        self.image.refresh_registers(&self.process)?;
        let judgement =
            judge::judge(self.image.path(), &self.plan.program).map_err(io::Error::other)?;
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

/// Parks one thread at windows of `refill` and of `flush`, `each` of either at even distances, and
/// steps another thread through both operations.
///
/// # Errors
/// If the program cannot be traced or its image not be written.
pub fn run_pairs(plan: &Plan, each: usize, mut done: impl FnMut(Tally)) -> io::Result<()> {
    for parked in ["refill", "flush"] {
        for stepped in ["refill", "flush"] {
            let pair = Plan {
                operations: vec!["threaded".into(), format!("{parked}+{stepped}")],
                ..plan.clone()
            };
            let Some(alone) = run_pair(&pair, None)? else {
                continue;
            };
            let mut sum = Tally {
                operation: format!("{parked}+{stepped}"),
                ..Tally::default()
            };
            let stride = alone.windows.len().div_ceil(each.max(1)).max(1);
            for &window in alone.windows.iter().step_by(stride) {
                if let Some(tally) = run_pair(&pair, Some(window))? {
                    sum.add(&tally);
                }
            }
            done(sum);
        }
    }
    Ok(())
}
