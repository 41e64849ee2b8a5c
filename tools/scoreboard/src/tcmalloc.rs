//! gperftools' tcmalloc: frees as `ThreadCache::Deallocate` does them, and its own structures.
//!
//! The numbers are those of gperftools' headers (`thread_cache.h`, `central_freelist.h`, `span.h`,
//! `pagemap.h`), 64-bit, pages of 8 KiB. They are written down here a second time on purpose: a wrong
//! layout in the walker must not agree with itself.

mod ground;
mod sort;
mod writes;

use std::collections::BTreeSet;

use ::ground::target::Target;
use heapcheck::analysis::HeapAnalysis;
use heapcheck::checks::finding::FindingKind;
use heaps::anomaly::HolderKind;
use heaps::map::{Extent, Owner, Shape};

use self::ground::Ground;
use self::sort::Sort;
use crate::plant::{Allocator, Evidence, Plant, Planter, Truth};

const PAGE_SHIFT: u64 = 13;
const LEAF_BITS: u64 = 18;
/// `ThreadCache::FreeList`: list_ 0, length_ 8, lowater_ 12, max_length_ 16, size_ 24.
const FREE_LIST: u64 = 32;
const LENGTH: u64 = 8;
const MAX_LENGTH: u64 = 16;
/// `ThreadCache`: size_ and max_size_, behind 128 lists.
const CACHE_SIZE: u64 = 4096;
/// `CentralFreeList` in its array.
const CENTRAL: u64 = 1216;
const CENTRAL_SLOTS: u64 = 128;
const CENTRAL_USED: u64 = 1152;
/// Spans of more pages than this are in a set, not in a list.
const MAX_PAGES: u64 = 128;

/// gperftools' tcmalloc.
pub struct Tcmalloc;

impl Allocator for Tcmalloc {
    fn name(&self) -> &'static str {
        "tcmalloc"
    }

    fn releases(&self) -> &'static [&'static str] {
        &["2.8.1", "2.10", "2.16", "2.18.1"]
    }

    fn cores(&self) -> &'static [&'static str] {
        // Cores of the state that a handler or a fork leaves are other tests' business.
        &["stats", "large", "exited-threads", "threads-", "released"]
    }

    fn sorts(&self) -> &'static [&'static str] {
        &Sort::NAMES
    }

    fn survey<'a>(
        &self,
        target: Target<'a>,
        heap: &'a HeapAnalysis<'a>,
    ) -> Option<Box<dyn Planter + 'a>> {
        Some(Box::new(Plants::new(Ground::survey(target, heap))?))
    }
}

/// Plants in one tcmalloc heap.
struct Plants<'a> {
    ground: Ground<'a>,
    caches: Vec<u64>,
    page_map: u64,
    central: u64,
    cache_links: [u64; 2],
    classes: u16,
    threads: usize,
}

impl<'a> Plants<'a> {
    fn new(ground: Ground<'a>) -> Option<Self> {
        let identity = &ground.heap.identity;
        let part = |name: &str| {
            let part = identity
                .located
                .iter()
                .find(|part| part.part.contains(name))?;
            Some(part.at.get())
        };
        let minor: u32 = identity
            .version
            .as_ref()?
            .split(['.', '-'])
            .nth(1)?
            .parse()
            .ok()?;
        let caches: BTreeSet<u64> = ground
            .chains
            .iter()
            .filter(|chain| chain.list.holder == HolderKind::ThreadCache)
            .map(|chain| chain.list.at.get() - u64::from(chain.list.class) * FREE_LIST)
            .collect();
        let page_map = part("pageheap_")? + if minor >= 11 { 524_304 } else { 524_288 };
        let central = part("central_cache_")?;
        Some(Self {
            caches: caches.into_iter().collect(),
            page_map,
            central,
            cache_links: if minor >= 16 {
                [4128, 4136]
            } else {
                [4144, 4152]
            },
            classes: ground.heap.heap.groups(),
            threads: ground.target.threads.list().len(),
            ground,
        })
    }

    fn u32_at(&self, at: u64) -> Option<u32> {
        Some(self.ground.word(at)? as u32)
    }

    /// What `free` does to a thread's cache. `None` where it would go on to give blocks back, or
    /// where the list is being changed.
    fn push(&self, cache: u64, class: u16, bytes: u64, block: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let list = cache + u64::from(class) * FREE_LIST;
        let head = self.ground.word(list)?;
        let length = self.u32_at(list + LENGTH)?;
        let sound = match self.ground.entries.get(&head) {
            Some(&(chain, 0)) => self.ground.chains[chain].list.at.get() == list,
            _ => head == 0 && length == 0,
        };
        let size = self.u32_at(cache + CACHE_SIZE)? + bytes as u32;
        let fits = length < self.u32_at(list + MAX_LENGTH)?
            && size as i32 <= self.u32_at(cache + CACHE_SIZE + 4)? as i32;
        (sound && fits).then(|| {
            vec![
                (block, head.to_le_bytes().to_vec()),
                (list, block.to_le_bytes().to_vec()),
                (list + LENGTH, (length + 1).to_le_bytes().to_vec()),
                (cache + CACHE_SIZE, size.to_le_bytes().to_vec()),
            ]
        })
    }

    fn double_free(&self, sort: Sort, rng: &mut fastrand::Rng) -> Option<Plant> {
        let holder = match sort {
            Sort::DoubleFreeCentral => HolderKind::CentralList,
            Sort::DoubleFreeTransfer => HolderKind::TransferCache,
            _ => HolderKind::ThreadCache,
        };
        let chains: Vec<_> = self
            .ground
            .chains
            .iter()
            .filter(|chain| chain.list.holder == holder && !chain.entries.is_empty())
            .collect();
        (0..200).find_map(|_| {
            let chain = chains.get(rng.usize(..chains.len().max(1)))?;
            let position = if rng.bool() {
                0
            } else {
                rng.usize(..chain.entries.len())
            };
            let block = chain.entries[position];
            let class = chain.list.class;
            let own = chain.list.at.get() - u64::from(class) * FREE_LIST;
            let cache = match sort {
                Sort::DoubleFreeSameList => own,
                _ => *self.caches.get(rng.usize(..self.caches.len().max(1)))?,
            };
            if sort == Sort::DoubleFreeOtherThread && cache == own {
                return None;
            }
            let bytes = self.ground.block_at(block)?.bytes;
            let mut truth = Truth::at(FindingKind::DoubleFree, block);
            truth.lost = Some((chain.entries.len() - 1 - position) as u64);
            Some(Plant {
                story: format!(
                    "{block:#x} ({bytes} bytes), entry {position} of {} of the {} at {}, freed into the cache {cache:#x}",
                    chain.entries.len(),
                    holder.name(),
                    chain.list.at,
                ),
                writes: self.push(cache, class, bytes, block)?,
                truth,
            })
        })
    }

    fn inner_pointer(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        (0..200).find_map(|_| {
            let block = self.ground.some_used(rng)?;
            let cache = *self.caches.get(rng.usize(..self.caches.len().max(1)))?;
            let offset = match rng.u8(..3) {
                0 => rng.u64(1..block.bytes),
                1 => *[1, 2, 4, 8, 16].get(rng.usize(..5))?,
                _ => rng.u64(..block.bytes / 8) * 8,
            };
            if offset == 0 || offset >= block.bytes {
                return None;
            }
            let at = block.address.get() + offset;
            let mut truth = Truth::at(FindingKind::MisalignedFreeEntry, at);
            truth.lost = Some(0);
            let writes = self.push(cache, block.class, block.bytes, at)?;
            // Its link must not reach into the next free block: that would be a second damage.
            let harmless = self.ground.changed_links(&writes)?.is_empty();
            harmless.then(|| Plant {
                story: format!(
                    "{:#x} + {offset} ({} bytes) freed into the cache {cache:#x}",
                    block.address, block.bytes
                ),
                writes,
                truth,
            })
        })
    }

    fn wrong_class(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        (0..200).find_map(|_| {
            let block = self.ground.some_used(rng)?;
            let chain = self
                .ground
                .chains
                .get(rng.usize(..self.ground.chains.len()))?;
            let cache = *self.caches.get(rng.usize(..self.caches.len().max(1)))?;
            if chain.list.class == block.class {
                return None;
            }
            let at = block.address.get();
            let bytes = self.ground.block_at(*chain.entries.first()?)?.bytes;
            let mut truth = Truth::at(FindingKind::InvalidFreeEntry, at);
            truth.lost = Some(0);
            Some(Plant {
                story: format!(
                    "{at:#x} ({} bytes) freed as {bytes} bytes into the cache {cache:#x}",
                    block.bytes
                ),
                writes: self.push(cache, chain.list.class, bytes, at)?,
                truth,
            })
        })
    }

    /// A stray word at `at`. `evidence` decides from the old and the new word.
    fn stray(
        &self,
        rng: &mut fastrand::Rng,
        at: u64,
        what: &str,
        addresses: Vec<(u64, u64)>,
        evidence: impl Fn(u64, u64) -> Evidence,
    ) -> Option<Plant> {
        let old = self.ground.word(at)?;
        let (value, new) = writes::word(&self.ground, rng);
        let mut truth = Truth::silence();
        truth.evidence = if old == new {
            Evidence::Absent
        } else {
            evidence(old, new)
        };
        truth.kinds = vec![FindingKind::CorruptMetadata, FindingKind::CountMismatch];
        truth.addresses = addresses;
        truth.addresses.push((at, at + 8));
        Some(Plant {
            story: format!("{value} ({new:#x}) over {old:#x}, {what} at {at:#x}"),
            writes: vec![(at, new.to_le_bytes().to_vec())],
            truth,
        })
    }

    fn leaf_entry(&self, page: u64) -> Option<u64> {
        let leaf = self.ground.word(self.page_map + (page >> LEAF_BITS) * 8)?;
        (leaf != 0).then_some(leaf + (page & ((1 << LEAF_BITS) - 1)) * 8)
    }

    fn some_span(&self, rng: &mut fastrand::Rng) -> Option<(Extent, u64)> {
        let extents = &self.ground.extents;
        let extent = *extents.get(rng.usize(..extents.len().max(1)))?;
        let span = self
            .ground
            .word(self.leaf_entry(extent.start.get() >> PAGE_SHIFT)?)?;
        Some((extent, span))
    }

    fn stray_in_span(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let (extent, span) = self.some_span(rng)?;
        let small = matches!(extent.shape, Shape::Slab { .. });
        let listed =
            small || extent.owner != Owner::InUse && extent.bytes >> PAGE_SHIFT <= MAX_PAGES;
        let (offset, what) = *[
            (0, "Span.start"),
            (8, "Span.length"),
            (16, "Span.next"),
            (24, "Span.prev"),
            (32, "Span.objects"),
            (40, "Span.refcount and flags"),
        ]
        .get(rng.usize(..6))?;
        let evidence = move |old: u64, new: u64| match offset {
            0 | 8 => Evidence::Present,
            16 | 24 if listed => Evidence::Present,
            32 if small => Evidence::Present,
            // refcount 16, sizeclass 8, location 2, sample 1, has_span_iter 1
            40 if small && (old ^ new) & 0x7ff_ffff != 0 => Evidence::Present,
            40 if (old ^ new) & 0x300_0000 != 0 => Evidence::Present,
            40 if (old ^ new) & 0xffff_ffff == 0 => Evidence::Absent,
            _ => Evidence::Open,
        };
        let memory = (extent.start.get(), extent.end().get());
        let plant = self.stray(
            rng,
            span + offset,
            what,
            vec![(span, span + 48), memory],
            evidence,
        );
        plant.map(|mut plant| {
            let zeros = matches!(&plant.writes[..], [(_, new)] if new.starts_with(&[0; 4]));
            match offset {
                // A damaged link at which malloc stopped taking blocks off leaves the same.
                32 if small => plant.truth.kinds.push(FindingKind::UseAfterFreeWrite),
                // A span freed twice, once malloc has taken it, is on its list with such flags.
                40 if !small && listed && zeros => plant.truth.kinds.push(FindingKind::DoubleFree),
                _ => {}
            }
            plant
        })
    }

    fn stray_in_page_map(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let (extent, span) = self.some_span(rng)?;
        let pages = extent.bytes >> PAGE_SHIFT;
        let page = match rng.u8(..3) {
            0 => 0,
            1 => pages - 1,
            _ => rng.u64(..pages),
        };
        let at = self.leaf_entry((extent.start.get() >> PAGE_SHIFT) + page)?;
        let small = matches!(extent.shape, Shape::Slab { .. });
        let means = page == 0 || page == pages - 1 || small;
        let memory = (extent.start.get(), extent.end().get());
        self.stray(
            rng,
            at,
            &format!("page map entry of page {page} of {pages}"),
            vec![(span, span + 48), memory],
            |_, _| {
                if means {
                    Evidence::Present
                } else {
                    Evidence::Absent
                }
            },
        )
    }

    fn stray_in_cache(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let cache = *self.caches.get(rng.usize(..self.caches.len().max(1)))?;
        let class = rng.u64(1..u64::from(self.classes));
        let list = cache + class * FREE_LIST;
        let counted = if self.threads > 1 {
            Evidence::Open
        } else {
            Evidence::Present
        };
        let low = |word: u64| word as u32;
        let whole = vec![(list, list + FREE_LIST), (cache, cache + 1)];
        match rng.u8(..12) {
            0..4 => {
                // A damaged link that malloc followed leaves the same.
                let plant =
                    self.stray(rng, list, "FreeList.list_", whole, |_, _| Evidence::Present);
                plant.map(|mut plant| {
                    plant.truth.kinds.push(FindingKind::UseAfterFreeWrite);
                    plant
                })
            }
            4..6 => {
                let what = "FreeList.length_ and lowater_";
                self.stray(rng, list + LENGTH, what, whole, move |old, new| {
                    if low(old) != low(new) {
                        Evidence::Present
                    } else if new >> 32 > new & 0xffff_ffff {
                        counted
                    } else {
                        Evidence::Absent
                    }
                })
            }
            6..8 => {
                let what = "FreeList.max_length_ and length_overages_";
                self.stray(rng, list + MAX_LENGTH, what, whole, move |_, new| {
                    if (1..=8192).contains(&low(new)) {
                        Evidence::Open
                    } else {
                        counted
                    }
                })
            }
            8 | 9 => self.stray(rng, list + 24, "FreeList.size_", whole, |old, new| {
                if low(old) == low(new) {
                    Evidence::Absent
                } else {
                    Evidence::Present
                }
            }),
            10 => {
                let what = "ThreadCache.size_ and max_size_";
                let range = vec![(cache, cache + 1)];
                self.stray(rng, cache + CACHE_SIZE, what, range, move |old, new| {
                    if low(old) == low(new) {
                        Evidence::Open
                    } else {
                        counted
                    }
                })
            }
            _ => {
                let at = cache + self.cache_links[rng.usize(..2)];
                let range = vec![(cache, cache + 1)];
                self.stray(rng, at, "ThreadCache.next_ or prev_", range, |_, _| {
                    Evidence::Present
                })
            }
        }
    }

    fn stray_in_central(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let class = rng.u64(1..u64::from(self.classes));
        let central = self.central + class * CENTRAL;
        let used = u64::from(self.u32_at(central + CENTRAL_USED)?);
        let at_all = |_: u64, _: u64| Evidence::Present;
        let range = vec![(central, central + CENTRAL)];
        let (offset, what) = *[
            (8, "CentralFreeList.size_class_"),
            (32, "empty_.next"),
            (40, "empty_.prev"),
            (80, "nonempty_.next"),
            (88, "nonempty_.prev"),
            (112, "CentralFreeList.num_spans_"),
            (120, "CentralFreeList.counter_"),
            (CENTRAL_USED, "used_slots_ and cache_size_"),
            (CENTRAL_SLOTS, "tc_slots_"),
            (CENTRAL_SLOTS, "tc_slots_"),
            (0, "CentralFreeList.lock_"),
        ]
        .get(rng.usize(..11))?;
        match offset {
            0 => self.stray(rng, central, what, range, |_, new| {
                if new as u32 > 2 {
                    Evidence::Present
                } else {
                    Evidence::Open
                }
            }),
            CENTRAL_SLOTS => {
                let word = rng.u64(..(used * 2).max(1) + 2);
                let at = central + CENTRAL_SLOTS + word * 8;
                self.stray(rng, at, what, range, |_, _| {
                    if word < used * 2 {
                        Evidence::Present
                    } else {
                        Evidence::Absent
                    }
                })
            }
            CENTRAL_USED => self.stray(rng, central + offset, what, range, |old, new| {
                if old as u32 != new as u32 {
                    Evidence::Present
                } else {
                    Evidence::Open
                }
            }),
            _ => self.stray(rng, central + offset, what, range, at_all),
        }
    }
}

impl Planter for Plants<'_> {
    fn plant(&self, sort: usize, rng: &mut fastrand::Rng) -> Option<Plant> {
        let sort = *Sort::ALL.get(sort)?;
        match sort {
            Sort::DoubleFreeSameList
            | Sort::DoubleFreeOtherThread
            | Sort::DoubleFreeCentral
            | Sort::DoubleFreeTransfer => self.double_free(sort, rng),
            Sort::InnerPointerFreed => self.inner_pointer(rng),
            Sort::WrongClassFreed => self.wrong_class(rng),
            Sort::StrayInSpan => self.stray_in_span(rng),
            Sort::StrayInCentral => self.stray_in_central(rng),
            Sort::StrayInCache => self.stray_in_cache(rng),
            Sort::StrayInPageMap => self.stray_in_page_map(rng),
            _ => writes::plant(&self.ground, sort, rng),
        }
    }
}
