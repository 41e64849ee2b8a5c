//! Where a module's call-frame information is found: its file, its debug file, or the core's own memory.

use std::sync::Arc;

use gimli::{BaseAddresses, Vendor};
use ground::target::{Address, InstructionSet, Module, TargetMemory};

use super::tables::{Kind, Source, Tables, vendor_of};
use crate::debuginfo::FileBytes;
use crate::debuginfo::image::SectionBytes;
use crate::modules::ProgramHeader;

/// `PT_LOAD`.
const LOAD: u32 = 1;
/// `PT_GNU_EH_FRAME`: where `.eh_frame_hdr` is.
const GNU_EH_FRAME: u32 = 0x6474_e550;
/// Most bytes of `.eh_frame` copied out of the core.
const MAX_COPIED_BYTES: u64 = 256 << 20;
/// The header and table of `.eh_frame_hdr` copied out of the core.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// The call-frame information of a module from its files, else from memory.
pub(super) fn tables(
    memory: &dyn TargetMemory,
    module: &Module,
    headers: &[ProgramHeader],
    image: Option<&FileBytes>,
    debug: Option<&FileBytes>,
    instructions: InstructionSet,
) -> Tables {
    let vendor = vendor_of(instructions);
    let eh_frame = image
        .and_then(|image| Source::eh_frame(image, vendor))
        .or_else(|| from_memory(memory, module, headers, vendor));
    let debug_frames = [image, debug].into_iter().flatten();
    Tables::new(
        eh_frame
            .into_iter()
            .chain(debug_frames.filter_map(|file| Source::debug_frame(file, vendor)))
            .collect(),
    )
}

/// `.eh_frame` by the program headers: its header says where it starts, its segment where it must end.
fn from_memory(
    memory: &dyn TargetMemory,
    module: &Module,
    headers: &[ProgramHeader],
    vendor: Vendor,
) -> Option<Source> {
    let header = headers.iter().find(|header| header.kind == GNU_EH_FRAME)?;
    let at_run_time = |link: u64| Address::new(link.wrapping_add(module.bias));
    let table = copy(
        memory,
        at_run_time(header.address),
        header.memory_bytes.min(MAX_HEADER_BYTES),
    );
    // Only the usual encoding of the pointer: relative to itself, four bytes.
    let &[1, 0x1b, _, _, a, b, c, d] = table.first_chunk::<8>()? else {
        return None;
    };
    let start = header
        .address
        .checked_add(4)?
        .checked_add_signed(i32::from_le_bytes([a, b, c, d]).into())?;
    let segment = headers.iter().find(|segment| {
        let offset = start.checked_sub(segment.address);
        segment.kind == LOAD && offset.is_some_and(|offset| offset < segment.memory_bytes)
    })?;
    let rest = segment
        .address
        .checked_add(segment.memory_bytes)?
        .checked_sub(start)?;
    let frames = copy(memory, at_run_time(start), rest.min(MAX_COPIED_BYTES));
    if frames.is_empty() {
        return None;
    }
    let (table_at, frames_at) = (
        0..table.len(),
        table.len()..table.len().checked_add(frames.len())?,
    );
    let bytes: Arc<[u8]> = [table, frames].concat().into();
    Some(Source {
        file: FileBytes::Memory(bytes),
        frames: SectionBytes::File(frames_at),
        kind: Kind::EhFrame(Some((SectionBytes::File(table_at), header.address))),
        bases: BaseAddresses::default().set_eh_frame(start),
        address: start,
        vendor,
    })
}

/// Up to `wanted` bytes at `at`; fewer where the memory ends.
fn copy(memory: &dyn TargetMemory, at: Address, wanted: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(rest) = wanted
        .checked_sub(out.len() as u64)
        .filter(|&rest| rest > 0)
    {
        let Some(here) = at.checked_add(out.len() as u64) else {
            break;
        };
        let Ok(window) = memory.window(here) else {
            break;
        };
        let count = usize::try_from(rest).unwrap_or(usize::MAX);
        let bytes = window.bytes.get(..count).unwrap_or(window.bytes);
        if bytes.is_empty() {
            break;
        }
        out.extend_from_slice(bytes);
    }
    out
}
