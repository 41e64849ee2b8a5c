//! The files that belong to one module, and the links from one to the next.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ground::target::{Module, ModuleId};

use super::image::ElfImage;
use crate::corefile::Mapping;
use crate::modules::{ModuleSet, SearchPaths};

/// Longest file name and build ID taken from a link.
const MAX_LINK_BYTES: usize = 4096;

/// The bytes of a file, shared. Cheap to clone.
#[derive(Clone)]
pub enum FileBytes {
    /// A module's image, as found by the module set.
    Module(Arc<ModuleSet>, ModuleId),
    /// A separate debug file.
    Mapped(Arc<Mapping>),
    /// Bytes in memory: inflated, or made by a test.
    Memory(Arc<[u8]>),
}

impl FileBytes {
    /// All of its bytes; empty if the module has no file.
    pub fn bytes(&self) -> &[u8] {
        match self {
            FileBytes::Module(modules, id) => modules.file(*id).map_or(&[], |file| file.data()),
            FileBytes::Mapped(mapping) => mapping.bytes(),
            FileBytes::Memory(bytes) => bytes,
        }
    }
}

/// Most bytes that a symbol table packed in an image may unpack to; Fedora's largest are near 2 MB.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;
/// Most memory that its decoder may take, in KiB.
const MAX_DECODER_KIB: u32 = 64 << 10;

/// The small ELF file in `.gnu_debugdata`, packed by xz: the symbols that stripping took, of functions only.
pub(super) fn packed_symbols(file: &FileBytes) -> Option<FileBytes> {
    let image = ElfImage::parse(file.bytes()).ok()?;
    let section = image.section(".gnu_debugdata").ok()?;
    let packed = section.bytes(file.bytes());
    if packed.is_empty() {
        return None;
    }
    let reader = lzma_rust2::XzReader::new_mem_limit(packed, false, MAX_DECODER_KIB);
    let mut unpacked = Vec::new();
    reader
        .take(MAX_UNPACKED_BYTES)
        .read_to_end(&mut unpacked)
        .ok()?;
    Some(FileBytes::Memory(unpacked.into()))
}

/// The files of one module.
#[derive(Default)]
pub(super) struct Files {
    /// The image itself.
    pub image: Option<FileBytes>,
    /// The separate debug file and where it was found.
    pub debug: Option<(FileBytes, PathBuf)>,
}

impl Files {
    pub fn find(modules: &Arc<ModuleSet>, search: &SearchPaths, module: &Module) -> Self {
        let file = modules.file(module.id);
        let image = file.map(|_| FileBytes::Module(Arc::clone(modules), module.id));
        let link = image.as_ref().and_then(debug_link);
        let link = link.as_ref().map(|(name, sum)| (name.as_slice(), *sum));
        let path = file.map_or_else(|| Path::new(&module.path), |file| file.path.as_path());
        let debug = search
            .find_debug(module.build_id.as_deref(), link, path)
            .map(|found| (FileBytes::Mapped(found.mapping), found.path))
            .filter(|(debug, _)| {
                image
                    .as_ref()
                    .is_none_or(|image| same_link_addresses(image, debug))
            });
        Self { image, debug }
    }
}

/// Whether an image and its debug file were linked for the same addresses: prelink moves one and not the other.
fn same_link_addresses(image: &FileBytes, debug: &FileBytes) -> bool {
    let ranges = |file: &FileBytes| {
        ElfImage::parse(file.bytes())
            .map(|image| image.load_ranges())
            .unwrap_or_default()
    };
    let (image, debug) = (ranges(image), ranges(debug));
    match (image.first(), debug.first()) {
        (Some(image), Some(debug)) => image.start == debug.start,
        _ => true,
    }
}

/// `.gnu_debuglink`: a file name and the CRC of that file.
fn debug_link(file: &FileBytes) -> Option<(Vec<u8>, u32)> {
    let bytes = section(file, ".gnu_debuglink")?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let sum = bytes.get(end.checked_add(4)? & !3..)?.first_chunk::<4>()?;
    Some((bytes.get(..end)?.to_vec(), u32::from_le_bytes(*sum)))
}

/// dwz's supplementary file: its name and build ID, from `.gnu_debugaltlink`, or `.debug_sup` of DWARF 5.
pub(super) fn alternate_link(file: &FileBytes) -> Option<(Vec<u8>, Vec<u8>)> {
    if let Some(bytes) = section(file, ".gnu_debugaltlink") {
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let id = bytes.get(end.checked_add(1)?..)?;
        return Some((bytes.get(..end)?.to_vec(), id.to_vec()));
    }
    // version (2 bytes), is_supplementary (1), name, length of the checksum (LEB128), checksum
    let bytes = section(file, ".debug_sup")?;
    let &[_, _, 0, ref rest @ ..] = bytes.as_slice() else {
        return None;
    };
    let end = rest.iter().position(|&byte| byte == 0)?;
    let (&length, id) = rest.get(end.checked_add(1)?..)?.split_first()?;
    let id = id.get(..usize::from(length))?;
    Some((rest.get(..end)?.to_vec(), id.to_vec()))
}

fn section(file: &FileBytes, name: &str) -> Option<Vec<u8>> {
    let image = ElfImage::parse(file.bytes()).ok()?;
    let section = image.section(name).ok()?;
    let bytes = section.bytes(file.bytes());
    let bytes = bytes.get(..MAX_LINK_BYTES).unwrap_or(bytes);
    (!bytes.is_empty()).then(|| bytes.to_vec())
}
