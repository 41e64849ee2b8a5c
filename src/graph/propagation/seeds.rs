//! Where types are known from the start: variables with their places, and blocks that show their class.

use ground::parallel;
use ground::target::{Address, FrameTrust};
use heaps::graph::lookup::Node;
use postmortem::debuginfo::catalog::TypeRef;
use postmortem::debuginfo::{Local, LocalPart, LocalPlace, StaticPlace};

use super::labels::Rank;
use super::table::TypeId;
use super::walker::{Walker, Work};
use crate::types::Place;

/// Frames whose variables are looked at.
const MAX_FRAMES: usize = 1 << 14;
/// Frames of one thread, innermost first.
const MAX_FRAMES_OF_ONE: usize = 256;
/// Threads whose thread-local variables are looked at.
const MAX_THREADS: usize = 1 << 12;
/// Variables of all modules.
const MAX_STATICS: usize = 1 << 20;
/// Bytes of a word.
const WORD: u64 = 8;

/// A variable at its place.
#[derive(Clone, Debug)]
pub struct Static {
    /// Where it begins.
    pub start: Address,
    /// Its bytes.
    pub bytes: u64,
    /// Its name, without scopes.
    pub name: String,
    /// Its type.
    pub of: TypeId,
}

impl Walker<'_, '_, '_> {
    /// Variables that have one place; those that lead anywhere are given back, by address.
    pub fn statics(&mut self) -> Vec<Static> {
        let mut all = Vec::new();
        let session = self.ground.session;
        let modules = self.table.catalog().modules();
        for id in modules {
            let Some(module) = session.modules().module(id) else {
                continue;
            };
            for variable in self.table.catalog().statics(id) {
                if all.len() >= MAX_STATICS {
                    return all;
                }
                let entry = TypeRef {
                    module: id,
                    place: variable.entry,
                };
                let Some((name, of)) = self.table.catalog().variable(entry) else {
                    continue;
                };
                let of = self.table.id(of);
                let of = self.table.canonical(of);
                if self.table.is_inert(of) {
                    continue;
                }
                let bytes = self.table.get(of).map_or(0, |known| known.size);
                let mut add = |walker: &mut Self, start: Address| {
                    all.push(Static {
                        start,
                        bytes,
                        name: name.clone(),
                        of,
                    });
                    walker.inside(start.get(), of);
                };
                match variable.at {
                    StaticPlace::Link(link) => {
                        let start = Address::new(link.wrapping_add(module.bias));
                        let end = start.checked_add(bytes);
                        let is_inside = end.is_some_and(|end| end <= module.range.end);
                        if is_inside && module.range.contains(&start) {
                            add(self, start);
                        }
                    }
                    StaticPlace::ThreadLocal(offset) => {
                        let threads = session.threads().list().iter().take(MAX_THREADS);
                        for thread in threads {
                            let locals = &self.ground.thread_locals;
                            let start = locals.place(session, thread, id, (offset, bytes));
                            if let Some(start) = start {
                                add(self, start);
                            }
                        }
                    }
                }
            }
        }
        all.sort_by_key(|variable| variable.start);
        all
    }

    /// Live variables and parameters of frames that were found by rules.
    pub fn locals(&mut self) {
        self.rank = Rank::Local;
        let ground = self.ground;
        let session = ground.session;
        let mut frames_left = MAX_FRAMES;
        let modules = self.table.catalog().modules();
        for thread in 0..session.threads().list().len() {
            let frames = session.threads().frames(thread);
            for (index, frame) in frames.iter().enumerate().take(MAX_FRAMES_OF_ONE) {
                let is_found = matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi);
                let Some(module) = frame.module.filter(|_| is_found) else {
                    continue;
                };
                let has_types = modules.contains(&module);
                if !has_types || frames_left == 0 {
                    continue;
                }
                frames_left = frames_left.saturating_sub(1);
                let locals = ground.variables.of_frame(session, thread, index);
                let source = session.debug_info().source_at(module, frame.lookup);
                for local in locals.iter() {
                    let function = match &local.inlined {
                        None => source.frames.last(),
                        Some(name) => {
                            let mut frames = source.frames.iter();
                            frames.find(|frame| frame.function.as_ref() == Some(name))
                        }
                    };
                    let line = function.and_then(|function| function.line);
                    if !has_value(local, line.map(u64::from)) {
                        continue;
                    }
                    let Some(place) = local.kind else {
                        continue;
                    };
                    let of = self.table.id(TypeRef { module, place });
                    if self.table.is_inert(of) {
                        continue;
                    }
                    for part in &local.parts {
                        self.part(of, *part, |register| frame.registers.get(register));
                    }
                }
            }
        }
    }

    /// A variable's part: all of it, or the words that it has.
    fn part(&mut self, of: TypeId, part: LocalPart, register: impl Fn(u16) -> Option<u64>) {
        let size = self.table.get(of).map_or(0, |known| known.size);
        let bytes = part.bytes.unwrap_or(size);
        match part.at {
            LocalPlace::Memory(at) if part.offset == 0 && bytes == size => {
                self.later(Work {
                    at: at.get(),
                    of,
                    count: 1,
                });
            }
            LocalPlace::Memory(at) => {
                for index in 0..(bytes / WORD).min(64) {
                    let inside = index.saturating_mul(WORD);
                    let target = self.target_at(of, part.offset.saturating_add(inside));
                    let at = at.saturating_add(inside).get();
                    if let Some((target, value)) = target.zip(self.word(at)) {
                        self.point(Some(at), value, target);
                    }
                }
            }
            LocalPlace::Register(number) => {
                let target = self.target_at(of, part.offset);
                if let Some((target, value)) = target.zip(register(number)) {
                    self.point(None, value, target);
                }
            }
        }
    }

    /// Blocks that show their class by themselves.
    pub fn objects(&mut self) {
        let ground = self.ground;
        let lookup = &ground.universe.lookup;
        let found = parallel::for_each_index(lookup.rows(), |row| {
            let mut found: Vec<(Node, Address, u64)> = Vec::new();
            lookup.each_live(row, |node, address, bytes| {
                let place = Place {
                    address,
                    bytes,
                    state: heaps::map::BlockState::InUse,
                };
                let is_block = lookup.heap(node).is_some();
                if is_block && ground.types.of_block(place).is_some() {
                    found.push((node, address, bytes));
                }
            });
            found
        });
        for (node, start, bytes) in found.into_iter().flatten() {
            self.object(node, start.get(), bytes);
        }
    }
}

/// Whether a variable has its value at this line of its function: it is a parameter, its place says so, or it was declared before.
fn has_value(local: &Local, line: Option<u64>) -> bool {
    match (local.line, line) {
        _ if local.is_parameter => true,
        (None, _) => true,
        (Some(declared), Some(line)) => declared < line,
        (Some(_), None) => false,
    }
}
