//! Counts: blocks by state, bytes by owner.

use super::PtmallocHeap;
use super::by_size::BySize;
use super::damage::Report;
use super::layout::usable;
use super::lists::Passed;
use super::mapped::recorded;
use super::structure::Shape;
use crate::allocators::{
    Coverage, Detail, Figure, SizeClassRow, Statistics, Tally, size_ranges, sum,
};

impl PtmallocHeap<'_> {
    /// Counts everything.
    pub(super) fn count(
        &self,
        passed: &Passed,
        report: &Report,
    ) -> (Statistics, Vec<(&'static str, Detail)>) {
        let (mut used, mut free) = (BySize::default(), BySize::default());
        let (mut own_bytes, mut damaged) = (0u64, (0u64, 0u64));
        for walk in self.walks() {
            used.merge(&walk.used);
            free.merge(&walk.free);
            own_bytes = own_bytes.saturating_add(walk.own_bytes);
            damaged.0 = damaged.0.saturating_add(walk.damaged.0);
            damaged.1 = damaged.1.saturating_add(walk.damaged.1);
        }
        let caches: Vec<u64> = self
            .walks()
            .iter()
            .flat_map(|walk| &walk.caches)
            .filter_map(|at| Some(self.word(at.checked_sub(8)?)? & !7))
            .collect();
        for size in &caches {
            used.remove(*size);
            own_bytes = own_bytes.saturating_add(*size);
        }
        // What stands free by its neighbour's header is in bins: caches and fastbins leave that header alone.
        let (binned_blocks, binned_bytes) = free.total();
        let binned_bytes = binned_bytes.saturating_add(binned_blocks.saturating_mul(8));
        let Report { lost, resized, .. } = report;
        used.merge(&resized.1);
        used.subtract(&resized.0);
        used.subtract(&passed.cached);
        used.subtract(lost);
        free.merge(&passed.cached);

        let mut statistics = Statistics::default();
        let (blocks, bytes) = used.total();
        statistics.in_use.add(blocks, bytes);
        let mut mapped = Tally::default();
        let mut all_used = used.clone();
        let all_caches = self.all_caches();
        for chunk in &self.mapped {
            if all_caches.iter().all(|cache| cache.at != chunk.block) {
                mapped.add(1, chunk.usable);
                all_used.large.add(chunk.usable, 1);
            }
        }
        statistics.in_use.add(mapped.blocks, mapped.bytes);
        let (blocks, bytes) = free.total();
        statistics.free.add(blocks, bytes);
        let (blocks, bytes) = lost.total();
        statistics.lost.add(blocks, bytes);
        let tops: Vec<u64> = self
            .arenas
            .regions
            .iter()
            .filter(|region| region.has_top)
            .filter_map(|region| {
                let arena = self.arenas.rows.get(region.arena)?;
                region.end.offset_from(arena.top)
            })
            .collect();
        let top_bytes = sum(tops.iter().copied());
        let mmapped = sum(self.mapped.iter().map(|chunk| chunk.total));
        let system = sum(self.arenas.rows.iter().map(|arena| arena.system_mem));
        let headers = used
            .total()
            .0
            .saturating_add(free.total().0)
            .saturating_add(lost.total().0)
            .saturating_mul(8);
        statistics.coverage = Coverage {
            in_use: statistics.in_use.bytes,
            free: statistics
                .free
                .bytes
                .saturating_add(statistics.lost.bytes)
                .saturating_add(top_bytes),
            metadata: headers
                .saturating_add(own_bytes)
                .saturating_add(mmapped.saturating_sub(mapped.bytes.min(mmapped))),
            tails: 0,
            unknown: 0,
        };
        let coverage = &mut statistics.coverage;
        let gap = system
            .saturating_add(mmapped)
            .saturating_sub(coverage.total());
        let headers = self.heap_headers().min(gap);
        coverage.metadata = coverage.metadata.saturating_add(headers);
        coverage.unknown = gap.saturating_sub(headers);
        statistics.mapped_bytes = coverage.total();
        statistics.size_classes = rows(&all_used, &free, lost);
        statistics.cached_bytes = passed.cached.total().1;
        statistics.figures = self.mallinfo(passed, system, binned_bytes);
        let details = self.details(passed, &used, &free, mapped, top_bytes, damaged);
        (statistics, details)
    }

    /// `mallinfo2` (malloc/malloc.c, `int_mallinfo`): chunks in caches count as used there, and sizes include headers.
    fn mallinfo(&self, passed: &Passed, system: u64, binned_bytes: u64) -> Vec<Figure> {
        let arenas = &self.arenas.rows;
        // The top of an arena that was never used is the first bin, whose size is zero.
        let tops = arenas.iter().map(|arena| arena.top_size.unwrap_or(0));
        let main = arenas.iter().find(|arena| arena.is_main);
        let (hblks, hblkhd) = recorded(self.target, &self.located).unzip();
        let binned = sum(passed.binned.iter().copied());
        let free = sum([sum(tops), passed.fastbin_bytes, binned_bytes].into_iter());
        vec![
            Figure::known("arena", system),
            Figure::known("ordblks", binned.saturating_add(arenas.len() as u64)),
            Figure::known("smblks", passed.in_fastbins),
            Figure {
                name: "hblks",
                value: hblks,
            },
            Figure {
                name: "hblkhd",
                value: hblkhd,
            },
            Figure::known("usmblks", 0),
            Figure::known("fsmblks", passed.fastbin_bytes),
            Figure::known("uordblks", system.saturating_sub(free)),
            Figure::known("fordblks", free),
            Figure {
                name: "keepcost",
                value: main.map(|arena| arena.top_size.unwrap_or(0)),
            },
        ]
    }

    fn details(
        &self,
        passed: &Passed,
        used: &BySize,
        free: &BySize,
        mapped: Tally,
        top_bytes: u64,
        damaged: (u64, u64),
    ) -> Vec<(&'static str, Detail)> {
        let number = Detail::Number;
        let tally = |tally: Tally| {
            let Tally { blocks, bytes } = tally;
            Detail::Table(vec![("blocks", number(blocks)), ("bytes", number(bytes))])
        };
        let arenas = self.arenas.rows.iter().enumerate().map(|(index, arena)| {
            let heaps = self
                .arenas
                .regions
                .iter()
                .filter(|region| region.arena == index);
            Detail::Table(vec![
                ("address", Detail::Address(arena.at)),
                ("lock", number(arena.mutex.into())),
                ("top", Detail::Address(arena.top)),
                ("top_bytes", arena.top_size.map_or(Detail::None, number)),
                ("system_bytes", number(arena.system_mem)),
                ("regions", number(heaps.count() as u64)),
                ("threads", arena.attached.map_or(Detail::None, number)),
                (
                    "in_bins",
                    number(passed.binned.get(index).copied().unwrap_or(0)),
                ),
            ])
        });
        let caches = self.all_caches().into_iter().map(|cache| {
            let tid = cache.owner.and_then(|owner| self.presences.tid(owner));
            Detail::Table(vec![
                ("address", Detail::Address(cache.at)),
                (
                    "thread_id",
                    tid.map_or(Detail::None, |tid| number(tid.into())),
                ),
            ])
        });
        vec![
            ("layout", Detail::Text(self.located.releases.to_string())),
            (
                "used",
                Detail::Text(if self.is_unused() { "never" } else { "yes" }.to_owned()),
            ),
            (
                "safe_linking",
                Detail::Text(if self.safe_linking { "yes" } else { "no" }.to_owned()),
            ),
            ("arenas", Detail::List(arenas.collect())),
            ("tcaches", Detail::List(caches.collect())),
            ("in_tcaches", number(passed.in_tcaches)),
            ("in_fastbins", number(passed.in_fastbins)),
            ("in_bins", number(passed.binned.iter().sum())),
            ("top_bytes", number(top_bytes)),
            ("mapped_chunks", tally(mapped)),
            ("large_in_use", tally(used.large.total())),
            ("large_free", tally(free.large.total())),
            (
                "damaged_ranges",
                tally(Tally {
                    blocks: damaged.1,
                    bytes: damaged.0,
                }),
            ),
        ]
    }

    /// Bytes in front of the first chunk of each heap of a thread's arena: `heap_info`, and `malloc_state` in the first.
    fn heap_headers(&self) -> u64 {
        let of_thread = |arena: usize| self.arenas.rows.get(arena).is_some_and(|row| !row.is_main);
        let regions = self.arenas.regions.iter();
        let first_chunks = regions.filter(|region| of_thread(region.arena));
        sum(first_chunks.map(|region| region.start.get() & self.arenas.heap_max.saturating_sub(1)))
    }

    /// Nobody ever allocated anything here: another allocator serves the process.
    pub(super) fn is_unused(&self) -> bool {
        let virgin = self
            .arenas
            .rows
            .iter()
            .all(|arena| arena.is_virgin(&self.located.arena));
        (self.located.shape == Shape::Untouched || virgin) && self.mapped.is_empty()
    }
}

fn rows(used: &BySize, free: &BySize, lost: &BySize) -> Vec<SizeClassRow> {
    (0u64..)
        .zip(used.small.iter().zip(&free.small).zip(&lost.small))
        .map(|(index, ((used, free), lost))| SizeClassRow {
            block_bytes: usable(index.saturating_mul(16)),
            in_use: *used,
            free: *free,
            lost: *lost,
            range: None,
        })
        .filter(|row| row.in_use.saturating_add(row.free).saturating_add(row.lost) > 0)
        .chain(size_ranges::rows(
            usable(
                (used.small.len() as u64)
                    .saturating_mul(16)
                    .saturating_sub(16),
            ),
            &used.large,
            &free.large,
            &lost.large,
        ))
        .collect()
}
