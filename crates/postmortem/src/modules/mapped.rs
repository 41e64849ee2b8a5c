//! Segments of a module whose program headers are nowhere: the mappings of its file, and the variables behind them that are in no
//! file.

use std::ops::Range;

use ground::target::{Address, ModuleSegment, Region, RegionKind, TargetMemory};

use crate::corefile::{AddressSpace, MappedFile};

/// Bytes of variables behind the file's last mapping, at most: the kernel makes one mapping of them and of what follows.
const MAX_BSS: u64 = 4 << 20;

/// The segments, as far as the mappings between `range`'s ends tell.
pub(super) fn segments(
    path: &str,
    range: &Range<u64>,
    files: &[MappedFile],
    memory: &AddressSpace,
) -> Vec<ModuleSegment> {
    let regions = memory.regions();
    let first = regions.partition_point(|region| region.range.end.get() <= range.start);
    let regions = regions.get(first..).unwrap_or_default();
    let is_its = |region: &&Region| {
        let at = files.partition_point(|file| file.end <= region.range.start);
        let file = files
            .get(at)
            .filter(|file| file.start <= region.range.start);
        !path.is_empty() && file.is_some_and(|file| file.path.starts_with(path))
    };
    let mut segments: Vec<ModuleSegment> = regions
        .iter()
        .take_while(|region| region.range.start.get() < range.end)
        .filter(is_its)
        .map(|region| ModuleSegment {
            range: region.range.clone(),
            writable: region.writable,
            executable: region.executable,
        })
        .collect();
    let behind = regions.iter().find(|region| {
        let mut own = segments.iter();
        region.kind == RegionKind::Anonymous
            && region.writable
            && own.any(|segment| segment.writable && segment.range.end == region.range.start)
    });
    if let Some(region) = behind {
        let start = region.range.start;
        let end: Address = region.range.end.min(start.saturating_add(MAX_BSS));
        segments.push(ModuleSegment {
            range: start..end,
            writable: true,
            executable: false,
        });
    }
    segments.sort_by_key(|segment| segment.range.start);
    segments
}
