//! Types by debug information, followed from variables and objects along typed pointers.
//!
//! ```text
//! seeds ──┬─ variables with one place, thread-locals       seeds
//!         ├─ blocks that show their class                  seeds
//!         └─ live variables of frames                      seeds
//! place of a type ──> pointers, arrays, containers ──> blocks ──> claims, breadth first       walker, containers, rust
//! block ──> a small number ──> what is said of it           labels
//! block, offset ──> names of members                        paths
//! ```
//!
//! Cost: two bytes for each block, one pass over what is reached; one pass over the debugging entries of each module.

mod containers;
pub mod disagreement;
mod labels;
mod paths;
mod rust;
mod seeds;
mod table;
#[cfg(test)]
mod tests;
mod walker;

use std::sync::Arc;

use ground::target::ModuleId;
use heaps::graph::lookup::{Lookup, Node};

use self::disagreement::{Disagreement, Watch};
use self::labels::{Rank, What};
use self::seeds::Static;
use self::table::{Known, Table, TypeId};
use self::walker::{Found, Walker};
use super::Ground;
use crate::types::shorten::shortened;
use crate::types::{KnownBy, Type};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of debugging entries of one module; of a larger one nothing is read.
    pub entries: u64,
    /// Values that are looked at.
    pub steps: u64,
    /// Blocks that take a claim.
    pub blocks: u64,
    /// Whether all blocks are looked at for objects of classes.
    pub objects: bool,
    /// Whether libraries' types are read, not only the program's.
    pub libraries: bool,
    /// A block whose holders are to be compared.
    pub watch: Option<Watch>,
}

impl Limits {
    /// Where types were asked for.
    pub const WHOLE: Self = Self {
        entries: 4 << 30,
        steps: 1 << 31,
        blocks: 1 << 32,
        objects: true,
        libraries: true,
        watch: None,
    };
    /// Where blocks were asked for that somebody may hold.
    pub const HELD: Self = Self {
        entries: 1 << 30,
        steps: 1 << 25,
        blocks: 1 << 22,
        objects: false,
        libraries: true,
        watch: None,
    };
    /// Where the question was another one.
    pub const ASIDE: Self = Self {
        entries: 64 << 20,
        steps: 1 << 22,
        blocks: 1 << 19,
        objects: false,
        libraries: false,
        watch: None,
    };
}

/// What was found of a process.
pub struct Propagated {
    found: Found,
    /// What each label says.
    types: Vec<Option<Type>>,
    known: Vec<Option<Arc<Known>>>,
    statics: Vec<Static>,
    disagreement: Option<Disagreement>,
}

/// Follows types through a process; `None` where no module has debug information.
pub fn propagate(ground: &Ground<'_>, limits: Limits) -> Option<Propagated> {
    let debug = ground.session.debug_info();
    let modules = ground.session.modules();
    let wanted = |module: ModuleId| {
        let is_program = modules
            .module(module)
            .is_some_and(|module| module.is_executable);
        let bytes = match limits.libraries || is_program {
            true => debug.debug_info_bytes(module),
            false => 0,
        };
        bytes > 0 && bytes <= limits.entries
    };
    if !modules.modules().iter().any(|module| wanted(module.id)) {
        return None;
    }
    debug.with_catalog(wanted, |catalog| {
        let mut walker = Walker::new(ground, Table::new(catalog), limits)?;
        if limits.objects {
            walker.objects();
        }
        let statics = walker.statics();
        walker.run();
        walker.locals();
        walker.run();
        let disagreement = limits
            .watch
            .and_then(|watch| disagreement::find(&mut walker, watch));
        let (found, mut table) = walker.finish();
        let types = found.labels.list().iter().map(|label| {
            if label.rank == Rank::Prefix {
                return None;
            }
            if let What::Other(index) = label.what {
                return found.others.get(index as usize).cloned();
            }
            let name = labels::named(label, &mut table)?;
            let of = label.of.or(match label.what {
                What::Buffer(id) | What::Characters(id) | What::Table(id) | What::Node(id, _) => {
                    Some(id)
                }
                _ => None,
            })?;
            let known = table.get(of)?;
            let is_own = matches!(label.what, What::Object | What::Array | What::Counted);
            let module = modules.module(known.module);
            Some(Type {
                name,
                known_by: KnownBy::DebugInfo,
                module: module.map_or(String::new(), |module| module.name.clone()),
                size: (is_own && known.size > 0).then_some(known.size),
                was: false,
                is_base: false,
                conflict: None,
            })
        });
        let types = types.collect();
        Some(Propagated {
            types,
            statics,
            disagreement,
            known: table.into_read(),
            found,
        })
    })
}

impl Propagated {
    /// What a block in use holds.
    pub fn type_of(&self, lookup: &Lookup<'_>, node: Node) -> Option<Type> {
        let number = self.found.numbers.of(lookup, node)?;
        let label = *self.found.column.get(number as usize)?;
        let mut found = self.numbered(label)?.clone();
        let other = self.found.conflicts.get(&number);
        let rank = |number: u16| self.found.labels.get(number).map(|label| label.rank);
        if let Some((other, said)) = other.and_then(|other| Some((*other, self.numbered(*other)?)))
            && said.name != found.name
        {
            // Of two pointers one is as good as the other: a type that is wrong is worse than none.
            if rank(other) == rank(label) && rank(label) < Some(Rank::Container) {
                return None;
            }
            found.conflict = Some(format!("another pointer says {}", said.name));
        }
        if let Some(bytes) = self.larger_definition(number, &found) {
            found.conflict = Some(format!(
                "another pointer to it is of a type of that name with {bytes} bytes, for which the block is too small: two definitions of one name"
            ));
        }
        Some(found)
    }

    /// What a block holds, and the bytes of a larger definition of that name by which something points at it.
    pub fn two_definitions(&self, lookup: &Lookup<'_>, node: Node) -> Option<(Type, u64)> {
        let number = self.found.numbers.of(lookup, node)?;
        let found = self.type_of(lookup, node)?;
        let bytes = self.larger_definition(number, &found)?;
        Some((found, bytes))
    }

    /// The bytes of another definition of a block's type, by which something points at the block, if the block is too small for it.
    fn larger_definition(&self, number: u32, found: &Type) -> Option<u64> {
        let other = self.get(*self.found.larger.get(&number)?)?;
        let name = shortened(other.name.as_deref()?);
        (found.size.is_some_and(|size| size < other.size) && name == found.name)
            .then_some(other.size)
    }

    /// The number of what is said of a block, for those that nobody contradicts: types of many blocks are told by it without a copy of each.
    pub fn number_of(&self, lookup: &Lookup<'_>, node: Node) -> Option<u16> {
        let number = self.found.numbers.of(lookup, node)?;
        let label = *self.found.column.get(number as usize)?;
        let is_told = self.numbered(label).is_some();
        let is_alone =
            !self.found.conflicts.contains_key(&number) && !self.found.larger.contains_key(&number);
        (is_told && is_alone).then_some(label)
    }

    /// What a number says.
    pub fn numbered(&self, label: u16) -> Option<&Type> {
        let index = usize::from(label).checked_sub(1)?;
        self.types.get(index)?.as_ref()
    }

    /// Two holders of the block that was watched, which cannot both be right.
    pub fn disagreement(&self) -> Option<&Disagreement> {
        self.disagreement.as_ref()
    }

    /// Not everything was followed.
    pub fn is_cut(&self) -> bool {
        self.found.is_cut
    }

    fn get(&self, id: TypeId) -> Option<&Known> {
        self.known.get(id.index())?.as_deref()
    }
}
