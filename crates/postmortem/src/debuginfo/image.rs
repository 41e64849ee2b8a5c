//! An ELF file's sections, as far as debug information needs them.
//!
//! A file is mapped by `modules`; this reads its section headers and lends section bytes, inflated
//! where they are compressed (`SHF_COMPRESSED` with zlib or zstd, and the older `.zdebug_*`).
//! Section bytes are remembered without borrowing ([`SectionBytes`]), because what is cached lives
//! beside the mapped file, not inside its lifetime.
//!
//! Not for: program headers at run time (`modules` knows the bias), relocatable files, big-endian
//! or 32-bit files.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::CompressedData;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};

/// No section is inflated beyond this many bytes: the largest `.debug_info` of known programs
/// (browsers) are near 3 GB.
const MAX_INFLATED_BYTES: u64 = 4 << 30;
/// Up to this size a section may inflate by any factor that zlib can reach (1,032); zstd could go further, but debug
/// information never does.
const FREELY_INFLATED_BYTES: u64 = 64 << 20;
const MAX_SMALL_FACTOR: u64 = 1100;
/// Beyond that by this factor: debug information shrinks to a third or a fifth, its strings to a thirtieth at best.
const MAX_LARGE_FACTOR: u64 = 64;

/// Bytes that all sections of a run may inflate to, whatever they come from.
const FREELY_INFLATED_IN_ALL: u64 = 256 << 20;
/// Beyond that all of them together by this factor, and never beyond [`MAX_INFLATED_BYTES`].
const MAX_FACTOR_IN_ALL: u64 = 8;

/// What was inflated in this run: many small files could do what one large one may not.
static INFLATED: Inflated = Inflated {
    from: AtomicU64::new(0),
    to: AtomicU64::new(0),
};

struct Inflated {
    from: AtomicU64,
    to: AtomicU64,
}

impl Inflated {
    /// Whether a section of `from` bytes may inflate to `to`, beside all others; counts it.
    fn permits(&self, from: u64, to: u64) -> bool {
        let all_from = self
            .from
            .fetch_add(from, Ordering::Relaxed)
            .saturating_add(from);
        let all_to = self.to.fetch_add(to, Ordering::Relaxed).saturating_add(to);
        let limit = all_from
            .saturating_mul(MAX_FACTOR_IN_ALL)
            .clamp(FREELY_INFLATED_IN_ALL, MAX_INFLATED_BYTES);
        let permitted = all_to <= limit;
        if !permitted {
            self.to.fetch_sub(to, Ordering::Relaxed);
        }
        permitted
    }
}

/// Why a file or one of its sections cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF file of the supported class and byte order, or its section headers are damaged.
    #[error("the ELF headers cannot be read: {0}")]
    Headers(String),
    /// A section's bytes lie outside the file.
    #[error("section {0} lies outside the file")]
    OutsideFile(String),
    /// The section says it inflates to an absurd size.
    #[error("section {name} claims to inflate from {from} to {to} bytes")]
    Bomb {
        /// Section name.
        name: String,
        /// Bytes in the file.
        from: u64,
        /// Bytes it claims to become.
        to: u64,
    },
    /// The compressed bytes are damaged.
    #[error("section {name} cannot be decompressed: {why}")]
    Inflate {
        /// Section name.
        name: String,
        /// The decompressor's reason.
        why: String,
    },
}

/// The bytes of one section, without a lifetime: a range of the file, or inflated.
#[derive(Clone, Debug, Default)]
pub enum SectionBytes {
    /// The file has no such section, or it occupies no bytes (`SHT_NOBITS`).
    #[default]
    Absent,
    /// These bytes of the file; checked to lie inside it.
    File(Range<usize>),
    /// Decompressed bytes.
    Inflated(Vec<u8>),
}

impl SectionBytes {
    /// The bytes; `file` must be the file that the section was loaded from. Empty when absent.
    pub fn bytes<'a>(&'a self, file: &'a [u8]) -> &'a [u8] {
        match self {
            SectionBytes::Absent => &[],
            SectionBytes::File(range) => file.get(range.clone()).unwrap_or(&[]),
            SectionBytes::Inflated(bytes) => bytes,
        }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        match self {
            SectionBytes::Absent => true,
            SectionBytes::File(range) => range.is_empty(),
            SectionBytes::Inflated(bytes) => bytes.is_empty(),
        }
    }
}

type Header = FileHeader64<LittleEndian>;

/// An ELF64 little-endian file. Cheap to open: nothing is copied.
pub struct ElfImage<'d> {
    data: &'d [u8],
    header: &'d Header,
    sections: SectionTable<'d, Header>,
}

impl<'d> ElfImage<'d> {
    /// Reads the headers.
    ///
    /// # Errors
    /// If it is no such file, or its section headers lie outside it.
    pub fn parse(data: &'d [u8]) -> Result<Self, ImageError> {
        let headers = |error: object::Error| ImageError::Headers(error.to_string());
        let header = Header::parse(data).map_err(headers)?;
        header.endian().map_err(headers)?;
        let sections = header.sections(LittleEndian, data).map_err(headers)?;
        Ok(Self {
            data,
            header,
            sections,
        })
    }

    /// The ELF header.
    pub fn header(&self) -> &'d FileHeader64<LittleEndian> {
        self.header
    }

    /// The whole file.
    pub fn data(&self) -> &'d [u8] {
        self.data
    }

    /// The section table, for readers of symbol tables.
    pub(super) fn sections(&self) -> &SectionTable<'d, Header> {
        &self.sections
    }

    /// Link addresses of the `PT_LOAD` segments, in file order, at most 65,535.
    pub fn load_ranges(&self) -> Vec<Range<u64>> {
        let Ok(headers) = self.header.program_headers(LittleEndian, self.data) else {
            return Vec::new();
        };
        headers
            .iter()
            .filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD)
            .map(|segment| {
                let start = segment.p_vaddr(LittleEndian);
                start..start.saturating_add(segment.p_memsz(LittleEndian))
            })
            .take(65_535)
            .collect()
    }

    /// Link address and size of the section `name`, if it is one that is loaded.
    pub fn section_range(&self, name: &str) -> Option<Range<u64>> {
        let (_, section) = self
            .sections
            .section_by_name(LittleEndian, name.as_bytes())?;
        let start = section.sh_addr(LittleEndian);
        (start != 0).then(|| start..start.saturating_add(section.sh_size(LittleEndian)))
    }

    /// The name of the loaded section that holds the link address `at`. Sections of thread-local variables lie in a template only.
    pub fn section_at(&self, at: u64) -> Option<String> {
        let mut sections = self.sections.iter();
        let found = sections.find(|section| {
            let start = section.sh_addr(LittleEndian);
            let flags = section.sh_flags(LittleEndian).0;
            let is_loaded = flags & elf::SHF_ALLOC.0 != 0;
            let is_bare = flags & elf::SHF_TLS.0 != 0;
            let offset = at.checked_sub(start);
            is_loaded
                && !is_bare
                && offset.is_some_and(|offset| offset < section.sh_size(LittleEndian))
        })?;
        let name = self.sections.section_name(LittleEndian, found).ok()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Whether the file has the section with bytes of its own, compressed or not.
    pub fn has_section(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|section| section.sh_type(LittleEndian) != elf::SHT_NOBITS)
    }

    /// Bytes of the section in the file; `None` if there is none with bytes of its own.
    pub fn section_bytes(&self, name: &str) -> Option<u64> {
        let section = self.find(name)?;
        let has_bytes = section.sh_type(LittleEndian) != elf::SHT_NOBITS;
        has_bytes.then(|| section.sh_size(LittleEndian))
    }

    fn find(&self, name: &str) -> Option<&'d elf::SectionHeader64<LittleEndian>> {
        let by_name = |name: &str| {
            self.sections
                .section_by_name(LittleEndian, name.as_bytes())
                .map(|(_, section)| section)
        };
        by_name(name).or_else(|| by_name(&format!(".z{}", name.strip_prefix('.')?)))
    }

    /// The bytes of the section `name`, inflated if need be; `Absent` if there is none.
    /// For `.debug_*` the old compressed spelling `.zdebug_*` is tried too.
    ///
    /// # Errors
    /// If the section lies outside the file or does not decompress to the size it claims.
    pub fn section(&self, name: &str) -> Result<SectionBytes, ImageError> {
        let Some(section) = self.find(name) else {
            return Ok(SectionBytes::Absent);
        };
        let Some((offset, size)) = section.file_range(LittleEndian) else {
            return Ok(SectionBytes::Absent);
        };
        let outside = || ImageError::OutsideFile(name.to_owned());
        let range = file_range(offset, size).ok_or_else(outside)?;
        let bytes = self.data.get(range.clone()).ok_or_else(outside)?;

        if let Some(compressed) = self.compressed(section, bytes) {
            return inflate(name, compressed);
        }
        Ok(SectionBytes::File(range))
    }

    fn compressed(
        &self,
        section: &'d elf::SectionHeader64<LittleEndian>,
        bytes: &'d [u8],
    ) -> Option<CompressedData<'d>> {
        if let Ok(Some((header, offset, size))) = section.compression(LittleEndian, self.data) {
            use object::read::elf::CompressionHeader;
            let format = match header.ch_type(LittleEndian) {
                elf::ELFCOMPRESS_ZLIB => object::CompressionFormat::Zlib,
                elf::ELFCOMPRESS_ZSTD => object::CompressionFormat::Zstandard,
                _ => object::CompressionFormat::Unknown,
            };
            return Some(CompressedData {
                format,
                data: self.data.get(file_range(offset, size)?)?,
                uncompressed_size: header.ch_size(LittleEndian),
            });
        }
        // ".zdebug_*": "ZLIB", then the size as eight big-endian bytes.
        let name = self.sections.section_name(LittleEndian, section).ok()?;
        if !name.starts_with(b".z") {
            return None;
        }
        let (magic, rest) = bytes.split_at_checked(4)?;
        let (size, data) = rest.split_first_chunk::<8>()?;
        (magic == b"ZLIB").then(|| CompressedData {
            format: object::CompressionFormat::Zlib,
            data,
            uncompressed_size: u64::from_be_bytes(*size),
        })
    }
}

fn file_range(offset: u64, size: u64) -> Option<Range<usize>> {
    let end = offset.checked_add(size)?;
    Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

fn inflate(name: &str, compressed: CompressedData<'_>) -> Result<SectionBytes, ImageError> {
    let from = compressed.data.len() as u64;
    let to = compressed.uncompressed_size;
    let small = from
        .saturating_mul(MAX_SMALL_FACTOR)
        .min(FREELY_INFLATED_BYTES);
    let limit = from
        .saturating_mul(MAX_LARGE_FACTOR)
        .max(small)
        .min(MAX_INFLATED_BYTES);
    if to > limit || !INFLATED.permits(from, to) {
        return Err(ImageError::Bomb {
            name: name.to_owned(),
            from,
            to,
        });
    }
    let bytes = compressed
        .decompress()
        .map_err(|error| ImageError::Inflate {
            name: name.to_owned(),
            why: error.to_string(),
        })?;
    Ok(SectionBytes::Inflated(bytes.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(format: object::CompressionFormat, bytes: &[u8], size: u64) -> ImageError {
        let compressed = CompressedData {
            format,
            data: bytes,
            uncompressed_size: size,
        };
        inflate(".debug_info", compressed).unwrap_err()
    }

    #[test]
    fn all_sections_of_a_run_have_one_bound() {
        let run = Inflated {
            from: AtomicU64::new(0),
            to: AtomicU64::new(0),
        };
        for _ in 0..4 {
            assert!(run.permits(60 << 10, 64 << 20));
        }
        assert!(!run.permits(60 << 10, 64 << 20));
        assert!(
            run.permits(100 << 20, 500 << 20),
            "as debug information does"
        );
    }

    #[test]
    fn a_section_that_claims_too_much_is_refused_before_memory_is_taken() {
        let zstd = object::CompressionFormat::Zstandard;
        for (from, to) in [(10, 20_000), (10 << 20, 1 << 30), (100, u64::MAX)] {
            let error = claims(zstd, &vec![0; from], to);
            assert!(matches!(error, ImageError::Bomb { .. }), "{error}");
        }
        let error = claims(zstd, &[1, 2, 3], 10);
        assert!(matches!(error, ImageError::Inflate { .. }), "{error}");
        assert!(error.to_string().contains(".debug_info"));
    }
}
