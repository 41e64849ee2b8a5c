//! `stepper [--keep DIR] [--limit N] [--repeats N] [--env NAME=VALUE]... [--pairs N [--pairs-only]] PROGRAM [OPERATION]...`: steps the program through the
//! operations (all of them if none is named) and says at how many boundaries its heap was read, and what was said.

use std::path::PathBuf;
use std::process::ExitCode;

use stepper::pairs;
use stepper::run::{self, Plan, Tally};

/// What `testdata/stepped.c` does in a thread that has used the allocator before.
const WARM: [&str; 13] = [
    "malloc-cached",
    "free-cached",
    "refill",
    "flush",
    "merge",
    "split",
    "consolidate",
    "large",
    "huge",
    "calloc",
    "realloc",
    "realloc-mapped",
    "aligned",
];

/// Everything that it can do: in one thread, then in a process that takes locks.
fn everything() -> Vec<String> {
    let alone = ["first-use"].into_iter().chain(WARM).chain(["trim"]);
    let threaded = ["threaded"].into_iter().chain(WARM);
    let all = alone.chain(threaded).chain(["trim", "thread"]);
    all.map(str::to_owned).collect()
}

struct Options {
    plan: Plan,
    /// Windows of the first of two threads at which it is parked.
    pairs: usize,
    /// Nothing but pairs.
    only: bool,
}

fn parse() -> Result<Options, String> {
    let mut plan = Plan {
        program: PathBuf::new(),
        operations: Vec::new(),
        environment: Vec::new(),
        keep: None,
        limit: 2_000_000,
        repeats: u64::MAX,
    };
    let mut pairs = 0;
    let mut only = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--keep" => plan.keep = Some(value()?.into()),
            "--limit" => plan.limit = value()?.parse().map_err(|_| "--limit: no number")?,
            "--repeats" => plan.repeats = value()?.parse().map_err(|_| "--repeats: no number")?,
            "--pairs" => pairs = value()?.parse().map_err(|_| "--pairs: no number")?,
            "--pairs-only" => only = true,
            "--env" => {
                let value = value()?;
                let (name, value) = value.split_once('=').ok_or("--env needs NAME=VALUE")?;
                plan.environment.push((name.into(), value.into()));
            }
            _ if plan.program.as_os_str().is_empty() => plan.program = word.into(),
            _ => plan.operations.push(word),
        }
    }
    if plan.program.as_os_str().is_empty() {
        return Err("no program was named".into());
    }
    let known = everything();
    if let Some(unknown) = plan.operations.iter().find(|name| !known.contains(name)) {
        return Err(format!("{unknown}: no such operation"));
    }
    if plan.operations.is_empty() {
        plan.operations = known;
    }
    Ok(Options { plan, pairs, only })
}

/// Alarms that are shown of an operation: the next ones say the same.
const SHOWN: usize = 3;

fn show(tally: &Tally) {
    print!(
        "{:<18} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>8}",
        tally.operation,
        tally.boundaries,
        tally.read,
        tally.windows.len(),
        tally.naive,
        tally.noted,
        tally.warned,
        tally.critical,
    );
    if tally.unrecognised > 0 {
        print!("  no heap at {}", tally.unrecognised);
    }
    println!("{}", if tally.cut { "  not to its end" } else { "" });
    for alarm in tally.alarms.iter().take(SHOWN) {
        let core = alarm
            .core
            .as_ref()
            .map(|core| format!(" ({})", core.display()));
        println!(
            "  step {} pc {:#x}{}",
            alarm.step,
            alarm.pc,
            core.unwrap_or_default()
        );
        for said in &alarm.said {
            println!("    {said}");
        }
    }
}

fn main() -> ExitCode {
    match run_all() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stepper: {error}");
            ExitCode::from(2)
        }
    }
}

/// The number of boundaries with a critical finding.
fn run_all() -> Result<u64, String> {
    let Options { plan, pairs, only } = parse()?;
    let say = |error: std::io::Error| format!("{}: {error}", plan.program.display());
    println!("operation          boundaries      read windows   naive   noted warned critical");
    let mut total = Tally {
        operation: "all".into(),
        ..Tally::default()
    };
    let mut done = |tally: Tally| {
        show(&tally);
        total.add(&tally);
    };
    if !only {
        run::run(&plan, &mut done).map_err(say)?;
    }
    if pairs > 0 {
        pairs::run_pairs(&plan, pairs, &mut done).map_err(say)?;
    }
    total.alarms.clear();
    show(&total);
    Ok(total.critical)
}
