//! Going back through a function, from a place where its registers are known, to where a value comes from.
//!
//! ```text
//! start ──> ... ──> definition ──> ... ──> place      facts, undone step by step <──┐
//!   │                                                 the value asked for, in terms of registers
//!   └── an argument: goes on in the caller
//! ```
//!
//! Where a jump leads into the way, or a move has a condition, both ways are gone. All must give the same value, or there are several that
//! it can be.

use std::collections::HashSet;
use std::sync::Arc;

use iced_x86::{Instruction, InstructionInfoFactory};

use super::code::{Function, is_call};
use super::definition;
use super::expression::{Expression, Stores, Words, Worked};
use super::facts::{self, ARGUMENTS, Effects, Fact, Facts, VOLATILE};

/// Steps of all ways through one function.
const MAX_STEPS: usize = 40_000;
/// Ways that are open at once.
const MAX_OPEN: usize = 256;

/// What a walk goes by.
pub(super) struct Surroundings<'a> {
    /// The process's memory.
    pub words: Words<'a>,
    /// Base of the thread's own segment.
    pub thread_pointer: Option<u64>,
    /// The registers that a call changes, a bit each; `None` if it never returns.
    pub changed: &'a dyn Fn(&Instruction) -> Option<u16>,
}

/// A place in a function, reached from behind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Index of the instruction that comes next.
    pub index: usize,
    /// The registers before it.
    pub facts: Facts,
    /// What was written from here to the end of the walk.
    pub stores: Arc<Stores>,
    /// The value asked for, if one is, in terms of the registers before it.
    pub goal: Option<Expression>,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Found {
    /// Values of the goal.
    pub values: Vec<Worked>,
    /// Ways that came to the function's start, with what was known there.
    pub entries: Vec<Place>,
    /// A way was lost, or there were too many.
    pub lost: bool,
}

impl Found {
    /// The value, if all ways give this one.
    pub fn value(&self) -> Option<Worked> {
        let first = self.values.first().filter(|_| !self.lost)?;
        let same = self.values.iter().all(|other| other.value == first.value);
        let from = self
            .values
            .iter()
            .all(|other| other.loaded_from == first.loaded_from);
        same.then_some(Worked {
            loaded_from: first.loaded_from.filter(|_| from),
            unsure: self.values.iter().any(|value| value.unsure),
            ..*first
        })
    }

    /// What a register held at the function's start, as all ways there say, and whether no way was lost.
    pub fn at_entry(&self, register: u8) -> Option<(Fact, bool)> {
        let first = self.entries.first()?.facts.get(register)?;
        let told = |entry: &Place| entry.facts.get(register).map(|fact| fact.value);
        self.entries
            .iter()
            .all(|entry| told(entry) == Some(first.value))
            .then_some((first, !self.lost))
    }
}

/// Goes back from a place.
pub(super) fn back(function: &Function, from: Place, around: &Surroundings<'_>) -> Found {
    let mut found = Found::default();
    let mut factory = InstructionInfoFactory::new();
    let mut open = vec![from];
    let mut seen: HashSet<Place> = HashSet::new();
    let mut steps = 0usize;
    while let Some(mut place) = open.pop() {
        loop {
            steps += 1;
            if steps > MAX_STEPS {
                found.lost = true;
                return found;
            }
            match reached(&mut place, around) {
                Goal::Open => {}
                Goal::Known(value) => {
                    if !found.values.contains(&value) {
                        found.values.push(value);
                    }
                    break;
                }
                Goal::Lost => {
                    found.lost = true;
                    break;
                }
            }
            let jumps = function.jumps_to(place.index);
            if (place.index == 0 || !jumps.is_empty()) && !seen.insert(place.clone()) {
                break;
            }
            if place.index == 0 {
                found.entries.push(place.clone());
            }
            let fall = function.falls_from(place.index).filter(|before| {
                let call = function.get(*before).filter(|one| is_call(one));
                call.is_none_or(|call| (around.changed)(call).is_some())
            });
            let mut ways = fall.into_iter().chain(jumps.iter().copied());
            let Some(first) = ways.next() else {
                // Nobody is known to come here: what fills the room between two blocks is dead, the start is come to from
                // outside.
                found.lost |= place.index != 0 && !function.is_filling(place.index);
                break;
            };
            let ways: Vec<usize> = ways.collect();
            for way in [first].iter().chain(&ways) {
                match unmoved(function, &place, *way) {
                    Some(_) if open.len() >= MAX_OPEN => found.lost = true,
                    Some(kept) => open.push(kept),
                    None => {}
                }
            }
            for way in ways {
                if open.len() >= MAX_OPEN {
                    found.lost = true;
                    break;
                }
                match step(function, &place, way, around, &mut factory) {
                    Step::To(next) => open.push(*next),
                    Step::Impossible => {}
                    Step::Lost => found.lost = true,
                }
            }
            match step(function, &place, first, around, &mut factory) {
                Step::To(next) => place = *next,
                Step::Impossible => break,
                Step::Lost => {
                    found.lost = true;
                    break;
                }
            }
        }
    }
    found
}

enum Goal {
    Open,
    Known(Worked),
    Lost,
}

/// Whether the goal can be worked out here.
fn reached(place: &mut Place, around: &Surroundings<'_>) -> Goal {
    let Some(goal) = &place.goal else {
        return Goal::Open;
    };
    if !goal.is_known(&place.facts) {
        return Goal::Open;
    }
    match goal.work_out(&place.facts, &around.words) {
        Some(value) => Goal::Known(value),
        None => Goal::Lost,
    }
}

enum Step {
    To(Box<Place>),
    /// Control cannot have come this way.
    Impossible,
    Lost,
}

/// The place before a conditional move that was not carried out, if it would have moved what is asked for.
fn unmoved(function: &Function, place: &Place, way: usize) -> Option<Place> {
    let instruction = function.get(way)?;
    let to = facts::number(instruction.op0_register())?;
    let asked = place.goal.as_ref().is_some_and(|goal| goal.names(to));
    (asked && definition::is_conditional_move(instruction)).then(|| Place {
        index: way,
        ..place.clone()
    })
}

/// Goes back over the instruction at `way`.
fn step(
    function: &Function,
    place: &Place,
    way: usize,
    around: &Surroundings<'_>,
    factory: &mut InstructionInfoFactory,
) -> Step {
    let Some(instruction) = function.get(way) else {
        return Step::Lost;
    };
    let changed = match is_call(instruction) {
        true => (around.changed)(instruction).unwrap_or(VOLATILE),
        false => 0,
    };
    let effects = Effects::of(instruction, factory, around.thread_pointer, changed);
    let words = &around.words;
    let Ok(facts) = place
        .facts
        .undo(instruction, &effects, &place.stores, words)
    else {
        return Step::Impossible;
    };
    let made = |register: u8| match place.facts.get(register) {
        // What is known behind the instruction, though not before it.
        Some(fact) => Some(Expression::Number(fact.value, Some(fact.origin))),
        None => definition::of(instruction, register, &place.stores, around.thread_pointer),
    };
    let changed = |register: u8| effects.writes(register);
    let before = |register: u8| changed(register).then(|| made(register)).flatten();
    let goal = match &place.goal {
        None => None,
        Some(goal) => {
            let lost = (0..16).any(|one| changed(one) && goal.names(one) && before(one).is_none());
            match goal.with(&before).filter(|_| !lost) {
                Some(goal) => Some(goal),
                None => return Step::Lost,
            }
        }
    };
    let stores = place.stores.before(&changed, &before);
    let stores = match facts::loaded_word(instruction, &place.facts, words) {
        Some(at) if place.goal.is_none() && words.is_live(at) => {
            let mut stores = Stores::clone(&stores);
            stores.loaded.insert(at);
            Arc::new(stores)
        }
        _ => stores,
    };
    let stores = match effects.calls || !effects.stored.is_empty() {
        false => stores,
        true => {
            let mut stores = Stores::clone(&stores);
            stores.called |= effects.calls;
            for (at, bytes) in &effects.stored {
                // A push writes where the stack pointer is behind it; what else is written is addressed by registers that stay.
                let at = at.as_ref().and_then(|at| {
                    let behind = |register: u8| {
                        let fact = place.facts.get(register)?;
                        Some(Expression::Number(fact.value, None))
                    };
                    at.with(&behind)
                });
                match (&place.goal, at) {
                    // Of registers alone, the words of the stack are all that is asked for.
                    (None, Some(Expression::Number(at, _))) if !words.is_live(at) => {}
                    (None, Some(at @ Expression::Number(..))) => stores.add(Some(at), *bytes),
                    (None, _) => stores.anywhere = true,
                    (Some(_), at) => {
                        let known = |at: &Expression| matches!(at, Expression::Number(..));
                        let is_push = instruction.is_stack_instruction();
                        stores.add(at.filter(|at| known(at) || !is_push), *bytes);
                    }
                }
            }
            Arc::new(stores)
        }
    };
    Step::To(Box::new(Place {
        index: way,
        facts,
        stores,
        goal,
    }))
}

/// What the registers of the arguments held at the start of a function that was walked back through from `from`.
pub(super) fn entry_facts(
    function: &Function,
    from: Place,
    around: &Surroundings<'_>,
) -> Vec<(u8, Fact, bool)> {
    let found = back(function, from, around);
    ARGUMENTS
        .into_iter()
        .filter_map(|register| {
            let (fact, sure) = found.at_entry(register)?;
            Some((register, fact, sure))
        })
        .collect()
}
