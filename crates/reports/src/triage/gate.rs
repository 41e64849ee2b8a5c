//! The question of a build: is there a bug that the baseline has not?

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use super::file::{State, TriageFile};
use super::groups::{Gather, Group, Groups, Recurrence};
use crate::key::SEPARATOR;
use crate::kind::Kind;
use crate::record::Strength;

/// The answer.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Gate {
    /// Records looked at, without the baseline's.
    pub errors: u64,
    /// Records that could not be read.
    pub failures: u64,
    /// Groups that the baseline lacks and that nobody muted.
    pub new: Vec<Group>,
    /// Leaks that happen once in a process, new but not counted.
    pub one_time: Vec<Group>,
    /// New by their key, which changes with every build; the baseline has such errors in the same module.
    pub unsure: Vec<Group>,
    /// Groups of the baseline that are not there any more.
    pub gone: u64,
    /// Decisions that count no more: mutes without a reason or past their end.
    pub problems: Vec<String>,
}

impl Gate {
    /// True if the build should fail.
    pub fn fails(&self) -> bool {
        !self.new.is_empty() || !self.problems.is_empty()
    }
}

/// Label by which the baseline's records are told from the others while they are grouped together.
pub const BASELINE: &str = "heapcheck.baseline";

/// Compares; `both` holds the records of the baseline, labelled, and the new ones.
pub fn gate(both: Gather, failures: u64, file: &TriageFile, one_time_counts: bool) -> Gate {
    let Groups { errors, groups, .. } = both.finish(failures, file);
    let mut answer = Gate {
        errors,
        failures,
        problems: file.problems(),
        ..Gate::default()
    };
    let known = |group: &Group| {
        group
            .attributes
            .get(BASELINE)
            .map_or(0, |values| values.values().sum::<u64>())
    };
    let is_weak = |group: &Group| group.key_strength == Strength::Weak;
    let weak: BTreeSet<String> = groups
        .iter()
        .filter(|group| known(group) > 0 && is_weak(group))
        .map(anywhere)
        .collect();
    for mut group in groups {
        let old = known(&group);
        answer.errors -= old;
        if old > 0 {
            answer.gone += u64::from(old == group.errors);
            continue;
        }
        if group.state != State::Open || group.kind == Kind::LiveMemory.name() {
            continue;
        }
        group.attributes.remove(BASELINE);
        let list = match () {
            () if is_weak(&group) && weak.contains(&anywhere(&group)) => &mut answer.unsure,
            () if group.recurrence == Recurrence::OneTime && !one_time_counts => {
                &mut answer.one_time
            }
            () => &mut answer.new,
        };
        list.push(group);
    }
    answer
}

/// A weak key without its offsets: the kind and the modules.
fn anywhere(group: &Group) -> String {
    let part = |part: &str| part.split("+0x").next().unwrap_or(part).to_owned();
    let mut parts: Vec<String> = group.key_text.split(SEPARATOR).take(2).map(part).collect();
    if parts.get(1).is_some_and(|part| part.starts_with('…')) {
        parts.truncate(1);
    }
    parts.join(SEPARATOR)
}
