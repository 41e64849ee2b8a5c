//! Counts: blocks by state, bytes by owner, arena by arena.

use super::JemallocHeap;
use super::caches::User;
use super::extents::{Row, State};
use super::sizes::{PAGE, SmallClass};
use crate::allocators::size_ranges::{self, SizeRanges};
use crate::allocators::{Coverage, Detail, Figure, SizeClassRow, Statistics, Tally, sum};
use crate::map::HeapMap;
use ground::target::MemoryExt;

/// What no core of a process with this allocator shows.
const NEVER_SHOWS: &str = "writes past the end of a block, and to free blocks: the bookkeeping is kept away from the blocks \
    and nothing is linked through them, so that such a write changes neighbours' data only. It is seen where free memory is \
    filled (junk:true) or a sampled block's size is known";

/// What one arena holds, in bytes.
#[derive(Clone, Debug, Default)]
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
    /// Blocks by size class: allocated, and of these cached.
    classes: Vec<(u64, u64)>,
}

/// Everything that is counted extent by extent.
struct Count {
    classes: Vec<SizeClassRow>,
    arenas: Vec<ArenaCount>,
    in_use: Tally,
    free: Tally,
    /// Blocks that are no class's: of 5.3.1, which rounds large ones to pages only.
    odd_sizes: SizeRanges,
    /// Free extents, and free blocks that are no class's.
    free_sizes: SizeRanges,
    /// Blocks of the allocator's own among those handed out.
    own: Tally,
    tails: u64,
}

impl Count {
    /// Counts blocks of one class, `bytes` in each: those that the program has, and those that are free.
    fn blocks(&mut self, class: u16, bytes: u64, in_use: u64, free: u64) {
        self.in_use.add(in_use, in_use.saturating_mul(bytes));
        self.free.add(free, free.saturating_mul(bytes));
        match self.classes.get_mut(usize::from(class)) {
            Some(row) if row.block_bytes == bytes => {
                row.in_use = row.in_use.saturating_add(in_use);
                row.free = row.free.saturating_add(free);
            }
            _ => {
                self.odd_sizes.add(bytes, in_use);
                self.free_sizes.add(bytes, free);
            }
        }
    }
}

impl ArenaCount {
    /// Counts blocks of one class that are not free in the arena's books, and those of them that caches hold.
    fn blocks(&mut self, class: u16, bytes: u64, allocated: u64, cached: u64) {
        self.allocated = self
            .allocated
            .saturating_add(allocated.saturating_mul(bytes));
        self.cached = self.cached.saturating_add(cached.saturating_mul(bytes));
        if let Some((all, some)) = self.classes.get_mut(usize::from(class)) {
            *all = all.saturating_add(allocated);
            *some = some.saturating_add(cached);
        }
    }
}

/// Adds what a descriptor states, which may be anything.
fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

impl JemallocHeap<'_> {
    /// Counts everything.
    pub(super) fn count(&self, map: &HeapMap) -> (Statistics, Vec<(&'static str, Detail)>) {
        let count = self.count_extents(map);
        let blocks = self.located.arenas.blocks();
        let base: u64 = blocks
            .iter()
            .map(|block| block.end.get().saturating_sub(block.start.get()))
            .sum();
        let mut statistics = Statistics {
            in_use: count.in_use,
            free: count.free,
            coverage: Coverage {
                in_use: count.in_use.bytes,
                free: count.free.bytes,
                metadata: base.saturating_add(count.own.bytes),
                tails: count.tails,
                unknown: 0,
            },
            ..Statistics::default()
        };
        statistics.mapped_bytes = statistics.coverage.total();
        let total = |of: &dyn Fn(&ArenaCount) -> u64| sum(count.arenas.iter().map(of));
        statistics.cached_bytes = total(&|arena| arena.cached);
        let active = total(&|arena| arena.active);
        let idle = total(&|arena| arena.dirty.saturating_add(arena.muzzy));
        statistics.figures = vec![
            Figure::known("allocated", total(&|arena| arena.allocated)),
            Figure::known("active", active),
            Figure::known("mapped", sum([active, idle, base].into_iter())),
            Figure::known("retained", total(&|arena| arena.retained)),
            // What the kernel holds in memory stands in no core.
            Figure {
                name: "resident",
                value: None,
            },
        ];
        let details = self.details(&count, base);
        let none = SizeRanges::default();
        let classes = count.classes.into_iter();
        statistics.size_classes = classes
            .filter(|row| row.in_use.saturating_add(row.free).saturating_add(row.lost) > 0)
            .chain(size_ranges::rows(
                0,
                &count.odd_sizes,
                &count.free_sizes,
                &none,
            ))
            .collect();
        (statistics, details)
    }

    fn count_extents(&self, map: &HeapMap) -> Count {
        let sizes = &self.located.sizes;
        let classes = self.located.layout.quantum.classes();
        let last = self.located.arenas.rows.last();
        let arena = ArenaCount {
            classes: vec![(0, 0); classes.into()],
            ..ArenaCount::default()
        };
        let mut count = Count {
            classes: (0..classes)
                .map(|class| SizeClassRow {
                    block_bytes: sizes.bytes(class),
                    ..SizeClassRow::default()
                })
                .collect(),
            arenas: Vec::new(),
            in_use: Tally::default(),
            free: Tally::default(),
            odd_sizes: SizeRanges::default(),
            free_sizes: SizeRanges::default(),
            own: Tally::default(),
            tails: 0,
        };
        let mut arenas = vec![arena.clone(); last.map_or(0, |last| usize::from(last.index) + 1)];
        let mut nobody = arena;
        for row in &self.located.extents.rows {
            let arena = arenas
                .get_mut(usize::from(row.arena))
                .unwrap_or(&mut nobody);
            self.count_extent(map, row, &mut count, arena);
        }
        count.arenas = arenas;
        count
    }

    fn count_extent(&self, map: &HeapMap, row: &Row, count: &mut Count, arena: &mut ArenaCount) {
        if !self.holds_blocks(row) {
            match row.state {
                State::Dirty => add(&mut arena.dirty, row.bytes),
                State::Muzzy => add(&mut arena.muzzy, row.bytes),
                State::Retained => add(&mut arena.retained, row.bytes),
                State::Active | State::Passing | State::Impossible => {}
            }
            count.free.add(1, row.bytes);
            count.free_sizes.add(row.bytes, 1);
            return;
        }
        add(&mut arena.active, row.bytes);
        match self.slab_class(row) {
            Some(cut) => self.count_slab(map, row, cut, count, arena),
            None => self.count_large(map, row, count, arena),
        }
    }

    fn count_slab(
        &self,
        map: &HeapMap,
        row: &Row,
        cut: &SmallClass,
        count: &mut Count,
        arena: &mut ArenaCount,
    ) {
        arena.slabs = arena.slabs.saturating_add(1);
        let bytes = u64::from(cut.bytes);
        let regions = u64::from(cut.regions);
        let in_slab: u64 = self
            .bitmap(row, cut.regions)
            .filter_map(|(_, word)| Some(u64::from(word?.count_ones())))
            .sum();
        let listed = map
            .row_at(row.start())
            .map_or(in_slab, |index| map.listed_in(index));
        let own = self.own.range(row.start()..row.end()).count() as u64;
        let own = own.min(regions.saturating_sub(listed));
        count.own.add(own, own.saturating_mul(bytes));
        count.blocks(
            row.class,
            bytes,
            regions.saturating_sub(listed.saturating_add(own)),
            listed,
        );
        arena.blocks(
            row.class,
            bytes,
            regions.saturating_sub(in_slab),
            listed.saturating_sub(in_slab),
        );
        count.tails = count
            .tails
            .saturating_add(row.bytes.saturating_sub(regions.saturating_mul(bytes)));
    }

    fn count_large(&self, map: &HeapMap, row: &Row, count: &mut Count, arena: &mut ArenaCount) {
        let usable = self.usable(row);
        arena.large = arena.large.saturating_add(1);
        count.tails = count.tails.saturating_add(row.bytes.saturating_sub(usable));
        let listed = map
            .row_at(row.address)
            .is_some_and(|index| map.listed_in(index) > 0);
        arena.blocks(row.class, usable, 1, listed.into());
        if self.own.contains(&row.address) {
            count.own.add(1, usable);
        } else {
            count.blocks(row.class, usable, (!listed).into(), listed.into());
        }
    }

    fn details(&self, count: &Count, base: u64) -> Vec<(&'static str, Detail)> {
        let number = Detail::Number;
        let layout = &self.located.layout;
        let sum = |of: &dyn Fn(&ArenaCount) -> u64| number(count.arenas.iter().map(of).sum());
        vec![
            ("layout", Detail::Text(layout.generation.releases().into())),
            ("page_bytes", number(PAGE)),
            ("never_shows", Detail::Text(NEVER_SHOWS.into())),
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
                ("size_classes", self.class_details(held)),
            ]))
        });
        Detail::List(arenas.collect())
    }

    /// Blocks of one arena by size class, as `malloc_stats_print` counts them: cached ones are allocated.
    fn class_details(&self, held: &ArenaCount) -> Detail {
        let classes = (0u16..).zip(&held.classes);
        let used = classes.filter(|(_, (allocated, _))| *allocated > 0);
        Detail::List(
            used.map(|(class, (allocated, cached))| {
                Detail::Table(vec![
                    ("size", Detail::Number(self.located.sizes.bytes(class))),
                    ("allocated", Detail::Number(*allocated)),
                    ("cached", Detail::Number(*cached)),
                ])
            })
            .collect(),
        )
    }

    fn cache_details(&self) -> Detail {
        let caches = self.caches.iter().map(|cache| {
            let blocks: u64 = cache.bins.iter().map(|bin| u64::from(bin.count)).sum();
            let bytes: u64 = cache
                .bins
                .iter()
                .map(|bin| u64::from(bin.count).saturating_mul(self.located.sizes.bytes(bin.class)))
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
