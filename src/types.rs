//! What type a block holds, and how that is known. Never a guess without its source.
//!
//! ```text
//! first word ──> vtable ──┬── its symbol, _ZTV...      vtable
//!                         ├── its type_info's name     rtti
//!                         └── module + offset          vtable, a class without a name
//! a holder's next word ──> table of a Rust trait object, proved by size and alignment
//! ```
//!
//! A block that is free holds no object: what it is said to be, it was.

mod class;
pub mod python;
pub mod rtti;
pub mod shorten;
mod trait_object;

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use ground::target::{Address, MemoryExt, Module, ModuleId};
use heaps::map::BlockState;

use class::Class;
use postmortem::session::Session;

/// How a type is known, the best way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnownBy {
    /// By a virtual table: its symbol or its place, or the table of a trait object.
    Vtable,
    /// By the type_info that the virtual table leads to.
    Rtti,
    /// By debug information, followed from a typed place along typed pointers.
    DebugInfo,
    /// By what stands in the block: an object of an interpreter's that names its type.
    Content,
}

impl KnownBy {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            KnownBy::Vtable => "vtable",
            KnownBy::Rtti => "rtti",
            KnownBy::DebugInfo => "debug-info",
            KnownBy::Content => "content",
        }
    }
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Type {
    /// Its name, without what the standard library adds by itself: `Session`, `Session[9]`, `std::map<int, std::string>`.
    pub name: String,
    /// How that is known.
    pub known_by: KnownBy,
    /// The module that has its virtual table.
    pub module: String,
    /// Bytes of one object, where debug information or a trait object's table tells.
    pub size: Option<u64>,
    /// The block is free: this is what it held last.
    pub was: bool,
    /// The object may be of a class that is derived from this one: it was being made or destroyed, or its destructor has run.
    pub is_base: bool,
    /// Another source that says something else, in words.
    pub conflict: Option<String>,
}

/// A block of which the type is asked.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its first byte.
    pub address: Address,
    /// Its usable bytes.
    pub bytes: u64,
    /// Its state.
    pub state: BlockState,
}

/// Where in a free block the word of a second base is looked for.
const MAX_BASES_AT: u64 = 128;
/// Objects of an array that are looked at.
const MAX_ELEMENTS: u64 = 64;
/// Bytes of the largest block that is taken for an object, or an array, of a size that nothing tells: larger ones are cut by the program.
const MAX_UNKNOWN: u64 = 64 << 10;
/// Virtual tables that are remembered.
const MAX_KNOWN: usize = 1 << 20;

/// The types of one process: what was found out of a virtual table is kept.
pub struct Types<'s> {
    session: &'s Session,
    /// By the value that objects hold.
    known: RwLock<BTreeMap<u64, Option<Class>>>,
}

impl<'s> Types<'s> {
    /// Nothing is known yet.
    pub fn new(session: &'s Session) -> Self {
        Self {
            session,
            known: RwLock::default(),
        }
    }

    /// The type of what the block holds, by its own words.
    pub fn of_block(&self, block: Place) -> Option<Type> {
        if block.state != BlockState::InUse {
            return self.last_of(block);
        }
        let first = self.word(block.address)?;
        if let Some(class) = self.class(first) {
            return self.object(block, first, &class);
        }
        self.array_behind_its_count(block, first)
    }

    /// The type of what the block holds, by the word that stands behind a pointer to its start: a trait object's.
    pub fn of_trait_object(&self, block: Place, table: u64) -> Option<Type> {
        let module = self.module_of(table)?;
        trait_object::read(self.session, module, block, table)
    }

    /// What a block in use that begins with a virtual table's address holds.
    fn object(&self, block: Place, table: u64, class: &Class) -> Option<Type> {
        if class.to_top != 0 {
            return None; // the object would begin in front of the block
        }
        let Some(size) = class.size else {
            return self.object_of_unknown_size(block, table, class);
        };
        if fits(block.bytes, size) {
            return Some(class.to_type());
        }
        // An array without a count in front of it: of a class whose destructor does nothing.
        let count = block.bytes.checked_div(size).filter(|count| *count > 1)?;
        let rest = block.bytes.checked_sub(count.checked_mul(size)?)?;
        let count = self.run_of(block.address, table, size, count);
        let used = count.checked_mul(size)?;
        (count > 1 && fits(block.bytes, used) && rest < size).then(|| class.to_array(count))
    }

    /// The same where nothing says how large an object is. No object holds one of its own class, so that its table further on begins
    /// the next one of an array.
    fn object_of_unknown_size(&self, block: Place, table: u64, class: &Class) -> Option<Type> {
        if block.bytes > MAX_UNKNOWN {
            return None;
        }
        let again = |offset: &u64| {
            let at = block.address.checked_add(*offset);
            at.and_then(|at| self.word(at)) == Some(table)
        };
        let Some(size) = (8..block.bytes & !7).step_by(8).find(again) else {
            return Some(class.to_type());
        };
        let count = block.bytes.checked_div(size)?;
        let run = self.run_of(block.address, table, size, count);
        let used = size.checked_mul(run)?;
        // What a size class has beyond an object may hold what was there before.
        (run > 1 && run == count.min(MAX_ELEMENTS) && (run < count || fits(block.bytes, used)))
            .then(|| class.to_array(count))
    }

    /// `new T[n]` keeps n in front of its first object, if T has a destructor.
    fn array_behind_its_count(&self, block: Place, count: u64) -> Option<Type> {
        let room = block.bytes.checked_sub(8)?;
        if count == 0 || count > room / 8 {
            return None;
        }
        let first = block.address.checked_add(8)?;
        let table = self.word(first)?;
        let class = self.class(table).filter(|class| class.to_top == 0)?;
        let size = match class.size {
            Some(size) => size,
            // The distance to the second object's table.
            None if count > 1 => (8..=room / count).step_by(8).find(|size| {
                let second = first.checked_add(*size);
                second.and_then(|at| self.word(at)) == Some(table)
            })?,
            None => return None,
        };
        let used = count.checked_mul(size)?;
        let seen = count.min(MAX_ELEMENTS);
        (fits(room, used) && self.run_of(first, table, size, seen) == seen)
            .then(|| class.to_array(count))
    }

    /// How many objects of `size` bytes follow each other that begin with `table`, of `most`.
    fn run_of(&self, first: Address, table: u64, size: u64, most: u64) -> u64 {
        let begins = |index: &u64| {
            let at = index.checked_mul(size).and_then(|at| first.checked_add(at));
            at.and_then(|at| self.word(at)) == Some(table)
        };
        (0..most.min(MAX_ELEMENTS)).take_while(begins).count() as u64
    }

    /// What a free block held last, as far as a virtual table is left in it: at its start, or at a base further on.
    fn last_of(&self, block: Place) -> Option<Type> {
        let end = block.bytes.min(MAX_BASES_AT) & !7;
        let class = (0..end).step_by(8).find_map(|offset| {
            let word = self.word(block.address.checked_add(offset)?)?;
            let class = self.class(word)?;
            let is_here = class.to_top.checked_neg().map(i64::cast_unsigned) == Some(offset);
            let fits = class.size.is_none_or(|size| size <= block.bytes);
            (is_here && fits).then_some(class)
        })?;
        Some(Type {
            was: true,
            // A destructor leaves the table of the class whose it is.
            is_base: class.is_base || class.has_derived,
            ..class.to_type()
        })
    }

    /// The class whose objects hold this value: its module, and its name as it is defined.
    pub fn class_of(&self, table: u64) -> Option<(ModuleId, String)> {
        let module = self.module_of(table)?;
        Some((module.id, self.class(table)?.full?))
    }

    fn word(&self, at: Address) -> Option<u64> {
        self.session.target().memory.read_u64(at).ok()
    }

    /// The module in which a virtual table can be at this address.
    fn module_of(&self, table: u64) -> Option<&'s Module> {
        let at = Address::new(table);
        let module = self.session.modules().module_at(at)?;
        let is_inside = module
            .segments
            .iter()
            .any(|segment| segment.range.contains(&at));
        (table.is_multiple_of(8) && is_inside).then_some(module)
    }

    /// The class whose objects hold this value.
    fn class(&self, table: u64) -> Option<Class> {
        let module = self.module_of(table)?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&table) {
            return known.clone();
        }
        drop(known);
        let found = class::read(self.session, module, Address::new(table));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_KNOWN {
            known.insert(table, found.clone());
        }
        found
    }
}

/// Whether an allocator that was asked for `size` bytes may have given a block of `bytes`: size classes lie at most a quarter apart.
pub fn fits(bytes: u64, size: u64) -> bool {
    const MOST_OF_SMALL: u64 = 40;
    size <= bytes && bytes - size <= (size / 4).max(MOST_OF_SMALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_at_most_a_size_class_larger_than_what_was_asked_for() {
        for (bytes, size, expected) in [
            (24, 8, true),
            (40, 48, false),
            (48, 48, true),
            (96, 48, false),
            (1280, 1025, true),
            (2048, 1024, false),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(fits(bytes, size), expected, "{bytes} {size}");
        }
    }
}
