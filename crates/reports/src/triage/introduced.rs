//! The version in which a bug was first *seen*. It was introduced there only if the version before was looked at, too, and clean.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::file::TriageFile;
use super::groups::Gather;
use super::read::Item;

/// One group.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Introduced {
    /// The group.
    pub key: String,
    /// Readable form.
    pub key_text: String,
    /// First version, in the order that was given, in which it was seen; none if no record has a version of that order.
    pub first_seen: Option<String>,
    /// True if the version before was run with the same tool, and there without this error.
    pub clean_before: bool,
}

/// Gathers groups and which tools looked at which version.
pub struct Versions {
    gather: Gather,
    by: String,
    looked: BTreeMap<String, BTreeSet<String>>,
}

impl Versions {
    /// `by` is the attribute that holds the version.
    pub fn new(file: &TriageFile, by: &str) -> Self {
        Self {
            gather: Gather::new(file),
            by: by.to_owned(),
            looked: BTreeMap::new(),
        }
    }

    /// Takes one record.
    pub fn add(&mut self, item: &Item<'_>) {
        self.gather.add(item);
        if let Some(version) = item.attributes.get(self.by.as_str())
            && (self.looked.len() < 10_000 || self.looked.contains_key(&**version))
        {
            let tools = self.looked.entry(version.to_string()).or_default();
            if !tools.contains(&*item.tool) {
                tools.insert(item.tool.to_string());
            }
        }
    }
}

/// For each group the first version of `order`, oldest first, in which it was seen.
pub fn introduced(versions: Versions, file: &TriageFile, order: &[String]) -> Vec<Introduced> {
    let Versions { gather, by, looked } = versions;
    let groups = gather.finish(0, file).groups;
    let answer = groups.into_iter().map(|group| {
        let seen = group.attributes.get(&by);
        let first = order
            .iter()
            .position(|version| seen.is_some_and(|seen| seen.contains_key(version)));
        let before = first
            .and_then(|first| first.checked_sub(1))
            .and_then(|before| order.get(before));
        let tools: BTreeSet<&String> = group.tools.keys().collect();
        let clean_before = before
            .and_then(|version| looked.get(version))
            .is_some_and(|looked| tools.iter().any(|tool| looked.contains(*tool)));
        Introduced {
            key: group.key,
            key_text: group.key_text,
            first_seen: first.map(|first| order[first].clone()),
            clean_before,
        }
    });
    answer.collect()
}
