//! Bins: the slab that regions are taken from, the heap of other slabs with room, and their statistics.

use std::collections::{BTreeMap, HashSet};

use super::Books;
use crate::allocators::jemalloc::JemallocHeap;
use crate::allocators::jemalloc::bins::{ArenaBin, BrokenLink};
use crate::allocators::jemalloc::extents::Row;
use crate::anomaly::{BrokenWord, Expected, Field, Lock, Property, Reason, Unit, Value};
use ground::target::{Address, MemoryExt};

/// More regions than any process ever has.
const MAX_OUT: u64 = 1 << 48;

/// The slabs of one bin.
#[derive(Default)]
struct Slabs {
    /// Regions in use.
    regions: u64,
    /// Their descriptors with their free regions and their capacity.
    members: Vec<(Address, u32, u32)>,
}

impl BrokenLink {
    /// As a word of the books: of the structure that the heap belongs to, if of no descriptor.
    pub(super) fn word(self, owner: Address, what: Field) -> BrokenWord {
        BrokenWord {
            of: self.of.unwrap_or(owner),
            at: self.at,
            what: match self.in_page_map {
                true => Field::RtreeLeaf,
                false => what,
            },
            expected: self.expected,
            found: self.found.into(),
        }
    }
}

impl JemallocHeap<'_> {
    pub(super) fn check_bins(&self, books: &mut Books) {
        let mut by_bin: BTreeMap<Address, (ArenaBin, Slabs)> = BTreeMap::new();
        for row in &self.located.extents.rows {
            let Some(cut) = self.slab_class(row) else {
                continue;
            };
            let Some(bin) = self.bin_of(row) else {
                self.say_no_bin(books, row);
                continue;
            };
            let (_, slabs) = by_bin.entry(bin.at).or_insert((bin, Slabs::default()));
            let free: u32 = self
                .bitmap(row, cut.regions)
                .filter_map(|(_, word)| Some(word?.count_ones()))
                .sum();
            slabs.regions = slabs
                .regions
                .saturating_add(u64::from(cut.regions.saturating_sub(free.min(cut.regions))));
            slabs.members.push((row.at, free, cut.regions));
        }
        for (bin, slabs) in by_bin.values() {
            self.check_bin(books, *bin, slabs);
        }
    }

    fn say_no_bin(&self, books: &mut Books, row: &Row) {
        let word = BrokenWord {
            of: row.at,
            at: row.at,
            what: self.name_of(Field::ExtentEBits, Field::EdataEBits),
            expected: Expected::Is(Property::ArenaAndShard),
            found: Value::Shard {
                arena: row.arena,
                shard: row.shard,
            },
        };
        books.damage(word, self.somebody_inside_or_gone());
    }

    fn check_bin(&self, books: &mut Books, bin: ArenaBin, slabs: &Slabs) {
        if self.lock_held(bin.at, Lock::Bin).is_some() {
            return;
        }
        let memory = self.target.memory;
        let layout = &self.located.layout.bin;
        let at = bin.at.saturating_add(layout.current);
        let current = memory.read_pointer(at).unwrap_or_default();
        if let Some((at, found)) = self.unnamed(current) {
            let broken = BrokenLink {
                of: Some(at),
                at,
                in_page_map: true,
                expected: Expected::Is(Property::Descriptor(current)),
                found,
            };
            books.damage(
                broken.word(bin.at, Field::BinSlabcur),
                self.somebody_inside(),
            );
            return;
        }
        if !current.is_null() && slabs.members.iter().all(|(member, ..)| *member != current) {
            let word = BrokenWord {
                of: bin.at,
                at,
                what: Field::BinSlabcur,
                expected: Expected::Is(Property::SlabOrNull {
                    bytes: self.located.sizes.bytes(bin.class),
                    arena: bin.arena,
                }),
                found: current.into(),
            };
            // A slab that is not in the page map yet is not in a bin either.
            let impossible = self.owner_of_link(current) != Some(current);
            books.damage(word, self.somebody_inside().filter(|_| !impossible));
            return;
        }
        self.check_nonfull(books, bin, current, slabs);
        self.check_counts(books, bin, current, slabs);
    }

    /// Slabs with some regions in use and some free are in the heap, and nothing else is.
    fn check_nonfull(&self, books: &mut Books, bin: ArenaBin, current: Address, slabs: &Slabs) {
        let heaped = self.nonfull(bin);
        let word = |at: Address, expected: Expected, found: Value| BrokenWord {
            of: self.owner_of_link(at).unwrap_or(bin.at),
            at,
            what: Field::SlabsNonfullLink,
            expected,
            found,
        };
        if let Some(broken) = heaped.broken {
            books.damage(broken.word(bin.at, Field::SlabsNonfullLink), None);
            return;
        }
        if books.damaged {
            return;
        }
        let members: HashSet<Address> = heaped.members.iter().copied().collect();
        let wanted: HashSet<Address> = slabs
            .members
            .iter()
            .filter(|(slab, free, regions)| *slab != current && *free > 0 && free < regions)
            .map(|(slab, ..)| *slab)
            .collect();
        if members == wanted {
            return;
        }
        // Slabs of other bins, and no slabs at all, are never in it; which ones of its own are lags.
        let stranger = heaped
            .members
            .iter()
            .find(|member| slabs.members.iter().all(|(slab, ..)| slab != *member));
        let (at, expected, found) = match stranger {
            Some(stranger) => (
                *stranger,
                Expected::Is(Property::SlabOfThisBin),
                Value::from(*stranger),
            ),
            None => (
                bin.at.saturating_add(self.located.layout.bin.nonfull),
                Expected::Exactly(
                    Value::Amount(wanted.len() as u64, Unit::Slabs),
                    Reason::PartlyUsedSlabs,
                ),
                Value::Number(members.len() as u64),
            ),
        };
        // One that is in no bin yet may have any marks, and is no damage where its own marks are none.
        let busy = match stranger {
            Some(_) => self.somebody_inside(),
            None => self.somebody_inside_or_gone(),
        };
        if busy.is_none() {
            books.damage(word(at, expected, found), None);
        }
    }

    /// Statistics, if this build keeps any.
    fn check_counts(&self, books: &mut Books, bin: ArenaBin, current: Address, slabs: &Slabs) {
        let memory = self.target.memory;
        let layout = &self.located.layout.bin;
        let read = |offset| memory.read_u64(bin.at.saturating_add(offset)).unwrap_or(0);
        let (regions, count) = (read(layout.regions), read(layout.slabs));
        // Allocations, and frees: a reset of the arena forgets regions without counting them.
        let (taken, given) = (
            read(layout.regions.saturating_sub(24)),
            read(layout.regions.saturating_sub(16)),
        );
        let requests = read(layout.regions.saturating_sub(8));
        let none = regions == 0 && count == 0 || taken == 0 && given == 0 && requests == 0;
        if none || books.damaged {
            return;
        }
        let out = taken.wrapping_sub(given);
        if !(slabs.regions..MAX_OUT).contains(&out) && self.somebody_inside_or_gone().is_none() {
            let too_few = given > taken || taken > MAX_OUT;
            books.count(
                BrokenWord {
                    of: bin.at,
                    at: bin
                        .at
                        .saturating_add(layout.regions.saturating_sub(if too_few {
                            24
                        } else {
                            16
                        })),
                    what: Field::BinAllocations,
                    expected: Expected::AtLeast(Value::Number(slabs.regions), Reason::RegionsInUse),
                    found: Value::Difference(taken, given),
                },
                None,
            );
            return;
        }
        let nonfull = slabs
            .members
            .iter()
            .filter(|(slab, free, regions)| *slab != current && *free > 0 && free < regions)
            .count() as u64;
        let expected = [
            (layout.regions, Field::BinStatsCurregs, slabs.regions),
            (
                layout.slabs,
                Field::BinStatsCurslabs,
                slabs.members.len() as u64,
            ),
        ];
        let nonfull = layout
            .nonfull_slabs
            .map(|offset| (offset, Field::BinStatsNonfullSlabs, nonfull));
        for (offset, what, walked) in expected.into_iter().chain(nonfull) {
            let recorded = read(offset);
            if recorded != walked && self.somebody_inside_or_gone().is_none() {
                books.count(
                    BrokenWord {
                        of: bin.at,
                        at: bin.at.saturating_add(offset),
                        what,
                        expected: Expected::number(walked),
                        found: Value::Number(recorded),
                    },
                    None,
                );
                return;
            }
        }
    }
}
