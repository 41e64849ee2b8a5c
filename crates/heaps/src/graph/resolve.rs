//! What a word means in its place: which block it reaches, and how surely.
//!
//! Inner pointers reach. Three kinds of words are weak wherever they lie: a pointer just past the end of a block, which nothing
//! else claims; a pointer to a block's start that is the end of the block before it by what stands beside it; and below 4 GiB, where any
//! 32-bit number looks like a pointer, a value that is neither near a block's start nor aligned.

use super::Universe;
use super::lookup::{Hit, Node};
use super::roots::Strength;
use ground::target::{Address, Cursor};

/// What a word reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The block, in use.
    pub node: Node,
    /// Bytes from its start; its size for a pointer just past its end.
    pub offset: u64,
    /// What the word is worth, wherever it lies.
    pub strength: Strength,
}

/// Bytes at the start of a free block in which allocators keep links.
const LINKS: u64 = 16;

/// Reads words' meanings; remembers where it last looked.
pub struct Resolver<'u, 'm> {
    universe: &'u Universe<'m>,
    near: Cursor<'m>,
}

impl<'u, 'm> Resolver<'u, 'm> {
    /// One that has read nothing yet.
    pub fn new(universe: &'u Universe<'m>) -> Self {
        Self {
            universe,
            near: Cursor::new(universe.memory),
        }
    }

    /// The live block that `value` reaches. `place`: where the word is; `None` for a register.
    #[inline]
    pub fn edge(&mut self, place: Option<Address>, value: u64) -> Option<Edge> {
        let lookup = &self.universe.lookup;
        match lookup.find(value) {
            Some(hit) if lookup.is_live(hit.node) => Some(self.weighed(place, value, hit)),
            next => self.past_the_end(value, next),
        }
    }

    /// The edge of a word that points into a block that was found already.
    #[inline]
    pub fn weighed(&mut self, place: Option<Address>, value: u64, hit: Hit) -> Edge {
        self.weighed_beside(place, None, value, hit)
    }

    /// The same; `before`: the word before it, if that is known already.
    #[inline]
    pub(super) fn weighed_beside(
        &mut self,
        place: Option<Address>,
        before: Option<u64>,
        value: u64,
        hit: Hit,
    ) -> Edge {
        let is_weak = match hit.offset {
            0 => place.is_some_and(|place| self.is_end_pointer(place, before, value, hit.node)),
            offset => value < 1 << 32 && offset >= 8 && !value.is_multiple_of(8),
        };
        Edge {
            node: hit.node,
            offset: hit.offset,
            strength: if is_weak {
                Strength::Weak
            } else {
                Strength::Strong
            },
        }
    }

    /// The live block that ends exactly at `value`, where nothing live begins: `next` is what lies there. A free block that begins there
    /// and was used before is rather what a pointer meant that nobody cleared.
    pub(super) fn past_the_end(&mut self, value: u64, next: Option<Hit>) -> Option<Edge> {
        let (edge, is_open) = self.end_at(value, next)?;
        let is_end = !is_open || next.is_none_or(|next| self.is_untouched(value, next.node));
        is_end.then_some(edge)
    }

    /// The same, but for what the free block that begins there says: whether that is still to be asked.
    #[inline]
    pub(super) fn end_at(&self, value: u64, next: Option<Hit>) -> Option<(Edge, bool)> {
        let lookup = &self.universe.lookup;
        // Inside of what is not in use nothing ends.
        if next.is_some_and(|next| next.offset > 0) {
            return None;
        }
        let hit = lookup.find(value.checked_sub(1)?)?;
        let (_, bytes) = lookup.extent(hit.node)?;
        let ends = hit.offset.saturating_add(1) == bytes && lookup.mapping(hit.node).is_none();
        if !ends || !lookup.is_live(hit.node) {
            return None;
        }
        let edge = Edge {
            node: hit.node,
            offset: bytes,
            strength: Strength::Weak,
        };
        Some((edge, next.is_some()))
    }

    /// Has the processor fetch what [`past_the_end`](Self::past_the_end) will read of a free block.
    #[inline]
    pub(super) fn touch_free(&mut self, value: u64, hit: Hit) {
        let lookup = &self.universe.lookup;
        // Where blocks have headers between them, or the one before is free, nothing in use ends here.
        let may_end = |before: u32| {
            let bit = lookup.bit(Node {
                slot: before,
                ..hit.node
            });
            lookup.is_live_bit(bit) && lookup.neighbour_before(hit.node, value).is_some()
        };
        if hit.offset == 0 && hit.node.slot.checked_sub(1).is_none_or(may_end) {
            self.near.touch(Address::new(value.saturating_add(LINKS)));
        }
    }

    /// Whether a free block holds nothing behind the words that allocators use for links.
    pub(super) fn is_untouched(&mut self, start: u64, node: Node) -> bool {
        const MOST: u64 = 64;
        let bytes = self
            .universe
            .lookup
            .extent(node)
            .map_or(0, |(_, bytes)| bytes.min(MOST));
        let mut offsets = (LINKS..bytes).step_by(8).peekable();
        offsets.peek().is_some()
            && offsets.all(|offset| {
                let word = start.checked_add(offset).map(Address::new);
                word.is_some_and(|at| self.near.read_u64(at) == Ok(0))
            })
    }

    /// Whether a pointer to the start of a block is rather the end of the one before it, by the words beside it:
    ///
    /// ```text
    /// begin  end    capacity      vector: `begin` is the start, the others are ends
    /// cur    first  last          deque's iterator: `first` is the start, `last` the end
    /// buf    (cap)  ptr    end    what is left of a Rust vector
    /// ```
    #[inline]
    fn is_end_pointer(
        &mut self,
        place: Address,
        before: Option<u64>,
        value: u64,
        node: Node,
    ) -> bool {
        let lowest = self.universe.lookup.span().0;
        if before.is_some_and(|before| !(lowest..=value).contains(&before)) {
            return false;
        }
        let Some(start) = self.universe.lookup.neighbour_before(node, value) else {
            return false;
        };
        let mut word = |distance: i64| {
            let at = place.get().wrapping_add_signed(distance);
            self.near.read_u64(Address::new(at)).ok()
        };
        let inside = |word: Option<u64>| word.is_some_and(|word| (start..value).contains(&word));
        let Some(last) = before.or_else(|| word(-8)) else {
            return false;
        };
        if !(start..=value).contains(&last) {
            return false;
        }
        // What stands before a block is none of its words.
        let lookup = &self.universe.lookup;
        let block_at = |at| lookup.find(at).map(|hit| hit.node);
        if block_at(place.get()) != block_at(place.get().wrapping_sub(8)) {
            return false;
        }
        let second = word(-16);
        let is_capacity = second == Some(start);
        let is_end = last == start && word(8) == Some(value);
        let is_last = last == start && inside(second);
        let is_rest = inside(Some(last)) && last > start && word(-24) == Some(start);
        is_capacity || is_end || is_last || is_rest
    }
}
