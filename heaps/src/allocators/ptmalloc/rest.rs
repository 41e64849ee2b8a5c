//! Whether an arena or a cache is at rest: whoever is inside malloc leaves states that look like
//! damage and are none.

use std::ops::Range;

use super::locate::Located;
use crate::presence::Code;
use crate::target::{Address, Module, Target};

/// Where the allocator's code is: glibc keeps all of it between its static helpers, which stand
/// before `malloc`, and `malloc_info`. Without symbols, in functions that refer to its variables.
pub fn code(target: Target<'_>, module: &Module, located: &Located) -> Code {
    const HELPERS: u64 = 0x5000;
    let range = || -> Option<Range<Address>> {
        let first = target.symbols.symbol(module.id, "malloc")?;
        let last = target.symbols.symbol(module.id, "malloc_info")?;
        let start = first.address.checked_sub(HELPERS)?;
        let end = last.address.checked_add(last.size.max(1))?;
        (start < end && end.offset_from(start)? < 1 << 20).then_some(start..end)
    };
    match range() {
        Some(range) => Code::Between(range),
        None => {
            let mut state = vec![located.main..located.main.saturating_add(located.arena.bytes)];
            if let Some((at, _)) = located.parameters {
                state.push(at..at.saturating_add(144));
            }
            Code::Touching(state)
        }
    }
}
