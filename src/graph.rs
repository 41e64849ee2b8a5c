//! The third witness: who points where, with names. The engine is [`heaps::graph`]; what is a root in this process is known here.
//!
//! ```text
//! Session + Analysis ──roots──> Ground ──┬── holders   who points at a block, named as a person would
//!                                        └── leaks     what nobody points at, in groups
//! ```

pub mod holders;
pub mod leaks;
mod missing;
pub mod propagation;
pub mod roots;

use std::ops::Range;
use std::sync::OnceLock;

use ground::target::Address;
use heaps::graph::Universe;
use heaps::graph::lookup::Node;
use heaps::graph::roots::Ranges;
use heaps::map::BlockState;

use crate::analysis::Analysis;
use crate::events::Events;
use crate::types::python::Python;
use crate::types::{self, Type, Types};
use holders::leftover::Leftovers;
use holders::tls::ThreadLocals;
use holders::variables::Variables;
use postmortem::session::{Limit, Session};
use propagation::{Limits, Propagated};

/// The graph of one process, ready to be asked.
pub struct Ground<'a> {
    /// The opened core.
    pub session: &'a Session,
    /// Its heaps.
    pub analysis: &'a Analysis<'a>,
    /// Memory, blocks and roots.
    pub universe: Universe<'a>,
    /// Names of registers: of the universe's register with number `n`, where it is no general one, entry `n` less
    /// [`roots::FIRST_VECTOR`].
    pub vectors: Vec<String>,
    /// The program's own mappings, as the universe numbers them.
    pub mappings: Vec<Range<Address>>,
    /// What each heap keeps for itself beside its extents.
    pub own: Vec<Ranges>,
    /// Variables of frames.
    pub variables: Variables,
    /// What functions do not read of their frames.
    pub leftovers: Leftovers,
    /// Modules with thread-local variables.
    pub thread_locals: ThreadLocals,
    /// What blocks hold, by their own words.
    pub types: Types<'a>,
    /// What they hold by debug information, once it was followed.
    pub typed: OnceLock<Option<Propagated>>,
    /// The interpreter of Python, once it was looked for.
    pub python: OnceLock<Option<Python>>,
    /// The memory of threads.
    pub lands: Vec<roots::Land>,
    /// A log of the same run, if one was given.
    pub events: Option<Events>,
    /// What the core does not hold of the memory in which pointers may stand.
    pub missing: Option<Limit>,
}

impl Ground<'_> {
    /// Follows types by debug information, once; to be called before threads ask in parallel.
    pub fn follow_types(&self, limits: Limits) {
        self.python.get_or_init(|| Python::find(self.session));
        self.typed
            .get_or_init(|| propagation::propagate(self, limits));
    }

    /// What was found by debug information, if it was followed.
    pub fn typed(&self) -> Option<&Propagated> {
        self.typed.get()?.as_ref()
    }

    /// What a block holds: by its own words, else by debug information.
    pub fn type_of_block(&self, place: types::Place) -> Option<Type> {
        self.type_by_itself(place).or_else(|| {
            let (typed, node) = self.followed(place)?;
            typed.type_of(&self.universe.lookup, node)
        })
    }

    /// The same, without a copy where debug information alone tells: the number of what it says.
    pub fn counted_type(&self, place: types::Place) -> CountedType {
        if let Some(found) = self.type_by_itself(place) {
            return CountedType::Told(Some(found));
        }
        let followed = self.followed(place);
        let lookup = &self.universe.lookup;
        match followed.and_then(|(typed, node)| typed.number_of(lookup, node)) {
            Some(number) => CountedType::Numbered(number),
            None => {
                CountedType::Told(followed.and_then(|(typed, node)| typed.type_of(lookup, node)))
            }
        }
    }

    fn type_by_itself(&self, place: types::Place) -> Option<Type> {
        let python = self.python.get().and_then(Option::as_ref);
        let own = self.types.of_block(place);
        own.or_else(|| python?.of_block(self.universe.memory, place))
    }

    fn followed(&self, place: types::Place) -> Option<(&Propagated, Node)> {
        let typed = self.typed().filter(|_| place.state == BlockState::InUse)?;
        let hit = self.universe.lookup.find(place.address.get())?;
        Some((typed, hit.node))
    }
}

/// A block's type, as it is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CountedType {
    /// By debug information: the number of what it says.
    Numbered(u16),
    /// In another way; `None`: not at all.
    Told(Option<Type>),
}
