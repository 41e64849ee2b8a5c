//! Counts: blocks by state, bytes by owner, and what is left unexplained.

use std::ops::Range;

use super::TcmallocHeap;
use super::pagemap::SpanLocation;
use crate::allocators::size_ranges::{self, SizeRanges};
use crate::allocators::{Coverage, Detail, GroupReport, SizeClassRow, Statistics, Tally};
use crate::map::{Extent, HeapMap, Owner, Shape};
use ground::target::{Address, MemoryExt, RegionKind};

impl TcmallocHeap<'_> {
    /// The allocator's own memory: what its regions hold beside spans, where it holds page map
    /// leaves, `Span` objects or thread caches.
    pub(super) fn metadata_extents(&self) -> Vec<Extent> {
        let mut known: Vec<Address> = self.spans.leaves.clone();
        known.extend(self.caches.rows.iter().map(|cache| cache.at));
        // Span objects come from pools: one per 4 KiB is enough to find the pool.
        let mut objects: Vec<u64> = self
            .spans
            .rows()
            .iter()
            .map(|span| span.at.get() >> 12)
            .collect();
        objects.sort_unstable();
        objects.dedup();
        known.extend(objects.into_iter().map(|page| Address::new(page << 12)));
        known.sort_unstable();
        let mut gaps: Vec<Range<Address>> = Vec::new();
        for at in known {
            if gaps.last().is_some_and(|gap| at < gap.end) {
                continue;
            }
            if let Some(gap) = self.gap_around(at) {
                gaps.push(gap);
            }
        }
        gaps.into_iter()
            .filter_map(|gap| {
                let bytes = gap.end.offset_from(gap.start)?;
                Some(Extent::new(
                    gap.start,
                    bytes,
                    Shape::Metadata,
                    Owner::InUse,
                    0,
                ))
            })
            .collect()
    }

    /// The longest run around `at` within anonymous writable regions side by side that no span claims.
    fn gap_around(&self, at: Address) -> Option<Range<Address>> {
        let region = self.target.memory.region_at(at)?;
        if region.kind != RegionKind::Anonymous || !region.writable {
            return None;
        }
        let rows = self.spans.rows();
        let after = rows.partition_point(|span| self.span_start(span) <= at);
        let floor = after
            .checked_sub(1)
            .and_then(|before| rows.get(before))
            .map(|span| self.span_range(span).end);
        let ceiling = rows.get(after).map(|span| self.span_start(span));
        let start = floor.map_or(region.range.start, |floor| floor.max(region.range.start));
        let end = ceiling.map_or(region.range.end, |ceiling| ceiling.min(region.range.end));
        (start <= at && at < end).then_some(start..end)
    }

    /// Counts everything.
    pub(super) fn count(
        &self,
        map: &HeapMap,
        groups: &[GroupReport],
    ) -> (Statistics, Vec<(&'static str, Detail)>) {
        let classes = usize::from(self.located.sizes.classes());
        let mut rows: Vec<SizeClassRow> = (0..classes)
            .map(|class| SizeClassRow {
                block_bytes: self
                    .located
                    .sizes
                    .bytes(u16::try_from(class).unwrap_or(0))
                    .into(),
                ..SizeClassRow::default()
            })
            .collect();
        let mut coverage = Coverage::default();
        let mut large = Tally::default();
        let mut free_spans = Tally::default();
        let mut returned = Tally::default();
        let mut mapped = 0u64;
        let (mut large_sizes, mut free_sizes) = (SizeRanges::default(), SizeRanges::default());
        for (index, extent) in (0u32..).zip(map.extents()) {
            if extent.shape == Shape::Metadata {
                coverage.metadata = coverage.metadata.saturating_add(extent.bytes);
                continue;
            }
            mapped = mapped.saturating_add(extent.bytes);
            let blocks = u64::from(extent.blocks());
            let block_bytes = blocks.saturating_mul(extent.block_bytes());
            match (
                extent.owner,
                extent.shape,
                rows.get_mut(usize::from(extent.class)),
            ) {
                (Owner::Free | Owner::Returned, Shape::Slab { .. }, Some(row)) => {
                    row.free = row.free.saturating_add(blocks);
                    coverage.tails = coverage
                        .tails
                        .saturating_add(extent.bytes.saturating_sub(block_bytes));
                }
                (Owner::Free, ..) => {
                    free_spans.add(1, extent.bytes);
                    free_sizes.add(extent.bytes, 1);
                }
                (Owner::Returned, ..) => {
                    returned.add(1, extent.bytes);
                    free_sizes.add(extent.bytes, 1);
                }
                (Owner::InUse, Shape::Slab { .. }, Some(row)) => {
                    let listed = map.listed_in(index);
                    let lost = map.lost_in(index);
                    row.free = row.free.saturating_add(listed);
                    row.lost = row.lost.saturating_add(lost);
                    row.in_use = row
                        .in_use
                        .saturating_add(blocks.saturating_sub(listed).saturating_sub(lost));
                    coverage.tails = coverage
                        .tails
                        .saturating_add(extent.bytes.saturating_sub(block_bytes));
                }
                _ => {
                    large.add(1, extent.bytes);
                    large_sizes.add(extent.bytes, 1);
                }
            }
        }
        for (row, group) in rows.iter_mut().zip(groups) {
            let untold = group.lost_blocks.min(row.in_use);
            row.in_use = row.in_use.saturating_sub(untold);
            row.lost = row.lost.saturating_add(untold);
        }
        let mut statistics = Statistics::default();
        statistics.in_use.add(large.blocks, large.bytes);
        statistics.free.add(
            free_spans.blocks.saturating_add(returned.blocks),
            free_spans.bytes.saturating_add(returned.bytes),
        );
        for row in rows.iter().skip(1) {
            statistics
                .in_use
                .add(row.in_use, row.in_use.saturating_mul(row.block_bytes));
            statistics
                .free
                .add(row.free, row.free.saturating_mul(row.block_bytes));
            statistics
                .lost
                .add(row.lost, row.lost.saturating_mul(row.block_bytes));
        }
        coverage.in_use = statistics.in_use.bytes;
        coverage.free = statistics.free.bytes.saturating_add(statistics.lost.bytes);
        let layout = &self.located.layout;
        let system = self
            .target
            .memory
            .read_u64(
                self.located
                    .page_heap
                    .saturating_add(layout.page_heap.stats),
            )
            .unwrap_or(mapped);
        // What the page heap took from the system and no span of the page map holds.
        coverage.unknown = system.saturating_sub(mapped);
        statistics.mapped_bytes = coverage.total();
        statistics.coverage = coverage;
        let none = SizeRanges::default();
        statistics.size_classes = rows
            .into_iter()
            .skip(1)
            .filter(|row| row.in_use.saturating_add(row.free).saturating_add(row.lost) > 0)
            .chain(size_ranges::rows(0, &large_sizes, &free_sizes, &none))
            .collect();
        (statistics.figures, statistics.cached_bytes) = self.figures(coverage.metadata);
        let details = self.details(large, free_spans, returned);
        (statistics, details)
    }

    fn details(
        &self,
        large: Tally,
        free_spans: Tally,
        returned: Tally,
    ) -> Vec<(&'static str, Detail)> {
        let tally = |tally: Tally| {
            Detail::Table(vec![
                ("blocks", Detail::Number(tally.blocks)),
                ("bytes", Detail::Number(tally.bytes)),
            ])
        };
        let caches = self
            .caches
            .rows
            .iter()
            .map(|cache| {
                let owner = cache.owner.and_then(|owner| self.presences.tid(owner));
                Detail::Table(vec![
                    ("address", Detail::Address(cache.at)),
                    (
                        "thread_id",
                        owner.map_or(Detail::None, |tid| Detail::Number(tid.into())),
                    ),
                    (
                        "bytes",
                        self.located
                            .layout
                            .cache
                            .size
                            .read(self.target.memory, cache.at)
                            .map_or(Detail::None, Detail::Number),
                    ),
                ])
            })
            .collect();
        let spans = self.spans.rows();
        let count = |wanted: &dyn Fn(&super::Span) -> bool| {
            Detail::Number(spans.iter().filter(|span| wanted(span)).count() as u64)
        };
        vec![
            (
                "layout",
                Detail::Text(self.located.layout.generation.releases().into()),
            ),
            ("page_bytes", Detail::Number(self.page_bytes())),
            ("spans", Detail::Number(spans.len() as u64)),
            ("small_spans", count(&|span| span.is_small())),
            (
                "sampled_spans",
                count(&|span| span.sample && span.location == SpanLocation::InUse),
            ),
            ("large_in_use", tally(large)),
            ("free_spans", tally(free_spans)),
            ("returned_spans", tally(returned)),
            ("thread_caches", Detail::List(caches)),
            ("samples", Detail::List(self.sample_details())),
        ]
    }

    fn sample_details(&self) -> Vec<Detail> {
        const MAX_SAMPLES: usize = 1000;
        self.sampled_spans()
            .filter_map(|span| Some((span, self.sample(span)?)))
            .take(MAX_SAMPLES)
            .map(|(span, sample)| {
                Detail::Table(vec![
                    ("address", Detail::Address(self.span_start(span))),
                    ("requested_bytes", Detail::Number(sample.requested_bytes)),
                    ("stack", Detail::Code(sample.stack)),
                ])
            })
            .collect()
    }
}
