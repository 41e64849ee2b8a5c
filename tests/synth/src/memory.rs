//! Memory whose bytes a test wrote.

use std::collections::BTreeMap;
use std::ops::Range;

use ground::target::{Abi, Address, Fault, Region, RegionKind, Source, TargetMemory, Window};

use crate::Image;

/// Why a test's byte is absent although it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The core was never meant to hold it.
    NotDumped,
    /// The core ends before it.
    Truncated,
}

/// A process's memory, as a test wrote it. Bytes of a region that no run holds are not dumped.
#[derive(Clone)]
pub struct FakeMemory {
    regions: Vec<Region>,
    runs: BTreeMap<u64, Vec<u8>>,
    absent: Vec<(Range<u64>, Absence)>,
    window_bytes: u64,
}

/// Bytes of a page.
const PAGE: u64 = 0x1000;

impl Default for FakeMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeMemory {
    /// Nothing is mapped.
    pub fn new() -> Self {
        Self {
            regions: Vec::new(),
            runs: BTreeMap::new(),
            absent: Vec::new(),
            window_bytes: 1 << 62,
        }
    }

    /// Memory of one image, mapped as writable anonymous memory: whole pages around its runs.
    pub fn of(image: Image) -> Self {
        let mut memory = Self::new();
        let mut pages: Vec<Range<u64>> = Vec::new();
        let mut runs = image.runs;
        runs.sort_by_key(|(start, _)| *start);
        for (start, run) in runs {
            let range = start & !(PAGE - 1)..(start + run.len() as u64).next_multiple_of(PAGE);
            match pages.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => pages.push(range),
            }
            memory.runs.insert(start, run);
        }
        for range in pages {
            memory.map(range, "rw", RegionKind::Anonymous);
        }
        memory
    }

    /// Adds a region without bytes. `permissions`: any of `r`, `w`, `x`.
    ///
    /// # Panics
    /// If it overlaps another.
    pub fn map(&mut self, range: Range<u64>, permissions: &str, kind: RegionKind) -> &mut Self {
        let bytes = range.end - range.start;
        let range = Address::new(range.start)..Address::new(range.end);
        let apart =
            |other: &Region| range.end <= other.range.start || other.range.end <= range.start;
        assert!(
            self.regions.iter().all(apart),
            "{range:?} is mapped already"
        );
        self.regions.push(Region {
            range,
            readable: permissions.contains('r'),
            writable: permissions.contains('w'),
            executable: permissions.contains('x'),
            kind,
            dumped_bytes: bytes,
            present_bytes: bytes,
        });
        self.regions.sort_by_key(|region| region.range.start);
        self
    }

    /// Adds a region of zeroes.
    pub fn zeroes(&mut self, range: Range<u64>, permissions: &str, kind: RegionKind) -> &mut Self {
        let count = usize::try_from(range.end - range.start).expect("a test's region fits");
        self.runs.insert(range.start, vec![0; count]);
        self.map(range, permissions, kind)
    }

    /// Makes bytes absent although they are mapped.
    pub fn hide(&mut self, range: Range<u64>, why: Absence) -> &mut Self {
        self.absent.push((range, why));
        self
    }

    /// Ends every window at a multiple of `bytes`, as segments of a core end somewhere.
    pub fn cut_windows(&mut self, bytes: u64) -> &mut Self {
        self.window_bytes = bytes;
        self
    }

    /// Writes bytes.
    ///
    /// # Panics
    /// If they are not all in one run.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
        let place = self.place(at, bytes.len());
        place.copy_from_slice(bytes);
        self
    }

    /// Writes a 64-bit word.
    pub fn write_u64(&mut self, at: u64, value: u64) -> &mut Self {
        self.write(at, &value.to_le_bytes())
    }

    /// Writes a 32-bit word.
    pub fn write_u32(&mut self, at: u64, value: u32) -> &mut Self {
        self.write(at, &value.to_le_bytes())
    }

    /// The 64-bit word that stands at `at`, hidden or not.
    pub fn word(&mut self, at: u64) -> u64 {
        let bytes = self.place(at, 8);
        u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
    }

    /// The bytes that stand at `at`, hidden or not.
    ///
    /// # Panics
    /// If they are not all in one run.
    pub fn place(&mut self, at: u64, count: usize) -> &mut [u8] {
        let (start, run) = self
            .runs
            .range_mut(..=at)
            .next_back()
            .unwrap_or_else(|| panic!("no run holds {at:#x}"));
        let offset = usize::try_from(at - start).expect("a test's run fits");
        run.get_mut(offset..offset + count)
            .unwrap_or_else(|| panic!("no run holds {at:#x}"))
    }

    /// The runs that hold bytes: start and length.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let runs = self.runs.iter();
        runs.map(|(start, run)| (*start, run.len() as u64))
            .collect()
    }
}

impl TargetMemory for FakeMemory {
    fn abi(&self) -> Abi {
        Abi {
            pointer_bytes: 8,
            little_endian: true,
            page_bytes: PAGE,
        }
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        let here = at.get();
        let holds = |region: &Region| region.range.contains(&at);
        if !self.regions.iter().any(holds) {
            return Err(Fault::Unmapped(at));
        }
        if let Some((_, why)) = self.absent.iter().find(|(range, _)| range.contains(&here)) {
            return Err(match why {
                Absence::NotDumped => Fault::NotDumped(at),
                Absence::Truncated => Fault::Truncated(at),
            });
        }
        let run = self.runs.range(..=here).next_back();
        let rest = run.and_then(|(start, run)| run.get(usize::try_from(here - start).ok()?..));
        let rest = rest.unwrap_or_default();
        let after = self.absent.iter().map(|(range, _)| range.start);
        let end = after
            .filter(|start| *start > here)
            .chain([(here / self.window_bytes + 1) * self.window_bytes])
            .min()
            .unwrap_or(u64::MAX);
        let count = usize::try_from(end - here).map_or(rest.len(), |count| count.min(rest.len()));
        match rest.get(..count) {
            Some(bytes) if !bytes.is_empty() => Ok(Window {
                start: at,
                bytes,
                source: Source::Core,
            }),
            _ => Err(Fault::NotDumped(at)),
        }
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }
}

#[cfg(test)]
mod tests {
    use super::{Absence, FakeMemory};
    use crate::Asm;
    use ground::target::{Address, Fault, MemoryExt, TargetMemory};

    fn at(value: u64) -> Address {
        Address::new(value)
    }

    #[test]
    fn absence_has_a_type() {
        let mut memory = FakeMemory::of(Asm::at(0x1000).fill(7, 0x800).image());
        memory.hide(0x1100..0x1200, Absence::Truncated);
        assert_eq!(memory.read_u8(at(0x10ff)), Ok(7));
        assert_eq!(
            memory.read_u64(at(0x10fc)),
            Err(Fault::Truncated(at(0x1100)))
        );
        assert_eq!(memory.read_u8(at(0x1200)), Ok(7));
        assert_eq!(
            memory.read_u8(at(0x1800)),
            Err(Fault::NotDumped(at(0x1800)))
        );
        assert_eq!(memory.read_u8(at(0x2000)), Err(Fault::Unmapped(at(0x2000))));
        assert_eq!(memory.window(at(0x1000)).unwrap().bytes.len(), 0x100);
    }

    #[test]
    fn reads_cross_cut_windows() {
        let mut memory = FakeMemory::of(Asm::at(0x1000).u64(1).u64(0x0203).image());
        memory.cut_windows(4);
        assert_eq!(memory.window(at(0x1006)).unwrap().bytes, [0, 0]);
        assert_eq!(memory.read_u64(at(0x1008)), Ok(0x0203));
        memory.write_u32(0x1008, 5);
        assert_eq!(memory.read_u64(at(0x1008)), Ok(5));
    }

    #[test]
    fn runs_on_one_page_share_a_region() {
        let memory = FakeMemory::of(
            Asm::at(0x1000)
                .u64(1)
                .gap(8)
                .u64(2)
                .gap(0x5000)
                .u64(3)
                .image(),
        );
        assert_eq!(memory.regions().len(), 2);
        assert_eq!(
            memory.read_u8(at(0x1008)),
            Err(Fault::NotDumped(at(0x1008)))
        );
        assert_eq!(memory.read_u64(at(0x1010)), Ok(2));
    }
}
