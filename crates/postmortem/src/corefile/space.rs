//! The dead process's memory.
//!
//! The address space is cut into pieces, each of one source:
//!
//! ```text
//! region   |---- File, never written ----|---- Anonymous, cut off ----|    PROT_NONE    |
//! piece    | Core | File                 | Core          | Truncated  |    NotDumped    |
//! ```
//!
//! Pieces are sorted by address and do not overlap; pieces that continue each other in the core are one, so that a window
//! is as long as it can be. A lookup is a binary search over the starts alone: 8 bytes per piece, 16 steps for 65,000
//! pieces. A hot loop holds a [`Cursor`](ground::target::Cursor) and seldom looks up.
//!
//! # Pages from files
//!
//! A page that the core does not hold is read from a module's file only if the process cannot have changed it, see
//! [`AddressSpace::add_backing`].

use std::ops::Range;

use ground::target::{Abi, Address, Fault, Region, RegionKind, Source, TargetMemory, Window};

use super::regions::PlacedRegion;
use super::{CoreFile, FileView, regions};

/// Pages that a verified file holds and the core does not.
#[derive(Clone, Debug)]
pub struct Backing {
    /// Where they were mapped.
    pub range: Range<Address>,
    /// The file.
    pub file: FileView,
    /// Offset in bytes in the file at which `range` starts.
    pub file_offset: u64,
    /// The module's program headers say that nothing writes here: neither the program nor the dynamic linker.
    pub read_only: bool,
    /// The module's program headers say that this is code.
    pub executable: bool,
}

/// Where the bytes of a piece are. Offsets in bytes, of the piece's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Core { offset: u64 },
    File { index: u32, offset: u64 },
    NotDumped,
    Truncated,
}

impl Place {
    /// The place of a byte `bytes` further on.
    fn advanced(self, bytes: u64) -> Place {
        match self {
            Place::Core { offset } => Place::Core {
                offset: offset.saturating_add(bytes),
            },
            Place::File { index, offset } => Place::File {
                index,
                offset: offset.saturating_add(bytes),
            },
            absent => absent,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    place: Place,
}

/// Pieces in order, as two columns: the search touches only the starts.
#[derive(Debug, Default)]
struct Pieces {
    starts: Vec<u64>,
    pieces: Vec<Piece>,
}

impl Piece {
    /// Bytes from its start to an address in it.
    fn offset_of(&self, at: Address) -> u64 {
        at.get().saturating_sub(self.start)
    }
}

impl Pieces {
    /// Appends a piece, joining it to the last one if it continues it.
    fn push(&mut self, start: u64, end: u64, place: Place) {
        if start >= end {
            return;
        }
        if let Some(last) = self.pieces.last_mut()
            && last.end == start
            && last.place.advanced(start.saturating_sub(last.start)) == place
        {
            last.end = end;
            return;
        }
        self.starts.push(start);
        self.pieces.push(Piece { start, end, place });
    }

    fn find(&self, at: u64) -> Option<&Piece> {
        let after = self.starts.partition_point(|start| *start <= at);
        self.pieces
            .get(after.checked_sub(1)?)
            .filter(|piece| at < piece.end)
    }
}

/// The dead process's memory: segments of the core, and pages of module files where the core has none.
#[derive(Debug)]
pub struct AddressSpace {
    abi: Abi,
    core: FileView,
    files: Vec<FileView>,
    regions: Vec<Region>,
    /// Whether a program header of the core tells the permissions; parallel to `regions`.
    has_permissions: Vec<bool>,
    pieces: Pieces,
    writes_are_dumped: bool,
}

impl AddressSpace {
    /// The memory that the core itself holds.
    pub fn new(core: &CoreFile) -> Self {
        let vdso = core.auxv(super::auxv::AT_SYSINFO_EHDR).map(Address::new);
        let placed = regions::build(&core.segments, &core.files, core.file_bytes(), vdso);
        let mut pieces = Pieces::default();
        for PlacedRegion { region, offset, .. } in &placed {
            let (start, end) = (region.range.start.get(), region.range.end.get());
            let present = start.saturating_add(region.present_bytes);
            let dumped = start.saturating_add(region.dumped_bytes);
            pieces.push(start, present, Place::Core { offset: *offset });
            pieces.push(present, dumped, Place::Truncated);
            pieces.push(dumped, end, Place::NotDumped);
        }
        let known = placed.iter().map(|placed| placed.has_permissions).collect();
        let regions: Vec<Region> = placed.into_iter().map(|placed| placed.region).collect();
        Self {
            abi: core.abi(),
            core: core.view.clone(),
            files: Vec::new(),
            writes_are_dumped: regions.iter().any(|region| {
                region.kind == RegionKind::Anonymous
                    && region.writable
                    && region.dumped_bytes == region.bytes()
            }),
            regions,
            has_permissions: known,
            pieces,
        }
    }

    /// Whether the dump took private memory that was written (bit 0 of `coredump_filter`): then a mapping that it left
    /// out was not written.
    pub fn writes_are_dumped(&self) -> bool {
        self.writes_are_dumped
    }

    /// Whether the core says what the mapping in this row of [`regions`](TargetMemory::regions) permits: gcore does not, of what it leaves out.
    pub fn has_permissions(&self, row: usize) -> bool {
        self.has_permissions.get(row).copied().unwrap_or(false)
    }

    /// The smallest range of whole pages around `range`.
    pub fn whole_pages(&self, range: Range<Address>) -> Range<Address> {
        let mask = self.abi.page_bytes.wrapping_sub(1);
        let start = range.start.get() & !mask;
        let end = range.end.get().saturating_add(mask) & !mask;
        Address::new(start)..Address::new(end)
    }

    /// The core's bytes in `range` as a shared view, if the core holds all of them in one run.
    pub fn core_view(&self, range: Range<Address>) -> Option<FileView> {
        let piece = self.pieces.find(range.start.get())?;
        let Place::Core { offset } = piece.place.advanced(piece.offset_of(range.start)) else {
            return None;
        };
        let start = usize::try_from(offset).ok()?;
        let bytes = usize::try_from(range.end.offset_from(range.start)?).ok()?;
        let end = start.checked_add(bytes)?;
        (range.end.get() <= piece.end).then(|| self.core.part(start..end))
    }

    /// Adds pages of module files. They are used only where the core has none and the process cannot have changed them:
    ///
    /// - a page that the program headers call read-only (and that no relocation touches), in a mapping that was not
    ///   writable at death, whether it was left out of the dump or cut off it;
    /// - any page that was left out of the dump, if the dump took private memory that was written
    ///   ([`writes_are_dumped`](Self::writes_are_dumped)) and left out all of this mapping or all but its ELF header:
    ///   the kernel dumps a mapping whole as soon as one of its pages was written. Where parts of a writable mapping are in the core and
    ///   parts are not, another program chose them: what is missing is unknown.
    pub fn add_backing(&mut self, backing: &[Backing]) {
        let mut order: Vec<Backing> = backing.to_vec();
        order.sort_by_key(|backing| backing.range.start);
        let mut next = Address::new(u64::MAX);
        for backing in order.iter_mut().rev() {
            backing.range.end = backing.range.end.min(next);
            next = backing.range.start;
        }
        self.learn_permissions(&order);
        let old = std::mem::take(&mut self.pieces);
        let mut first = 0;
        for piece in &old.pieces {
            while order
                .get(first)
                .is_some_and(|backing| backing.range.end.get() <= piece.start)
            {
                first = first.saturating_add(1usize);
            }
            let candidates = order.get(first..).unwrap_or(&[]);
            self.fill(piece, candidates);
        }
    }

    /// gcore says nothing about the permissions of what it leaves out; the modules' program headers do.
    fn learn_permissions(&mut self, backing: &[Backing]) {
        for backing in backing.iter().filter(|backing| backing.executable) {
            let first = self
                .regions
                .partition_point(|region| region.range.end <= backing.range.start);
            let regions = self.regions.iter_mut().zip(&self.has_permissions);
            for (region, known) in regions.skip(first) {
                if region.range.start >= backing.range.end {
                    break;
                }
                region.executable |= !known;
            }
        }
    }

    /// Pushes `piece`, its absent parts filled from `backing`.
    fn fill(&mut self, piece: &Piece, backing: &[Backing]) {
        let mut at = piece.start;
        let is_absent = matches!(piece.place, Place::NotDumped | Place::Truncated);
        for backing in backing {
            if !is_absent || backing.range.start.get() >= piece.end {
                break;
            }
            let start = backing.range.start.get().max(at);
            let end = backing.range.end.get().min(piece.end);
            if start >= end || !self.is_unchanged(start, piece.place, backing.read_only) {
                continue;
            }
            let Some(offset) = start
                .checked_sub(backing.range.start.get())
                .and_then(|skipped| skipped.checked_add(backing.file_offset))
            else {
                continue;
            };
            let held = (backing.file.bytes().len() as u64).saturating_sub(offset);
            let end = end.min(start.saturating_add(held));
            let Ok(index) = u32::try_from(self.files.len()) else {
                continue;
            };
            if start < end {
                self.files.push(backing.file.clone());
                self.pieces.push(at, start, piece.place);
                self.pieces.push(start, end, Place::File { index, offset });
                at = end;
            }
        }
        self.pieces.push(
            at,
            piece.end,
            piece.place.advanced(at.saturating_sub(piece.start)),
        );
    }

    /// The bytes of a piece from `start` on, as the answer to who asked for `at`.
    fn borrow(&self, piece: &Piece, start: Address, at: Address) -> Result<Window<'_>, Fault> {
        let (file, offset, source) = match piece.place.advanced(piece.offset_of(start)) {
            Place::Core { offset } => (Some(&self.core), offset, Source::Core),
            Place::File { index, offset } => {
                let file = usize::try_from(index)
                    .ok()
                    .and_then(|index| self.files.get(index));
                (file, offset, Source::ModuleFile)
            }
            Place::NotDumped => return Err(Fault::NotDumped(at)),
            Place::Truncated => return Err(Fault::Truncated(at)),
        };
        // The lengths of pieces were cut to what the files hold, so the borrow below succeeds.
        let borrow = || {
            let first = usize::try_from(offset).ok()?;
            let bytes = usize::try_from(piece.end.checked_sub(start.get())?).ok()?;
            let bytes = file?.bytes().get(first..first.checked_add(bytes)?)?;
            Some(bytes).filter(|bytes| !bytes.is_empty())
        };
        Ok(Window {
            start,
            bytes: borrow().ok_or(Fault::NotDumped(at))?,
            source,
        })
    }

    fn is_unchanged(&self, at: u64, place: Place, read_only: bool) -> bool {
        let at = Address::new(at);
        let after = self
            .regions
            .partition_point(|region| region.range.start <= at);
        let Some(region) = after
            .checked_sub(1)
            .and_then(|index| self.regions.get(index))
        else {
            return false;
        };
        (read_only && !region.writable)
            || (place == Place::NotDumped && self.writes_are_dumped && self.is_left_out(after))
    }

    /// Whether nothing of the mapping that ends in front of this row is in the core but its ELF header. What lies beside it and is mapped
    /// alike belongs to the same mapping, of which somebody else than the kernel took parts.
    fn is_left_out(&self, after: usize) -> bool {
        let is_empty = |region: &Region| {
            region.dumped_bytes == 0 || region.dumped_bytes == self.abi.page_bytes
        };
        let row = |index: Option<usize>| self.regions.get(index?);
        let Some(region) = row(after.checked_sub(1)) else {
            return false;
        };
        let is_part = |other: &&Region| {
            region.writable
                && other.kind == RegionKind::File
                && other.writable
                && other.executable == region.executable
        };
        let before = row(after.checked_sub(2)).filter(is_part);
        let behind = row(Some(after)).filter(is_part);
        let is_beside_dumped = before
            .is_some_and(|other| other.range.end == region.range.start && other.dumped_bytes > 0)
            || behind.is_some_and(|other| {
                other.range.start == region.range.end && other.dumped_bytes > 0
            });
        is_empty(region) && !(region.kind == RegionKind::File && is_beside_dumped)
    }
}

impl TargetMemory for AddressSpace {
    fn abi(&self) -> Abi {
        self.abi
    }

    fn behind_absent(&self, at: Address) -> Option<Address> {
        let piece = self.pieces.find(at.get());
        piece.map_or_else(
            || {
                let after = self
                    .pieces
                    .starts
                    .partition_point(|start| *start <= at.get());
                let next = self.pieces.starts.get(after);
                next.map(|start| Address::new(*start))
            },
            |piece| Some(Address::new(piece.end)),
        )
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        let piece = self.pieces.find(at.get()).ok_or(Fault::Unmapped(at))?;
        self.borrow(piece, at, at)
    }

    fn window_around(&self, at: Address) -> Result<Window<'_>, Fault> {
        let piece = self.pieces.find(at.get()).ok_or(Fault::Unmapped(at))?;
        self.borrow(piece, Address::new(piece.start), at)
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }
}
