//! `mp_`: what malloc's settings and counters can be, and whether they agree with what is there.

use super::Inquiry;
use crate::allocators::ptmalloc::layout::{
    FLAGS, HEADER, IS_MMAPPED, ParametersLayout, TcacheLayout,
};
use crate::allocators::ptmalloc::mapped;
use crate::allocators::sum;
use crate::anomaly::{AnomalyKind, BrokenWord, Expected, Field, Reason, Value};
use ground::target::{Address, Cursor, MemoryExt};

/// `MAX_TCACHE_COUNT` (`UINT16_MAX`; 127 in 2.26 to 2.29).
const MAX_COUNT: u64 = 0xffff;
/// `MAX_TCACHE_SIZE` up to 2.41, as a chunk.
const MAX_SMALL: u64 = 0x420;
/// `MAX_TCACHE_SIZE` from 2.42 on (`MAX_TCACHE_LARGE`, 4 MiB), as a chunk.
const MAX_LARGE: u64 = (4 << 20) + 0x20;

impl Inquiry<'_, '_> {
    /// Says what is wrong with `mp_`.
    pub(super) fn parameters(&mut self) {
        let Some((at, layout)) = self.heap.located.parameters else {
            return;
        };
        if let Some(tcache) = layout.tcache {
            self.settings_of_caches(at, tcache);
        }
        self.mapped_counters(at, &layout);
    }

    fn settings_of_caches(&mut self, at: Address, tcache: u64) {
        let releases = self.heap.located.releases;
        let most_bytes = if releases.high >= 42 {
            MAX_LARGE
        } else {
            MAX_SMALL
        };
        let rows = [
            (0, Field::MpTcacheBins, TcacheLayout::SMALL_BINS),
            (8, Field::MpTcacheMaxBytes, most_bytes),
            (16, Field::MpTcacheCount, MAX_COUNT),
        ];
        let read = |(offset, what, most): (u64, Field, u64)| {
            let word = at.saturating_add(tcache.saturating_add(offset));
            Some((word, what, most, self.word(word)?))
        };
        let rows: Vec<_> = rows.into_iter().filter_map(read).collect();
        let mut wrong = rows.iter().filter(|(_, _, most, found)| found > most);
        // With more than one of three wrong these are other words than they were taken for.
        let (3, Some(&(word, what, most, found)), None) = (rows.len(), wrong.next(), wrong.next())
        else {
            return;
        };
        let expected = Expected::AtMost(Value::Number(most), Reason::Itself);
        self.parameter(at, word, what, expected, Value::Word(found), false);
    }

    /// How many chunks with mappings of their own there are, and their bytes: if all bytes are found, so are all chunks.
    fn mapped_counters(&mut self, at: Address, layout: &ParametersLayout) {
        let heap = self.heap;
        let Some((count, bytes)) = mapped::recorded(heap.target, &heap.located) else {
            return;
        };
        let found = heap.mapped.len() as u64;
        let total = sum(heap.mapped.iter().map(|mapped| mapped.total));
        let whole = heap.mapped.iter().all(|mapped| mapped.wrong.is_none());
        let at_rest = heap.somebody_inside().is_none() && heap.vanished().is_none();
        if found == 0 || !whole || !at_rest {
            return;
        }
        let number = at.saturating_add(layout.n_mmaps);
        if total == bytes && found.checked_add(1) == Some(count) && self.covers_another() {
            return;
        }
        if total == bytes && found != count {
            let expected = Expected::Exactly(Value::Number(found), Reason::ChunksWithBytes(bytes));
            let counted = Value::Number(count);
            self.parameter(at, number, Field::MpNMmaps, expected, counted, true);
        }
        let most = number.saturating_add(8);
        let Ok(highest) = heap.target.memory.read_u32(most) else {
            return;
        };
        if total == bytes && found == count && u64::from(highest) < count {
            let expected = Expected::AtLeast(Value::Number(count), Reason::ChunksThatThereAre);
            let counted = Value::Number(highest.into());
            let what = Field::MpMaxNMmaps;
            self.parameter(at, most, what, expected, counted, true);
        }
    }

    /// A chunk whose size was made to cover the one behind it, as well: a header stands inside it that leads to the same end.
    /// Says so, if there is one.
    fn covers_another(&mut self) -> bool {
        /// Pages that are looked at.
        const MAX_PAGES: usize = 1 << 20;
        let heap = self.heap;
        let abi = heap.target.memory.abi();
        let mut cursor = Cursor::new(heap.target.memory);
        let mut word = |at: Address| cursor.read_u64(at).ok();
        let trailer = match heap.located.arena.fastbins {
            Some(_) => 0,
            None => HEADER,
        };
        let pages = heap.mapped.iter().flat_map(|mapped| {
            let pages = abi.pages(abi.page_bytes, mapped.total.saturating_sub(abi.page_bytes));
            pages.map(move |offset| (mapped, offset))
        });
        let inner = pages.take(MAX_PAGES).find(|(mapped, offset)| {
            let page = mapped.base.saturating_add(*offset);
            let header = word(page.saturating_add(8)).unwrap_or(0);
            word(page).is_some_and(|lead| lead & !1 == 0)
                && header & FLAGS == IS_MMAPPED
                && (header & !FLAGS).checked_add(trailer) == mapped.total.checked_sub(*offset)
        });
        let Some((mapped, offset)) = inner else {
            return false;
        };
        let at = mapped.block.get().saturating_sub(8);
        let before = at.saturating_sub(mapped.base.get()).saturating_sub(8);
        let (Some(size), Some(found), Some((block, _))) = (
            offset.checked_sub(before.saturating_add(trailer)),
            self.word(Address::new(at)),
            self.map.block_at(mapped.block),
        ) else {
            return false;
        };
        self.push(
            AnomalyKind::Header {
                block,
                at: Address::new(at),
                what: Field::HeaderOfMappedChunk,
                expected: Some(size | IS_MMAPPED),
                found,
                before: None,
            },
            None,
        );
        true
    }

    fn parameter(
        &mut self,
        of: Address,
        at: Address,
        what: Field,
        expected: Expected,
        found: Value,
        counts_only: bool,
    ) {
        let kind = AnomalyKind::Metadata {
            word: BrokenWord {
                of,
                at,
                what,
                expected,
                found,
            },
            counts_only,
        };
        self.push(kind, None);
    }
}
