//! Heads that nobody wrote: malloc took off the block whose link was damaged, and what it read there became the head.
//!
//! ```text
//! head ──> A ──> B ──> C        a write into A, which is free:   A's link = w
//! head  =  w ^ (A >> 12)        malloc hands out A; B and C are lost (2.32 on; before, head = w)
//! ```

use std::collections::BTreeSet;

use super::Inquiry;
use crate::allocators::ptmalloc::layout::{HEADER, PROTECT_SHIFT};
use crate::allocators::ptmalloc::lists::{ChunkList, Kind};
use crate::anomaly::AnomalyKind;
use ground::target::{Address, Cursor, MemoryExt};

/// Pages of blocks of one size that are tried.
const MAX_PAGES: usize = 1 << 12;
/// Heads that are looked at closely: each looks through all chunks.
const MAX_HEADS: usize = 16;
/// Distance from the right link within which a number that was counted up or down is looked for.
const NEAR: u64 = 1 << 16;

impl Inquiry<'_, '_> {
    /// Tells heads that malloc itself stored from those that were written over.
    pub(super) fn followed_links(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        let mut tried = 0usize;
        for anomaly in &mut out {
            let AnomalyKind::BadEntry {
                edge,
                found,
                stray,
                leads_on: false,
                repair,
            } = &anomaly.kind
            else {
                continue;
            };
            let is_head =
                |list: &&ChunkList| list.kind != Kind::Bin && list.head_word == edge.list.head_word;
            let list = self.lists.iter().find(is_head);
            let (Some(list), 0, None) = (list, edge.position, &anomaly.transient) else {
                continue;
            };
            if found.is_null() || list.head != *found || !self.is_whole_around(list) {
                continue;
            }
            tried = tried.saturating_add(1);
            if tried > MAX_HEADS {
                break;
            }
            let block = edge.from.and_then(|from| self.map.block_at(from));
            let block = block.map(|(block, _)| block);
            let words = self.words_that_lead_to(list, *found);
            let value = repair.map(|repair| repair.value);
            if block.is_none() && !self.reads_as_link(*found, value, &words) {
                continue;
            }
            let word = match block {
                Some(block) => self.word(block.address),
                None if self.is_end_in_page(*found) => Some(0),
                None if words.len() == 1 => words.first().copied(),
                None => words.iter().copied().find(|word| is_text(*word)),
            };
            anomaly.kind = AnomalyKind::FollowedLink {
                edge: self.edge(list, 0, None),
                found: *found,
                stray: *stray,
                word,
                block,
                repair: *repair,
            };
        }
        self.out = out;
    }

    /// Whether a head is the end of a list, as it is protected in some page: malloc took off what lies there, and a zero stood
    /// in it.
    fn is_end_in_page(&self, found: Address) -> bool {
        let page = found
            .get()
            .checked_mul(1 << PROTECT_SHIFT)
            .map(Address::new);
        let area = page.and_then(|page| self.heap.target.memory.region_at(page));
        self.heap.safe_linking && area.is_some_and(|area| area.writable)
    }

    /// Whether the heads and the counts beside a head are what malloc may have stored there: nobody wrote over them.
    fn is_whole_around(&self, list: &ChunkList) -> bool {
        let known = |head: Address| match list.kind {
            Kind::Tcache => head.checked_sub(HEADER),
            _ => Some(head),
        };
        let is_chunk = |head: Address| {
            head.is_null() || known(head).is_some_and(|chunk| self.block_of(chunk).is_some())
        };
        let index = u64::from(list.index);
        let beside = [index.checked_sub(1), index.checked_add(1)];
        match (list.kind, &self.heap.tcaches.layout) {
            (Kind::Tcache, Some(layout)) => {
                let most = self.heap.tcaches.limit.max(127);
                let mut cursor = Cursor::new(self.heap.target.memory);
                let bins = beside
                    .into_iter()
                    .flatten()
                    .filter(|bin| *bin < layout.bins);
                list.recorded.is_some_and(|count| count <= most)
                    && bins
                        .filter_map(|bin| self.heap.tcaches.bin(&mut cursor, list.at, bin))
                        .all(|bin| bin.count <= most && is_chunk(bin.head))
            }
            (Kind::Fastbin, _) => {
                let next = list.head_word.saturating_add(8);
                is_chunk(Address::new(self.word(next).unwrap_or(0)))
            }
            _ => false,
        }
    }

    /// What a block that malloc took off the list may have held for the head to be what it is: one word for each page on which
    /// a block of that size is in use.
    fn words_that_lead_to(&self, list: &ChunkList, found: Address) -> Vec<u64> {
        let mut pages: BTreeSet<u64> = BTreeSet::new();
        let mut known = BTreeSet::new();
        let size = list.size.unwrap_or(0);
        self.each_chunk(|chunk, chunk_size, id| {
            let in_use = chunk_size == size && !self.map.is_listed(id) && !self.map.is_lost(id);
            let page = chunk.saturating_add(HEADER).get() >> PROTECT_SHIFT;
            if in_use && pages.insert(page) {
                let word = match self.heap.safe_linking {
                    true => found.get() ^ page,
                    false => found.get(),
                };
                known.insert(word);
            }
            pages.len() < MAX_PAGES
        });
        known.into_iter().collect()
    }

    /// Whether a head is rather a damaged link that was followed than a word that somebody wrote there. Without protected links both
    /// look alike; then writes to free blocks are the commoner ones.
    fn reads_as_link(&self, found: Address, value: Option<Address>, words: &[u64]) -> bool {
        if self.is_end_in_page(found) {
            return true;
        }
        if words.is_empty() {
            return false; // no block of that size was handed out
        }
        if let Some(value) = value.filter(|value| !value.is_null()) {
            let change = found.get() ^ value.get();
            let lowest = (change.trailing_zeros() / 8).saturating_mul(8);
            let one_byte = change != 0 && change >> lowest <= 0xff;
            if one_byte || found.get().abs_diff(value.get()) < NEAR {
                return true;
            }
        }
        if !self.heap.safe_linking {
            return true;
        }
        let memory = self.heap.target.memory;
        let plain = |word: u64| {
            is_text(word)
                || word <= u64::from(u32::MAX)
                || word >= u64::MAX.saturating_sub(u64::from(u32::MAX))
                || memory.region_at(Address::new(word)).is_some()
        };
        // The lower half is just a page's number: a word whose lower half was zero, such as a floating-point number.
        let is_half = |word: u64| word.trailing_zeros() >= 32;
        !plain(found.get()) && words.iter().any(|word| plain(*word) || is_half(*word))
    }
}

/// Whether a word is text up to its end or to a NUL: four letters at least.
fn is_text(word: u64) -> bool {
    let bytes = word.to_le_bytes();
    let letters = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .count();
    let rest = bytes.get(letters..).unwrap_or_default();
    letters >= 4 && rest.iter().all(|byte| *byte == 0)
}
