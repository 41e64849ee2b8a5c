//! Call-frame information of one module: from a link address to the rules that hold there.
//!
//! ```text
//! lookup address ──> row cache ──> .eh_frame_hdr ──> FDE ──> Row      (a binary search in the file)
//!                                      └─ missing or wrong ─> own index of all FDEs, built once
//! ```
//!
//! A module's rules can come from several places, asked in this order: `.eh_frame` of the image (else of the core's
//! memory), `.debug_frame` of the image, `.debug_frame` of the separate debug file. All addresses here are link addresses.
//!
//! Parsed rows are kept, at most [`MAX_CACHED_ROWS`] a module: threads mostly stop at the same places, so that a thousand
//! threads cost little more than one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, Encoding, EndianSlice, Expression,
    FrameDescriptionEntry, LittleEndian, RegisterRule, UnwindContext, UnwindExpression,
    UnwindSection, Vendor,
};
use ground::target::InstructionSet;

use crate::debuginfo::FileBytes;
use crate::debuginfo::image::{ElfImage, SectionBytes};

/// Rows kept per module, about 200 bytes each.
const MAX_CACHED_ROWS: usize = 1 << 16;
/// FDEs indexed per section; the largest known libraries have about 1.5 million.
const MAX_FDES: usize = 16 << 20;
/// Longer entries are not read: each row of one is found by running all instructions before it. Real ones have at most a
/// few thousand bytes.
const MAX_ENTRY_BYTES: usize = 64 << 10;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// The rules at one address.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// How to compute the canonical frame address.
    pub cfa: CfaRule<usize>,
    /// Rules by DWARF register number.
    pub rules: Vec<(u16, RegisterRule<usize>)>,
    /// The column that holds the caller's program counter.
    pub return_column: u16,
    /// The function is a signal trampoline (`S` augmentation).
    pub signal: bool,
    /// The function has code that exceptions lead to.
    pub landing_pads: bool,
    /// What the FDE covers.
    pub function: Range<u64>,
    /// For expressions.
    pub encoding: Encoding,
    source: u8,
}

/// Where call-frame information was found.
#[derive(Clone)]
pub(super) struct Source {
    pub file: FileBytes,
    pub frames: SectionBytes,
    pub kind: Kind,
    pub bases: BaseAddresses,
    /// Link address of `frames`.
    pub address: u64,
    /// Whose meaning the instructions have that the standard leaves to each machine.
    pub vendor: Vendor,
}

/// The vendor whose instructions code of this kind is described with.
pub(super) fn vendor_of(instructions: InstructionSet) -> Vendor {
    match instructions {
        InstructionSet::X86_64 => Vendor::Default,
        InstructionSet::Aarch64 => Vendor::AArch64,
    }
}

/// Which of the two formats it is in.
#[derive(Clone)]
pub(super) enum Kind {
    /// `.eh_frame`, with `.eh_frame_hdr` and its link address where there is one.
    EhFrame(Option<(SectionBytes, u64)>),
    /// `.debug_frame`.
    DebugFrame,
}

/// What is known of an address.
enum Lookup {
    /// No entry covers it: quickly told, so not remembered.
    Nothing,
    /// An entry covers it, or should, but gives no rules.
    Damaged,
    Found(Row),
}

#[derive(Clone, Copy)]
struct FdePlace {
    start: u64,
    end: u64,
    offset: usize,
}

/// The call-frame information of one module.
#[derive(Default)]
pub(super) struct Tables {
    sources: Vec<(Source, OnceLock<Vec<FdePlace>>)>,
    rows: RwLock<HashMap<u64, Option<Arc<Row>>>>,
}

impl Source {
    /// `.eh_frame` of an image, by its section headers.
    pub fn eh_frame(file: &FileBytes, vendor: Vendor) -> Option<Self> {
        let image = ElfImage::parse(file.bytes()).ok()?;
        let frames = image.section(".eh_frame").ok()?;
        if frames.is_empty() {
            return None;
        }
        let address = image.section_range(".eh_frame")?.start;
        let header = image
            .section(".eh_frame_hdr")
            .ok()
            .filter(|header| !header.is_empty())
            .zip(image.section_range(".eh_frame_hdr"));
        let mut bases = BaseAddresses::default().set_eh_frame(address);
        if let Some(text) = image.section_range(".text") {
            bases = bases.set_text(text.start);
        }
        if let Some(got) = image
            .section_range(".got.plt")
            .or_else(|| image.section_range(".got"))
        {
            bases = bases.set_got(got.start);
        }
        Some(Self {
            file: file.clone(),
            frames,
            kind: Kind::EhFrame(header.map(|(bytes, range)| (bytes, range.start))),
            bases,
            address,
            vendor,
        })
    }

    /// `.debug_frame` of an image or a debug file.
    pub fn debug_frame(file: &FileBytes, vendor: Vendor) -> Option<Self> {
        let image = ElfImage::parse(file.bytes()).ok()?;
        let frames = image.section(".debug_frame").ok()?;
        (!frames.is_empty()).then(|| Self {
            file: file.clone(),
            frames,
            kind: Kind::DebugFrame,
            bases: BaseAddresses::default(),
            address: 0,
            vendor,
        })
    }

    fn bytes(&self) -> Bytes<'_> {
        EndianSlice::new(self.frames.bytes(self.file.bytes()), LittleEndian)
    }

    fn read<T>(&self, reader: impl FnOnce(SectionReader<'_>) -> T) -> T {
        match self.kind {
            Kind::EhFrame(_) => {
                let mut section = EhFrame::from(self.bytes());
                section.set_address_size(8);
                section.set_vendor(self.vendor);
                reader(SectionReader::Eh(section))
            }
            Kind::DebugFrame => {
                let mut section = DebugFrame::from(self.bytes());
                section.set_address_size(8);
                section.set_vendor(self.vendor);
                reader(SectionReader::Debug(section))
            }
        }
    }

    /// Offset in the section of the FDE that `.eh_frame_hdr` names for `at`. gimli's own search is not used: it adds
    /// and multiplies numbers of the file unchecked.
    fn search_header(&self, at: u64) -> Option<usize> {
        let Kind::EhFrame(Some((header, header_address))) = &self.kind else {
            return None;
        };
        let bytes = header.bytes(self.file.bytes());
        // Version 1; pointer to .eh_frame relative, 4 bytes; count 4 bytes; table relative to the header, 4 + 4 bytes.
        let table = match bytes.get(..4)? {
            [1, 0x1b, 0x03, 0x3b] => bytes.get(12..)?,
            _ => return None,
        };
        let count = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        let table = table.get(..usize::try_from(count).ok()?.checked_mul(8)?)?;
        let (entries, _) = table.as_chunks::<8>();
        let half = |entry: &[u8; 8], which: usize| -> u64 {
            let word = entry.as_chunks::<4>().0.get(which).copied();
            let offset = i32::from_le_bytes(word.unwrap_or_default());
            header_address.wrapping_add_signed(offset.into())
        };
        let after = entries.partition_point(|entry| half(entry, 0) <= at);
        let fde = half(entries.get(after.checked_sub(1)?)?, 1);
        usize::try_from(fde.checked_sub(self.address)?).ok()
    }
}

/// Either format, borrowed for a moment.
enum SectionReader<'a> {
    Eh(EhFrame<Bytes<'a>>),
    Debug(DebugFrame<Bytes<'a>>),
}

impl Tables {
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            sources: sources
                .into_iter()
                .take(usize::from(u8::MAX))
                .map(|source| (source, OnceLock::new()))
                .collect(),
            rows: RwLock::default(),
        }
    }

    /// Whether there are rules for any code of the module.
    pub fn is_known(&self) -> bool {
        !self.sources.is_empty()
    }

    /// The rules at the link address `at`, if some function with rules covers it.
    pub fn row(&self, at: u64) -> Option<Arc<Row>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get(&at) {
            return row.clone();
        }
        if rows.len() >= MAX_CACHED_ROWS {
            // No real stack is like this; a made one must not cost hours.
            return None;
        }
        drop(rows);
        let row = match self.find(at) {
            Lookup::Nothing => return None,
            Lookup::Damaged => None,
            Lookup::Found(row) => Some(Arc::new(row)),
        };
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(at, row.clone());
        row
    }

    fn find(&self, at: u64) -> Lookup {
        let mut damaged = false;
        for (which, (source, index)) in (0..).zip(&self.sources) {
            let by_header = source.search_header(at);
            let found = by_header.map_or(Lookup::Nothing, |fde| source.row_of(fde, at, which));
            if let Lookup::Found(_) = found {
                return found;
            }
            damaged |= matches!(found, Lookup::Damaged);
            let index = index.get_or_init(|| source.index());
            let after = index.partition_point(|fde| fde.start <= at);
            let nearest = after.checked_sub(1).and_then(|last| index.get(last));
            if let Some(fde) = nearest.filter(|fde| at < fde.end) {
                let found = source.row_of(fde.offset, at, which);
                if let Lookup::Found(_) = found {
                    return found;
                }
                damaged |= matches!(found, Lookup::Damaged);
            }
        }
        match damaged {
            true => Lookup::Damaged,
            false => Lookup::Nothing,
        }
    }

    /// Where the last function with rules ends below the link address `at`.
    pub fn last_end(&self, at: u64) -> Option<u64> {
        let ends = self.sources.iter().filter_map(|(source, index)| {
            let index = index.get_or_init(|| source.index());
            let after = index.partition_point(|fde| fde.end <= at);
            Some(index.get(after.checked_sub(1)?)?.end)
        });
        ends.max()
    }

    /// Runs `reader` on the bytes of an expression in `row`.
    pub fn expression<T>(
        &self,
        row: &Row,
        expression: &UnwindExpression<usize>,
        reader: impl FnOnce(Expression<Bytes<'_>>) -> T,
    ) -> Option<T> {
        let (source, _) = self.sources.get(usize::from(row.source))?;
        source.read(|section| {
            let bytes = match section {
                SectionReader::Eh(section) => expression.get(&section),
                SectionReader::Debug(section) => expression.get(&section),
            };
            bytes.ok().map(reader)
        })
    }
}

impl Source {
    fn row_of(&self, offset: usize, at: u64, source: u8) -> Lookup {
        self.read(|section| match section {
            SectionReader::Eh(section) => row_at(&section, &self.bases, offset, at, source),
            SectionReader::Debug(section) => row_at(&section, &self.bases, offset, at, source),
        })
    }

    fn index(&self) -> Vec<FdePlace> {
        self.read(|section| match section {
            SectionReader::Eh(section) => index(&section, &self.bases),
            SectionReader::Debug(section) => index(&section, &self.bases),
        })
    }
}

fn row_at<'a, S: UnwindSection<Bytes<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    offset: usize,
    at: u64,
    source: u8,
) -> Lookup {
    let fde: FrameDescriptionEntry<_> =
        match section.fde_from_offset(bases, S::Offset::from(offset), S::cie_from_offset) {
            Ok(fde) => fde,
            Err(_) => return Lookup::Damaged,
        };
    let Some(function) = range_of(&fde) else {
        return Lookup::Damaged;
    };
    if !function.contains(&at) {
        return Lookup::Nothing;
    }
    if fde.entry_len().max(fde.cie().entry_len()) > MAX_ENTRY_BYTES {
        return Lookup::Damaged;
    }
    let mut context = UnwindContext::new();
    let Ok(row) = fde.unwind_info_for_address(section, bases, &mut context, at) else {
        return Lookup::Damaged;
    };
    Lookup::Found(Row {
        cfa: row.cfa().clone(),
        rules: row
            .registers()
            .map(|(register, rule)| (register.0, rule.clone()))
            .collect(),
        return_column: fde.cie().return_address_register().0,
        signal: fde.is_signal_trampoline(),
        landing_pads: fde.lsda().is_some(),
        function,
        encoding: fde.cie().encoding(),
        source,
    })
}

fn range_of(fde: &FrameDescriptionEntry<Bytes<'_>>) -> Option<Range<u64>> {
    let start = fde.initial_address();
    Some(start..start.checked_add(fde.len())?)
}

/// All FDEs by their start. Where some overlap, the last one that starts below an address is asked.
fn index<'a, S: UnwindSection<Bytes<'a>>>(section: &S, bases: &BaseAddresses) -> Vec<FdePlace> {
    let mut found = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(fde) = partial.parse(S::cie_from_offset) else {
            continue;
        };
        // Functions that the linker dropped leave an FDE at address 0.
        if let Some(range) = range_of(&fde).filter(|range| !range.is_empty() && range.start != 0) {
            found.push(FdePlace {
                start: range.start,
                end: range.end,
                offset: fde.offset(),
            });
        }
        if found.len() >= MAX_FDES {
            break;
        }
    }
    found.sort_unstable_by_key(|fde| (fde.start, fde.offset));
    found
}
