//! The DWARF sections of one module, and dwz's supplementary file beside them.
//!
//! Sections are found once and kept without lifetimes ([`SectionBytes`]); a reader borrows them for each question, which
//! costs nothing: a [`gimli::Dwarf`] is a handful of slices.
//!
//! Split DWARF (`.dwo`, `.dwp`) is not read: units that are only skeletons are counted, so that it can be said.

use std::sync::Arc;

use gimli::{DwarfSections, EndianSlice, LittleEndian, SectionId};

use super::FileBytes;
use super::image::{ElfImage, ImageError, SectionBytes};

/// Borrowed section bytes.
pub type Bytes<'a> = EndianSlice<'a, LittleEndian>;
/// A module's DWARF, borrowed.
pub type Dwarf<'a> = gimli::Dwarf<Bytes<'a>>;
/// A unit of it.
pub type Unit<'a> = gimli::Unit<Bytes<'a>>;

/// The DWARF sections of one file.
pub struct DwarfFile {
    file: FileBytes,
    sections: DwarfSections<SectionBytes>,
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
        let sections = DwarfSections::load(|id: SectionId| image.section(id.name()))?;
        Ok(Some(Self {
            file: file.clone(),
            sections,
        }))
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
}
