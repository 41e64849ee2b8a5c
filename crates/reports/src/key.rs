//! Which reports are the same bug: a key of the kind and the responsible functions, the same for all tools, compilers and builds.
//!
//! `v1` never changes what it means: a later version stands beside it. The text that is hashed is kept in `key_text`.

mod ignored;
mod names;

use sha2::{Digest, Sha256};

pub use ignored::Frames;
pub(crate) use names::{LAMBDA, Name};

use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Stack, Strength, hexadecimal};
use crate::text;
use ignored::Class;

/// Functions of the responsible stack that a key has.
pub const MAX_FRAMES: usize = 3;

/// Innermost frames in which an allocator is looked for.
const MAX_ALLOCATOR: usize = 12;

/// What separates the parts of a key's text.
pub(crate) const SEPARATOR: &str = " | ";

/// A grouping key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The readable form: what the key is the hash of.
    pub text: String,
    /// How much it rests on.
    pub strength: Strength,
}

impl Key {
    /// The key of a record.
    pub fn of(record: &Record, rules: &Frames) -> Self {
        Self::with_frames(record, rules, MAX_FRAMES)
    }

    /// The key of a record with more or fewer functions; those of a split group have more.
    pub fn with_frames(record: &Record, rules: &Frames, most: usize) -> Self {
        let mut parts = vec![record.kind.clone()];
        let found = if record.is(Kind::DataRace) {
            race(record, rules)
        } else {
            blame(record, rules, most)
        };
        let mut strength = found.strength;
        parts.extend(found.parts);
        if record.is(Kind::UndefinedBehaviour) || record.is(Kind::DataRace) {
            parts.extend(record.subject.clone());
        } else if strength == Strength::Weak && (found.is_nothing || record.subject.is_some()) {
            // Strangers are not grouped by nothing: the program and heapcheck's own fingerprint, or the log.
            let program = record.process.as_deref().unwrap_or(&record.source.file);
            parts.truncate(1);
            parts.push(format!("in {}", text::base_name(program)));
            if let Some(fingerprint) = &record.subject {
                parts.push(fingerprint.clone());
                strength = Strength::Short; // it is made of names, and the same in the next build
            }
        }
        let clean = |part: &String| part.replace(SEPARATOR, " ");
        Self {
            text: parts.iter().map(clean).collect::<Vec<_>>().join(SEPARATOR),
            strength,
        }
    }

    /// The key itself.
    pub fn key(&self) -> String {
        format!("v1:{}", hexadecimal(&Sha256::digest(&self.text)[..8]))
    }

    /// Writes the key into its record.
    pub fn apply(self, record: &mut Record) {
        record.key = self.key();
        record.key_strength = self.strength;
        record.key_text = self.text;
    }
}

/// The stacks of a record in the order in which they are asked who is to blame.
pub fn responsible(record: &Record) -> Vec<&Stack> {
    let order: &[Role] = match record.kind.as_str() {
        "use-after-free" | "use-after-free-write" | "dangling-reference" => {
            &[Role::Free, Role::Access, Role::Allocation]
        }
        "double-free"
        | "invalid-free"
        | "mismatched-free"
        | "allocator-mismatch"
        | "aliased-block"
        | "misaligned-free-entry"
        | "invalid-free-entry"
        | "cyclic-free-list" => &[Role::Free, Role::Access, Role::Allocation],
        "memory-leak" | "live-memory" => &[Role::Allocation],
        "data-race" => &[
            Role::Access,
            Role::OtherAccess,
            Role::Creation,
            Role::Allocation,
        ],
        "uninitialised-use" => &[Role::Access, Role::Origin, Role::Allocation],
        "undefined-behaviour" => &[Role::Access, Role::Origin],
        _ => &[Role::Access, Role::OtherAccess, Role::Allocation],
    };
    order
        .iter()
        .filter_map(|&role| record.stack(role))
        .collect()
}

/// The frames of a stack that are the program's: without the allocator at the top and what starts programs and threads at the end.
pub(crate) fn trimmed(stack: &Stack) -> &[Frame] {
    let name = |frame: &Frame| Name::of(frame.function.as_deref().unwrap_or(""));
    let inside = stack
        .frames
        .iter()
        .take(MAX_ALLOCATOR)
        .rposition(|frame| ignored::is_allocator(name(frame).last()));
    let from = inside.map_or(0, |at| at + 1);
    let is_root =
        |frame: &Frame| ignored::class(frame, &name(frame), &Frames::default()) == Class::Root;
    let to = stack
        .frames
        .iter()
        .skip(from)
        .position(is_root)
        .map_or(stack.frames.len(), |at| from + at);
    match stack.frames.get(from..to) {
        Some(frames) if !frames.is_empty() => frames,
        _ => &stack.frames,
    }
}

/// What was found to blame.
struct Blame {
    parts: Vec<String>,
    strength: Strength,
    /// True if no stack said anything.
    is_nothing: bool,
}

/// A stack, sorted out.
#[derive(Default)]
struct Sorted {
    own: Vec<String>,
    /// True if more of the program's own is outside of `own`, or the stack is whole.
    whole: bool,
    unnamed: Vec<String>,
    /// True if a function of the program's own that has no name is inside of the first that has one.
    hidden: bool,
    libraries: Vec<String>,
    /// Addresses without a module, by their places in a page: what address randomisation leaves as it is.
    pages: Vec<String>,
    /// Innermost module that is not libc.
    module: Option<String>,
    /// File of `main`, or of the innermost lambda, where that is all there is.
    file: Option<String>,
}

fn sort(stack: &Stack, rules: &Frames, most: usize) -> Sorted {
    let mut sorted = Sorted::default();
    let names: Vec<Name> = stack
        .frames
        .iter()
        .map(|frame| Name::of(frame.function.as_deref().unwrap_or("")))
        .collect();
    // What is inside of the outermost allocator near the top is the allocator's, or the tool's that stands in for it.
    let inside = match stack.role {
        Role::Allocation | Role::Free => names
            .iter()
            .take(MAX_ALLOCATOR)
            .rposition(|name| ignored::is_allocator(name.last())),
        _ => None,
    };
    // `malloc` says nothing of who called it, `strdup` a little.
    sorted.libraries.extend(
        inside
            .and_then(|at| names.get(at))
            .map(Name::text)
            .filter(|name| name.contains("dup")),
    );
    for (frame, name) in stack
        .frames
        .iter()
        .zip(&names)
        .skip(inside.map_or(0, |at| at + 1))
    {
        match ignored::class(frame, name, rules) {
            Class::Own => {
                let text = name.text();
                let is_main = text == "main";
                sorted.whole |= is_main;
                // A stripped library may stand between; a stripped program has its own functions hidden.
                sorted.hidden |= sorted.own.is_empty()
                    && sorted.module.is_some()
                    && sorted.module == frame.module
                    && !sorted.unnamed.is_empty();
                if sorted.own.len() < most && !sorted.own.contains(&text) {
                    sorted.own.push(text);
                    if sorted.own.len() == 1 {
                        sorted.file = frame.file.as_deref().map(stem).map(str::to_owned);
                    }
                }
                sorted.module = sorted.module.take().or_else(|| frame.module.clone());
            }
            Class::Unnamed => {
                sorted.hidden |= sorted.own.is_empty() && frame.module.is_none();
                sorted.module = sorted.module.take().or_else(|| frame.module.clone());
                if sorted.unnamed.len() < most {
                    sorted.unnamed.extend(place(frame));
                }
            }
            Class::Root => {
                sorted.whole = true;
                sorted.module = sorted
                    .module
                    .take()
                    .or_else(|| frame.module.clone().filter(|_| name.last() == "_start"));
            }
            Class::Library => {
                if !name.parts.is_empty() {
                    sorted.libraries.push(name.text());
                }
            }
            Class::Nothing => {
                if let Some(address) = frame.address.as_deref().and_then(text::hexadecimal_value)
                    && frame.module.is_none()
                    && sorted.pages.len() < 2 * most
                {
                    sorted.pages.push(page_offset(address));
                }
            }
        }
    }
    sorted
}

/// A frame without a name: its module and offset, or its file.
fn place(frame: &Frame) -> Option<String> {
    match (&frame.module, &frame.module_offset, &frame.file) {
        (Some(module), Some(offset), _) => Some(format!("{module}+{offset}")),
        (_, _, Some(file)) => {
            let page = frame
                .address
                .as_deref()
                .and_then(text::hexadecimal_value)
                .filter(|_| frame.line.is_none());
            Some(format!(
                "{}{}",
                text::base_name(file),
                page.map(page_offset).unwrap_or_default()
            ))
        }
        (Some(module), None, None) => Some(module.clone()),
        _ => None,
    }
}

/// The place of an address in its page, which address randomisation leaves as it is.
fn page_offset(address: u64) -> String {
    format!("…{:03x}", address & 0xfff)
}

/// A file's name without folders and ending.
fn stem(file: &str) -> &str {
    let name = text::base_name(file);
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

fn blame(record: &Record, rules: &Frames, most: usize) -> Blame {
    let sorted: Vec<Sorted> = responsible(record)
        .into_iter()
        .map(|stack| sort(stack, rules, most))
        .collect();
    if let Some(found) = sorted
        .iter()
        .find(|sorted| !sorted.own.is_empty() && !sorted.hidden)
    {
        let mut own = found.own.clone();
        // One function that every program has says little: the file or module goes with it.
        let common = own.len() == 1 && (own[0] == "main" || own[0] == LAMBDA);
        if common && let Some(where_) = found.file.as_ref().or(found.module.as_ref()) {
            own[0] = format!("{} in {where_}", own[0]);
        }
        let strength = if own.len() > 1 || (found.whole && !common) {
            Strength::Full
        } else {
            Strength::Short
        };
        return Blame {
            parts: own,
            strength,
            is_nothing: false,
        };
    }
    let weak = |parts: Vec<String>| Blame {
        parts,
        strength: Strength::Weak,
        is_nothing: false,
    };
    if let Some(found) = sorted.iter().find(|sorted| !sorted.unnamed.is_empty()) {
        return weak(found.unnamed.clone());
    }
    if let Some(module) = sorted.iter().find_map(|sorted| sorted.module.clone()) {
        return weak(vec![module]);
    }
    // The library's function that the program called.
    if let Some(name) = sorted.iter().find_map(|sorted| sorted.libraries.last()) {
        return weak(vec![name.clone()]);
    }
    if let Some(found) = sorted.iter().find(|sorted| !sorted.pages.is_empty()) {
        return weak(found.pages.clone());
    }
    Blame {
        parts: Vec::new(),
        strength: Strength::Weak,
        is_nothing: true,
    }
}

/// Both sides of a race, in an order of their own: tools see them in any.
fn race(record: &Record, rules: &Frames) -> Blame {
    let side = |role| record.stack(role).map(|stack| sort(stack, rules, 1));
    let sides: Vec<Sorted> = [Role::Access, Role::OtherAccess]
        .into_iter()
        .filter_map(side)
        .collect();
    let mut parts: Vec<String> = sides
        .iter()
        .filter_map(|side| side.own.first().cloned())
        .collect();
    parts.sort();
    parts.dedup();
    let mut strength = if parts.is_empty() {
        Strength::Weak
    } else {
        Strength::Full
    };
    // A place that has no name is told by where its block came from.
    if record.subject.is_none()
        && let Some(block) = record.stack(Role::Allocation)
    {
        parts.extend(sort(block, rules, 1).own);
    }
    if record.subject.is_none() && parts.iter().all(|part| part == LAMBDA) {
        // Threads of functions without names: who made them.
        let maker = record
            .stack(Role::Creation)
            .map(|stack| sort(stack, rules, 2).own);
        parts.extend(maker.unwrap_or_default());
        if parts.is_empty() {
            return blame(record, rules, MAX_FRAMES);
        }
    }
    if parts.is_empty() {
        strength = Strength::Weak;
        parts.extend(sides.iter().flat_map(|side| side.unnamed.first().cloned()));
    }
    Blame {
        parts,
        strength,
        is_nothing: false,
    }
}
