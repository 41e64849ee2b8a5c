//! What a pointer says of the block that it leads to, and whether the block can be that.

use ground::target::{Address, MemoryExt};
use heaps::graph::lookup::Node;
use heaps::graph::roots::Strength;
use heaps::map::BlockState;

use super::super::labels::{Label, Rank, What};
use super::super::table::{Form, TypeId};
use super::{LEAST_BLOCK, Walker, Work, is_tight};
use crate::types::Place;

/// Elements of an array that must be able to be what they are said to be.
const MAX_CHECKED: u64 = 64;
/// Bytes of the largest block that one structure with an open end has alone: a larger one is rather cut up by the program, which puts such a
/// structure first.
const MAX_OPEN: u64 = 1024;
/// Small numbers, and those just below zero, stand where pointers do: marks of the program's own.
const MARKS: u64 = 4096;

impl Walker<'_, '_, '_> {
    /// Follows a pointer to `target` whose value is `value`; `place`: where it stands.
    pub fn point(&mut self, place: Option<u64>, value: u64, target: TypeId) -> Option<()> {
        if !self.table.is_followed(target) {
            return None;
        }
        let lookup = &self.ground.universe.lookup;
        let hit = lookup.find(value)?;
        lookup.heap(hit.node)?;
        if !lookup.is_live(hit.node) {
            return None;
        }
        if self.watch.is_some_and(|watch| watch.block.get() == value) {
            self.see(place, What::Object, target);
        }
        if self
            .known(hit.node)
            .is_some_and(|known| known.rank == Rank::Vtable)
        {
            return None;
        }
        let edge = self.resolver.weighed(place.map(Address::new), value, hit);
        if edge.strength == Strength::Weak {
            return None;
        }
        let (start, bytes) = lookup.extent(hit.node)?;
        let start = start.get();
        if self.object(hit.node, start, bytes).is_some() {
            return None;
        }
        match hit.offset {
            0 => self.pointee(hit.node, start, bytes, target),
            8 | 16 => self.counted_array(hit.node, value, (start, bytes), target),
            _ => None,
        }
    }

    /// Claims a block whose own words say that it holds an object of a class.
    pub fn object(&mut self, node: Node, start: u64, bytes: u64) -> Option<()> {
        let (lowest, highest) = self.modules;
        let first = self.word(start)?;
        let in_module = |word: u64| (lowest..highest).contains(&word);
        let (table, ahead) = match in_module(first) {
            true => (first, 0),
            false if first <= bytes / 8 => {
                (self.field(start, 8).filter(|word| in_module(*word))?, 8)
            }
            false => return None,
        };
        let place = Place {
            address: Address::new(start),
            bytes,
            state: BlockState::InUse,
        };
        let ground = self.ground;
        let found = ground.types.of_block(place)?;
        let of = match self.classes.get(&table) {
            Some(known) => *known,
            None => {
                let class = ground.types.class_of(table);
                let of = class.and_then(|(module, name)| {
                    let definition = self.table.catalog().definition(module, &name)?;
                    Some(self.table.id(definition))
                });
                self.classes.insert(table, of);
                of
            }
        };
        let count = count_of(&found.name);
        let label = Label {
            what: match (count, ahead) {
                (None, _) => What::Object,
                (Some(_), 0) => What::Array,
                (Some(_), _) => What::Counted,
            },
            of,
            rank: Rank::Vtable,
        };
        let work = of.and_then(|of| {
            Some(Work {
                at: start.checked_add(ahead)?,
                of,
                count: count.unwrap_or(1),
            })
        });
        self.claim(node, label, work);
        Some(())
    }

    /// Claims a block by the type of a pointer to its start.
    fn pointee(&mut self, node: Node, start: u64, bytes: u64, target: TypeId) -> Option<()> {
        let known = self.table.get(target)?;
        let size = known.size;
        match &known.form {
            Form::Scalar | Form::Pointer(_) => {
                let count = bytes.checked_div(size).filter(|count| *count > 0)?;
                let what = match bytes <= LEAST_BLOCK && !is_character(known.name.as_deref()) {
                    true => What::Object,
                    false => What::Array,
                };
                let is_pointer = matches!(known.form, Form::Pointer(_));
                let count = if is_pointer {
                    self.pointers_from(start, count)
                } else {
                    count
                };
                self.claim_values(node, what, target, (start, count));
            }
            Form::Array { element, .. } => {
                let element = *element;
                let each = self.table.get(element)?.size;
                if is_tight(bytes, size) && each > 0 {
                    self.claim_values(node, What::Array, element, (start, size / each));
                }
            }
            Form::Structure(_) if size > bytes => self.note_larger(node, target),
            Form::Structure(_) if size > 0 => {
                if self.table.has_table(target) || !self.is_plausible(start, target) {
                    return None;
                }
                let is_open = bytes <= MAX_OPEN && self.table.is_open(target);
                if is_open || is_tight(bytes, size) {
                    self.claim_values(node, What::Object, target, (start, 1));
                    return Some(());
                }
                let count = bytes / size;
                if count > 1 && self.is_array(start, target, size, count) {
                    self.claim_values(node, What::Array, target, (start, count));
                    return Some(());
                }
                let label = Label {
                    what: What::Object,
                    of: Some(target),
                    rank: Rank::Prefix,
                };
                let work = Work {
                    at: start,
                    of: target,
                    count: 1,
                };
                self.claim(node, label, Some(work));
            }
            _ => {}
        }
        Some(())
    }

    fn claim_values(&mut self, node: Node, what: What, of: TypeId, (at, count): (u64, u64)) {
        let of = self.table.canonical(of);
        let label = Label {
            what,
            of: Some(of),
            rank: self.rank,
        };
        self.claim(node, label, Some(Work { at, of, count }));
    }

    /// How many words from `start` on can be pointers, of `most`.
    fn pointers_from(&mut self, start: u64, most: u64) -> u64 {
        let mut count = 0;
        while count < most {
            let word = start.checked_add(count.saturating_mul(8));
            let Some(word) = word.and_then(|at| self.word(at)) else {
                break;
            };
            if !self.can_be_pointer(word) || !self.spend() {
                break;
            }
            count += 1;
        }
        count
    }

    /// `new T[n]` keeps n in front of its first object, if T has a destructor.
    fn counted_array(
        &mut self,
        node: Node,
        value: u64,
        (start, bytes): (u64, u64),
        target: TypeId,
    ) -> Option<()> {
        let known = self.table.get(target)?;
        if !matches!(known.form, Form::Structure(_)) || self.table.has_table(target) {
            return None;
        }
        let count = self.word(value.checked_sub(8)?)?;
        let ahead = value.checked_sub(start)?;
        let whole = known.size.checked_mul(count)?.checked_add(ahead)?;
        if count > 0 && is_tight(bytes, whole) && self.is_plausible(value, target) {
            self.claim_values(node, What::Counted, target, (value, count));
        }
        Some(())
    }

    fn can_be_pointer(&self, value: u64) -> bool {
        let is_mark = !(MARKS..=u64::MAX - MARKS).contains(&value);
        let memory = self.ground.session.memory();
        is_mark || memory.region_at(Address::new(value)).is_some()
    }

    /// Whether the pointers of a value of the type can all be pointers.
    pub fn is_plausible(&mut self, at: u64, of: TypeId) -> bool {
        let offsets = self.table.pointers(of);
        offsets.iter().all(|offset| {
            let word = at.checked_add(*offset).and_then(|at| self.word(at));
            word.is_some_and(|word| self.can_be_pointer(word))
        })
    }

    /// Whether a block is an array: what follows its first element is of the same type, by its pointers, one of which leads to a block.
    fn is_array(&mut self, start: u64, of: TypeId, size: u64, count: u64) -> bool {
        let offsets = self.table.pointers(of);
        let mut leads = false;
        for index in 1..count.min(MAX_CHECKED) {
            let at = index
                .checked_mul(size)
                .and_then(|inside| start.checked_add(inside));
            let Some(at) = at.filter(|at| self.is_plausible(*at, of)) else {
                return false;
            };
            leads |= offsets.iter().any(|offset| {
                let word = at.checked_add(*offset).and_then(|at| self.word(at));
                word.is_some_and(|word| self.block_at(word).is_some())
            });
        }
        leads
    }
}

/// Whether a number is a character of more than one byte, of which there are always several.
fn is_character(name: Option<&str>) -> bool {
    matches!(name, Some("wchar_t" | "char16_t" | "char32_t"))
}

/// `9` of `Session[9]`.
fn count_of(name: &str) -> Option<u64> {
    let (_, count) = name.strip_suffix(']')?.rsplit_once('[')?;
    count.parse().ok()
}
