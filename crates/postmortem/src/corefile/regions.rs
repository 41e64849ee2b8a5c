//! The mappings of the dead process: what `PT_LOAD` and `NT_FILE` tell together.
//!
//! The kernel writes one `PT_LOAD` per mapping, dumped or not (fs/coredump.c, `vma_dump_size`): whole if the mapping was
//! ever written (or is anonymous and touched), its first page if that is an ELF header, else nothing:
//!
//! ```text
//! p_filesz == p_memsz   written, or anonymous and touched; or the filter asked for it
//! p_filesz == one page  ELF header of a file mapping that was never written
//! p_filesz == 0         a file mapping that was never written; anonymous memory that was never touched;
//!                       MADV_DONTDUMP; devices; what coredump_filter leaves out
//! ```
//!
//! gdb's gcore follows the same filter, but writes no `PT_LOAD` at all for what it leaves out: those mappings are known
//! from `NT_FILE` alone, and their permissions are not.

use std::ops::Range;

use ground::target::{Address, Region, RegionKind};

use super::headers::Segment;
use super::process::MappedFile;

const EXECUTE: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 4;

/// A region, and where its bytes begin in the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlacedRegion {
    pub region: Region,
    /// Offset in bytes in the core of the region's first byte; meaningful up to `dumped_bytes`.
    pub offset: u64,
    /// Whether a program header tells the permissions.
    pub has_permissions: bool,
}

/// Memory that is anonymous although the kernel names a file for it: shared anonymous memory (`/dev/zero (deleted)`),
/// System V segments, memory files, huge pages.
fn is_anonymous_file(path: &str) -> bool {
    let prefixes = ["/dev/zero", "/SYSV", "/memfd:", "/anon_hugepage", "/[aio]"];
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

/// Mappings, sorted and without overlap, from segments and files that are so.
///
/// `file_bytes` is the length of the core, `vdso` the address of the kernel's library (`AT_SYSINFO_EHDR`).
pub(super) fn build(
    segments: &[Segment],
    files: &[MappedFile],
    file_bytes: u64,
    vdso: Option<Address>,
) -> Vec<PlacedRegion> {
    let mut placed = Vec::new();
    for segment in segments {
        place(segment, files, file_bytes, &mut placed);
    }
    add_gaps(files, &mut placed);
    mark_kernel(&mut placed, vdso);
    placed
}

/// The first of `files` that ends after `at`.
fn files_from(files: &[MappedFile], at: u64) -> &[MappedFile] {
    let first = files.partition_point(|file| file.end.get() <= at);
    files.get(first..).unwrap_or(&[])
}

/// Cuts a segment where a file mapping begins or ends. In the kernel's cores they coincide.
fn place(segment: &Segment, files: &[MappedFile], file_bytes: u64, placed: &mut Vec<PlacedRegion>) {
    let end = segment.start.saturating_add(segment.memory_bytes);
    let present = file_bytes
        .saturating_sub(segment.offset)
        .min(segment.file_bytes);
    let mut at = segment.start;
    let mut files = files_from(files, at).iter().peekable();
    while at < end {
        while files.next_if(|file| file.end.get() <= at).is_some() {}
        let (until, kind) = match files.peek() {
            Some(file) if file.start.get() <= at => {
                let kind = match is_anonymous_file(&file.path) {
                    true => RegionKind::Anonymous,
                    false => RegionKind::File,
                };
                (file.end.get().min(end), kind)
            }
            Some(file) => (file.start.get().min(end), RegionKind::Anonymous),
            None => (end, RegionKind::Anonymous),
        };
        let skipped = at.saturating_sub(segment.start);
        let bytes = until.saturating_sub(at);
        placed.push(PlacedRegion {
            region: Region {
                range: Address::new(at)..Address::new(until),
                readable: segment.flags & READ != 0,
                writable: segment.flags & WRITE != 0,
                executable: segment.flags & EXECUTE != 0,
                kind,
                dumped_bytes: segment.file_bytes.saturating_sub(skipped).min(bytes),
                present_bytes: present.saturating_sub(skipped).min(bytes),
            },
            offset: segment.offset.saturating_add(skipped),
            has_permissions: true,
        });
        at = until;
    }
}

/// Adds the parts of file mappings that no segment covers.
fn add_gaps(files: &[MappedFile], placed: &mut Vec<PlacedRegion>) {
    let mut gaps = Vec::new();
    for file in files {
        let mut at = file.start;
        let first = placed.partition_point(|known| known.region.range.end <= at);
        let known = placed.get(first..).unwrap_or(&[]).iter();
        let known = known.map(|known| known.region.range.clone());
        let known = known.take_while(|known| known.start < file.end);
        let stops = known.chain(std::iter::once(file.end..file.end));
        for stop in stops {
            if at < stop.start {
                gaps.push(gap(at..stop.start, &file.path));
            }
            at = at.max(stop.end);
        }
    }
    placed.append(&mut gaps);
    placed.sort_by_key(|placed| placed.region.range.start);
}

fn gap(range: Range<Address>, path: &str) -> PlacedRegion {
    PlacedRegion {
        region: Region {
            range,
            readable: true,
            writable: false,
            executable: false,
            kind: match is_anonymous_file(path) {
                true => RegionKind::Anonymous,
                false => RegionKind::File,
            },
            dumped_bytes: 0,
            present_bytes: 0,
        },
        offset: 0,
        has_permissions: false,
    }
}

/// The kernel's own pages: the vDSO, the data pages in front of it (dumped by some kernels), and addresses of the upper half
/// (vsyscall).
fn mark_kernel(placed: &mut [PlacedRegion], vdso: Option<Address>) {
    let upper_half = Address::new(1 << 63);
    for placed in placed.iter_mut().rev() {
        if placed.region.range.start < upper_half {
            break;
        }
        placed.region.kind = RegionKind::Kernel;
    }
    let Some(vdso) = vdso.filter(|vdso| !vdso.is_null()) else {
        return;
    };
    let after = placed.partition_point(|placed| placed.region.range.start <= vdso);
    let Some((last, before)) = placed
        .get_mut(..after)
        .and_then(|placed| placed.split_last_mut())
        .filter(|(last, _)| vdso < last.region.range.end)
    else {
        return;
    };
    if last.region.kind == RegionKind::File {
        return;
    }
    last.region.kind = RegionKind::Kernel;
    let mut next = last.region.range.start;
    for placed in before.iter_mut().rev() {
        let region = &mut placed.region;
        let is_data = region.range.end == next
            && region.kind == RegionKind::Anonymous
            && region.readable
            && !region.writable;
        if !is_data {
            break;
        }
        region.kind = RegionKind::Kernel;
        next = region.range.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, memory_bytes: u64, offset: u64, file_bytes: u64) -> Segment {
        Segment {
            start,
            memory_bytes,
            offset,
            file_bytes,
            flags: READ | WRITE,
        }
    }

    fn file(start: u64, end: u64, path: &str) -> MappedFile {
        MappedFile {
            start: Address::new(start),
            end: Address::new(end),
            file_offset: 0,
            path: path.to_owned(),
        }
    }

    fn summary(placed: &[PlacedRegion]) -> Vec<(u64, u64, RegionKind, u64, u64)> {
        let row = |placed: &PlacedRegion| {
            let region = &placed.region;
            let (start, end) = (region.range.start.get(), region.range.end.get());
            let (dumped, present) = (region.dumped_bytes, region.present_bytes);
            (start, end, region.kind, dumped, present)
        };
        placed.iter().map(row).collect()
    }

    #[test]
    fn a_segment_is_cut_where_a_file_begins_and_ends() {
        let segments = [segment(0x1000, 0x4000, 0x500, 0x3800)];
        let files = [file(0x2000, 0x3000, "/a")];
        assert_eq!(
            summary(&build(&segments, &files, 0x500 + 0x2800, None)),
            [
                (0x1000, 0x2000, RegionKind::Anonymous, 0x1000, 0x1000),
                (0x2000, 0x3000, RegionKind::File, 0x1000, 0x1000),
                (0x3000, 0x5000, RegionKind::Anonymous, 0x1800, 0x800),
            ]
        );
    }

    #[test]
    fn a_file_mapping_without_a_segment_is_a_region_that_was_not_dumped() {
        let segments = [segment(0x2000, 0x1000, 0, 0x1000)];
        let files = [file(0x1000, 0x5000, "/a"), file(0x8000, 0x9000, "/b")];
        assert_eq!(
            summary(&build(&segments, &files, 0x1000, None)),
            [
                (0x1000, 0x2000, RegionKind::File, 0, 0),
                (0x2000, 0x3000, RegionKind::File, 0x1000, 0x1000),
                (0x3000, 0x5000, RegionKind::File, 0, 0),
                (0x8000, 0x9000, RegionKind::File, 0, 0),
            ]
        );
    }

    #[test]
    fn shared_anonymous_memory_is_anonymous_whatever_the_kernel_calls_it() {
        let files = [file(0x1000, 0x2000, "/dev/zero (deleted)")];
        let built = build(&[segment(0x1000, 0x1000, 0, 0x1000)], &files, 0x1000, None);
        assert_eq!(built[0].region.kind, RegionKind::Anonymous);
    }

    #[test]
    fn the_kernels_pages_are_told_by_the_vdso() {
        let mut segments = [
            segment(0x1000, 0x1000, 0, 0x1000),
            segment(0x2000, 0x1000, 0, 0),
            segment(0x3000, 0x1000, 0x1000, 0x1000),
            segment(0xffff_ffff_ff60_0000, 0x1000, 0x2000, 0x1000),
        ];
        segments[1].flags = READ;
        let built = build(&segments, &[], 0x3000, Some(Address::new(0x3000)));
        let kinds: Vec<_> = built.iter().map(|placed| placed.region.kind).collect();
        let (anonymous, kernel) = (RegionKind::Anonymous, RegionKind::Kernel);
        assert_eq!(kinds, [anonymous, kernel, kernel, kernel]);
    }
}
