//! Where the process's environment stands.
//!
//! ```text
//! argc  argv...  0  envp...  0  auxiliary vector  ...  AT_RANDOM's bytes  strings of argv, of envp
//! ```
//!
//! The kernel wrote this once, at the upper end of the first stack. The auxiliary vector is in the core's notes, too, so that it
//! is found again in memory, and what leads to the environment stands in front of it.

use ground::target::{Address, Environment, MemoryExt};

use crate::corefile::{AddressSpace, CoreFile, auxv};

/// Bytes below the random ones that are searched for the auxiliary vector.
const NEAR: u64 = 1 << 14;
/// Pointers that are followed back at most.
const MAX_STRINGS: u64 = 1 << 16;

/// Finds it. `None` where the core does not hold it.
pub fn find(core: &CoreFile, memory: &AddressSpace) -> Option<Environment> {
    if core.abi().pointer_bytes != 8 {
        return None;
    }
    let pairs = core.auxiliary();
    let random = Address::new(core.auxv(auxv::AT_RANDOM)?);
    let stack = memory.region_at(random)?.range.clone();
    let word = |at: Address| memory.read_u64(at).ok();
    let is_vector = |at: Address| {
        pairs.iter().zip(0u64..).all(|((tag, value), index)| {
            let at = at.saturating_add(index.saturating_mul(16));
            word(at) == Some(*tag) && word(at.saturating_add(8)) == Some(*value)
        })
    };
    let last = random.get() & !7;
    let mut places = (0..NEAR)
        .step_by(8)
        .map_while(|bytes| last.checked_sub(bytes));
    let vector = places.find(|at| !pairs.is_empty() && is_vector(Address::new(*at)))?;
    let end = Address::new(vector).checked_sub(8)?;
    if word(end) != Some(0) {
        return None;
    }
    let above = |text: u64| (vector..stack.end.get()).contains(&text);
    let mut count = 0u64;
    let mut first = end;
    while count < MAX_STRINGS && word(first.checked_sub(8)?).is_some_and(above) {
        count = count.saturating_add(1);
        first = first.checked_sub(8)?;
    }
    // The end of the arguments, which the environment begins behind.
    (word(first.checked_sub(8)?) == Some(0)).then(|| Environment::new(first, count))
}
