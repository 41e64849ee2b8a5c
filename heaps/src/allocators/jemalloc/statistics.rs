//! Counts: blocks by state, bytes by owner, arena by arena.

use super::JemallocHeap;
use super::caches::User;
use super::extents::{Row, State};
use super::sizes::PAGE;
use crate::allocators::{Coverage, Detail, SizeClassRow, Statistics, Tally};
use crate::map::HeapMap;
use crate::target::MemoryExt;

/// What one arena holds, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct ArenaCount {
    /// Regions and large blocks that are not free in the arena's own books: cached ones included.
    allocated: u64,
    /// Of these, what caches hold.
    cached: u64,
    /// Pages in use.
    active: u64,
    dirty: u64,
    muzzy: u64,
    retained: u64,
    slabs: u64,
    large: u64,
}

/// Everything that is counted extent by extent.
struct Count {
    classes: Vec<SizeClassRow>,
    arenas: Vec<ArenaCount>,
    free_extents: Tally,
    /// Blocks of the allocator's own among those handed out.
    own: Tally,
    tails: u64,
    passing: u64,
}

impl JemallocHeap<'_> {
    /// Counts everything.
    pub(super) fn count(&self, map: &HeapMap) -> (Statistics, Vec<(&'static str, Detail)>) {
        let count = self.count_extents(map);
        let mut statistics = Statistics::default();
        for row in &count.classes {
            statistics
                .in_use
                .add(row.in_use, row.in_use * row.block_bytes);
            statistics.free.add(row.free, row.free * row.block_bytes);
            statistics.lost.add(row.lost, row.lost * row.block_bytes);
        }
        statistics
            .free
            .add(count.free_extents.blocks, count.free_extents.bytes);
        let blocks = self.located.arenas.blocks();
        let base: u64 = blocks
            .iter()
            .map(|block| block.end.get() - block.start.get())
            .sum();
        statistics.mapped_bytes = self.located.extents.rows.iter().map(|row| row.bytes).sum();
        statistics.coverage = Coverage {
            in_use: statistics.in_use.bytes,
            free: statistics.free.bytes + statistics.lost.bytes,
            metadata: base + count.own.bytes,
            tails: count.tails,
            unknown: 0,
        };
        let details = self.details(&count, base);
        statistics.size_classes = count.classes;
        statistics
            .size_classes
            .retain(|row| row.in_use + row.free + row.lost > 0);
        (statistics, details)
    }

    fn count_extents(&self, map: &HeapMap) -> Count {
        let sizes = &self.located.sizes;
        let arenas = self.located.arenas.rows.last();
        let mut count = Count {
            classes: (0..self.located.layout.quantum.classes())
                .map(|class| SizeClassRow {
                    block_bytes: sizes.bytes(class),
                    ..SizeClassRow::default()
                })
                .collect(),
            arenas: vec![
                ArenaCount::default();
                arenas.map_or(0, |arena| usize::from(arena.index) + 1)
            ],
            free_extents: Tally::default(),
            own: Tally::default(),
            tails: 0,
            passing: 0,
        };
        for row in &self.located.extents.rows {
            self.count_extent(map, row, &mut count);
        }
        count
    }

    fn count_extent(&self, map: &HeapMap, row: &Row, count: &mut Count) {
        let mut nobody = ArenaCount::default();
        let arena = count
            .arenas
            .get_mut(usize::from(row.arena))
            .unwrap_or(&mut nobody);
        match row.state {
            State::Active if self.holds_blocks(row) => {}
            State::Dirty => arena.dirty += row.bytes,
            State::Muzzy => arena.muzzy += row.bytes,
            State::Retained => arena.retained += row.bytes,
            State::Active | State::Passing | State::Impossible => count.passing += row.bytes,
        }
        if !self.holds_blocks(row) {
            count.free_extents.add(1, row.bytes);
            return;
        }
        arena.active += row.bytes;
        let Some(class) = count.classes.get_mut(usize::from(row.class)) else {
            return;
        };
        let Some(cut) = self.slab_class(row) else {
            self.count_large(map, row, class, arena, &mut count.own, &mut count.tails);
            return;
        };
        arena.slabs += 1;
        let bytes = u64::from(cut.bytes);
        let in_slab: u64 = self
            .bitmap(row, cut.regions)
            .filter_map(|(_, word)| Some(u64::from(word?.count_ones())))
            .sum();
        let listed = map
            .row_at(row.start())
            .map_or(in_slab, |index| map.listed_in(index));
        let regions = u64::from(cut.regions);
        let own = self.own.range(row.start()..row.end()).count() as u64;
        class.free += listed;
        class.in_use += regions.saturating_sub(listed + own);
        count.own.add(own, own * bytes);
        arena.allocated += (regions - in_slab.min(regions)) * bytes;
        arena.cached += listed.saturating_sub(in_slab) * bytes;
        count.tails += row.bytes - regions * bytes;
    }

    fn count_large(
        &self,
        map: &HeapMap,
        row: &Row,
        class: &mut SizeClassRow,
        arena: &mut ArenaCount,
        own: &mut Tally,
        tails: &mut u64,
    ) {
        let usable = self.usable(row);
        arena.large += 1;
        arena.allocated += usable;
        *tails += row.bytes.saturating_sub(usable);
        if self.own.contains(&row.address) {
            own.add(1, usable);
            return;
        }
        let cached = map
            .row_at(row.address)
            .is_some_and(|index| map.listed_in(index) > 0);
        if cached {
            arena.cached += usable;
            class.free += 1;
        } else {
            class.in_use += 1;
        }
    }

    fn details(&self, count: &Count, base: u64) -> Vec<(&'static str, Detail)> {
        let number = Detail::Number;
        let layout = &self.located.layout;
        let sum = |of: &dyn Fn(&ArenaCount) -> u64| number(count.arenas.iter().map(of).sum());
        vec![
            ("layout", Detail::Text(layout.generation.releases().into())),
            ("page_bytes", number(PAGE)),
            ("quantum", number(layout.quantum.bytes())),
            (
                "address_bits",
                number(self.located.tree.geometry.address_bits().into()),
            ),
            ("extents", number(self.located.extents.rows.len() as u64)),
            ("allocated_bytes", sum(&|arena| arena.allocated)),
            ("cached_bytes", sum(&|arena| arena.cached)),
            ("active_bytes", sum(&|arena| arena.active)),
            ("dirty_bytes", sum(&|arena| arena.dirty)),
            ("muzzy_bytes", sum(&|arena| arena.muzzy)),
            ("retained_bytes", sum(&|arena| arena.retained)),
            ("base_bytes", number(base)),
            ("own_blocks", number(count.own.blocks)),
            ("own_bytes", number(count.own.bytes)),
            ("arenas", self.arena_details(count)),
            ("thread_caches", self.cache_details()),
            ("samples", self.sample_details()),
        ]
    }

    fn sample_details(&self) -> Detail {
        const MAX_SAMPLES: usize = 1000;
        let samples = self.samples().take(MAX_SAMPLES).map(|(row, sample)| {
            Detail::Table(vec![
                ("address", Detail::Address(row.address)),
                (
                    "requested_bytes",
                    sample.requested.map_or(Detail::None, Detail::Number),
                ),
                ("stack", Detail::Code(sample.stack)),
            ])
        });
        Detail::List(samples.collect())
    }

    fn arena_details(&self, count: &Count) -> Detail {
        let memory = self.target.memory;
        let arenas = self.located.arenas.rows.iter().filter_map(|arena| {
            let held = count.arenas.get(usize::from(arena.index))?;
            let threads = memory.read_u32(arena.at).unwrap_or(0);
            Some(Detail::Table(vec![
                ("index", Detail::Number(arena.index.into())),
                ("address", Detail::Address(arena.at)),
                ("threads", Detail::Number(threads.into())),
                ("allocated_bytes", Detail::Number(held.allocated)),
                ("cached_bytes", Detail::Number(held.cached)),
                ("active_bytes", Detail::Number(held.active)),
                ("dirty_bytes", Detail::Number(held.dirty)),
                ("muzzy_bytes", Detail::Number(held.muzzy)),
                ("retained_bytes", Detail::Number(held.retained)),
                ("slabs", Detail::Number(held.slabs)),
                ("large", Detail::Number(held.large)),
            ]))
        });
        Detail::List(arenas.collect())
    }

    fn cache_details(&self) -> Detail {
        let caches = self.caches.iter().map(|cache| {
            let blocks: u64 = cache.bins.iter().map(|bin| u64::from(bin.count)).sum();
            let bytes: u64 = cache
                .bins
                .iter()
                .map(|bin| u64::from(bin.count) * self.located.sizes.bytes(bin.class))
                .sum();
            let thread = match cache.user {
                User::Thread(thread) => self.presences.tid(thread),
                User::Explicit | User::Vanished => None,
            };
            Detail::Table(vec![
                ("address", Detail::Address(cache.at)),
                (
                    "thread_id",
                    thread.map_or(Detail::None, |tid| Detail::Number(tid.into())),
                ),
                (
                    "explicit",
                    Detail::Number((cache.user == User::Explicit).into()),
                ),
                ("blocks", Detail::Number(blocks)),
                ("bytes", Detail::Number(bytes)),
            ])
        });
        Detail::List(caches.collect())
    }
}
