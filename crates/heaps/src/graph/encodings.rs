//! Pointers that are stored in another form: what seems lost may be held by them.
//!
//! One form is told: a number in the upper 16 bits, which no address uses (tagged pointers of lock-free lists and interpreters). A form is believed of blocks
//! of one size if several of them are named in it.

use std::collections::BTreeMap;

use super::Universe;
use super::lookup::Node;
use super::mark::{Marks, Reach};
use super::references::{Place, pieces};
use super::subgraph::Found;
use super::words::{self, Filter};
use ground::parallel;

/// Blocks of a size that must be named before that counts.
const ENOUGH: usize = 5;
/// Smaller blocks are not looked for.
const MIN_BYTES: u64 = 64;
/// The bits of an address.
const ADDRESS: u64 = (1 << 48) - 1;

/// The lost blocks, which are sorted, that reachable memory names with a number in the upper 16 bits.
pub fn tagged(universe: &Universe<'_>, marks: &Marks, lost: &[Found]) -> Vec<Node> {
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
    let span = last.at.get() - first.at.get() + 1;
    let filter = Filter::masked((first.at.get(), span), ADDRESS);
    let mut named: Vec<usize> = Vec::new();
    for group in pieces(universe).chunks(256) {
        let found = parallel::map(group, |(range, _)| {
            let mut found: Vec<usize> = Vec::new();
            words::each(universe.memory, range, filter, |at, value| {
                let is_tagged = !matches!(value >> 48, 0 | 0xffff);
                let block = is_tagged.then(|| {
                    large
                        .binary_search_by_key(&(value & ADDRESS), |found| found.at.get())
                        .ok()
                });
                if let Some(Some(index)) = block
                    && is_reached(universe, marks, universe.place(at))
                {
                    found.push(index);
                }
            });
            found
        });
        named.extend(found.into_iter().flatten());
        named.sort_unstable();
        named.dedup();
    }
    let mut by_size: BTreeMap<u64, Vec<Node>> = BTreeMap::new();
    for found in named.iter().filter_map(|index| large.get(*index)) {
        by_size.entry(found.bytes).or_default().push(found.node);
    }
    let believed = by_size.into_values().filter(|nodes| nodes.len() >= ENOUGH);
    let mut nodes: Vec<Node> = believed.flatten().collect();
    nodes.sort_unstable();
    nodes
}

fn is_reached(universe: &Universe<'_>, marks: &Marks, place: Place) -> bool {
    match place {
        Place::Root(_) | Place::Register(_) => true,
        Place::Node(node, _) => marks.reach(universe.lookup.bit(node)) != Reach::Lost,
        Place::Free(..) | Place::Silent => false,
    }
}
