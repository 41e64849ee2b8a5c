//! Size classes, and how slabs of the small ones are cut.
//!
//! The classes follow from two numbers (`include/jemalloc/internal/sc.h`, 5.0 to 5.3.1): four per doubling, the first
//! group in steps of the quantum. How a slab of each is cut stands in the table `bin_infos`, 40 bytes a row:
//!
//! ```text
//! +0 region size  +8 slab size  +16 u32 regions  +20 u32 shards of the bin  +24 regions  +32 words of the bitmap
//! ```

use std::ops::Range;

use ground::scan::words_where;
use ground::target::{Address, Cursor, Module, TargetMemory};

/// log2 of the page that is supported.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of a page.
pub const PAGE: u64 = 1 << PAGE_SHIFT;
/// Words of a slab's bitmap.
pub const BITMAP_WORDS: u64 = 8;

/// The step of the smallest classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantum {
    /// 16 bytes, and a class of 8 below: what x86-64 builds have by themselves.
    Sixteen,
    /// 8 bytes: Redis' own copy.
    Eight,
}

impl Quantum {
    /// Both.
    pub const ALL: [Quantum; 2] = [Quantum::Sixteen, Quantum::Eight];

    /// The step in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Quantum::Sixteen => 16,
            Quantum::Eight => 8,
        }
    }

    /// Number of small classes: those of less than four pages.
    pub fn bins(self) -> u16 {
        match self {
            Quantum::Sixteen => 36,
            Quantum::Eight => 39,
        }
    }

    /// Number of classes; as a class it means none.
    pub fn classes(self) -> u16 {
        match self {
            Quantum::Sixteen => 232,
            Quantum::Eight => 235,
        }
    }
}

/// How slabs of a small class are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallClass {
    /// Bytes of a region.
    pub bytes: u32,
    /// Bytes of a slab.
    pub slab_bytes: u64,
    /// Regions of a slab.
    pub regions: u32,
    /// Bins that arenas keep for it.
    pub shards: u32,
    /// Bins of the classes before it.
    pub first_bin: u32,
}

/// All classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The step of the smallest.
    pub quantum: Quantum,
    bytes: Vec<u64>,
    small: Vec<SmallClass>,
}

impl Sizes {
    /// The classes by the formula, with slabs as they are cut unless told otherwise.
    pub fn usual(quantum: Quantum) -> Self {
        let bytes = class_sizes(quantum);
        let small = bytes
            .iter()
            .take(quantum.bins().into())
            .zip(0u32..)
            .map(|(&size, first_bin)| {
                // The smallest number of pages that regions fill wholly.
                let slab_bytes = (1..=BITMAP_WORDS * 64)
                    .map(|pages| pages.saturating_mul(PAGE))
                    .find(|slab| slab.is_multiple_of(size))
                    .unwrap_or(PAGE);
                SmallClass {
                    bytes: u32::try_from(size).unwrap_or(u32::MAX),
                    slab_bytes,
                    regions: u32::try_from(slab_bytes.checked_div(size).unwrap_or(0)).unwrap_or(0),
                    shards: 1,
                    first_bin,
                }
            })
            .collect();
        Self {
            quantum,
            bytes,
            small,
        }
    }

    /// Bytes of a class; 0 for none.
    pub fn bytes(&self, class: u16) -> u64 {
        self.bytes.get(usize::from(class)).copied().unwrap_or(0)
    }

    /// How a small class is cut; `None` for a large one.
    pub fn small(&self, class: u16) -> Option<&SmallClass> {
        self.small.get(usize::from(class))
    }
}

fn class_sizes(quantum: Quantum) -> Vec<u64> {
    let step = quantum.bytes();
    let mut sizes: Vec<u64> = Vec::with_capacity(quantum.classes().into());
    if quantum == Quantum::Sixteen {
        sizes.push(8);
    }
    sizes.extend((1..=4).map(|index| step.saturating_mul(index)));
    let mut base = step.saturating_mul(4);
    while sizes.len() < usize::from(quantum.classes()) {
        sizes.extend((1..=4).map(|index| base.saturating_add((base / 4).saturating_mul(index))));
        base = base.saturating_mul(2);
    }
    sizes.truncate(quantum.classes().into());
    sizes
}

/// What a scan for `bin_infos` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// The table, as it stands in memory.
    Found(Address, Sizes),
    /// One of a build whose pages have another size.
    OtherPage(Address, u64),
}

/// Bytes of a row.
const ROW: u64 = 40;
/// Rows that damage may have changed before the table is not recognised any more.
const MISSES: usize = 3;
/// Shards that a bin can have.
const MAX_SHARDS: u64 = 64;

/// Finds `bin_infos` by its first row, 8 bytes, and proves it by all others.
pub fn find_table(memory: &dyn TargetMemory, module: &Module) -> Option<Table> {
    let mut cursor = Cursor::new(memory);
    let mut other = None;
    for (at, _) in words_where(memory, module, |_, word| word == 8) {
        let mut read = |offset| cursor.read_u64(at.saturating_add(offset)).unwrap_or(0);
        let slab = read(8);
        let regions = read(16) & u64::from(u32::MAX);
        if slab == 0
            || slab % PAGE != 0
            || regions.checked_mul(8) != Some(slab)
            || read(24) != regions
        {
            continue;
        }
        if let Some(sizes) = Quantum::ALL
            .into_iter()
            .find_map(|quantum| read_table(memory, at, quantum))
        {
            return Some(Table::Found(at, sizes));
        }
        if slab.is_power_of_two() && slab > PAGE && other.is_none() {
            other = Some(Table::OtherPage(at, slab));
        }
    }
    other
}

/// Finds the sizes of the classes in their order (`sz_index2size_tab`, a variable since 5.2): what the shortest ways of malloc and
/// free look up, which touch nothing else but the thread's own cache.
pub fn find_order(
    memory: &dyn TargetMemory,
    module: &Module,
    quantum: Quantum,
) -> Option<Range<Address>> {
    /// Classes that prove the table.
    const PROOF: u64 = 24;
    let sizes = class_sizes(quantum);
    let mut cursor = Cursor::new(memory);
    let (start, _) = words_where(memory, module, |_, word| word == 8).find(|(start, _)| {
        (0..PROOF).zip(&sizes).all(|(index, size)| {
            cursor.read_u64(start.saturating_add(index.saturating_mul(8))) == Ok(*size)
        })
    })?;
    Some(start..start.saturating_add((sizes.len() as u64).saturating_mul(8)))
}

/// The table at `at`, if nearly all of its rows are as this quantum has them.
pub fn read_table(memory: &dyn TargetMemory, at: Address, quantum: Quantum) -> Option<Sizes> {
    let mut sizes = Sizes::usual(quantum);
    let mut cursor = Cursor::new(memory);
    let mut misses = 0usize;
    let mut first_bin = 0u32;
    for (index, class) in (0u64..).zip(&mut sizes.small) {
        let row = at.saturating_add(index.saturating_mul(ROW));
        class.first_bin = first_bin;
        match read_row(&mut cursor, row, class.bytes) {
            Some(read) => *class = SmallClass { first_bin, ..read },
            None => misses = misses.saturating_add(1),
        }
        first_bin = first_bin.saturating_add(class.shards);
    }
    // Behind the last row there is none of the next class.
    let next = sizes.bytes(quantum.bins());
    let end = at.saturating_add(u64::from(quantum.bins()) * ROW);
    (misses <= MISSES && cursor.read_u64(end) != Ok(next)).then_some(sizes)
}

fn read_row(cursor: &mut Cursor<'_>, row: Address, bytes: u32) -> Option<SmallClass> {
    let mut read = |offset| cursor.read_u64(row.saturating_add(offset)).ok();
    let (slab_bytes, counts, bits, words) = (read(8)?, read(16)?, read(24)?, read(32)?);
    let (regions, shards) = (counts & u64::from(u32::MAX), counts >> 32);
    let fits = read(0)? == u64::from(bytes)
        && slab_bytes % PAGE == 0
        && regions.checked_mul(bytes.into()) == Some(slab_bytes)
        && regions == bits
        && (1..=BITMAP_WORDS * 64).contains(&regions)
        && words == regions.div_ceil(64)
        && (1..=MAX_SHARDS).contains(&shards);
    fits.then_some(SmallClass {
        bytes,
        slab_bytes,
        regions: u32::try_from(regions).ok()?,
        shards: u32::try_from(shards).ok()?,
        first_bin: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_releases() {
        let sixteen = Sizes::usual(Quantum::Sixteen);
        assert_eq!(
            sixteen.bytes[..10],
            [8, 16, 32, 48, 64, 80, 96, 112, 128, 160]
        );
        assert_eq!((sixteen.bytes(36), sixteen.bytes(40)), (16384, 32768));
        assert_eq!((sixteen.bytes.len(), sixteen.small.len()), (232, 36));
        let eight = Sizes::usual(Quantum::Eight);
        assert_eq!(eight.bytes[..9], [8, 16, 24, 32, 40, 48, 56, 64, 80]);
        assert_eq!(eight.bytes(39), 16384);
        assert_eq!(eight.bytes.len(), 235);
        let cut = |sizes: &Sizes, bytes| {
            let class = sizes.small.iter().find(|class| class.bytes == bytes);
            class.map(|class| (class.slab_bytes, class.regions))
        };
        for (bytes, slab, regions) in [
            (8, 4096, 512),
            (48, 12288, 256),
            (112, 28672, 256),
            (14336, 28672, 2),
        ] {
            assert_eq!(cut(&sixteen, bytes), Some((slab, regions)));
        }
    }
}
