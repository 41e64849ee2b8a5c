//! The DWARF sections of one module, and dwz's supplementary file beside them.
//!
//! Sections are found once and kept without lifetimes ([`SectionBytes`]); a reader borrows them for each question, which
//! costs nothing: a [`gimli::Dwarf`] is a handful of slices.
//!
//! Split DWARF (`.dwo`, `.dwp`) is not read: units that are only skeletons are counted, so that it can be said.

use std::sync::{Arc, OnceLock};

use gimli::{
    AttributeValue, DebugLoc, DebugLocLists, DwarfSections, EndianSlice, LittleEndian,
    LocationLists, Section, SectionId,
};
use rayon::prelude::*;

use super::FileBytes;
use super::image::{ElfImage, ImageError, SectionBytes};

/// Borrowed section bytes.
pub type Bytes<'a> = EndianSlice<'a, LittleEndian>;
/// A module's DWARF, borrowed.
pub type Dwarf<'a> = gimli::Dwarf<Bytes<'a>>;
/// A unit of it.
pub type Unit<'a> = gimli::Unit<Bytes<'a>>;

/// The sections that are read: not macros and the compilers' own indexes, which
/// nothing here asks for, and not the places of local variables, which few questions are about ([`DwarfFile::locations`]).
const READ: [SectionId; 11] = [
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugAbbrev,
    SectionId::DebugStr,
    SectionId::DebugRngLists,
    SectionId::DebugRanges,
    SectionId::DebugTypes,
    SectionId::DebugLineStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
];
/// Longer names (of types made of types) are cut.
const MAX_NAME_BYTES: usize = 16 << 10;

/// The text of a name. gimli would look for the end of a string through the whole section; a damaged file could ask that
/// of it a million times.
pub(super) fn name<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    value: AttributeValue<Bytes<'a>>,
) -> Option<&'a [u8]> {
    let (section, offset) = match value {
        AttributeValue::String(text) => {
            let text = text.slice();
            return Some(text.get(..MAX_NAME_BYTES).unwrap_or(text));
        }
        AttributeValue::DebugStrRef(offset) => (dwarf.debug_str.reader(), offset.0),
        AttributeValue::DebugStrRefSup(offset) => (dwarf.sup()?.debug_str.reader(), offset.0),
        AttributeValue::DebugLineStrRef(offset) => (dwarf.debug_line_str.reader(), offset.0),
        AttributeValue::DebugStrOffsetsIndex(index) => {
            let offset = dwarf.string_offset(unit, index).ok()?;
            (dwarf.debug_str.reader(), offset.0)
        }
        _ => return None,
    };
    let from = section.slice().get(offset..)?;
    let from = from.get(..MAX_NAME_BYTES).unwrap_or(from);
    let end = from.iter().position(|&byte| byte == 0);
    from.get(..end.unwrap_or(from.len()))
}

/// The DWARF sections of one file.
pub struct DwarfFile {
    file: FileBytes,
    sections: DwarfSections<SectionBytes>,
    /// `.debug_loc` and `.debug_loclists`: read when the place of a local variable is first asked for.
    locations: OnceLock<[SectionBytes; 2]>,
}

impl DwarfFile {
    /// Finds the sections of `file`; `None` if it has no `.debug_info` of its own.
    ///
    /// # Errors
    /// If a section lies outside the file or does not decompress.
    pub fn load(file: &FileBytes) -> Result<Option<Self>, ImageError> {
        let image = ElfImage::parse(file.bytes())?;
        if !image.has_section(".debug_info") && !image.has_section(".debug_types") {
            return Ok(None);
        }
        // Inflating them takes longer than what is then asked.
        let mut read: Vec<_> = READ
            .par_iter()
            .map(|&id| (id, image.section(id.name())))
            .collect();
        let sections = DwarfSections::load(|id: SectionId| {
            let found = read.iter().position(|(read, _)| *read == id);
            found.map_or(Ok(SectionBytes::Absent), |found| read.swap_remove(found).1)
        })?;
        Ok(Some(Self {
            file: file.clone(),
            sections,
            locations: OnceLock::new(),
        }))
    }

    /// Lists of the places of variables; empty where the file has none that can be read.
    fn locations(&self) -> LocationLists<Bytes<'_>> {
        let read = || {
            let image = ElfImage::parse(self.file.bytes()).ok();
            [SectionId::DebugLoc, SectionId::DebugLocLists].map(|id| {
                let section = image.as_ref().map(|image| image.section(id.name()));
                section.and_then(Result::ok).unwrap_or_default()
            })
        };
        let [old, new] = self.locations.get_or_init(read);
        let file = self.file.bytes();
        LocationLists::new(
            DebugLoc::from(EndianSlice::new(old.bytes(file), LittleEndian)),
            DebugLocLists::from(EndianSlice::new(new.bytes(file), LittleEndian)),
        )
    }

    fn borrow(&self) -> Dwarf<'_> {
        let file = self.file.bytes();
        self.sections
            .borrow(|section| EndianSlice::new(section.bytes(file), LittleEndian))
    }
}

/// The DWARF of one module: its own file, and dwz's supplementary file where it refers to one.
pub struct ModuleDwarf {
    /// The image or its separate debug file.
    pub main: DwarfFile,
    /// What `.gnu_debugaltlink` or `.debug_sup` names, shared between the modules that it was made for.
    pub supplementary: Option<Arc<DwarfFile>>,
}

impl ModuleDwarf {
    /// Everything, borrowed for a question.
    pub fn borrow(&self) -> Dwarf<'_> {
        let mut dwarf = self.main.borrow();
        if let Some(supplementary) = &self.supplementary {
            dwarf.set_sup(supplementary.borrow());
        }
        dwarf
    }

    /// The same with the places of local variables.
    pub fn borrow_with_locations(&self) -> Dwarf<'_> {
        let mut dwarf = self.borrow();
        dwarf.locations = self.main.locations();
        dwarf
    }
}
