//! jemalloc, 5.0 to 5.3.1.
//!
//! ```text
//! extents_rtree: page ──> extent_t / edata_t          what each page belongs to, and in which state it is
//!     slab:  regions of one size, a bit for each: 1 is free
//!     large: one block
//! arenas[i] ──> arena_t: bins[class], page caches     which slabs have room; dirty, muzzy and retained extents
//! tcache_t.bins[class] ──> array of pointers          what a thread keeps: free for it, allocated by the bit
//! ```
//!
//! Nothing of this lies between the program's blocks: an overrun hits the neighbour's data, never a size or a link. What
//! shows errors is that frees are written down: a pointer freed twice stands in two places, an inner pointer stands in a
//! cache as it was given, a bit that is flipped twice no longer agrees with the slab's count.

mod arenas;
mod bins;
mod books;
mod busy;
mod caches;
mod damage;
mod extents;
mod fatal;
mod fillings;
mod follow;
mod layout;
mod limits;
mod locate;
mod lost_roots;
mod options;
mod recognise;
mod residue;
mod sampled;
mod sizes;
mod statistics;
mod tree;

use std::collections::BTreeSet;

use crate::allocators::{
    Allocator, Copy, Detection, Family, GroupReport, Heap, HeapIdentity, Residue, Settled, Standing,
};
use crate::anomaly::{HolderKind, ListRef};
use crate::list::{FreeList, ListWalk};
use crate::map::{Block, Extent, HeapMap, MapBuilder, Owner, Shape};
use crate::presence::{Code, Presences};
use caches::Cache;
use extents::{Row, State};
use ground::target::{Address, Cursor, Frame, Module, Target};
use locate::Located;
use sizes::{PAGE, PAGE_SHIFT};

/// jemalloc.
pub struct Jemalloc;

impl Allocator for Jemalloc {
    fn name(&self) -> &'static str {
        "jemalloc"
    }

    fn detect<'t>(&self, target: Target<'t>) -> Detection<'t> {
        let looked_for = "no module's writable memory holds jemalloc's array of arenas or its table of size \
                          classes (rows of 40 bytes: 8, 4096, 512 ...), and no module is named libjemalloc";
        Detection::in_modules(target, self.name(), looked_for, |module| {
            if let Some(limit) = recognise::refused(target, module) {
                return Copy::Refused(limit);
            }
            match locate::locate(target, module) {
                Ok(located) => Copy::Read(Box::new(JemallocHeap::read(target, module, located))),
                Err(miss) => Copy::Missed(miss),
            }
        })
    }
}

/// One copy of jemalloc in a process.
pub(crate) struct JemallocHeap<'t> {
    target: Target<'t>,
    module: &'t Module,
    located: Located,
    caches: Vec<Cache>,
    presences: Presences<'t>,
    version: Option<String>,
    /// Bytes that each large extent has more than its block.
    pad: u64,
    /// Blocks that the allocator took for itself, by address.
    own: BTreeSet<Address>,
}

impl<'t> JemallocHeap<'t> {
    fn read(target: Target<'t>, module: &'t Module, located: Located) -> Self {
        let caches = caches::read(target, &located);
        let code = if module.is_executable {
            Code::Touching(state_ranges(target, module, &located))
        } else {
            Code::Module
        };
        let presences = Presences::new(target, module, code);
        let mut heap = Self {
            target,
            module,
            presences: match located.arenas.is_cut {
                true => presences,
                false => presences.with_own_memory(located.arenas.blocks().to_vec()),
            },
            version: recognise::version(target, module),
            pad: large_pad(&located),
            located,
            caches,
            own: BTreeSet::new(),
        };
        heap.own = heap
            .caches
            .iter()
            .flat_map(|cache| &cache.own)
            .filter_map(|at| heap.block_start(*at))
            .chain(
                heap.samples()
                    .flat_map(|(_, sample)| sample.own)
                    .filter_map(|at| heap.block_start(at)),
            )
            .collect();
        heap
    }

    /// Start of the block that `at` lies in, as slabs and extents have it.
    fn block_start(&self, at: Address) -> Option<Address> {
        let row = self.located.extents.at(at)?;
        if !self.holds_blocks(row) {
            return None;
        }
        let Some(class) = self.slab_class(row) else {
            return Some(row.address);
        };
        let offset = at.offset_from(row.start())?;
        let slot = offset.checked_div(class.bytes.into())?;
        row.start()
            .checked_add(slot.saturating_mul(u64::from(class.bytes)))
    }

    /// Whether an extent is handed out or cut into regions, and not on its way anywhere.
    fn holds_blocks(&self, row: &Row) -> bool {
        row.state == State::Active && row.class < self.located.layout.quantum.classes()
    }

    /// How an active slab is cut. `None` for anything else, and for a slab whose words contradict its class.
    fn slab_class(&self, row: &Row) -> Option<&sizes::SmallClass> {
        let class = self.located.sizes.small(row.class)?;
        (row.slab && row.state == State::Active && row.bytes == class.slab_bytes).then_some(class)
    }

    /// Bytes that the program may use of a block with an extent of its own.
    fn usable(&self, row: &Row) -> u64 {
        let class = self.located.sizes.bytes(row.class);
        let inside = row.address.get().saturating_sub(row.start().get());
        class.min(row.bytes.saturating_sub(self.pad.max(inside)))
    }

    fn extent_of(&self, row: &Row) -> Extent {
        let class = row.class;
        let whole = |owner| Extent::new(row.start(), row.bytes, Shape::Single, owner, class);
        match row.state {
            State::Active if !self.holds_blocks(row) => whole(Owner::Free),
            State::Active => {
                if let Some(small) = self.slab_class(row) {
                    let shape = Shape::Slab {
                        stride: small.bytes,
                        count: small.regions,
                    };
                    return Extent::new(row.start(), row.bytes, shape, Owner::InUse, class);
                }
                if self.own.contains(&row.address) {
                    return Extent::new(row.start(), row.bytes, Shape::Metadata, Owner::InUse, 0);
                }
                // Of the page that every large extent has to spare, a random part lies before the block.
                Extent::new(
                    row.address,
                    self.usable(row),
                    Shape::Single,
                    Owner::InUse,
                    class,
                )
            }
            State::Dirty | State::Passing | State::Impossible => whole(Owner::Free),
            State::Muzzy | State::Retained => whole(Owner::Returned),
        }
    }

    /// Bitmap of a slab: a word and the number of its first region at a time. Bits past the last region are left out.
    fn bitmap<'m>(
        &'m self,
        row: &'m Row,
        regions: u32,
    ) -> impl Iterator<Item = (u32, Option<u64>)> + 'm {
        self.marks(row, regions)
            .map(|(first, word, mask)| (first, word.map(|word| word & mask)))
    }

    /// Words of a slab's bitmap as they are, with the number of its first region, and which of its bits are regions: the
    /// others are 0.
    fn marks<'m>(
        &'m self,
        row: &'m Row,
        regions: u32,
    ) -> impl Iterator<Item = (u32, Option<u64>, u64)> + 'm {
        let mut cursor = Cursor::new(self.target.memory);
        let at = row.at.saturating_add(self.located.layout.extent.bitmap);
        (0..regions.div_ceil(64)).map(move |group| {
            let first = group.saturating_mul(64);
            let word = cursor
                .read_u64(at.saturating_add(u64::from(group) * 8))
                .ok();
            let left = regions.saturating_sub(first);
            let mask = if left < 64 {
                (1u64 << left).saturating_sub(1)
            } else {
                u64::MAX
            };
            (first, word, mask)
        })
    }

    /// Pointers that a bin of a cache holds, with the words that hold them: the one that malloc takes next comes first.
    fn entries<'m>(
        &'m self,
        bin: &caches::Bin,
    ) -> impl Iterator<Item = (Address, Option<Address>)> + 'm {
        let mut cursor = Cursor::new(self.target.memory);
        let first = bin.first;
        (0..u64::from(bin.count)).map(move |index| {
            let at = first.saturating_add(index.saturating_mul(8));
            (at, cursor.read_u64(at).ok().map(Address::new))
        })
    }
}

/// Bytes that large extents have more than their blocks: a page, unless the build or an option says otherwise.
fn large_pad(located: &Located) -> u64 {
    let bins = located.layout.quantum.bins();
    let padded = |row: &&Row| {
        row.state == State::Active
            && !row.slab
            && (bins..located.layout.quantum.classes()).contains(&row.class)
            && (row.bytes > located.sizes.bytes(row.class) || !row.address.is_aligned(PAGE))
    };
    if located.extents.rows.iter().any(|row| padded(&row)) {
        PAGE
    } else {
        0
    }
}

/// Where the allocator's variables are, for telling which functions are its own.
fn state_ranges(
    target: Target<'_>,
    module: &Module,
    located: &Located,
) -> Vec<std::ops::Range<Address>> {
    let range = |start: Address, bytes: u64| start..start.saturating_add(bytes);
    let tree = &located.tree;
    let mut ranges = vec![range(
        tree.root
            .checked_sub(located.layout.root)
            .unwrap_or_default(),
        located
            .layout
            .root
            .saturating_add(8 << tree.geometry.level_bits()),
    )];
    for part in &located.parts {
        let bytes = match part.part {
            "arenas" => arenas::MAX_ARENAS * 8,
            "bin_infos" => u64::from(located.layout.quantum.bins()) * 40,
            _ => continue,
        };
        ranges.push(range(part.at, bytes));
    }
    ranges.extend(sizes::find_order(
        target.memory,
        module,
        located.layout.quantum,
    ));
    ranges
}

impl Heap for JemallocHeap<'_> {
    fn identity(&self) -> HeapIdentity {
        HeapIdentity {
            family: Family::Jemalloc,
            variant: None,
            version: self
                .version
                .clone()
                .or_else(|| Some(self.located.layout.generation.releases().into())),
            module: self.module.id,
            located: self.located.parts.clone(),
        }
    }

    fn page_shift(&self) -> u32 {
        PAGE_SHIFT
    }

    fn carve(&self, out: &mut MapBuilder) {
        out.extend(
            self.located
                .extents
                .rows
                .iter()
                .map(|row| self.extent_of(row)),
        );
        out.extend(self.located.arenas.blocks().iter().map(|block| {
            let bytes = block.end.get().saturating_sub(block.start.get());
            Extent::new(block.start, bytes, Shape::Metadata, Owner::InUse, 0)
        }));
    }

    fn groups(&self) -> u16 {
        let cached = self.located.layout.thread.bin_count;
        cached.max(self.located.layout.quantum.bins())
    }

    fn free_lists(&self, class: u16) -> Vec<FreeList> {
        let mut lists = Vec::new();
        for (owner, cache) in (0u32..).zip(&self.caches) {
            let bins = cache.bins.iter().filter(|bin| bin.class == class);
            lists.extend(bins.map(|bin| FreeList {
                head: bin.first,
                at: bin.at,
                recorded: bin.count.into(),
                class,
                holder: HolderKind::CacheArray,
                owner,
            }));
        }
        let rows = (0u32..).zip(&self.located.extents.rows);
        let slabs = rows.filter(|(_, row)| row.class == class && self.slab_class(row).is_some());
        lists.extend(slabs.map(|(owner, row)| FreeList {
            head: row.at.saturating_add(self.located.layout.extent.bitmap),
            at: row.at,
            recorded: row.free.into(),
            class,
            holder: HolderKind::Slab,
            owner,
        }));
        lists
    }

    fn follow(&self, lists: &[FreeList], walk: &mut ListWalk<'_>) {
        for list in lists {
            let regular = match list.holder {
                HolderKind::Slab => self.follow_slab(list, walk),
                _ => self.follow_cache(list, walk),
            };
            walk.irregular |= !regular;
        }
    }

    fn describe(&self, lists: &[FreeList], map: &HeapMap) -> GroupReport {
        damage::describe(self, lists, map)
    }

    fn standing(&self, map: &HeapMap, block: Block) -> Option<Standing> {
        self.standing_of(map, block)
    }

    fn residue(
        &self,
        _map: &HeapMap,
        block: Block,
        (_, bytes): (u64, u64),
        word: u64,
        _list: Option<ListRef>,
    ) -> Option<Residue> {
        self.residue_at(block, word, bytes)
    }

    fn left_over(
        &self,
        _map: &HeapMap,
        _block: Block,
        (_, bytes): (u64, u64),
        word: u64,
    ) -> Option<Residue> {
        self.left_over_at(word, bytes)
    }

    fn own_memory(&self) -> Vec<std::ops::Range<Address>> {
        let mut own = state_ranges(self.target, self.module, &self.located);
        let bins = u64::from(self.located.layout.thread.bin_count);
        // Words before the bins are links and counters; a bin has three words.
        let caches = self.caches.iter().map(|cache| cache.at);
        own.extend(caches.map(|at| at..at.saturating_add(bins * 24)));
        // Its other blocks by their first bytes, which say whose they are.
        own.extend(self.own.iter().map(|at| *at..at.saturating_add(8)));
        // Of the page that a large extent has to spare, parts lie before and behind its block.
        let large = self.located.extents.rows.iter();
        let large = large.filter(|row| self.holds_blocks(row) && self.slab_class(row).is_none());
        own.extend(large.flat_map(|row| {
            let end = row.start().saturating_add(row.bytes);
            let behind = row.address.saturating_add(self.usable(row));
            [row.start()..row.address, behind..end]
        }));
        own
    }

    fn arena(&self, at: Address) -> Option<u32> {
        let rows = &self.located.extents.rows;
        let after = rows.partition_point(|row| row.start() <= at);
        let row = rows.get(after.checked_sub(1)?)?;
        (at < row.end()).then_some(row.arena.into())
    }

    fn is_unknown(&self, at: Address) -> bool {
        self.is_undescribed(at)
    }

    fn is_partial(&self) -> bool {
        self.located.tree.missing > 0 || self.located.arenas.is_cut
    }

    fn runs(&self, frame: &Frame) -> Option<bool> {
        self.presences.is_allocator_code(frame)
    }

    fn settle(&self, map: &HeapMap, groups: &[GroupReport]) -> Settled {
        let anomalies = self.check_books(map, groups);
        let (statistics, details) = self.count(map);
        Settled {
            anomalies,
            statistics,
            details,
            limits: self.limits(),
        }
    }

    fn recorded_stack(&self, block: Address) -> Option<Vec<Address>> {
        let row = self.located.extents.at(block)?;
        let sample = self.sample(row)?;
        (row.address == block).then_some(sample.stack)
    }
}
