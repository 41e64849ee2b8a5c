//! Lists that run together: what stood behind a block in the one is lost where the other owns what follows now.

use std::collections::{HashMap, HashSet};

use super::{Cut, Inquiry};
use crate::allocators::ptmalloc::layout::HEADER;
use crate::allocators::ptmalloc::lists::ChunkList;
use crate::anomaly::{Edge, ListRef};
use ground::target::Address;

/// Entries behind a shared chunk that are counted: more than a cache counts.
const MAX_BEHIND: u64 = 1 << 16;

/// Lists by what findings call them.
pub(super) struct ByRef {
    lists: HashMap<ListRef, ChunkList>,
    /// Those of which it is known already that their ends are missing.
    cut: HashSet<ListRef>,
}

impl Inquiry<'_, '_> {
    /// All lists.
    pub(super) fn lists_by_ref(&self) -> ByRef {
        let of = |list: &ChunkList| self.heap.list_ref(list);
        ByRef {
            lists: self.lists.iter().map(|list| (of(list), *list)).collect(),
            cut: self.cut.iter().map(|cut| of(&cut.list)).collect(),
        }
    }

    /// Notes which of the counted lists that hold a chunk do not own what follows it. The owner is the one into which it was
    /// freed last: its count is right with what follows, and of several such lists it holds the chunk nearest to its head. (Of
    /// two that hold it at the same place either may be the owner: the other lost as many.)
    pub(super) fn cut_where_lists_meet(
        &mut self,
        chunk: Address,
        edges: &[Edge],
        known: &mut ByRef,
    ) {
        let counted: Vec<(ChunkList, Edge, u64)> = edges
            .iter()
            .filter_map(|edge| {
                let list = known.lists.get(&edge.list)?;
                Some((*list, *edge, list.recorded?))
            })
            .collect();
        let mut owner: Option<(u64, ListRef)> = None;
        for (list, edge, recorded) in &counted {
            let behind = self.entries_behind(list, chunk);
            let whole = behind.map(|behind| edge.position.saturating_add(1).saturating_add(behind));
            if whole != Some(*recorded) {
                continue;
            }
            if owner.is_none_or(|(position, _)| edge.position < position) {
                owner = Some((edge.position, edge.list));
            }
        }
        // What nobody counts may belong to a list without a count.
        let has_owner = owner.is_some() || counted.len() < edges.len();
        for (list, edge, recorded) in counted {
            let own = owner.is_some_and(|(_, owner)| owner == edge.list);
            if own || !has_owner || !known.cut.insert(edge.list) {
                continue;
            }
            self.cut.push(Cut {
                list,
                anomaly: None,
                missing: Some(recorded.saturating_sub(edge.position.saturating_add(1))),
                edge,
            });
        }
    }

    /// Entries from behind a chunk to null, as its list reads them; `None` if they do not end there.
    fn entries_behind(&self, list: &ChunkList, chunk: Address) -> Option<u64> {
        let mut block = chunk.saturating_add(HEADER);
        for count in 0..MAX_BEHIND {
            self.probes.set(self.probes.get().checked_sub(1)?);
            let entry = self.heap.decode(block, self.word(block)?);
            if entry.is_null() {
                return Some(count);
            }
            if !self.goes_on(list, entry) {
                return None;
            }
            block = list.chunk(entry)?.saturating_add(HEADER);
        }
        None
    }
}
