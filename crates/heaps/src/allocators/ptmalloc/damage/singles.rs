//! Caches and fastbins: single links.

use super::swallowed::Inner;
use super::{Cut, Inquiry};
use crate::allocators::ptmalloc::layout::{ALIGNMENT, HEADER, MIN_CHUNK};
use crate::allocators::ptmalloc::lists::{ChunkList, Kind};
use crate::anomaly::{AnomalyKind, Edge, Expected, Field, Reason, Stray, Value};
use ground::target::{Address, Cursor};

/// Entries of one list that are none and behind which it is followed all the same.
const MAX_MISTAKES: u32 = 16;

/// What an entry turned out to be.
enum Entry {
    /// One of the list.
    Good(Address),
    /// One of the list, inside what its neighbour's size claims.
    Swallowed(Address, Inner),
    /// None.
    Bad(Stray),
}

/// What stands behind an entry that is no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Free put it there, and the rest of the list follows, which begins so.
    Rest(Address),
    /// Free put it there; what follows can't be told.
    Unknown,
    /// It never was in the list: the word that names it was written over.
    Another,
}

impl Inquiry<'_, '_> {
    /// Follows a list of single links to its end or to its first damage.
    pub(super) fn follow_single(&mut self, list: &ChunkList) {
        let mut entry = list.head;
        let mut from: Option<Address> = None;
        let mut walked = 0u64;
        let mut mistakes = 0;
        loop {
            let edge = self.edge(list, walked, from);
            if entry.is_null() {
                self.ends(list, walked, edge);
                return;
            }
            let chunk = match self.judge(list, entry) {
                Entry::Good(chunk) => chunk,
                Entry::Swallowed(chunk, inner) => {
                    self.split(&inner);
                    chunk
                }
                Entry::Bad(_) if list.chunk(entry).is_some_and(|chunk| self.is_absent(chunk)) => {
                    return;
                }
                Entry::Bad(_) if self.is_unreached(entry) => return,
                Entry::Bad(stray) => {
                    let freed = self.bad_entry(list, edge, entry, stray, walked);
                    let Some(next) = freed.filter(|_| mistakes < MAX_MISTAKES) else {
                        return;
                    };
                    // The list goes on behind what was put into it by mistake.
                    mistakes = mistakes.saturating_add(1);
                    walked = walked.saturating_add(1);
                    from = list.chunk(entry).map(|chunk| chunk.saturating_add(HEADER));
                    entry = next;
                    continue;
                }
            };
            self.check_size(list, chunk);
            if !self.enter(list, chunk, edge) {
                self.closes(list, chunk, walked);
                return;
            }
            self.check_key(list, chunk, edge);
            walked = walked.saturating_add(1);
            let block = chunk.saturating_add(HEADER);
            let Some(word) = self.word(block) else {
                return; // not in the core
            };
            from = Some(block);
            entry = self.heap.decode(block, word);
            // Two kinds of lists name different ends of a chunk: behind one that both hold, the
            // link was the other's.
            if self.is_contested(chunk) && !self.goes_on(list, entry) {
                self.cut.push(Cut {
                    list: *list,
                    anomaly: None,
                    missing: list
                        .recorded
                        .map(|recorded| recorded.saturating_sub(walked)),
                    edge: self.edge(list, walked, from),
                });
                return;
            }
        }
    }

    fn is_contested(&self, chunk: Address) -> bool {
        self.map
            .chunk_at(chunk)
            .is_some_and(|id| self.map.is_disputed(id))
    }

    pub(super) fn goes_on(&self, list: &ChunkList, entry: Address) -> bool {
        entry.is_null() || !matches!(self.judge(list, entry), Entry::Bad(_))
    }

    fn judge(&self, list: &ChunkList, entry: Address) -> Entry {
        if !entry.is_aligned(ALIGNMENT) {
            return Entry::Bad(self.stray(list, entry));
        }
        let Some(chunk) = list.chunk(entry) else {
            return Entry::Bad(Stray::Unmapped);
        };
        let Some(block) = self.block_of(chunk) else {
            // A boundary that a wrong size swallowed?
            return match self.swallowed(list, chunk) {
                Some(inner) => Entry::Swallowed(chunk, inner),
                None => Entry::Bad(self.stray(list, entry)),
            };
        };
        let in_arena = list.kind == Kind::Tcache
            || self
                .heap
                .arenas
                .region_of(chunk)
                .is_some_and(|region| region.arena == list.owner);
        let tcache = self.heap.tcaches.layout.as_ref();
        let by_map = block.bytes.saturating_add(8);
        let by_header = self.size_by_header(chunk).unwrap_or(0);
        let is_mapped = self.map.chunk_at(chunk).is_none();
        if in_arena && (is_mapped || list.takes(by_map, tcache) || list.takes(by_header, tcache)) {
            return Entry::Good(chunk);
        }
        // A header that was written over after the chunk was freed: its list knows its size.
        let keyed = self.has_key(list, entry) || self.is_in_fastbin(list, chunk);
        if in_arena && (keyed || self.broken.contains(&chunk)) {
            return Entry::Good(chunk);
        }
        Entry::Bad(self.stray(list, entry))
    }

    /// Whether a chunk of another size shows that a fastbin holds it all the same: its header has lost what every chunk in
    /// use has, and its link leads on.
    fn is_in_fastbin(&self, list: &ChunkList, chunk: Address) -> bool {
        let block = chunk.saturating_add(HEADER);
        let header = self.word(chunk.saturating_add(8)).unwrap_or(0);
        let next = self.word(block).map(|word| self.heap.decode(block, word));
        let leads_on = |next: Address| {
            let size = self.size_by_map(next);
            size.is_some_and(|size| list.takes(size, None))
        };
        list.kind == Kind::Fastbin
            && self.flags_of(chunk) & !header != 0
            && next.is_some_and(leads_on)
    }

    pub(super) fn keyed_or_unkeyed(&self, list: &ChunkList, block: Address) -> bool {
        list.kind != Kind::Tcache
            || self.heap.expected_key(list).is_none()
            || self.has_key(list, block)
    }

    fn has_key(&self, list: &ChunkList, block: Address) -> bool {
        list.kind == Kind::Tcache
            && self
                .heap
                .expected_key(list)
                .is_some_and(|key| self.word(block.saturating_add(8)) == Some(key))
    }

    /// A list that comes back to a chunk which a list holds already.
    fn closes(&mut self, list: &ChunkList, chunk: Address, walked: u64) {
        let Some(edges) = self.edges.get(&chunk) else {
            return;
        };
        let here = self.heap.list_ref(list);
        let first = edges
            .iter()
            .find(|edge| edge.list == here && edge.position < walked);
        if let Some(first) = first {
            let length = walked.saturating_sub(first.position);
            let taken = list
                .recorded
                .is_some_and(|recorded| recorded < walked.saturating_add(1));
            self.circles.insert(chunk, (length, taken));
            // The one that stands there twice is counted twice; what stood behind it is cut off.
            let missing = list
                .recorded
                .map(|recorded| recorded.saturating_sub(walked.saturating_add(1)));
            let edge = *first;
            self.cut.push(Cut {
                list: *list,
                anomaly: None,
                missing: missing.or(Some(0)),
                edge,
            });
        }
    }

    /// A cached block whose second word is not the key.
    fn check_key(&mut self, list: &ChunkList, chunk: Address, edge: Edge) {
        let block_at = chunk.saturating_add(HEADER);
        let mut cursor = Cursor::new(self.heap.target.memory);
        if !self.heap.key_is_wrong(list, block_at, &mut cursor) || self.is_contested(chunk) {
            return;
        }
        // With the link gone as well it is one write, which the link says.
        let link = self
            .word(block_at)
            .map(|word| self.heap.decode(block_at, word));
        if !link.is_some_and(|entry| self.goes_on(list, entry)) || self.broken.contains(&chunk) {
            return;
        }
        let at = block_at.saturating_add(8);
        let (Some(block), Some(found)) = (self.block_of(chunk), self.word(at)) else {
            return;
        };
        let key = self.heap.expected_key(list).unwrap_or(0);
        // Only the first entry can be on its way in or out, and who moves it has it in hand.
        let is_known = self
            .heap
            .cache(list.owner)
            .is_some_and(|cache| cache.owner.is_some());
        let on_its_way = edge.from.is_none() && (!is_known || self.heap.may_hold_chunk(chunk));
        let transient = self.busy(list).filter(|_| on_its_way);
        self.push(
            AnomalyKind::FreeWord {
                block,
                at,
                what: Field::TcacheKey,
                expected: Expected::Exactly(Value::Word(key), Reason::KeyOfEveryBlock),
                found,
                edge: Some(edge),
            },
            transient,
        );
    }

    /// A list that ends at null.
    fn ends(&mut self, list: &ChunkList, walked: u64, edge: Edge) {
        let Some(recorded) = list.recorded.filter(|recorded| *recorded != walked) else {
            return;
        };
        // A chunk that another list holds, too, brings that one's tail along.
        let crosses = self
            .edges
            .values()
            .any(|edges| edges.iter().any(|other| other.list == edge.list));
        if crosses {
            return;
        }
        let transient = self.busy(list);
        let off_by_one = recorded.abs_diff(walked) == 1;
        let short = recorded > walked;
        let possible = recorded <= self.heap.tcaches.limit.max(0x7f);
        let anomaly = self.push(
            AnomalyKind::Length {
                list: edge.list,
                at: list.count_at,
                recorded,
                walked,
            },
            // A thread that ends takes all of its cache off without counting (T7).
            transient.filter(|_| {
                possible && (off_by_one || short && self.heap.may_end(list.owner))
                    || self.heap.holds_nothing(list.owner)
            }),
        );
        if short {
            self.cut.push(Cut {
                list: *list,
                anomaly: Some(anomaly),
                missing: Some(recorded.saturating_sub(walked)),
                edge,
            });
        }
    }

    /// An entry that is none. Where the list goes on, if free put it there and nothing is lost behind it.
    fn bad_entry(
        &mut self,
        list: &ChunkList,
        edge: Edge,
        found: Address,
        stray: Stray,
        walked: u64,
    ) -> Option<Address> {
        let missing = list
            .recorded
            .map(|recorded| recorded.saturating_sub(walked));
        let mut cut = Cut {
            list: *list,
            anomaly: None,
            missing,
            edge,
        };
        let edge = self.taken_link(list, edge, found).unwrap_or(edge);
        let from = edge.from.and_then(|block| block.checked_sub(HEADER));
        // What was written over a header went on over the next chunks: they are its victims, too.
        let in_damage = match stray {
            Stray::Misaligned { block, .. } => block
                .address
                .checked_sub(HEADER)
                .is_some_and(|chunk| self.broken.contains(&chunk)),
            _ => false,
        };
        if !in_damage && from.is_none_or(|chunk| !self.broken.contains(&chunk)) {
            let behind = self.behind(list, found, walked);
            let leads_on = behind != Behind::Another;
            // What is no address of anything is in a register by chance.
            let held = list
                .chunk(found)
                .filter(|_| stray != Stray::Unmapped)
                .and_then(|chunk| self.heap.in_flight(chunk));
            let transient = held
                .or_else(|| from.and_then(|chunk| self.heap.in_flight(chunk)))
                .filter(|_| self.busy(list).is_some());
            cut.anomaly = Some(self.push(
                AnomalyKind::BadEntry {
                    edge,
                    found,
                    stray,
                    leads_on,
                    repair: None,
                },
                transient,
            ));
            if let Behind::Rest(next) = behind {
                return Some(next);
            }
        }
        self.cut.push(cut);
        None
    }

    /// What stands behind an entry that is no chunk of its list.
    fn behind(&self, list: &ChunkList, found: Address, walked: u64) -> Behind {
        let block = list.chunk(found).map(|chunk| chunk.saturating_add(HEADER));
        let Some(block) = block.filter(|_| self.was_freed(list, found)) else {
            return Behind::Another;
        };
        let mut next = self.word(block).map(|word| self.heap.decode(block, word));
        let first = next;
        let Some(recorded) = list.recorded else {
            // A fastbin names chunks: the address of a block in use, in a block that was free, is a pointer of the program's.
            let is_block = self
                .map
                .block_at(found)
                .is_some_and(|(block, offset)| offset == 0 && !self.is_free_by_header(block));
            let ends = next.is_none_or(Address::is_null);
            return match first {
                _ if is_block && ends && walked > 0 => Behind::Another,
                // What free writes into a block leads on in the list.
                Some(first) => Behind::Rest(first),
                None => Behind::Unknown,
            };
        };
        let mut count = walked.saturating_add(1);
        while let Some(entry) = next.filter(|entry| !entry.is_null()) {
            let chunk = match self.judge(list, entry) {
                Entry::Good(chunk) | Entry::Swallowed(chunk, _) => Some(chunk),
                Entry::Bad(_) => list.chunk(entry).filter(|_| self.was_freed(list, entry)),
            };
            let (Some(chunk), true) = (chunk, count <= recorded) else {
                return Behind::Another;
            };
            count = count.saturating_add(1);
            let block = chunk.saturating_add(HEADER);
            next = self.word(block).map(|word| self.heap.decode(block, word));
        }
        // A freed pointer is counted, and has the rest of the list behind it; an old one in data has not.
        let slack = u64::from(self.busy(list).is_some());
        match first.filter(|_| count.abs_diff(recorded) <= slack) {
            Some(first) => Behind::Rest(first),
            None => Behind::Another,
        }
    }

    /// A cache's head that is no chunk was the link of the block that malloc took off last: it still
    /// stands there.
    fn taken_link(&self, list: &ChunkList, edge: Edge, found: Address) -> Option<Edge> {
        let (None, Some(size)) = (edge.from, list.size) else {
            return None;
        };
        if self.was_freed(list, found) {
            return None;
        }
        let mut blocks = Vec::new();
        self.each_chunk(|chunk, chunk_size, _| {
            let at = chunk.saturating_add(HEADER);
            if chunk_size == size
                && self.word(at).map(|word| self.heap.decode(at, word)) == Some(found)
            {
                blocks.push(at);
            }
            blocks.len() < 2
        });
        // Words that several blocks hold say nothing.
        let &[block] = blocks.as_slice() else {
            return None;
        };
        Some(Edge {
            from: Some(block),
            ..edge
        })
    }

    /// Whether an entry that is no chunk was put into the list by free: its size word sent it there,
    /// and what free writes into a block is in it.
    fn was_freed(&self, list: &ChunkList, entry: Address) -> bool {
        let Some(chunk) = list.chunk(entry).filter(|_| entry.is_aligned(ALIGNMENT)) else {
            return false;
        };
        let block = chunk.saturating_add(HEADER);
        let size = self.size_by_header(chunk).unwrap_or(0);
        let tcache = self.heap.tcaches.layout.as_ref();
        if size < MIN_CHUNK || !list.takes(size, tcache) {
            return false;
        }
        if list.kind == Kind::Tcache && self.heap.expected_key(list).is_some() {
            return self.has_key(list, block);
        }
        let next = self.word(block).map(|word| self.heap.decode(block, word));
        next.is_some_and(|next| self.goes_on(list, next))
    }
}
