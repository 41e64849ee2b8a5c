//! What a module's file holds of the process's memory.

use ground::target::Address;
use object::elf::PT_GNU_RELRO;

use super::image::Head;
use crate::corefile::{Backing, FileView, MappedFile};

/// The pages of a module as they were mapped: segment by segment, each whole pages, each where `NT_FILE` (if the core has
/// one) says that a file is still mapped there. A program may have put something else in their place since, as those do that
/// move their code to huge pages.
pub(super) fn of_module(
    head: &Head,
    bias: u64,
    file: &FileView,
    files: &[MappedFile],
    page_bytes: u64,
) -> Vec<Backing> {
    let mut backing = Vec::new();
    let page_mask = !page_bytes.wrapping_sub(1);
    // The dynamic linker writes here before it takes the right to write away.
    let relro = head.find(PT_GNU_RELRO).map(|header| {
        let start = header.address.wrapping_add(bias) & page_mask;
        let end = header.address.wrapping_add(bias);
        start..end.saturating_add(header.memory_bytes)
    });
    for load in head.loads().filter(|load| load.file_bytes > 0) {
        let first = load.address.wrapping_add(bias);
        let start = first & page_mask;
        // The loader clears what is behind the file's bytes in their last page: it was written.
        let is_cleared = load.is_writable() && load.memory_bytes > load.file_bytes;
        let rounding = if is_cleared {
            0
        } else {
            page_bytes.wrapping_sub(1)
        };
        let Some(end) = first
            .checked_add(load.file_bytes)
            .and_then(|end| end.checked_add(rounding))
        else {
            continue;
        };
        let end = end & page_mask;
        let file_start = load.offset & page_mask;
        let is_relro = relro
            .as_ref()
            .is_some_and(|relro| relro.start < end && start < relro.end);
        let mut push = |from: u64, to: u64| {
            if from < to
                && let Some(file_offset) = file_start.checked_add(from.saturating_sub(start))
            {
                backing.push(Backing {
                    range: Address::new(from)..Address::new(to),
                    file: file.clone(),
                    file_offset,
                    read_only: !load.is_writable() && !is_relro,
                    executable: load.is_executable(),
                });
            }
        };
        if files.is_empty() {
            push(start, end);
            continue;
        }
        let first = files.partition_point(|file| file.end.get() <= start);
        let mapped = files.get(first..).unwrap_or(&[]).iter();
        for mapped in mapped.take_while(|mapped| mapped.start.get() < end) {
            push(mapped.start.get().max(start), mapped.end.get().min(end));
        }
    }
    backing
}
