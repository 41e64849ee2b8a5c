//! Records by bug: one pass, memory by groups.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use schemars::JsonSchema;
use serde::Serialize;

use super::alias::{self, Evidence};
use super::file::{State, TriageFile};
use super::read::Item;
use super::similar;
use crate::kind::{Kind, is_memory};
use crate::record::Strength;

/// Names of attributes that are counted per group.
const MAX_ATTRIBUTES: usize = 16;
/// Values of one attribute that are counted; the rest is counted as `other`.
const MAX_VALUES: usize = 64;
/// Processes that are told apart at once, those of each group counted; when there are more, the idle ones are closed.
const MAX_OPEN: usize = 1 << 18;
/// Processes from which on a leak's recurrence is told.
const MIN_PROCESSES: u64 = 5;

/// Whether a leak happens once in a process, or again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recurrence {
    /// Once, however long the process runs.
    OneTime,
    /// More in some processes, or growing in one.
    Recurring,
    /// Too few processes, or not a leak.
    #[default]
    Unknown,
}

/// One bug.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Group {
    /// The key that the group goes by.
    pub key: String,
    /// Readable form.
    pub key_text: String,
    /// How much the key rests on.
    pub key_strength: Strength,
    /// Kind of error.
    pub kind: String,
    /// Records.
    pub errors: u64,
    /// Processes.
    pub processes: u64,
    /// Leaks: the most of each process, added up.
    pub bytes: Option<u64>,
    /// Leaks: blocks, likewise.
    pub blocks: Option<u64>,
    /// Once or again and again.
    pub recurrence: Recurrence,
    /// What people decided.
    pub state: State,
    /// Earliest time of a record.
    pub first_seen: Option<String>,
    /// Latest time of a record.
    pub last_seen: Option<String>,
    /// Values of attributes, counted.
    pub attributes: BTreeMap<String, BTreeMap<String, u64>>,
    /// Records by tool.
    pub tools: BTreeMap<String, u64>,
    /// Id of the first record.
    pub example: String,
    /// Keys that are the same bug under other names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Functions of an example's responsible stack.
    #[serde(skip)]
    pub(super) stack: Vec<String>,
}

/// All groups.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Groups {
    /// Records.
    pub errors: u64,
    /// Records that could not be read.
    pub failures: u64,
    /// Most errors first.
    pub groups: Vec<Group>,
    /// Groups that may be one bug, for a person to decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<similar::Proposal>,
}

/// Gathers groups.
#[derive(Default)]
pub struct Gather {
    groups: HashMap<String, Partial>,
    errors: u64,
    hasher: RandomState,
    split: BTreeMap<String, usize>,
    /// Processes in all groups' `open`.
    open: usize,
    /// Number of times that idle processes were closed.
    round: u32,
}

/// A group while records come in.
#[derive(Default)]
struct Partial {
    text: String,
    strength: Strength,
    kind: String,
    errors: u64,
    open: HashMap<u64, Process>,
    closed: Closed,
    first_seen: Option<String>,
    last_seen: Option<String>,
    attributes: BTreeMap<String, BTreeMap<String, u64>>,
    tools: BTreeMap<String, u64>,
    example: String,
    evidence: Evidence,
    stack: Vec<String>,
}

/// What one process has of a group.
#[derive(Default)]
struct Process {
    time: u64,
    bytes: u64,
    blocks: u64,
    most_bytes: u64,
    most_blocks: u64,
    grew: bool,
    /// The round of its last record.
    round: u32,
}

/// Processes that are complete.
#[derive(Clone, Default)]
struct Closed {
    processes: u64,
    bytes: u64,
    blocks: u64,
    least: Option<u64>,
    most: u64,
    grew: bool,
}

impl Closed {
    fn add(&mut self, process: &Process) {
        let blocks = process.most_blocks.max(process.blocks);
        self.processes += 1;
        self.bytes = self
            .bytes
            .saturating_add(process.most_bytes.max(process.bytes));
        self.blocks = self.blocks.saturating_add(blocks);
        self.least = Some(self.least.map_or(blocks, |least| least.min(blocks)));
        self.most = self.most.max(blocks);
        self.grew |= process.grew;
    }

    fn join(&mut self, other: &Self) {
        self.processes += other.processes;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.least = [self.least, other.least].into_iter().flatten().min();
        self.most = self.most.max(other.most);
        self.grew |= other.grew;
    }
}

impl Gather {
    /// Groups that are split by people's decision have keys of more functions.
    pub fn new(file: &TriageFile) -> Self {
        let split = file.rules.iter().filter(|rule| rule.state == State::Split);
        Self {
            split: split.map(|rule| (rule.key.clone(), rule.frames)).collect(),
            ..Self::default()
        }
    }

    /// Takes one record.
    pub fn add(&mut self, item: &Item<'_>) {
        self.add_as(item, None);
    }

    /// Takes one record that gets a label.
    pub fn add_labelled(&mut self, item: &Item<'_>, label: &str) {
        self.add_as(item, Some(label));
    }

    fn add_as(&mut self, item: &Item<'_>, label: Option<&str>) {
        self.errors += 1;
        if let Some(&frames) = self.split.get(&*item.key) {
            let (key, text) = alias::split(item, frames);
            self.take(&key, &text, item, label);
        } else {
            self.take(&item.key, &item.key_text, item, label);
        }
    }

    fn take(&mut self, key: &str, text: &str, item: &Item<'_>, label: Option<&str>) {
        if !self.groups.contains_key(key) {
            let partial = Partial {
                text: text.to_owned(),
                strength: item.key_strength,
                kind: item.kind.clone().into_owned(),
                example: item.id.clone().into_owned(),
                stack: similar::functions(&item.stacks(), &item.kind),
                ..Partial::default()
            };
            self.groups.insert(key.to_owned(), partial);
        }
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        group.errors += 1;
        if group.errors <= 16 || group.errors.is_power_of_two() {
            group.evidence.add(item);
        }
        if let Some(count) = group.tools.get_mut(&*item.tool) {
            *count += 1;
        } else if group.tools.len() < MAX_VALUES {
            group.tools.insert(item.tool.to_string(), 1);
        }
        if let Some(time) = item.time_text() {
            group.seen(time);
        }
        if let Some(label) = label {
            *group
                .attributes
                .entry(label.to_owned())
                .or_default()
                .entry("yes".to_owned())
                .or_default() += 1;
        }
        for (name, value) in &item.attributes {
            group.attribute(name, value);
        }
        let process = self.hasher.hash_one((
            &item.source.file,
            item.pid,
            &item.process,
            item.attributes.get("process_start"),
        ));
        let process = match item.attributes.get("process_start") {
            // Snapshots of one process are in files of their own.
            Some(start) => {
                self.hasher
                    .hash_one((item.pid, &item.process, start, item.attributes.get("host")))
            }
            None => process,
        };
        let time = self.hasher.hash_one((
            item.time.map(serde_json::value::RawValue::get),
            &item.source.file,
        ));
        self.open += usize::from(group.process(process, time, self.round, item));
        if self.open >= MAX_OPEN {
            self.close_idle();
        }
    }

    /// Closes processes without a record since the last time, or all of them where too few are idle.
    fn close_idle(&mut self) {
        let round = self.round;
        self.close(|process| process.round != round);
        if self.open > MAX_OPEN / 2 {
            self.close(|_| true);
        }
        self.round = self.round.wrapping_add(1);
    }

    fn close(&mut self, which: impl Fn(&Process) -> bool) {
        for group in self.groups.values_mut() {
            for (_, process) in group.open.extract_if(|_, process| which(process)) {
                group.closed.add(&process);
                self.open = self.open.saturating_sub(1);
            }
            group.open.shrink_to(16);
        }
    }

    /// All groups, with what people decided.
    pub fn finish(self, failures: u64, file: &TriageFile) -> Groups {
        let mut found: Vec<(String, Partial)> = self.groups.into_iter().collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let members: Vec<alias::Member<'_>> = found
            .iter()
            .map(|(key, group)| alias::Member {
                key,
                text: &group.text,
                strength: group.strength,
                evidence: Some(&group.evidence),
            })
            .chain(
                file.rules
                    .iter()
                    .filter(|rule| !rule.text.is_empty())
                    .map(|rule| alias::Member {
                        key: &rule.key,
                        text: &rule.text,
                        strength: Strength::Full,
                        evidence: None,
                    }),
            )
            .collect();
        let names = alias::resolve(&members);
        let mut joined: BTreeMap<String, (Partial, Vec<String>)> = BTreeMap::new();
        // A group goes by its own name before it takes others in.
        let is_alias = |key: &str| names.contains_key(key);
        let (own, others): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|(key, _)| !is_alias(key) && file.merged(key).is_none());
        for (key, group) in own.into_iter().chain(others) {
            let alias = names.get(&key).unwrap_or(&key);
            let target = file
                .merged(alias)
                .or_else(|| file.merged(&key))
                .unwrap_or(alias)
                .to_owned();
            match joined.get_mut(&target) {
                Some((into, also)) => {
                    also.push(key);
                    into.join(group);
                }
                None => {
                    let also = if target == key { Vec::new() } else { vec![key] };
                    joined.insert(target, (group, also));
                }
            }
        }
        let lengths_differ = joined.values().any(|(group, _)| group.lengths_differ());
        let mut groups: Vec<Group> = joined
            .into_iter()
            .map(|(key, (group, also))| {
                let all = || std::iter::once(&key).chain(&also);
                let state = all().find_map(|key| file.state(key)).unwrap_or_else(|| {
                    // A rule that goes by another name of this group counts, too.
                    file.rules
                        .iter()
                        .find(|rule| names.get(&rule.key) == Some(&key))
                        .map_or(State::Open, |rule| rule.state)
                });
                group.finish(key, also, state, lengths_differ)
            })
            .collect();
        groups.sort_by(|a, b| b.errors.cmp(&a.errors).then_with(|| a.key.cmp(&b.key)));
        let proposals = similar::proposals(&groups);
        Groups {
            errors: self.errors,
            failures,
            groups,
            proposals,
        }
    }
}

impl Partial {
    fn seen(&mut self, time: String) {
        let earlier = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a < b,
            _ => a < b,
        };
        if self
            .first_seen
            .as_deref()
            .is_none_or(|first| earlier(&time, first))
        {
            self.first_seen = Some(time.clone());
        }
        if self
            .last_seen
            .as_deref()
            .is_none_or(|last| earlier(last, &time))
        {
            self.last_seen = Some(time);
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        if !self.attributes.contains_key(name) {
            if self.attributes.len() >= MAX_ATTRIBUTES {
                return;
            }
            self.attributes.insert(name.to_owned(), BTreeMap::new());
        }
        let Some(values) = self.attributes.get_mut(name) else {
            return;
        };
        let value = if values.len() < MAX_VALUES || values.contains_key(value) {
            value
        } else {
            "other"
        };
        match values.get_mut(value) {
            Some(count) => *count += 1,
            None => drop(values.insert(value.to_owned(), 1)),
        }
    }

    /// Adds a record to its process; true if the process was not open.
    fn process(&mut self, process: u64, time: u64, round: u32, item: &Item<'_>) -> bool {
        let before = self.open.len();
        let process = self.open.entry(process).or_insert_with(|| Process {
            time,
            ..Process::default()
        });
        process.round = round;
        if process.time != time {
            // Another snapshot of the process: it is not added to the one before.
            process.most_bytes = process.most_bytes.max(process.bytes);
            process.most_blocks = process.most_blocks.max(process.blocks);
            (process.time, process.bytes, process.blocks) = (time, 0, 0);
        }
        process.bytes = process.bytes.saturating_add(item.bytes.unwrap_or(0));
        process.blocks = process.blocks.saturating_add(item.blocks.unwrap_or(0));
        process.grew |= process.most_blocks > 0 && process.blocks > process.most_blocks;
        self.open.len() > before
    }

    fn totals(&self) -> Closed {
        let mut totals = self.closed.clone();
        self.open.values().for_each(|process| totals.add(process));
        totals
    }

    /// True if processes differ in how often this leak happened: then they ran for different times.
    fn lengths_differ(&self) -> bool {
        let totals = self.totals();
        self.kind == Kind::MemoryLeak.name()
            && totals.processes >= MIN_PROCESSES
            && totals.least != Some(totals.most)
    }

    fn join(&mut self, other: Self) {
        self.errors += other.errors;
        // One process may have both groups: its parts are added.
        for (process, theirs) in other.open {
            match self.open.get_mut(&process) {
                Some(ours) => {
                    ours.bytes = ours
                        .most_bytes
                        .max(ours.bytes)
                        .saturating_add(theirs.most_bytes.max(theirs.bytes));
                    ours.blocks = ours
                        .most_blocks
                        .max(ours.blocks)
                        .saturating_add(theirs.most_blocks.max(theirs.blocks));
                    ours.grew |= theirs.grew;
                }
                None => drop(self.open.insert(process, theirs)),
            }
        }
        self.closed.join(&other.closed);
        for time in [other.first_seen, other.last_seen].into_iter().flatten() {
            self.seen(time);
        }
        for (name, values) in other.attributes {
            let ours = self.attributes.entry(name).or_default();
            values
                .into_iter()
                .for_each(|(value, count)| *ours.entry(value).or_default() += count);
        }
        other
            .tools
            .into_iter()
            .for_each(|(tool, count)| *self.tools.entry(tool).or_default() += count);
    }

    fn finish(self, key: String, also: Vec<String>, state: State, lengths_differ: bool) -> Group {
        let totals = self.totals();
        let memory = is_memory(&self.kind);
        let same = totals.least == Some(totals.most);
        let recurrence = match totals.processes {
            _ if self.kind != Kind::MemoryLeak.name() => Recurrence::Unknown,
            _ if totals.grew => Recurrence::Recurring,
            processes
                if processes >= MIN_PROCESSES
                    && (totals.most == 1 || (same && totals.most > 0 && lengths_differ)) =>
            {
                Recurrence::OneTime
            }
            processes if processes > 1 && !same => Recurrence::Recurring,
            _ => Recurrence::Unknown,
        };
        Group {
            key,
            key_text: self.text,
            key_strength: self.strength,
            kind: self.kind,
            errors: self.errors,
            processes: totals.processes,
            bytes: memory.then_some(totals.bytes),
            blocks: memory.then_some(totals.blocks),
            recurrence,
            state,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            attributes: self.attributes,
            tools: self.tools,
            example: self.example,
            also,
            stack: self.stack,
        }
    }
}
