//! What glibc's rules say of words that were written over: which of them mean something, and what they meant.

use ground::target::{Address, MemoryExt};
use heapcheck::checks::finding::FindingKind;

use super::ground::{Chunk, Ground, Kind, State};
use super::layout::{HEADER, LARGE, M, N, P};
use crate::overlay::Overlay;
use crate::plant::{Evidence, Truth};

/// What a word of the heap is to the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing: data of the program, or what was left of it.
    Data,
    /// Size and flags of the chunk of this index.
    Size(usize),
    /// Size and flags of an arena's top chunk.
    Top(u64),
    /// The size of the free chunk of this index, behind it.
    Foot(usize),
    /// A word of the free chunk of this index: at this offset in its block.
    Free(usize, u64),
    /// Of a thread's cache, or of a chunk in flux: planted in elsewhere.
    Other,
}

/// A word that has another value now.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Its address.
    pub at: u64,
    /// Its value now.
    pub new: u64,
    /// What it is.
    pub meaning: Meaning,
    /// Whether the new value contradicts anything.
    pub evidence: Evidence,
}

/// Bytes to be written, in order.
pub type Writes = Vec<(u64, Vec<u8>)>;

impl Ground<'_> {
    /// What a word is.
    pub fn meaning(&self, at: u64) -> Meaning {
        let Some((index, chunk)) = self.holding(at) else {
            return match at.checked_sub(8).and_then(|top| self.top_at(top)) {
                Some(arena) => Meaning::Top(arena),
                None if self.top_at(at).is_some() => self.foot_before(at),
                None => Meaning::Other,
            };
        };
        match (at - chunk.at, chunk.state) {
            (0, _) => self.foot_before(at),
            (8, _) => Meaning::Size(index),
            (_, State::Used) => Meaning::Data,
            (_, State::Cache | State::Unknown) => Meaning::Other,
            (offset, State::Listed(..)) => Meaning::Free(index, offset - HEADER),
        }
    }

    /// What the word in front of a size is: the size of the chunk before, if a bin holds that.
    fn foot_before(&self, at: u64) -> Meaning {
        match at.checked_sub(1).and_then(|before| self.holding(before)) {
            Some((index, chunk)) if self.is_binned(chunk) => Meaning::Foot(index),
            Some((_, chunk)) if chunk.state == State::Unknown => Meaning::Other,
            _ => Meaning::Data,
        }
    }

    /// Whether a bin holds the chunk: only then does the next one know that it is free.
    pub fn is_binned(&self, chunk: Chunk) -> bool {
        matches!(chunk.state, State::Listed(list, _) if self.lists[list].kind == Kind::Bin)
    }

    /// Words that mean something and that writes change. `None` if they reach what is planted in elsewhere, or leave
    /// the core's memory.
    pub fn changes(&self, writes: &Writes) -> Option<Vec<Change>> {
        let mut overlay = Overlay::new(self.target.memory);
        let mut words = std::collections::BTreeSet::new();
        for (at, bytes) in writes {
            if !overlay.write(*at, bytes) {
                return None;
            }
            let end = at + bytes.len() as u64;
            words.extend((at & !7..end).step_by(8));
        }
        let mut changes = Vec::new();
        for at in words {
            let meaning = self.meaning(at);
            let (old, new) = (self.word(at)?, overlay.read_u64(Address::new(at)).ok()?);
            if old == new || meaning == Meaning::Data {
                continue;
            }
            let evidence = self.evidence(&overlay, meaning, old, new)?;
            changes.push(Change {
                at,
                new,
                meaning,
                evidence,
            });
        }
        Some(changes)
    }

    fn evidence(
        &self,
        memory: &Overlay<'_>,
        meaning: Meaning,
        old: u64,
        new: u64,
    ) -> Option<Evidence> {
        match meaning {
            Meaning::Data => Some(Evidence::Absent),
            Meaning::Other => None,
            Meaning::Size(index) => Some(self.of_size(memory, index, old, new)),
            Meaning::Top(_) | Meaning::Foot(_) => Some(Evidence::Present),
            Meaning::Free(index, offset) => Some(self.of_free(index, offset, new)),
        }
    }

    /// A word of a free chunk.
    fn of_free(&self, index: usize, offset: u64, new: u64) -> Evidence {
        let chunk = self.chunks[index];
        let State::Listed(list, position) = chunk.state else {
            return Evidence::Absent;
        };
        let list = &self.lists[list];
        match (list.kind, offset) {
            (Kind::Cache, 0 | 8) => Evidence::Present,
            // No count says how long a fastbin is: cut short, it is only shorter.
            (Kind::Fast, 0) if self.layout.link(chunk.block(), new) == 0 => Evidence::Open,
            (Kind::Fast, 0) | (Kind::Bin, 0 | 8) => Evidence::Present,
            (Kind::Bin, 16 | 24) if chunk.size >= LARGE => {
                let before = position.checked_sub(1).map(|before| list.entries[before]);
                let size = before.and_then(|before| self.index_of(before));
                let is_first = size.is_none_or(|before| self.chunks[before].size != chunk.size);
                if list.number == 1 || is_first || offset == 16 {
                    Evidence::Present
                } else {
                    Evidence::Absent // malloc never looks back from the second of a size
                }
            }
            _ => Evidence::Absent,
        }
    }

    /// A size and its flags.
    fn of_size(&self, memory: &Overlay<'_>, index: usize, old: u64, new: u64) -> Evidence {
        let chunk = self.chunks[index];
        let (flags, size) = (old ^ new, new & !(P | M | N));
        let in_main = chunk.arena == 0;
        let turned_on = flags & new;
        let impossible = size % 16 != 0 || size < 0x20 || turned_on & M != 0 || flags & P != 0;
        if impossible || turned_on & N != 0 && (in_main || self.is_binned(chunk)) {
            return Evidence::Present;
        }
        if size != chunk.size {
            return if chunk.state == State::Used {
                self.of_used_size(memory, chunk, size)
            } else {
                Evidence::Present
            };
        }
        // Only the arena's mark is gone.
        Evidence::Open
    }

    /// Whether another size of a chunk in use shows: it must lead from chunk to chunk to a true one, and no chunk
    /// that it covers may be known to anybody.
    fn of_used_size(&self, memory: &Overlay<'_>, chunk: Chunk, size: u64) -> Evidence {
        let run = self
            .runs
            .iter()
            .find(|(start, end)| (start..end).contains(&&chunk.at));
        let Some((_, end)) = run.copied() else {
            return Evidence::Present;
        };
        let word = |at: u64| memory.read_u64(Address::new(at)).ok();
        let Some(mut at) = chunk.at.checked_add(size) else {
            return Evidence::Present;
        };
        let mut bytes = size;
        while at < end && self.index_of(at).is_none() {
            let Some(header) = word(at + 8) else {
                return Evidence::Present;
            };
            let fake = header & !(P | M | N);
            let sane =
                fake.is_multiple_of(16) && fake >= 0x20 && header & M == 0 && fake <= end - at;
            let foreign = header & N != 0 && chunk.arena == 0;
            if !sane || foreign || header & P == 0 && word(at) != Some(bytes) {
                return Evidence::Present;
            }
            if header & P == 0 {
                return Evidence::Present; // free, and in no bin
            }
            bytes = fake;
            at += fake;
        }
        if at > end {
            return Evidence::Present;
        }
        let covered = self
            .chunks
            .iter()
            .filter(|other| (chunk.end()..at).contains(&other.at));
        for other in covered {
            if other.state != State::Used {
                return Evidence::Present;
            }
        }
        Evidence::Absent
    }

    /// What is true of writes that only changed these words. `kinds`: of the error as a whole; where that is empty,
    /// each word's own.
    pub fn truth(&self, changes: &[Change], kinds: &[FindingKind]) -> Truth {
        let mut truth = Truth::silence();
        for change in changes {
            truth.evidence = match (truth.evidence, change.evidence) {
                (Evidence::Present, _) | (_, Evidence::Present) => Evidence::Present,
                (Evidence::Open, _) | (_, Evidence::Open) => Evidence::Open,
                _ => Evidence::Absent,
            };
            if change.evidence == Evidence::Absent {
                continue;
            }
            let mut add = |at: u64| truth.addresses.push((at, at + 1));
            let own = match change.meaning {
                Meaning::Size(index) => {
                    let chunk = self.chunks[index];
                    add(chunk.block());
                    // One of its flags describes the chunk before it.
                    if kinds.is_empty()
                        && self
                            .word(change.at)
                            .is_some_and(|old| (old ^ change.new) & P != 0)
                        && let Some((_, before)) =
                            chunk.at.checked_sub(1).and_then(|at| self.holding(at))
                    {
                        add(before.block());
                    }
                    vec![
                        FindingKind::HeapOverrun,
                        FindingKind::HeapUnderrun,
                        FindingKind::CorruptMetadata,
                    ]
                }
                Meaning::Top(_) => {
                    add(change.at + 8);
                    vec![FindingKind::HeapOverrun, FindingKind::CorruptMetadata]
                }
                // The end of the free block, and in front of the next one: nobody can tell.
                Meaning::Foot(index) => {
                    add(self.chunks[index].block());
                    add(change.at + HEADER);
                    vec![FindingKind::UseAfterFreeWrite, FindingKind::HeapOverrun]
                }
                _ => {
                    if let Meaning::Free(index, _) = change.meaning {
                        add(self.chunks[index].block());
                    }
                    vec![FindingKind::UseAfterFreeWrite]
                }
            };
            truth
                .kinds
                .extend(if kinds.is_empty() { &own } else { kinds });
        }
        if let [only] = changes {
            truth.lost = self.lost(only);
        }
        truth
    }

    /// Blocks that a list loses, where it counts its entries and the new link leads to none.
    fn lost(&self, change: &Change) -> Option<u64> {
        let Meaning::Free(index, 0) = change.meaning else {
            return None;
        };
        let chunk = self.chunks[index];
        let State::Listed(list, position) = chunk.state else {
            return None;
        };
        let list = &self.lists[list];
        let to = self.layout.link(chunk.block(), change.new);
        let leads_on = to
            .checked_sub(HEADER)
            .and_then(|at| self.index_of(at))
            .is_some_and(|to| self.chunks[to].state != State::Used);
        (list.kind == Kind::Cache && !leads_on).then(|| (list.entries.len() - 1 - position) as u64)
    }
}
