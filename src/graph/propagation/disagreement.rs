//! Two holders of one block that cannot both be right: a word of it is a pointer by the type of the one, a number by that of the other.
//!
//! ```text
//! Handler *a ──> block <── long *b          { run: pointer, ... }     { long, long, ... }
//! ```
//!
//! Pointers that say nothing (`void*`, to bytes), unions, and types of which one begins with the other never disagree.

use ground::target::Address;

use super::labels::{Label, Rank, What};
use super::table::{Form, Leaf, Table, TypeId};
use super::walker::{Walker, is_tight};

/// Holders that are kept.
pub const MAX_SEEN: usize = 64;
/// Bytes of a word.
const WORD: u64 = 8;

/// The word of a block in use whose holders are to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Where the block begins.
    pub block: Address,
    /// Its bytes.
    pub bytes: u64,
    /// Where in it the word is.
    pub offset: u64,
}

/// A typed pointer to the block that is watched, as it is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands; `None` for a register, or a container's own.
    pub place: Option<u64>,
    /// What it says.
    pub what: What,
    /// The type of the value, or of each.
    pub of: TypeId,
    /// How that is known.
    pub rank: Rank,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Where the pointer stands, if that is one place in memory.
    pub at: Option<Address>,
    /// What the block is to it.
    pub name: String,
    /// It has its value for the whole run, or is part of what has.
    pub lasts: bool,
}

/// Two holders that cannot both be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// To this one the word is a pointer, which it is not.
    pub pointer: Holder,
    /// To this one it is a number, and all of the block can be what it says.
    pub number: Holder,
}

/// The two, if there are two.
pub fn find(walker: &mut Walker<'_, '_, '_>, watch: Watch) -> Option<Disagreement> {
    let mut seen = walker.take_seen();
    // Where a pointer was met twice the better founded one counts, whatever the order.
    seen.sort_by_key(|one| (std::cmp::Reverse(one.rank), one.place, one.of));
    let start = watch.block.get();
    let pointer = seen.iter().find(|one| {
        let table = &mut walker.table;
        let is_object = one.what == What::Object && is_structure(table, one.of);
        let size = table.get(one.of).map_or(0, |known| known.size);
        is_object
            && is_tight(watch.bytes, size)
            && table.leaf(one.of, watch.offset) == Leaf::Pointer
            && !walker.is_plausible(start, one.of)
    })?;
    let number = seen.iter().find(|other| {
        let table = &mut walker.table;
        let is_other = !table.is_same(pointer.of, other.of)
            && !table.begins_with(pointer.of, other.of)
            && !table.begins_with(other.of, pointer.of);
        is_other && is_number(walker, other, watch)
    })?;
    let mut holder = |one: &Seen| {
        let is_scalar = walker
            .table
            .get(one.of)
            .is_some_and(|known| matches!(known.form, Form::Scalar));
        let label = Label {
            what: match one.what {
                What::Object if is_scalar => What::Array,
                what => what,
            },
            of: Some(one.of),
            rank: one.rank,
        };
        Some(Holder {
            at: one.place.map(Address::new),
            name: super::labels::named(&label, &mut walker.table)?,
            lasts: one.rank > Rank::Local,
        })
    };
    Some(Disagreement {
        pointer: holder(pointer)?,
        number: holder(number)?,
    })
}

/// Whether the word is a number, or text, to a holder by whose type the block can be all that it says.
fn is_number(walker: &mut Walker<'_, '_, '_>, one: &Seen, watch: Watch) -> bool {
    let Some(known) = walker.table.get(one.of) else {
        return false;
    };
    let is_scalar = matches!(known.form, Form::Scalar);
    match one.what {
        What::Characters(_) => true,
        What::Buffer(_) | What::Array => is_scalar,
        What::Object if is_scalar => known.size > 1,
        What::Object => {
            let last = watch.offset.saturating_add(WORD - 1);
            let both = [watch.offset, last].map(|offset| walker.table.leaf(one.of, offset));
            both == [Leaf::Number; 2]
                && is_tight(watch.bytes, known.size)
                && walker.is_plausible(watch.block.get(), one.of)
        }
        _ => false,
    }
}

fn is_structure(table: &mut Table<'_>, id: TypeId) -> bool {
    let known = table.get(id);
    known.is_some_and(|known| matches!(known.form, Form::Structure(_)))
}
