//! `scoreboard [--fixtures DIR] [--allocator A] [--release R] [--plants N] [--first N] [--sort NAME]`, or
//! `--core CORE --seed N` for one plant again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use scoreboard::ALLOCATORS;
use scoreboard::plant::Sort;
use scoreboard::run::{self, Core, Trial, Trials};
use scoreboard::table::Table;

/// What was asked for.
struct Options {
    fixtures: PathBuf,
    allocator: Option<String>,
    releases: Vec<String>,
    cores: Vec<PathBuf>,
    seeds: Vec<u64>,
    plants: u64,
    first: u64,
    sort: Option<String>,
}

fn parse() -> Result<Options, String> {
    let mut options = Options {
        fixtures: "fixtures".into(),
        allocator: None,
        releases: Vec::new(),
        cores: Vec::new(),
        seeds: Vec::new(),
        plants: 170,
        first: 0,
        sort: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || {
            value
                .parse()
                .map_err(|_| format!("{name} {value}: no number"))
        };
        match name.as_str() {
            "--fixtures" => options.fixtures = value.into(),
            "--allocator" => options.allocator = Some(value),
            "--release" => options.releases.push(value),
            "--core" => options.cores.push(value.into()),
            "--seed" => options.seeds.push(number()?),
            "--plants" => options.plants = number()?,
            "--first" => options.first = number()?,
            "--sort" => options.sort = Some(value),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

/// The cores to plant in, with their places among those of their allocator: those named, or the healthy ones of each
/// release.
fn cores(options: &Options) -> Vec<(u64, Core)> {
    if !options.cores.is_empty() {
        let named = options.cores.iter().map(|core| Core::at(core));
        return (0..).zip(named).collect();
    }
    let mut all = Vec::new();
    for allocator in ALLOCATORS {
        if options
            .allocator
            .as_ref()
            .is_some_and(|name| name != allocator.name())
        {
            continue;
        }
        let mut cores = Vec::new();
        for release in allocator.releases() {
            if options.releases.is_empty() || options.releases.iter().any(|name| name == release) {
                cores.extend(Core::healthy(&options.fixtures, *allocator, release));
            }
        }
        all.extend((0..).zip(cores));
    }
    all
}

fn show(core: &Path, trial: &Trial) {
    let Trial {
        seed,
        sort,
        plant,
        outcome,
    } = trial;
    println!("--core {} --seed {seed}: {}", core.display(), sort.name);
    println!("    planted  {}", plant.story);
    println!(
        "    truth    {:?} {:?} {:x?} culprit {:x?} lost {:?}",
        plant.truth.evidence,
        plant.truth.kinds,
        plant.truth.addresses,
        plant.truth.culprit,
        plant.truth.lost
    );
    for said in &outcome.said {
        println!("    said     {said}");
    }
    if outcome.panicked {
        println!("    PANICKED");
    }
    println!("    took     {:?}", outcome.took);
}

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("scoreboard: {error}");
            return ExitCode::from(2);
        }
    };
    let alone = !options.seeds.is_empty();
    let cores = cores(&options);
    let mut tables: BTreeMap<&str, Table> = BTreeMap::new();
    let mut failed = cores.is_empty();
    for (index, core) in &cores {
        // Each core gets seeds of its own: the same ones would choose alike.
        let first = options.first + index * options.plants;
        let mut seeds: Vec<u64> = (first..first + options.plants).collect();
        if alone {
            seeds.clone_from(&options.seeds);
        }
        let chosen = |sort: Sort| {
            options
                .sort
                .as_ref()
                .is_none_or(|part| sort.name.contains(part))
        };
        match run::run(core, options.allocator.as_deref(), &seeds, chosen) {
            Ok(Trials { allocator, trials }) => {
                let table = tables.entry(allocator.name()).or_default();
                for trial in &trials {
                    table.add(&core.release, trial.sort, &trial.outcome);
                    if alone || !trial.outcome.is_fine() {
                        show(&core.core, trial);
                    }
                }
            }
            Err(error) => {
                eprintln!("scoreboard: {error}");
                failed = true;
            }
        }
    }
    for (allocator, table) in &tables {
        let total = table.total();
        println!(
            "{allocator}\n{table}\npanics: {}, slower than a second: {}",
            total.panics, total.slow
        );
    }
    ExitCode::from(u8::from(failed))
}
