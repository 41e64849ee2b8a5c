//! What is wrong with a class's caches and slabs, looked at once more and in order.
//!
//! ```text
//! cache:  p ... p             freed twice, the cache kept both
//! cache A: p, cache B: p      freed by two threads
//! cache: p, slab's bit of p 1 freed, given back to the slab, freed again
//! slab: count = ones + 2n     given back to the slab twice: the second time turned the bit to 0 again
//! cache: p + 8                an inner pointer was freed
//! ```
//!
//! A cache whose thread is inside the allocator may hold what it has just given back, and after moving what is left,
//! some entries twice (`tcache_bin_flush`): its entries prove nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::JemallocHeap;
use super::caches::{Bin, User};
use super::extents::Row;
use crate::allocators::{GroupReport, Limit};
use crate::anomaly::{
    Anomaly, AnomalyKind, BrokenWord, Edge, Expected, Field, HolderKind, Property, Reason, Stray,
    Transient, Value,
};
use crate::list::{self, FreeList};
use crate::map::{Block, BlockId, BlockState, HeapMap};
use ground::target::{Address, MemoryExt};

/// Anomalies of one class.
const MAX_ANOMALIES: usize = 256;

/// Describes an irregular class.
pub(super) fn describe(heap: &JemallocHeap<'_>, lists: &[FreeList], map: &HeapMap) -> GroupReport {
    let Some(class) = lists.first().map(|list| list.class) else {
        return GroupReport::default();
    };
    for (row, extent) in (0u32..).zip(map.extents()) {
        if extent.class == class {
            map.unlist(row);
        }
    }
    let mut look = Look {
        heap,
        map,
        class,
        disputed: BTreeMap::new(),
        miscounted: Vec::new(),
        report: GroupReport::default(),
    };
    let is_slab = |list: &&FreeList| list.holder == HolderKind::Slab;
    for list in lists.iter().filter(is_slab) {
        look.slab(list);
    }
    for list in lists.iter().filter(|list| !is_slab(list)) {
        look.cache(list);
    }
    look.mark_miscounted();
    look.gather_edges(lists);
    look.drop_confused();
    look.say_disputes();
    look.say_miscounts();
    look.report
}

/// A slab whose count is not that of its bits.
struct Miscount {
    row: Row,
    ones: u64,
    /// Its bits: the first slot of each word, and the word.
    words: Vec<(u32, u64)>,
    /// The first word of its bits that looks like something else, or has bits of no region, and which of its bits are
    /// regions.
    foreign: Option<(Address, u64, u64)>,
}

impl Miscount {
    /// Frees too many, if blocks that were freed again explain the count: each turned its bit back.
    fn freed_again(&self) -> Option<u64> {
        let too_many = u64::from(self.row.free).checked_sub(self.ones)?;
        (self.foreign.is_none() && too_many > 0 && too_many % 2 == 0).then_some(too_many / 2)
    }
}

struct Look<'a> {
    heap: &'a JemallocHeap<'a>,
    map: &'a HeapMap,
    class: u16,
    /// Blocks that more than one place has as free.
    disputed: BTreeMap<BlockId, Vec<Edge>>,
    miscounted: Vec<Miscount>,
    report: GroupReport,
}

impl Look<'_> {
    fn say(&mut self, kind: AnomalyKind, transient: Option<Transient>) {
        if self.report.anomalies.len() < MAX_ANOMALIES {
            let mut anomaly = Anomaly::new(kind);
            anomaly.transient = transient;
            self.report.anomalies.push(anomaly);
        }
    }

    fn slab(&mut self, list: &FreeList) {
        let Some(row) = self.heap.located.extents.rows.get(list.owner as usize) else {
            return;
        };
        let (Some(cut), Some(index)) = (self.heap.slab_class(row), self.map.row_at(row.start()))
        else {
            return;
        };
        let mut ones = 0u64;
        let mut foreign = None;
        let mut words: Vec<(u32, u64)> = Vec::new();
        for (first, word, mask) in self.heap.marks(row, cut.regions) {
            let Some(word) = word else {
                self.report.limits.push(Limit {
                    what: format!("the bitmap of the slab {}", row.start()),
                    why: "it is not in the core".into(),
                    incomplete: true,
                });
                return;
            };
            ones = ones.saturating_add(u64::from((word & mask).count_ones()));
            if foreign.is_none() && (word & !mask != 0 || self.looks_foreign(word)) {
                let at = row.at.saturating_add(
                    self.heap
                        .located
                        .layout
                        .extent
                        .bitmap
                        .saturating_add(u64::from(first / 8)),
                );
                foreign = Some((at, word, mask));
            }
            words.push((first, word & mask));
        }
        let beyond = foreign.is_some_and(|(_, word, mask)| word & !mask != 0);
        if ones != u64::from(row.free) || beyond {
            self.miscounted.push(Miscount {
                row: *row,
                ones,
                words,
                foreign,
            });
            return;
        }
        for (first, word) in words {
            self.map.mark_listed_run(index, first, word);
        }
    }

    /// Marks what slabs whose counts are wrong have as free. Bits that were written over say nothing of any block.
    fn mark_miscounted(&mut self) {
        for miscount in &self.miscounted {
            let Some(index) = self.map.row_at(miscount.row.start()) else {
                continue;
            };
            if miscount.foreign.is_some() {
                continue;
            }
            for (first, word) in &miscount.words {
                let twice = self.map.mark_listed_run(index, *first, *word);
                if miscount.freed_again().is_some() {
                    let slots = (0..64).filter(|bit| twice >> bit & 1 == 1);
                    self.disputed.extend(slots.map(|bit| {
                        let id = BlockId {
                            extent: index,
                            slot: first.saturating_add(bit),
                        };
                        (id, Vec::new())
                    }));
                }
            }
        }
    }

    /// Whether a word of marks looks like text or like a pointer.
    fn looks_foreign(&self, word: u64) -> bool {
        /// Characters that do not stand together by chance.
        const MIN_TEXT: usize = 5;
        let bytes = word.to_le_bytes();
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last.saturating_add(1));
        let text = end >= MIN_TEXT
            && bytes
                .iter()
                .take(end)
                .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        let pointer = word > 1 << 16
            && self
                .heap
                .target
                .memory
                .region_at(Address::new(word))
                .is_some();
        text || pointer
    }

    fn cache(&mut self, list: &FreeList) {
        let Some((bin, user)) = self.bin(list) else {
            return;
        };
        let busy = self.heap.cache_busy(user);
        let mut noted = false;
        for (position, (word, entry)) in (0u64..).zip(self.heap.entries(&bin)) {
            let Some(entry) = entry else {
                self.report.limits.push(Limit {
                    what: format!("{} entries of the thread cache bin {}", bin.count, bin.at),
                    why: "they are not in the core".into(),
                    incomplete: true,
                });
                return;
            };
            if let Some(block) = super::follow::admit(self.map, self.class, entry) {
                if self.map.mark_listed(block) {
                    self.disputed.entry(block).or_default();
                }
                continue;
            }
            if self.heap.is_lost(entry) {
                continue;
            }
            // A thread in the middle of giving a hundred blocks back is worth one note.
            if busy.is_some() && std::mem::replace(&mut noted, true) {
                continue;
            }
            let stray = self.stray(entry);
            let edge = self.heap.cache_edge(&bin, user, position, word);
            let kind = AnomalyKind::BadEntry {
                edge,
                found: entry,
                stray,
                leads_on: !matches!(stray, Stray::NotABlock | Stray::Unmapped),
                repair: None,
            };
            self.say(kind, busy.clone());
        }
    }

    /// Why an entry is none. A block whose memory has gone back to the free pages was one of its class.
    fn stray(&self, entry: Address) -> Stray {
        let stray = list::stray(self.map, self.heap.target.memory, self.class, entry);
        match stray {
            Stray::FreeSpan { block, .. } => Stray::FreeSpan {
                block: Block {
                    address: entry,
                    bytes: self.heap.located.sizes.bytes(self.class),
                    class: self.class,
                    ..block
                },
                offset: 0,
            },
            other => other,
        }
    }

    fn bin(&self, list: &FreeList) -> Option<(Bin, User)> {
        let cache = self.heap.caches.get(list.owner as usize)?;
        let bin = cache.bins.iter().find(|bin| bin.at == list.at)?;
        Some((*bin, cache.user))
    }

    /// All places that have a disputed block as free.
    fn gather_edges(&mut self, lists: &[FreeList]) {
        if self.disputed.is_empty() {
            return;
        }
        let caches = lists.iter().filter(|list| list.holder != HolderKind::Slab);
        let bins: Vec<(Bin, User)> = caches.filter_map(|list| self.bin(list)).collect();
        for (bin, user) in bins {
            for (position, (word, entry)) in (0u64..).zip(self.heap.entries(&bin)) {
                let block =
                    entry.and_then(|entry| super::follow::admit(self.map, self.class, entry));
                if let Some(edges) = block.and_then(|block| self.disputed.get_mut(&block)) {
                    edges.push(self.heap.cache_edge(&bin, user, position, word));
                }
            }
        }
        for (id, edges) in &mut self.disputed {
            edges.extend(self.heap.slab_edge(self.map, *id));
        }
    }

    /// A slab whose marks or count cannot be right: what they say of blocks that caches hold is part of that, and no error of
    /// its own.
    fn drop_confused(&mut self) {
        let wrong = self
            .miscounted
            .iter()
            .filter_map(|miscount| self.map.row_at(miscount.row.start()));
        let wrong: BTreeSet<u32> = wrong.collect();
        self.disputed.retain(|id, edges| {
            let marked = edges
                .iter()
                .any(|edge| edge.list.holder == HolderKind::Slab);
            !(marked && edges.len() == 2 && wrong.contains(&id.extent))
        });
    }

    fn say_disputes(&mut self) {
        for (id, edges) in std::mem::take(&mut self.disputed) {
            let Some(block) = self.map.block(id) else {
                continue;
            };
            self.map.mark_disputed(id);
            let transient = self.dispute_busy(&edges);
            let kind = AnomalyKind::Shared {
                block,
                edges,
                cycle: None,
                taken: false,
            };
            self.say(kind, transient);
        }
    }

    /// Why the places of a block need not be an error: one of the caches is being worked on.
    fn dispute_busy(&self, edges: &[Edge]) -> Option<Transient> {
        let users = edges.iter().filter_map(|edge| self.user_of(edge));
        let users: Vec<User> = users.collect();
        // A thread that died of a fault of its own does not stop while it moves entries.
        let one_bin = edges
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.list.at == b.list.at));
        if let Some(User::Thread(thread)) = users.first()
            && one_bin
            && self.heap.presences.faulted(*thread)
        {
            return None;
        }
        users
            .into_iter()
            .find_map(|user| self.heap.cache_busy(user))
    }

    fn user_of(&self, edge: &Edge) -> Option<User> {
        let holds = |bins: &[Bin]| bins.iter().any(|bin| bin.at == edge.list.at);
        let mut caches = self.heap.caches.iter();
        Some(caches.find(|cache| holds(&cache.bins))?.user)
    }

    fn say_miscounts(&mut self) {
        /// Bins whose statistics are looked up.
        const MAX_ASKED: usize = 16;
        let mut asked = 0;
        for miscount in std::mem::take(&mut self.miscounted) {
            let Miscount {
                row, ones, foreign, ..
            } = &miscount;
            let recorded = u64::from(row.free);
            let busy = self.heap.slab_busy(row);
            let what = self.heap.name_of(Field::ExtentNfree, Field::EdataNfree);
            let word = |at, what, expected, found| BrokenWord {
                of: row.at,
                at,
                what,
                expected,
                found,
            };
            let metadata = |word| AnomalyKind::Metadata {
                word,
                counts_only: false,
            };
            let count = || {
                let free = Value::Number(*ones);
                let expected = Expected::Exactly(free, Reason::FreeRegionsOfItsBitmap);
                word(row.at, what, expected, Value::Count(recorded))
            };
            let again = miscount
                .freed_again()
                .filter(|_| asked > MAX_ASKED || !self.heap.counts_agree(row));
            asked = asked.saturating_add(usize::from(again.is_some()));
            let kind = match (foreign, again) {
                (Some((at, marks, mask)), _) => metadata(word(
                    *at,
                    self.heap.name_of(Field::ExtentBitmap, Field::EdataBitmap),
                    Expected::Is(Property::Marks {
                        within: (marks & !mask != 0).then_some(*mask),
                        set: recorded,
                    }),
                    Value::Marks {
                        word: *marks,
                        set: *ones,
                    },
                )),
                (None, Some(times)) => AnomalyKind::FreedAgain {
                    start: row.start(),
                    block: self.only_block_in_use(row),
                    times,
                    word: count(),
                },
                (None, None) => metadata(count()),
            };
            self.say(kind, busy);
        }
    }

    /// The block of a slab that is in use, if there is exactly one.
    fn only_block_in_use(&self, row: &Row) -> Option<Block> {
        let index = self.map.row_at(row.start())?;
        let blocks = self.map.extent(index)?.blocks();
        let mut in_use = (0..blocks)
            .map(|slot| BlockId {
                extent: index,
                slot,
            })
            .filter(|id| self.map.state(*id) == BlockState::InUse);
        let only = in_use.next()?;
        match in_use.next() {
            None => self.map.block(only),
            Some(_) => None,
        }
    }
}
