//! One bug under several keys. Tools differ in what they print of a name (gcc's runtime knows functions that are local to a file
//! without their scopes, valgrind inlined ones), and some print a place without a name. Such keys are joined where only one fits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::read::Item;
use crate::key::{Frames, Key, Name, SEPARATOR};
use crate::record::{Record, Role, Source, Stack, Strength};
use crate::text;

/// Most places that are remembered of a group.
const MAX_PLACES: usize = 32;
/// Most keys with the same functions that are compared.
const MAX_ALIKE: usize = 64;

/// Places in code where a group was seen: `file:line`, and offsets in a build.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    places: BTreeSet<String>,
}

impl Evidence {
    pub fn add(&mut self, item: &Item<'_>) {
        if self.places.len() >= MAX_PLACES {
            return;
        }
        let stacks = item.stacks();
        let responsible = first(&item.kind, &stacks);
        for frame in responsible.iter().flat_map(|stack| &stack.frames) {
            let name = Name::of(frame.function.as_deref().unwrap_or(""));
            // Only the innermost frame of the key is a place; what is inside of it has no say.
            if frame.function.is_some()
                && !item
                    .key_text
                    .split(SEPARATOR)
                    .skip(1)
                    .any(|part| part == name.text())
            {
                continue;
            }
            if let (Some(file), Some(line)) = (&frame.file, frame.line) {
                self.places
                    .insert(format!("{}:{line}", text::base_name(file)));
            }
            if let (Some(module), Some(offset), Some(id)) =
                (&frame.module, &frame.module_offset, &frame.build_id)
            {
                self.places.insert(format!("{module}+{offset} {id}"));
            }
            break;
        }
    }
}

/// The responsible stack of a kind.
fn first<'a>(kind: &str, stacks: &'a [Stack]) -> Option<&'a Stack> {
    let role = match kind {
        "memory-leak" | "live-memory" => Role::Allocation,
        "use-after-free" | "double-free" | "invalid-free" | "mismatched-free" => Role::Free,
        _ => Role::Access,
    };
    let of = |role| stacks.iter().find(|stack| stack.role == role);
    of(role)
        .or_else(|| of(Role::Origin))
        .or_else(|| stacks.first())
}

/// A key and what is known of it.
pub(super) struct Member<'a> {
    pub key: &'a str,
    pub text: &'a str,
    pub strength: Strength,
    /// None for a key that people's decisions name and no record has.
    pub evidence: Option<&'a Evidence>,
}

/// Finds keys that go by another key: from the name that gives way to the one that stays.
pub(super) fn resolve(members: &[Member<'_>]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut alike: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, member) in members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.strength != Strength::Weak)
    {
        alike.entry(loose(member.text)).or_default().push(at);
    }
    for same in alike
        .values()
        .filter(|same| (2..=MAX_ALIKE).contains(&same.len()))
    {
        let fuller = |a: usize, b: usize| {
            members[a].key != members[b].key && is_fuller(members[a].text, members[b].text)
        };
        for &at in same {
            // The fullest names that this key may stand for: one, or it stands for itself.
            let full: BTreeSet<&str> = same
                .iter()
                .filter(|&&other| {
                    fuller(other, at) && !same.iter().any(|&third| fuller(third, other))
                })
                .map(|&other| members[other].key)
                .collect();
            if let (1, Some(&full)) = (full.len(), full.first()) {
                names.insert(members[at].key.to_owned(), full.to_owned());
            }
        }
    }
    let mut places: HashMap<(&str, &str), BTreeSet<usize>> = HashMap::new();
    for (at, member) in members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.strength != Strength::Weak)
    {
        for place in member.evidence.iter().flat_map(|evidence| &evidence.places) {
            places
                .entry((kind(member.text), place))
                .or_default()
                .insert(at);
        }
    }
    for member in members
        .iter()
        .filter(|member| member.strength == Strength::Weak)
    {
        let named: BTreeSet<&str> = member
            .evidence
            .iter()
            .flat_map(|evidence| &evidence.places)
            .filter_map(|place| places.get(&(kind(member.text), place.as_str())))
            .flatten()
            .filter(|&&at| subject(member.text, members[at].text))
            .map(|&at| {
                names
                    .get(members[at].key)
                    .map_or(members[at].key, String::as_str)
            })
            .collect();
        if let (1, Some(&named)) = (named.len(), named.first()) {
            names.insert(member.key.to_owned(), named.to_owned());
        }
    }
    names
}

fn kind(text: &str) -> &str {
    text.split(SEPARATOR).next().unwrap_or(text)
}

/// Undefined behaviour is of one class only.
fn subject(a: &str, b: &str) -> bool {
    kind(a) != "undefined-behaviour" || a.rsplit(SEPARATOR).next() == b.rsplit(SEPARATOR).next()
}

/// The text with each function without its scopes.
fn loose(text: &str) -> String {
    let parts = text
        .split(SEPARATOR)
        .map(|part| part.rsplit("::").next().unwrap_or(part));
    parts.collect::<Vec<_>>().join(SEPARATOR)
}

/// True if every part of `a` is that of `b`, with more scopes before it in at least one.
fn is_fuller(a: &str, b: &str) -> bool {
    let ends = |(a, b): (&str, &str)| {
        a == b
            || a.strip_suffix(b)
                .is_some_and(|scopes| scopes.ends_with("::"))
    };
    a != b
        && a.split(SEPARATOR).count() == b.split(SEPARATOR).count()
        && a.split(SEPARATOR).zip(b.split(SEPARATOR)).all(ends)
}

/// The key of a record in a group that people split: of more functions, and of the access.
pub(super) fn split(item: &Item<'_>, frames: usize) -> (String, String) {
    let mut record = Record::new(&item.tool, crate::kind::Kind::Other, "");
    record.kind = item.kind.to_string();
    record.stacks = item.stacks();
    record.source = Source::at(0);
    let inner = Key::with_frames(&record, &Frames::default(), frames.clamp(1, 64));
    // The stacks that the first key did not use tell the bugs apart, too.
    let other = crate::key::responsible(&record)
        .get(1)
        .map(|&stack| stack.clone());
    let mut text = inner.text;
    if let Some(stack) = other {
        record.stacks = vec![Stack {
            role: Role::Access,
            ..stack
        }];
        record.kind = "crash".to_owned();
        text = format!(
            "{text}{SEPARATOR}{}",
            Key::of(&record, &Frames::default()).text
        );
    }
    let key = Key {
        text,
        strength: inner.strength,
    };
    (
        format!("{}/{}", item.key, key.key().trim_start_matches("v1:")),
        key.text,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> BTreeMap<String, String> {
        let members: Vec<Member<'_>> = texts
            .iter()
            .map(|text| Member {
                key: text,
                text,
                strength: Strength::Full,
                evidence: None,
            })
            .collect();
        resolve(&members)
    }

    #[test]
    fn names_with_fewer_scopes_join_the_one_that_fits() {
        let found = names(&[
            "leak | f | main",
            "leak | a::f | main",
            "leak | x::a::f | main",
            "leak | g | main",
        ]);
        assert_eq!(found["leak | f | main"], "leak | x::a::f | main");
        assert_eq!(found["leak | a::f | main"], "leak | x::a::f | main");
        assert_eq!(found.len(), 2);
        // Two fit: it stays alone.
        assert!(
            names(&[
                "leak | f | main",
                "leak | a::f | main",
                "leak | b::f | main"
            ])
            .is_empty()
        );
    }
}
