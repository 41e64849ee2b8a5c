//! `scoreboard [--fixtures DIR] [--release R] [--plants N] [--first N]`, or `--core CORE --seed N` for one plant again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use scoreboard::plant::Sort;
use scoreboard::run::{self, Core, Trial};
use scoreboard::table::Table;

/// What was asked for.
struct Options {
    fixtures: PathBuf,
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
        releases: ["2.8.1", "2.10", "2.16", "2.18.1"]
            .map(str::to_owned)
            .to_vec(),
        cores: Vec::new(),
        seeds: Vec::new(),
        plants: 170,
        first: 0,
        sort: None,
    };
    let mut named = Vec::new();
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
            "--release" => named.push(value),
            "--core" => options.cores.push(value.into()),
            "--seed" => options.seeds.push(number()?),
            "--plants" => options.plants = number()?,
            "--first" => options.first = number()?,
            "--sort" => options.sort = Some(value),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    if !named.is_empty() {
        options.releases = named;
    }
    Ok(options)
}

fn show(core: &Path, trial: &Trial) {
    let Trial {
        seed,
        sort,
        plant,
        outcome,
    } = trial;
    println!("--core {} --seed {seed}: {}", core.display(), sort.name());
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
    let cores: Vec<Core> = if options.cores.is_empty() {
        let all = options.releases.iter();
        all.flat_map(|release| Core::healthy(&options.fixtures, release))
            .collect()
    } else {
        options.cores.iter().map(|core| Core::at(core)).collect()
    };
    let mut table = Table::default();
    let mut failed = cores.is_empty();
    for (index, core) in (0..).zip(&cores) {
        // Each core gets seeds of its own: the same ones would choose alike.
        let first = options.first + index * options.plants;
        let mut seeds: Vec<u64> = (first..first + options.plants).collect();
        if alone {
            seeds.clone_from(&options.seeds);
        }
        if let Some(sort) = &options.sort {
            seeds.retain(|seed| Sort::of_seed(*seed).name().contains(sort.as_str()));
        }
        match run::run(core, &seeds) {
            Ok(trials) => {
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
    println!("{table}");
    let total = table.total();
    println!(
        "panics: {}, slower than a second: {}",
        total.panics, total.slow
    );
    ExitCode::from(u8::from(failed))
}
