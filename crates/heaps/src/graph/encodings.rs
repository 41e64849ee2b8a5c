//! Pointers that are stored in another form: what seems lost may be held by them.
//!
//! A form is believed of blocks of one size if several of them are named in it.

use std::collections::BTreeMap;

use super::Universe;
use super::lookup::Node;
use super::mark::{Marks, Reach};
use super::references::{Place, pieces};
use super::subgraph::Found;
use super::words::{self, Filter};
use ground::parallel;
use ground::target::Address;

/// Blocks of a size that must be named before that counts.
const ENOUGH: usize = 5;
/// Smaller blocks are not looked for.
const MIN_BYTES: u64 = 64;
/// Words of a piece that are kept before those that name the same are thrown away.
const MOST_NAMED: usize = 1 << 16;
/// The bits of an address.
const ADDRESS: u64 = (1 << 48) - 1;

/// A form in which programs store pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A number in the upper 16 bits, which no address uses: tagged pointers of lock-free lists and interpreters.
    Tagged,
    /// All bits turned over, so that a collector does not see it (Boehm's `GC_HIDE_POINTER`).
    TurnedOver,
    /// Moved up by 16 bits, with a number below.
    MovedUp,
    /// Mixed with the number of the page that it stands in, as glibc's lists have it.
    MixedWithItsPlace,
}

impl Form {
    /// All forms.
    const ALL: [Form; 4] = [
        Form::Tagged,
        Form::TurnedOver,
        Form::MovedUp,
        Form::MixedWithItsPlace,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Form::Tagged => "tag in the upper 16 bits",
            Form::TurnedOver => "all bits turned over",
            Form::MovedUp => "moved up by 16 bits, a number below",
            Form::MixedWithItsPlace => "mixed with the number of its own page",
        }
    }

    /// The pointer that a word at `at` stands for in this form.
    fn decode(self, at: Address, word: u64) -> Option<u64> {
        /// The number of a page, whatever the machine's pages are: what such lists use.
        const PAGE_BITS: u32 = 12;
        let upper = word >> 48;
        match self {
            Form::Tagged => (!matches!(upper, 0 | 0xffff)).then_some(word & ADDRESS),
            Form::TurnedOver => (upper == 0xffff).then_some(!word),
            Form::MovedUp => Some(word >> 16),
            Form::MixedWithItsPlace => {
                let place = at.get() >> PAGE_BITS;
                (upper == 0 && place != 0).then_some(word ^ place)
            }
        }
    }
}

/// The lost blocks, which are sorted, that reachable memory names in one of the forms, and in which: by block.
pub fn find(universe: &Universe<'_>, marks: &Marks, lost: &[Found]) -> Vec<(Node, Form)> {
    let large: Vec<&Found> = lost
        .iter()
        .filter(|found| found.bytes >= MIN_BYTES)
        .collect();
    let (Some(first), Some(last)) = (large.first(), large.last()) else {
        return Vec::new();
    };
    if large.len() < ENOUGH {
        return Vec::new();
    }
    let span = last.at.get().saturating_sub(first.at.get());
    let near = |value: u64| value.wrapping_sub(first.at.get()) <= span;
    let mut named: Vec<(usize, Form)> = Vec::new();
    for group in pieces(universe).chunks(256) {
        let found = parallel::map(group, |(range, _)| {
            let mut found: Vec<(usize, Form)> = Vec::new();
            let mut most = MOST_NAMED;
            words::each(universe.memory, range, Filter::not_zero(), |at, word| {
                for form in Form::ALL {
                    let value = form.decode(at, word).filter(|value| near(*value));
                    let index = value.and_then(|value| {
                        large
                            .binary_search_by_key(&value, |found| found.at.get())
                            .ok()
                    });
                    if let Some(index) = index
                        && is_reached(universe, marks, universe.place(at))
                    {
                        found.push((index, form));
                        // A core may name one block in every word that it has.
                        if found.len() >= most {
                            found.sort_unstable();
                            found.dedup();
                            most = found.len().saturating_mul(2).max(MOST_NAMED);
                        }
                    }
                }
            });
            found
        });
        named.extend(found.into_iter().flatten());
        named.sort_unstable();
        named.dedup();
    }
    let mut by_size: BTreeMap<(u64, Form), Vec<Node>> = BTreeMap::new();
    for (found, form) in named
        .iter()
        .filter_map(|(index, form)| Some((large.get(*index)?, *form)))
    {
        by_size
            .entry((found.bytes, form))
            .or_default()
            .push(found.node);
    }
    let believed = by_size
        .into_iter()
        .filter(|(_, nodes)| nodes.len() >= ENOUGH);
    let mut nodes: Vec<(Node, Form)> = believed
        .flat_map(|((_, form), nodes)| nodes.into_iter().map(move |node| (node, form)))
        .collect();
    nodes.sort_unstable();
    nodes.dedup_by_key(|(node, _)| *node);
    nodes
}

fn is_reached(universe: &Universe<'_>, marks: &Marks, place: Place) -> bool {
    match place {
        Place::Root(_) | Place::Register(_) => true,
        Place::Node(node, _) => marks.reach(universe.lookup.bit(node)) != Reach::Lost,
        Place::Free(..) | Place::Silent => false,
    }
}
