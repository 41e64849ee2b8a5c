//! The third witness: who points where, with names. The engine is [`heaps::graph`]; what is a root in this process is known here.
//!
//! ```text
//! Session + Analysis ──roots──> Ground ──┬── holders   who points at a block, named as a person would
//!                                        └── leaks     what nobody points at, in groups
//! ```

pub mod holders;
pub mod leaks;
mod missing;
pub mod roots;

use std::ops::Range;

use ground::target::Address;
use heaps::graph::Universe;
use heaps::graph::roots::Ranges;

use crate::analysis::Analysis;
use crate::events::Events;
use crate::types::Types;
use holders::leftover::Leftovers;
use holders::tls::ThreadLocals;
use holders::variables::Variables;
use postmortem::session::{Limit, Session};

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
    /// What blocks hold.
    pub types: Types<'a>,
    /// The memory of threads.
    pub lands: Vec<roots::Land>,
    /// A log of the same run, if one was given.
    pub events: Option<Events>,
    /// What the core does not hold of the memory in which pointers may stand.
    pub missing: Option<Limit>,
}
