//! Thread caches.

use super::Books;
use crate::allocators::tcmalloc::TcmallocHeap;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Value};
use crate::presence::Presence;
use ground::target::MemoryExt;

/// A list grows by one object per fetch to at most this, and a batch more.
const MAX_LENGTH: u64 = 8192 + 1024;

impl TcmallocHeap<'_> {
    /// Thread caches (rules 7, 8, 9, 19).
    pub(super) fn check_caches(&self, books: &mut Books, irregular: &dyn Fn(usize) -> bool) {
        let memory = self.target.memory;
        for link in &self.caches.broken_links {
            let word = BrokenWord {
                of: link.of,
                at: link.at,
                what: Field::ThreadCacheListLink,
                expected: Expected::Is(Property::ThreadCacheOrNull),
                found: link.found.into(),
            };
            // The list is changed under the page heap's lock.
            books.damage(word, self.page_heap_locked().filter(|_| !link.impossible));
        }
        for index in 0..self.caches.rows.len() {
            self.check_cache(books, index, irregular);
        }
        let count = self.caches.rows.len() as u64;
        if let Some(at) = self.located.cache_count
            && let Ok(recorded) = memory.read_u32(at)
            && u64::from(recorded) != count
            && self.caches.broken_links.is_empty()
        {
            let word = BrokenWord {
                of: at,
                at,
                what: Field::ThreadCacheThreadHeapCount,
                expected: Expected::Exactly(Value::Number(count), Reason::CachesOnTheList),
                found: Value::Number(recorded.into()),
            };
            books.count(word, self.somebody_inside());
        }
    }

    /// Whether the bytes that a cache counts in all are those of the lengths of its lists: two words that are written together, so that
    /// both are right.
    pub(in crate::allocators::tcmalloc) fn are_lengths_proved(&self, cache: usize) -> bool {
        let layout = &self.located.layout.cache;
        let bytes = (1..self.located.sizes.classes()).try_fold(0u64, |bytes, class| {
            let list = self.caches.list(self.target, &self.located, cache, class)?;
            let each = u64::from(self.located.sizes.bytes(class));
            bytes.checked_add(u64::from(list.length).checked_mul(each)?)
        });
        let cache = self.caches.rows.get(cache);
        let recorded = cache.and_then(|cache| layout.size.read(self.target.memory, cache.at).ok());
        bytes.is_some() && bytes == recorded
    }

    fn check_cache(&self, books: &mut Books, index: usize, irregular: &dyn Fn(usize) -> bool) {
        let memory = self.target.memory;
        let layout = &self.located.layout.cache;
        let Some(cache) = self.caches.rows.get(index) else {
            return;
        };
        let busy = match cache.owner {
            Some(thread) if self.presences.of(thread) == Presence::Outside => None,
            Some(thread) => Some(self.presences.at_work(thread)),
            None => self.somebody_inside(),
        };
        let mut bytes = 0u64;
        let mut sound = true;
        for class in 1..self.located.sizes.classes() {
            let Some(list) = self.caches.list(self.target, &self.located, index, class) else {
                continue;
            };
            let word = |at, what, expected: Expected, found: u64| BrokenWord {
                of: list.at,
                at,
                what,
                expected,
                found: Value::Number(found),
            };
            let object_bytes = self.located.sizes.bytes(class);
            let recorded = layout.object_bytes.read(memory, list.at).unwrap_or(0);
            if recorded != u64::from(object_bytes) {
                let at = layout.object_bytes.at(list.at);
                let bytes = Value::Number(object_bytes.into());
                let expected = Expected::Exactly(bytes, Reason::NeverChanges);
                books.damage(word(at, Field::FreeListSize, expected, recorded), None);
            }
            let most = layout.max_length.read(memory, list.at).unwrap_or(1);
            if !(1..=MAX_LENGTH).contains(&most) && !irregular(class.into()) {
                let at = layout.max_length.at(list.at);
                let expected = Expected::Between(1, MAX_LENGTH);
                // Only such values are ever stored.
                books.damage(word(at, Field::FreeListMaxLength, expected, most), None);
            }
            let low = layout.low_water.read(memory, list.at).unwrap_or(0);
            if low > u64::from(list.length) && !irregular(class.into()) {
                let at = layout.low_water.at(list.at);
                let length = Value::Number(list.length.into());
                let expected = Expected::AtMost(length, Reason::LengthOfTheList);
                let at_work = cache.owner.is_none_or(|thread| self.is_at_work(thread));
                books.count(
                    word(at, Field::FreeListLowater, expected, low),
                    busy.clone().filter(|_| at_work),
                );
            }
            sound &= !irregular(class.into());
            bytes = bytes
                .saturating_add(u64::from(list.length).saturating_mul(u64::from(object_bytes)));
        }
        if let Ok(recorded) = layout.size.read(memory, cache.at)
            && recorded != bytes
            && sound
        {
            let word = BrokenWord {
                of: cache.at,
                at: layout.size.at(cache.at),
                what: Field::ThreadCacheSize,
                expected: Expected::Exactly(Value::Number(bytes), Reason::BytesOfItsLists),
                found: Value::Number(recorded),
            };
            books.count(word, busy);
        }
    }
}
