//! Memory of the dead process, borrowed in windows.
//!
//! One method is required, [`TargetMemory::window`]; all typed reads are built on it in
//! [`MemoryExt`]. A hot loop holds a [`Cursor`], which remembers its last window and looks up
//! again only when an address leaves it.

use std::hint::black_box;
use std::ops::Range;

use super::Address;

/// What the numbers in memory look like. Comes from the core's ELF header and auxiliary vector,
/// never from the machine that runs the analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi {
    /// Bytes of a pointer.
    pub pointer_bytes: u8,
    /// Whether the lowest byte comes first.
    pub little_endian: bool,
    /// Bytes of a page (`AT_PAGESZ`): a power of two.
    pub page_bytes: u64,
}

impl Abi {
    /// Where the page begins that holds an address.
    pub const fn page_of(&self, at: Address) -> Address {
        Address::new(at.get() & !self.page_bytes.wrapping_sub(1))
    }

    /// Where the first page begins at or behind an address; the last address of all where none does.
    pub const fn page_from(&self, at: Address) -> Address {
        match at.checked_add(self.page_bytes.wrapping_sub(1)) {
            Some(end) => self.page_of(end),
            None => Address::new(u64::MAX),
        }
    }

    /// Addresses from the first to the last, a page apart.
    pub fn pages(&self, first: u64, last: u64) -> impl Iterator<Item = u64> + use<> {
        let step = usize::try_from(self.page_bytes.max(1)).unwrap_or(usize::MAX);
        (first..=last).step_by(step)
    }

    /// Whether so many bytes are whole pages, and at least one.
    pub const fn is_pages(&self, bytes: u64) -> bool {
        bytes != 0 && bytes & self.page_bytes.wrapping_sub(1) == 0
    }
}

/// Why a byte cannot be read. Each is a different answer to the user's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The process had nothing there.
    #[error("{0} is not mapped")]
    Unmapped(Address),
    /// The process had memory there, but the core does not hold it and no verified file does.
    #[error("{0} was mapped but is not in the core")]
    NotDumped(Address),
    /// The core should hold it, but the file ends before.
    #[error("{0} lies in the part of the core that is cut off")]
    Truncated(Address),
}

impl Fault {
    /// The address that could not be read.
    pub fn address(self) -> Address {
        match self {
            Fault::Unmapped(at) | Fault::NotDumped(at) | Fault::Truncated(at) => at,
        }
    }
}

/// Where a window's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The core file.
    Core,
    /// The file of a module whose build ID matched, at a page that was never written.
    ModuleFile,
}

/// A run of bytes at an address, borrowed from the mapped core or a module's file.
#[derive(Clone, Copy)]
pub struct Window<'m> {
    /// Address of the first byte.
    pub start: Address,
    /// The bytes; never empty.
    pub bytes: &'m [u8],
    /// Where they come from.
    pub source: Source,
}

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Private memory with no file behind it: heaps, stacks, `.bss`.
    Anonymous,
    /// Backed by a file (which may have been written since, privately).
    File,
    /// The vDSO or another kernel-provided page.
    Kernel,
}

/// One mapping of the dead process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Addresses, page-aligned.
    pub range: Range<Address>,
    /// Permissions.
    pub readable: bool,
    /// Permissions.
    pub writable: bool,
    /// Permissions.
    pub executable: bool,
    /// What it is made of.
    pub kind: RegionKind,
    /// Bytes of it that the core's program header promises (`p_filesz`).
    pub dumped_bytes: u64,
    /// Bytes of it that are really in the core file; less than `dumped_bytes` when it is cut off.
    pub present_bytes: u64,
}

impl Region {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.range.end.get().saturating_sub(self.range.start.get())
    }
}

/// The dead process's memory.
pub trait TargetMemory: Sync {
    /// Byte order, pointer width, page size.
    fn abi(&self) -> Abi;

    /// The longest borrowed run of bytes that starts exactly at `at`.
    ///
    /// # Errors
    /// Says which of the three ways the byte at `at` is absent.
    fn window(&self, at: Address) -> Result<Window<'_>, Fault>;

    /// The whole borrowed run of bytes that `at` lies in: it may begin before.
    ///
    /// # Errors
    /// As [`window`](Self::window).
    fn window_around(&self, at: Address) -> Result<Window<'_>, Fault> {
        self.window(at)
    }

    /// All mappings, sorted by address, without overlap.
    fn regions(&self) -> &[Region];

    /// An address behind the absent byte at `at`, before which all bytes are absent; `None` if nothing follows. A damaged program
    /// header may span the whole address space: memory that steps over what it does not hold answers at once.
    fn behind_absent(&self, at: Address) -> Option<Address> {
        let regions = self.regions();
        let after = regions.partition_point(|region| region.range.start <= at);
        let is_mapped = after
            .checked_sub(1)
            .and_then(|index| regions.get(index))
            .is_some_and(|region| at < region.range.end);
        match is_mapped {
            true => {
                let page = self.abi().page_bytes.max(8);
                let number = at.get().checked_div(page)?;
                Some(Address::new(number.checked_add(1)?.checked_mul(page)?))
            }
            false => regions.get(after).map(|region| region.range.start),
        }
    }
}

/// Typed reads on any [`TargetMemory`].
pub trait MemoryExt: TargetMemory {
    /// Fills `out` from `at`, across windows.
    ///
    /// # Errors
    /// The first byte that is absent; `out` is then filled up to there.
    fn read_into(&self, at: Address, out: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0usize;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let here = at.checked_add(done as u64).ok_or(Fault::Unmapped(at))?;
            let window = self.window(here)?;
            let count = rest.len().min(window.bytes.len());
            if count == 0 {
                return Err(Fault::Unmapped(here));
            }
            if let (Some(to), Some(from)) = (rest.get_mut(..count), window.bytes.get(..count)) {
                to.copy_from_slice(from);
            }
            done = done.saturating_add(count);
        }
        Ok(())
    }

    /// `N` bytes at `at`.
    ///
    /// # Errors
    /// The first byte that is absent.
    fn read_bytes<const N: usize>(&self, at: Address) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        self.read_into(at, &mut out)?;
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// If it is absent.
    fn read_u8(&self, at: Address) -> Result<u8, Fault> {
        self.read_bytes::<1>(at).map(|[byte]| byte)
    }

    /// A 16-bit word in the target's byte order.
    ///
    /// # Errors
    /// The first byte that is absent.
    fn read_u16(&self, at: Address) -> Result<u16, Fault> {
        let bytes = self.read_bytes(at)?;
        Ok(if self.abi().little_endian {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    }

    /// A 32-bit word in the target's byte order.
    ///
    /// # Errors
    /// The first byte that is absent.
    fn read_u32(&self, at: Address) -> Result<u32, Fault> {
        let bytes = self.read_bytes(at)?;
        Ok(if self.abi().little_endian {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    }

    /// A 64-bit word in the target's byte order.
    ///
    /// # Errors
    /// The first byte that is absent.
    fn read_u64(&self, at: Address) -> Result<u64, Fault> {
        let bytes = self.read_bytes(at)?;
        Ok(if self.abi().little_endian {
            u64::from_le_bytes(bytes)
        } else {
            u64::from_be_bytes(bytes)
        })
    }

    /// A pointer of the target's width.
    ///
    /// # Errors
    /// The first byte that is absent.
    fn read_pointer(&self, at: Address) -> Result<Address, Fault> {
        if self.abi().pointer_bytes == 4 {
            self.read_u32(at).map(|word| Address::new(word.into()))
        } else {
            self.read_u64(at).map(Address::new)
        }
    }

    /// Whether the process had memory at `at`, to which it could write, that the core does not hold.
    fn is_absent(&self, at: Address) -> bool {
        self.region_at(at).is_some_and(|region| region.writable)
            && matches!(
                self.window(at),
                Err(Fault::NotDumped(_) | Fault::Truncated(_))
            )
    }

    /// Whether all of a range can be read.
    fn holds(&self, range: &Range<Address>) -> bool {
        self.first_fault(range).is_none()
    }

    /// Whether a part of a range is not in the core although the process had it.
    fn lacks(&self, range: &Range<Address>) -> bool {
        let fault = self.first_fault(range);
        matches!(fault, Some(Fault::NotDumped(_) | Fault::Truncated(_)))
    }

    /// Why the first byte of a range that cannot be read is absent.
    fn first_fault(&self, range: &Range<Address>) -> Option<Fault> {
        let mut at = range.start;
        while at < range.end {
            match self.window(at) {
                Ok(window) if !window.bytes.is_empty() => {
                    at = at.saturating_add(window.bytes.len() as u64);
                }
                Ok(_) => return Some(Fault::Unmapped(at)),
                Err(fault) => return Some(fault),
            }
        }
        None
    }

    /// The mapping that contains `at`.
    fn region_at(&self, at: Address) -> Option<&Region> {
        let regions = self.regions();
        let after = regions.partition_point(|region| region.range.start <= at);
        regions
            .get(after.checked_sub(1)?)
            .filter(|region| at < region.range.end)
    }
}

impl<M: TargetMemory + ?Sized> MemoryExt for M {}

/// Repeated 64-bit reads that mostly stay in one window. Little-endian targets only need no swap.
pub struct Cursor<'m> {
    memory: &'m dyn TargetMemory,
    little_endian: bool,
    window: Window<'m>,
}

impl<'m> Cursor<'m> {
    /// A cursor that has read nothing yet.
    pub fn new(memory: &'m dyn TargetMemory) -> Self {
        Self {
            memory,
            little_endian: memory.abi().little_endian,
            window: Window {
                start: Address::new(0),
                bytes: &[],
                source: Source::Core,
            },
        }
    }

    /// What it reads.
    pub fn memory(&self) -> &'m dyn TargetMemory {
        self.memory
    }

    /// The 64-bit word at `at`, in the target's byte order.
    ///
    /// # Errors
    /// The first byte that is absent.
    #[inline]
    pub fn read_u64(&mut self, at: Address) -> Result<u64, Fault> {
        if let Some(word) = self.within(at) {
            return Ok(word);
        }
        self.window = self.memory.window_around(at)?;
        match self.within(at) {
            Some(word) => Ok(word),
            None => self.memory.read_u64(at), // straddles two windows
        }
    }

    /// `N` bytes at `at`.
    ///
    /// # Errors
    /// The first byte that is absent.
    #[inline]
    pub fn read_bytes<const N: usize>(&mut self, at: Address) -> Result<[u8; N], Fault> {
        if let Some(bytes) = self.within_window(at) {
            return Ok(*bytes);
        }
        self.window = self.memory.window_around(at)?;
        match self.within_window(at) {
            Some(bytes) => Ok(*bytes),
            None => self.memory.read_bytes(at),
        }
    }

    /// Has the processor fetch the byte at `at`, if there is one: it is read later.
    #[inline]
    pub fn touch(&mut self, at: Address) {
        if self.within_window::<1>(at).is_none() {
            match self.memory.window_around(at) {
                Ok(window) => self.window = window,
                Err(_) => return,
            }
        }
        black_box(self.within_window::<1>(at).copied());
    }

    /// So many bytes from `at` on, where one window holds them all.
    #[inline]
    pub fn bytes(&mut self, at: Address, count: u64) -> Option<&'m [u8]> {
        if self.within_window::<1>(at).is_none() {
            self.window = self.memory.window_around(at).ok()?;
        }
        let first = usize::try_from(at.offset_from(self.window.start)?).ok()?;
        let count = usize::try_from(count).ok()?;
        self.window.bytes.get(first..)?.get(..count)
    }

    /// How many bytes from `at` on hold zero, of `most` at most and as far as one window goes, in whole pieces of 128 bytes: what
    /// looks for something in memory that was never written steps over it.
    pub fn zeros(&mut self, at: Address, most: u64) -> u64 {
        const PIECE: usize = 128;
        if self.bytes_within(at).is_none() {
            match self.memory.window(at) {
                Ok(window) => self.window = window,
                Err(_) => return 0,
            }
        }
        let offset = at.offset_from(self.window.start).unwrap_or(0);
        let bytes = usize::try_from(offset).ok();
        let bytes = bytes.and_then(|offset| self.window.bytes.get(offset..));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let bytes = bytes.map(|bytes| bytes.get(..most).unwrap_or(bytes));
        let (pieces, _) = bytes.unwrap_or_default().as_chunks::<PIECE>();
        let is_zero = |piece: &&[u8; PIECE]| piece.iter().fold(0, |all, byte| all | byte) == 0;
        pieces
            .iter()
            .take_while(is_zero)
            .count()
            .saturating_mul(PIECE) as u64
    }

    /// Where the word at `at` lies, not loaded yet: several such places can be found before the first is waited for. `None`
    /// if the word is absent or straddles two windows.
    #[inline]
    pub fn place(&mut self, at: Address) -> Option<&'m [u8; 8]> {
        if let Some(bytes) = self.bytes_within(at) {
            return Some(bytes);
        }
        self.window = self.memory.window_around(at).ok()?;
        self.bytes_within(at)
    }

    /// The word at a [`place`](Self::place).
    #[inline]
    pub fn load(&self, place: &[u8; 8]) -> u64 {
        if self.little_endian {
            u64::from_le_bytes(*place)
        } else {
            u64::from_be_bytes(*place)
        }
    }

    #[inline]
    fn within_window<const N: usize>(&self, at: Address) -> Option<&'m [u8; N]> {
        let offset = usize::try_from(at.get().checked_sub(self.window.start.get())?).ok()?;
        self.window.bytes.get(offset..)?.first_chunk::<N>()
    }

    #[inline]
    fn bytes_within(&self, at: Address) -> Option<&'m [u8; 8]> {
        self.within_window(at)
    }

    #[inline]
    fn within(&self, at: Address) -> Option<u64> {
        self.bytes_within(at).map(|bytes| self.load(bytes))
    }
}
