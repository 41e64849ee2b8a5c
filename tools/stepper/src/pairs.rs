//! Two threads: one is parked in a window of its operation, and the other is stepped through its own.

use std::io;

use nix::unistd::Pid;

use crate::process::{Process, Stepped};
use crate::run::{Other, Plan, Stepper, Tally, Window};

/// Operations that are parked in their windows: what takes locks, and hands memory from hand to hand.
const PARKED: [&str; 7] = [
    "refill",
    "flush",
    "merge",
    "split",
    "consolidate",
    "large",
    "realloc",
];
/// What is stepped beside each.
const STEPPED: [&str; 3] = ["refill", "flush", "merge"];

/// Parks one thread at windows of each operation, `each` of them, and steps another thread through its own.
///
/// # Errors
/// If the program cannot be traced or its image not be written.
pub fn run_pairs(plan: &Plan, each: usize, mut done: impl FnMut(Tally)) -> io::Result<()> {
    for parked in PARKED {
        for stepped in STEPPED {
            let pair = Plan {
                operations: vec!["threaded".into(), format!("{parked}+{stepped}")],
                ..plan.clone()
            };
            // What the other one did before is seen in the windows, too.
            let Some(alone) = run_pair(&pair, None)? else {
                continue;
            };
            let mut sum = Tally {
                operation: format!("{parked}+{stepped}"),
                // What was said of the first one while the other one waited counts, too.
                warned: alone.warned,
                critical: alone.critical,
                alarms: alone.alarms,
                ..Tally::default()
            };
            for window in choose(&alone.windows, each) {
                if let Some(tally) = run_pair(&pair, Some(window))? {
                    // What is counted are windows at which a thread was parked, not those that opened beside it.
                    sum.add(&Tally {
                        windows: vec![window],
                        ..tally
                    });
                }
            }
            done(sum);
        }
    }
    Ok(())
}

/// One window for each instruction that opens one, and more at even distances, as far as there may be more.
fn choose(windows: &[Window], most: usize) -> Vec<Window> {
    let evenly = |windows: &[Window], most: usize| -> Vec<Window> {
        let stride = windows.len().div_ceil(most.max(1)).max(1);
        windows.iter().copied().step_by(stride).collect()
    };
    let mut first: Vec<Window> = Vec::new();
    let mut others = Vec::new();
    for &window in windows {
        match first.iter().any(|known| known.pc == window.pc) {
            true => others.push(window),
            false => first.push(window),
        }
    }
    let mut chosen = evenly(&first, most);
    if let Some(room) = most.checked_sub(chosen.len()).filter(|room| *room > 0) {
        chosen.extend(evenly(&others, room));
    }
    chosen.sort_by_key(|window| window.step);
    chosen
}

/// The first thread is stepped to a window of its operation and left there, then the second is stepped through its own.
/// Without a window the first one is stepped, alone. `None` if it could not be brought there.
fn run_pair(plan: &Plan, parked: Option<Window>) -> io::Result<Option<Tally>> {
    let directory = tempfile::tempdir()?;
    let mut process = Process::start(&plan.program, &plan.operations, &plan.environment)?;
    let all = process.threads().to_vec();
    let Some(one) = process.run_to_mark(&all)? else {
        return Ok(None);
    };
    let others = process.threads().iter().copied();
    let rest: Vec<Pid> = others.filter(|thread| *thread != one).collect();
    let Some(two) = process.run_to_mark(&rest)? else {
        return Ok(None);
    };
    let mut stepper = Stepper::new(plan, process, &directory.path().join("core"))?;
    let (Some(name_one), Some(name_two)) = (stepper.announced(one)?, stepper.announced(two)?)
    else {
        return Ok(None);
    };
    // Which thread comes first is chance; which operation is parked is not.
    let first = plan.operations.last().and_then(|pair| pair.split_once('+'));
    let swap = first.is_some_and(|(first, _)| first != name_one);
    let (held, stepped, held_name, name) = match swap {
        true => (two, one, name_two, name_one),
        false => (one, two, name_one, name_two),
    };
    let Some(window) = parked else {
        return stepper.operation(held, held_name, Other::Waiting).map(Some);
    };
    if !bring(&mut stepper.process, held, window)? {
        return Ok(None);
    }
    stepper.image.rebuild(&stepper.process)?;
    stepper.operation(stepped, name, Other::Parked).map(Some)
}

/// Steps a thread into a window. What the two threads did before is not the same in every run, so that the instruction which opens it
/// may come a little earlier or later than it did.
fn bring(process: &mut Process, thread: Pid, window: Window) -> io::Result<bool> {
    const EARLIER: u64 = 200;
    const LATER: u64 = 10_000;
    for step in 1..=window.step + LATER {
        if process.step(thread)? != Stepped::Done {
            return Ok(false);
        }
        if step + EARLIER >= window.step && process.registers(thread)?.rip == window.pc {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_that_opens_a_window_comes_first() {
        let at = |(step, pc)| Window { step, pc };
        let windows: Vec<Window> = [(1, 7), (2, 8), (3, 7), (4, 9), (5, 7)].map(at).to_vec();
        let steps = |most| -> Vec<u64> {
            let chosen = choose(&windows, most);
            chosen.iter().map(|window| window.step).collect()
        };
        assert_eq!(steps(2), [1, 4]);
        assert_eq!(steps(3), [1, 2, 4]);
        assert_eq!(steps(4), [1, 2, 3, 4]);
        assert_eq!(steps(100), [1, 2, 3, 4, 5]);
        assert!(choose(&[], 3).is_empty());
    }
}
