//! Spans whose words, or whose entries in the page map, were written over.
//!
//! Live spans tile the memory that came from the system, and only live spans have entries there. So
//! entries that no span claims are damage (or a span that is being changed, under the page heap's
//! lock), and what the span was follows from what still agrees:
//!
//! ```text
//! entries     S ? ? S     both ends name S, and one of S.start and S.length fits: the other was hit
//! entries     S ? ? #     S.start and S.length fit the gap: an entry was hit
//! list        S           a central list holds S, no entry does: the entry of its only page was hit
//! ```

use super::{PageMap, Span, SpanRepair, Spans, entry_at, read_span};
use crate::allocators::tcmalloc::locate::Located;
use crate::anomaly::Field;
use crate::map::Bits;
use ground::scan::words_in;
use ground::target::{Address, Cursor, MemoryExt, TargetMemory};

/// Unclaimed entries that are looked at.
const MAX_UNCLAIMED: usize = 1 << 16;

/// Entries outside all spans that name the same object.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    last: u64,
    word: u64,
    /// First page of the span behind.
    ceiling: u64,
}

impl PageMap<'_> {
    /// Adds the spans that can be told although a word of theirs was written over.
    pub(super) fn recover(&self, rows: &mut Vec<Span>) -> Vec<SpanRepair> {
        let mut repairs = Vec::new();
        let mut found: Vec<Span> = Vec::new();
        for run in self.unclaimed(rows) {
            let taken = found
                .iter()
                .any(|span| span.start <= run.last && run.first < span.end());
            if taken {
                continue;
            }
            if let Some((span, repair)) = self.repaired(run, rows) {
                found.push(span);
                // Beside memory that is not in the core a span may be lost of which no word is wrong.
                if repair.found != repair.expected {
                    repairs.push(repair);
                }
            }
        }
        rows.append(&mut found);
        rows.sort_by_key(|span| span.start);
        repairs
    }

    /// Runs of entries outside all spans, one per gap and object that they name.
    fn unclaimed(&self, rows: &[Span]) -> Vec<Run> {
        let leaf_bits = self.located.layout.page_heap.leaf_bits;
        let mut runs: Vec<Run> = Vec::new();
        let mut row = 0;
        for &(index, leaf) in self.leaves {
            let first = index << leaf_bits;
            let entries = leaf..leaf.saturating_add(8 << leaf_bits);
            for (at, word) in words_in(self.memory, entries, |_, _| true) {
                let page = first.saturating_add(at.offset_from(leaf).unwrap_or(0) / 8);
                while rows.get(row).is_some_and(|span| span.end() <= page) {
                    row = row.saturating_add(1);
                }
                if rows.get(row).is_some_and(|span| span.start <= page) {
                    continue;
                }
                let ceiling = rows.get(row).map_or(u64::MAX, |span| span.start);
                // Entries inside a large span are stale: the same word may come again behind others.
                let enough = runs.len() >= MAX_UNCLAIMED;
                let mut recent = runs.iter_mut().rev().take(64);
                match recent.find(|run| run.word == word && run.ceiling == ceiling) {
                    Some(run) => run.last = page,
                    None if enough => return runs,
                    None => runs.push(Run {
                        first: page,
                        last: page,
                        word,
                        ceiling,
                    }),
                }
            }
        }
        runs
    }

    /// The span that a run of entries belongs to, and the word that was wrong.
    fn repaired(&self, run: Run, rows: &[Span]) -> Option<(Span, SpanRepair)> {
        let layout = &self.located.layout.span;
        let at = Address::new(run.word);
        let mut span = read_span(self.memory, self.located, at)?;
        if !at.is_aligned(8) || rows.iter().any(|other| other.at == at) {
            return None;
        }
        let pages = run.last.saturating_sub(run.first).saturating_add(1);
        let repair = |word, what, expected, found| SpanRepair {
            span: at,
            start: run.first,
            at: word,
            what,
            expected,
            found,
        };
        let by_entry = |span: Span, page: u64| {
            let repair = entry_repair(self.memory, self.located, self.leaves, &span, page)?;
            Some((span, repair))
        };
        if span.start == run.first {
            if span.length == pages {
                return None;
            }
            if run.last.saturating_add(1) != run.ceiling && fits(&span, rows) {
                return by_entry(span, span.end().saturating_sub(1));
            }
            let repair = repair(layout.length.at(at), Field::SpanLength, pages, span.length);
            span.length = pages;
            return fits(&span, rows).then_some((span, repair));
        }
        if span.end() == run.last.saturating_add(1) && fits(&span, rows) {
            return by_entry(span, span.start);
        }
        let repair = repair(layout.start.at(at), Field::SpanStart, run.first, span.start);
        span.start = run.first;
        (span.length == pages && fits(&span, rows)).then_some((span, repair))
    }
}

/// Whether a span overlaps none of the others and is no longer than memory can be.
fn fits(span: &Span, rows: &[Span]) -> bool {
    let behind = rows.partition_point(|other| other.start < span.start);
    let before = behind.checked_sub(1).and_then(|index| rows.get(index));
    let end = span.start.checked_add(span.length);
    span.length > 0
        && end.is_some_and(|end| end < 1 << 52)
        && before.is_none_or(|before| before.end() <= span.start)
        && rows
            .get(behind)
            .is_none_or(|behind| span.end() <= behind.start)
}

fn entry_repair(
    memory: &dyn TargetMemory,
    located: &Located,
    leaves: &[(u64, Address)],
    span: &Span,
    page: u64,
) -> Option<SpanRepair> {
    let at = entry_at(located, leaves, page)?;
    Some(SpanRepair {
        span: span.at,
        start: span.start,
        at,
        what: Field::PageMapEntry,
        expected: span.at.get(),
        found: memory.read_u64(at).ok()?,
    })
}

impl Spans {
    /// Adds spans that lists hold and that the page map does not name any more. Says whether any
    /// was added: what was marked on spans is then forgotten.
    pub fn adopt(
        &mut self,
        memory: &dyn TargetMemory,
        located: &Located,
        strangers: Vec<Span>,
    ) -> bool {
        let before = self.rows.len();
        for span in strangers {
            if !fits(&span, &self.rows) {
                continue;
            }
            let Some(repair) = entry_repair(memory, located, &self.index, &span, span.start) else {
                continue;
            };
            if repair.found != repair.expected {
                self.repairs.push(repair);
            }
            let place = self.rows.partition_point(|other| other.start < span.start);
            self.rows.insert(place, span);
        }
        let added = self.rows.len() > before;
        if added {
            self.central = Bits::new(self.rows.len() as u64);
        }
        added
    }

    /// Whether a word may hold such a value while the page heap is at work. An entry is null or
    /// names an object of the pool; a span's first page is one of the page map, null, or, in an
    /// object that was given back, the pool's link.
    pub fn may_be_passing(
        &self,
        memory: &dyn TargetMemory,
        located: &Located,
        repair: &SpanRepair,
    ) -> bool {
        let layout = &located.layout.span;
        let region = |at| memory.region_at(at).map(|region| region.range.start);
        let found = Address::new(repair.found);
        let in_pool = found.is_aligned(8) && region(found) == region(repair.span);
        if repair.at == layout.length.at(repair.span) {
            return repair.found < 1 << 35;
        }
        let is_page = repair.at == layout.start.at(repair.span)
            && entry_at(located, &self.index, repair.found).is_some();
        repair.found == 0 || in_pool || is_page
    }

    /// Entries of pages inside a span on a central list that do not name it, one per span. All are
    /// written before the span gets there.
    pub fn wrong_entries(&self, memory: &dyn TargetMemory, located: &Located) -> Vec<SpanRepair> {
        let mut cursor = Cursor::new(memory);
        let mut wrong = Vec::new();
        let spans = self.rows.iter().enumerate();
        for (_, span) in spans.filter(|(index, _)| self.on_central(*index)) {
            for page in span.start.saturating_add(1)..span.end().saturating_sub(1) {
                let Some(at) = entry_at(located, &self.index, page) else {
                    break;
                };
                if cursor.read_u64(at).is_ok_and(|word| word != span.at.get()) {
                    wrong.extend(entry_repair(memory, located, &self.index, span, page));
                    break;
                }
            }
        }
        wrong
    }
}
