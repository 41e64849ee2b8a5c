//! What a damaged link must have been: where an unlisted chain of the length that the list's counter asks for begins, at an
//! address that agrees with the bytes that survived.

use super::{Keeper, ListGraph};
use crate::anomaly::{Edge, Repair};
use crate::list::{FreeList, Links};
use ground::target::{Address, Cursor};

/// What a link must have been, if little of it was changed.
#[derive(Clone, Copy, Debug)]
pub struct SmallRepair {
    /// Its value.
    pub repair: Repair,
    /// It is the block behind the damaged one, as when their span was cut.
    pub behind: bool,
    /// Low bytes that were changed; 0 for a single bit above them.
    pub bytes: u64,
}

impl ListGraph<'_> {
    /// What the link at position `position` of `path` must have been, if an unlisted chain of the
    /// right length begins at an address that agrees with the link's surviving bytes. `beyond`:
    /// entries met after it, which are listed only because of it. Tried: the low byte, the low two,
    /// and (for `whole`) any number of bytes.
    pub fn repair<L: Links, K: Keeper>(
        &self,
        links: &L,
        keeper: &K,
        path: usize,
        position: u64,
        whole: bool,
    ) -> Option<Repair> {
        let path = self.paths.get(path)?;
        let follow = path.list.recorded.checked_sub(position.checked_add(1)?)?;
        let first_kept = path.walked.checked_sub(path.tail.len() as u64)?;
        let index = usize::try_from(position.checked_sub(first_kept)?).ok()?;
        let node = *path.tail.get(index)?;
        let beyond: Vec<Address> = path
            .tail
            .iter()
            .skip(index.saturating_add(1))
            .copied()
            .collect();
        let word = links
            .decode(node, Cursor::new(self.memory).read_u64(node).ok()?)
            .get();
        let fits = self.fitting(links, keeper, &path.list, follow, Address::new(0));
        if follow == 0 {
            let bytes = 64u32.saturating_sub(word.leading_zeros()).div_ceil(8);
            return (word != 0 && (whole || bytes <= 2)).then_some(Repair {
                value: Address::new(0),
                unique: true,
            });
        }
        let allowed = |at: Address| beyond.contains(&at);
        for bytes in 1..=2 {
            if looks_overrun(word, bytes)
                && let Some(found) = self
                    .orphans
                    .near(links, word, bytes, follow, &allowed, &fits)
            {
                return Some(Repair {
                    value: found.first,
                    unique: found.unique,
                });
            }
        }
        if !whole {
            return None;
        }
        for bytes in [4u32, 8] {
            let found = self.orphans.anywhere(links, follow, &|_, at| {
                at != node
                    && (bytes == 8
                        || at.get() >> bytes.saturating_mul(8) == word >> bytes.saturating_mul(8))
                    && fits(at)
            });
            if let Some(found) = found {
                // Of several, the block behind is the likeliest: spans are cut in that order.
                let (block, _) = self.map.block_at(node)?;
                let next = node.saturating_add(block.bytes);
                let behind = !found.unique
                    && fits(next)
                    && self.orphans.chain_is(links, next, follow, &allowed);
                return Some(Repair {
                    value: if behind { next } else { found.first },
                    unique: found.unique,
                });
            }
        }
        None
    }

    /// What the link of an edge into a proper entry must have been, if little of it was changed: a
    /// low byte, one bit, or the low two bytes. Unlike [`repair`](Self::repair), this needs nothing
    /// of what the list leads to now. The chain that was cut off ends at null, or, for a link that
    /// skips `detour` entries of its own list, at the entry that it leads to now.
    /// `allowed`: blocks that a list holds because of the damage.
    #[allow(clippy::too_many_arguments)]
    pub fn edge_repair<L: Links, K: Keeper>(
        &self,
        links: &L,
        keeper: &K,
        list: &FreeList,
        edge: &Edge,
        found: Address,
        detour: Option<u64>,
        allowed: &dyn Fn(Address) -> bool,
    ) -> Option<SmallRepair> {
        let from = edge.from?;
        let (length, end) = match detour {
            Some(length) => (length, found),
            None => (list.recorded.checked_sub(edge.position)?, Address::new(0)),
        };
        if length == 0 {
            return None;
        }
        let fits = self.fitting(links, keeper, list, length, end);
        let (block, _) = self.map.block_at(from)?;
        let next = from.saturating_add(block.bytes);
        let leads = |at| {
            self.orphans.may_lead(links, at, (length, end))
                && self.orphans.leads_to(links, at, length, end, allowed)
                && fits(at)
        };
        let near = |bytes: u32| {
            let goal = (length, end);
            let near = self
                .orphans
                .near_to(links, found.get(), bytes, goal, allowed, &fits)?;
            let close = found.get() ^ next.get() < 1 << bytes.saturating_mul(8);
            let behind = close && leads(next);
            Some(SmallRepair {
                repair: Repair {
                    value: if behind { next } else { near.first },
                    unique: near.unique,
                },
                behind,
                bytes: bytes.into(),
            })
        };
        let low = near(1);
        if low.is_some_and(|low| low.behind || low.repair.unique || looks_overrun(found.get(), 1)) {
            return low;
        }
        let mut flipped = (8..48)
            .map(|bit| Address::new(found.get() ^ 1 << bit))
            .filter(|at| leads(*at));
        if let Some(first) = flipped.next() {
            let unique = flipped.next().is_none();
            if unique || low.is_none() {
                return Some(SmallRepair {
                    repair: Repair {
                        value: first,
                        unique,
                    },
                    behind: first == next,
                    bytes: 0,
                });
            }
        }
        let two = low.is_none() && detour.is_none() && looks_overrun(found.get(), 2);
        low.or_else(|| two.then(|| near(2)).flatten())
    }

    /// What a link must have been whose upper half was written over: blocks lie near each other.
    pub fn upper_repair<L: Links, K: Keeper>(
        &self,
        links: &L,
        keeper: &K,
        list: &FreeList,
        edge: &Edge,
        found: Address,
    ) -> Option<Repair> {
        const LOW: u64 = 0xffff_ffff;
        let from = edge.from?;
        let length = list
            .recorded
            .checked_sub(edge.position)
            .filter(|left| *left > 0)?;
        let value = Address::new(from.get() & !LOW | found.get() & LOW);
        let end = Address::new(0);
        let leads = self.orphans.leads_to(links, value, length, end, &|_| false);
        let fits = self.fitting(links, keeper, list, length, end);
        let unique = true;
        (value != from && leads && fits(value)).then_some(Repair { value, unique })
    }

    /// Tells whether a chain of `length` entries may be what a list goes on with, beyond its length.
    fn fitting<'f, L: Links, K: Keeper>(
        &'f self,
        links: &'f L,
        keeper: &K,
        list: &FreeList,
        length: u64,
        end: Address,
    ) -> impl Fn(Address) -> bool + 'f {
        let confined = keeper.confined(list);
        let last = keeper.last(list).filter(|_| end.is_null());
        move |first: Address| {
            confined.as_ref().is_none_or(|range| range.contains(&first))
                && last.is_none_or(|last| self.orphans.last_of(links, first, length) == Some(last))
        }
    }
}

/// Whether the low bytes of a word are what programs write one or two bytes too far: text, its
/// terminator, a small number.
pub fn looks_overrun(word: u64, bytes: u32) -> bool {
    word.to_le_bytes().iter().take(bytes as usize).all(|byte| {
        *byte <= 8 || *byte == 0xff || byte.is_ascii_graphic() || byte.is_ascii_whitespace()
    })
}
