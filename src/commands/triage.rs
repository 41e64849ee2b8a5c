//! `triage VERB …`: questions about many reports, and decisions about groups.

mod decide;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use reports::growth::{Watch, growth};
use reports::import::Summary;
use reports::triage::{
    self, BASELINE, Gate, Gather, Groups, Input, Stacks, TriageFile, Versions, Weight,
};
use reports::{ByFrame, FirstSeen, FrameBytes, Profile, Record, Shown, Sides};
use serde::Serialize;
use serde_json::json;

use super::import::Labels;
use super::{Error, ReportsCommand};
use crate::output;
use crate::report::status;

/// What `triage` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// Records, and how the answer is written.
#[derive(clap::Args, Clone, Debug)]
struct Question {
    /// NDJSON of `import`, reports of heapcheck, or logs of any tool (`-`: standard input)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,

    #[command(flatten)]
    labels: Labels,

    #[command(flatten)]
    view: View,
}

#[derive(clap::Args, Clone, Debug)]
struct View {
    /// How to write the answer
    #[arg(
        long,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    format: As,

    /// Where to write it [default: standard output]
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Formats of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// For people
    Text,
    /// For pipelines
    Json,
    /// SARIF 2.1.0, one result a group
    Sarif,
    /// A gzipped profile of bytes and blocks by stack
    Pprof,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Which bugs there are: most errors first
    Groups(Question),
    /// One group, with the stacks of an example
    Show {
        /// The group's key, or its beginning
        key: String,
        /// Write a ticket in Markdown
        #[arg(long)]
        ticket: bool,
        #[command(flatten)]
        question: Question,
    },
    /// Two groups side by side
    Diff {
        /// A group's key, or its beginning
        key: String,
        /// The other's
        other: String,
        #[command(flatten)]
        question: Question,
    },
    /// Bugs that a baseline has not: exit status 1 if there are any
    New {
        /// Records of the time before (repeatable)
        #[arg(long, value_name = "FILE", required = true)]
        baseline: Vec<String>,
        /// Count leaks that happen once in a process, too
        #[arg(long)]
        one_time: bool,
        #[command(flatten)]
        question: Question,
    },
    /// The version in which each bug was first seen
    Introduced {
        /// Versions, one a line, oldest first
        #[arg(long, value_name = "FILE")]
        order: PathBuf,
        /// The attribute that holds the version
        #[arg(long, value_name = "NAME", default_value = "version")]
        by: String,
        #[command(flatten)]
        question: Question,
    },
    /// Where the bytes come from: folded stacks, a picture, or bytes by frame
    Flame {
        /// What a stack weighs
        #[arg(long, value_enum, default_value = "bytes")]
        by: By,
        /// Draw a picture
        #[arg(long)]
        svg: bool,
        #[command(flatten)]
        question: Question,
    },
    /// Bytes and blocks of leaks and sites, largest first
    Bytes(Question),
    /// What grows over reports of one process
    Growth {
        /// Show what does not grow, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        question: Question,
    },
    /// A known group that is not to be reported
    Mute(decide::Mute),
    /// A group that is part of another
    Merge(decide::Merge),
    /// A group that is several bugs
    Split(decide::Split),
    /// A group that has a ticket
    Ticket(decide::Ticket),
}

/// Weights of a flame graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Bytes of leaks and sites
    Bytes,
    /// Blocks of leaks and sites, else errors
    Count,
    /// Inclusive bytes of each frame, as a list
    Frame,
}

impl ReportsCommand for Args {
    fn run(&self) -> Result<u8, Error> {
        match &self.verb {
            Verb::Groups(question) => question.groups(),
            Verb::Show {
                key,
                ticket,
                question,
            } => question.show(key, *ticket),
            Verb::Diff {
                key,
                other,
                question,
            } => question.diff(key, other),
            Verb::New {
                baseline,
                one_time,
                question,
            } => question.new_ones(baseline, *one_time),
            Verb::Introduced {
                order,
                by,
                question,
            } => question.introduced(order, by),
            Verb::Flame { by, svg, question } => question.flame(*by, *svg),
            Verb::Bytes(question) => question.bytes(),
            Verb::Growth { all, question } => question.growth(*all),
            Verb::Mute(decision) => decision.run(),
            Verb::Merge(decision) => decision.run(),
            Verb::Split(decision) => decision.run(),
            Verb::Ticket(decision) => decision.run(),
        }
    }
}

impl Question {
    fn input(&self, decisions: &TriageFile) -> Input {
        Input {
            files: self.files.clone(),
            options: self.labels.options(decisions),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        Ok(output::write(self.view.output.as_deref(), bytes)?)
    }

    /// Writes the text, or the value as JSON.
    fn answer(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Error> {
        match self.view.format {
            As::Text => self.write(text().as_bytes()),
            As::Json => {
                self.write(format!("{}\n", serde_json::to_string_pretty(value)?).as_bytes())
            }
            As::Sarif | As::Pprof => Err("this answer has no such format: text or json".into()),
        }
    }

    /// All groups.
    fn gather(&self, decisions: &TriageFile) -> io::Result<Groups> {
        let mut gather = Gather::new(decisions);
        let mut summary = Summary::default();
        triage::each(&self.input(decisions), &mut summary, &mut |item| {
            gather.add(item);
            Ok(())
        })?;
        say_failures(&summary);
        Ok(gather.finish(summary.failures, decisions))
    }

    /// The records of these ids.
    fn examples(
        &self,
        decisions: &TriageFile,
        ids: &BTreeSet<&str>,
    ) -> io::Result<BTreeMap<String, Record>> {
        let mut found = BTreeMap::new();
        self.read_again()?;
        triage::each_record(
            &self.input(decisions),
            &mut Summary::default(),
            &mut |record| {
                if ids.contains(record.id.as_str()) {
                    found.entry(record.id.clone()).or_insert(record);
                }
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// Standard input can be read once only.
    fn read_again(&self) -> io::Result<()> {
        match self.files.iter().any(|file| file == "-") {
            true => Err(io::Error::other(
                "this reads the records twice: name a file, not standard input",
            )),
            false => Ok(()),
        }
    }

    fn groups(&self) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        match self.view.format {
            As::Pprof => {
                let mut profile = Profile::default();
                triage::each_record(
                    &self.input(&decisions),
                    &mut Summary::default(),
                    &mut |record| {
                        profile.add(&record);
                        Ok(())
                    },
                )?;
                let mut bytes = Vec::new();
                reports::pprof(profile, &mut bytes)?;
                self.write(&bytes)?;
            }
            As::Sarif => {
                let groups = self.gather(&decisions)?.groups;
                let records = self.examples(
                    &decisions,
                    &groups.iter().map(|group| group.example.as_str()).collect(),
                )?;
                let examples = groups
                    .iter()
                    .filter_map(|group| {
                        Some((group.key.clone(), records.get(&group.example)?.clone()))
                    })
                    .collect();
                let document = reports::sarif(&groups, &examples, env!("CARGO_PKG_VERSION"));
                self.write(serde_json::to_string_pretty(&document)?.as_bytes())?;
            }
            As::Text | As::Json => {
                let groups = self.gather(&decisions)?;
                self.answer(&groups, || table::groups(&groups))?;
            }
        }
        Ok(status::CLEAN)
    }

    /// The group of a key, with its example.
    fn one(
        &self,
        decisions: &TriageFile,
        groups: &Groups,
        key: &str,
    ) -> Result<(reports::triage::Group, Record), Error> {
        let fits = |name: &String| name == key || (key.len() >= 5 && name.starts_with(key));
        let mut found = groups
            .groups
            .iter()
            .filter(|group| fits(&group.key) || group.also.iter().any(fits));
        let group = found.next().ok_or(format!("no group has the key {key}"))?;
        if found.next().is_some() && group.key != key {
            return Err(format!("several keys begin with {key}").into());
        }
        let record = self
            .examples(decisions, &BTreeSet::from([group.example.as_str()]))?
            .into_values()
            .next();
        Ok((
            group.clone(),
            record.ok_or("the group's example is not there any more")?,
        ))
    }

    fn show(&self, key: &str, ticket: bool) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let groups = self.gather(&decisions)?;
        let (group, example) = self.one(&decisions, &groups, key)?;
        if ticket {
            self.write(reports::ticket(&group, &example).as_bytes())?;
        } else {
            let shown = Shown { group, example };
            self.answer(&shown, || triage::show(&shown.group, &shown.example))?;
        }
        Ok(status::CLEAN)
    }

    fn diff(&self, key: &str, other: &str) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let groups = self.gather(&decisions)?;
        let (a, left) = self.one(&decisions, &groups, key)?;
        let (b, right) = self.one(&decisions, &groups, other)?;
        let sides = Sides {
            groups: [a, b],
            examples: [left, right],
        };
        let [left, right] = &sides.examples;
        self.answer(&sides, || triage::diff(left, right))?;
        Ok(status::CLEAN)
    }

    fn new_ones(&self, baseline: &[String], one_time: bool) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let mut gather = Gather::new(&decisions);
        let mut old = self.input(&decisions);
        old.files = baseline.to_vec();
        let mut summary = Summary::default();
        triage::each(&old, &mut Summary::default(), &mut |item| {
            gather.add_labelled(item, BASELINE);
            Ok(())
        })?;
        triage::each(&self.input(&decisions), &mut summary, &mut |item| {
            gather.add(item);
            Ok(())
        })?;
        say_failures(&summary);
        let answer: Gate = triage::gate(gather, summary.failures, &decisions, one_time);
        self.answer(&answer, || table::gate(&answer))?;
        Ok(if answer.fails() {
            status::FOUND
        } else {
            status::CLEAN
        })
    }

    fn introduced(&self, order: &std::path::Path, by: &str) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let order =
            fs::read_to_string(order).map_err(|error| format!("{}: {error}", order.display()))?;
        let order: Vec<String> = order
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        let mut versions = Versions::new(&decisions, by);
        triage::each(
            &self.input(&decisions),
            &mut Summary::default(),
            &mut |item| {
                versions.add(item);
                Ok(())
            },
        )?;
        let groups = triage::introduced(versions, &decisions, &order);
        let first_seen = FirstSeen { groups };
        self.answer(&first_seen, || table::introduced(&first_seen.groups))?;
        Ok(status::CLEAN)
    }

    fn flame(&self, by: By, svg: bool) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let weight = if by == By::Count {
            Weight::Count
        } else {
            Weight::Bytes
        };
        let mut stacks = Stacks::default();
        triage::each_record(
            &self.input(&decisions),
            &mut Summary::default(),
            &mut |record| {
                stacks.add(&record, weight);
                Ok(())
            },
        )?;
        let unit = if weight == Weight::Count {
            "blocks"
        } else {
            "bytes"
        };
        if svg {
            self.write(triage::svg(&stacks, "where memory comes from", unit).as_bytes())?;
        } else if by == By::Frame {
            let frames = triage::by_frame(&stacks);
            let rows = frames.iter().map(|(frame, bytes)| FrameBytes {
                frame: frame.clone(),
                bytes: *bytes,
            });
            let rows = ByFrame {
                frames: rows.collect(),
            };
            self.answer(&rows, || table::frames(&frames))?;
        } else {
            self.write(triage::folded(&stacks).as_bytes())?;
        }
        Ok(status::CLEAN)
    }

    fn bytes(&self) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let mut groups = self.gather(&decisions)?;
        groups.proposals.clear();
        groups.groups.retain(|group| group.bytes.is_some());
        groups
            .groups
            .sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        self.answer(&groups, || table::bytes(&groups))?;
        Ok(status::CLEAN)
    }

    fn growth(&self, all: bool) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let mut watch = Watch::default();
        for file in &self.files {
            // What has no time of its own has the file's.
            let mut input = self.input(&decisions);
            input.files = vec![file.clone()];
            if input.options.time.is_none() {
                let modified = fs::metadata(file).and_then(|data| data.modified()).ok();
                let seconds =
                    modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
                input.options.time = seconds.map(|time| json!(time.as_secs_f64()));
            }
            triage::each(&input, &mut Summary::default(), &mut |item| {
                watch.add(item);
                Ok(())
            })?;
        }
        let answer = growth(&watch);
        self.answer(&answer, || table::growth(&answer, watch.untimed, all))?;
        Ok(status::CLEAN)
    }
}

/// Records that could not be read are said on standard error.
fn say_failures(summary: &Summary) {
    if summary.failures > 0 {
        let first = summary
            .described
            .first()
            .map(|(file, line, why)| format!(", the first at {file}:{line}: {why}"))
            .unwrap_or_default();
        eprintln!(
            "heapcheck: {} records could not be read{first}",
            summary.failures
        );
    }
}
