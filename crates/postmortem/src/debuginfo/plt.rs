//! Entries of the procedure linkage table: the few instructions through which a module calls another's function.
//!
//! ```text
//! .plt, .plt.sec, .plt.got:   entry ──jmp *slot(%rip)──> slot of the GOT ──relocation──> dynamic symbol "free"
//! ```
//!
//! No symbol names an entry, so it is read: the slot that its jump loads from, and the relocation that fills that slot. That
//! holds for every linker's layout, where counting entries does not. Where a library replaces `malloc`, these are the frames
//! at which a crash is seen that came through them.
//!
//! Read from: the x86-64 and the AArch64 psABI; binutils' bfd/elfxx-x86.c for the layouts.

use std::collections::HashMap;

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};

use super::FileBytes;
use super::image::ElfImage;

/// Entries are this long, in the layouts of all linkers in use.
const ENTRY_BYTES: u64 = 16;
/// GNU's `.plt.got` without CET has entries of half the length.
const SHORT_ENTRY_BYTES: u64 = 8;
/// Entries read per section.
const MAX_ENTRIES: usize = 1 << 20;

/// The named entries of one module: the link address of each and the function's stored name.
#[derive(Default)]
pub(super) struct Plt {
    /// Sorted by start.
    entries: Vec<Entry>,
}

struct Entry {
    start: u64,
    bytes: u64,
    name: String,
}

impl Plt {
    /// Reads all tables of a module's image; what is damaged is left out.
    pub fn read(file: &FileBytes) -> Self {
        let Ok(image) = ElfImage::parse(file.bytes()) else {
            return Self::default();
        };
        let Some(names) = slots(&image) else {
            return Self::default();
        };
        let mut entries = Vec::new();
        for section in [".plt", ".plt.sec", ".plt.got"] {
            read_table(&image, section, &names, &mut entries);
        }
        entries.sort_by_key(|entry| entry.start);
        Self { entries }
    }

    /// The entry at a link address: its start and the name of the function it leads to.
    pub fn at(&self, at: u64) -> Option<(u64, &str)> {
        let after = self.entries.partition_point(|entry| entry.start <= at);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (at.checked_sub(entry.start)? < entry.bytes).then_some((entry.start, entry.name.as_str()))
    }
}

/// Slots of the GOT by link address, with the symbol that the dynamic linker puts there.
fn slots(image: &ElfImage<'_>) -> Option<HashMap<u64, String>> {
    let sections = image.sections();
    let data = image.data();
    let symbols = sections.symbols(LittleEndian, data, elf::SHT_DYNSYM).ok()?;
    let mut slots = HashMap::new();
    for section in sections.iter() {
        let Ok(Some((relocations, _))) = section.rela(LittleEndian, data) else {
            continue;
        };
        let kind = section.sh_type(LittleEndian);
        if kind != elf::SHT_RELA {
            continue;
        }
        for relocation in relocations {
            let Some(index) = relocation.symbol(LittleEndian, false) else {
                continue;
            };
            let name = symbols
                .symbol(index)
                .ok()
                .and_then(|symbol| symbol.name(LittleEndian, symbols.strings()).ok())
                .and_then(|name| std::str::from_utf8(name).ok())
                .filter(|name| !name.is_empty());
            if let Some(name) = name {
                slots.insert(relocation.r_offset(LittleEndian), name.to_owned());
            }
        }
    }
    Some(slots)
}

fn read_table(
    image: &ElfImage<'_>,
    name: &str,
    slots: &HashMap<u64, String>,
    entries: &mut Vec<Entry>,
) -> Option<()> {
    let sections = image.sections();
    let (_, section) = sections.section_by_name(LittleEndian, name.as_bytes())?;
    let code = section.data(LittleEndian, image.data()).ok()?;
    let start = section.sh_addr(LittleEndian);
    let bytes = match section.sh_entsize(LittleEndian) {
        SHORT_ENTRY_BYTES => SHORT_ENTRY_BYTES,
        _ => ENTRY_BYTES,
    };
    let slot = match image.header().e_machine(LittleEndian) {
        elf::EM_AARCH64 => aarch64_slot,
        _ => x86_64_slot,
    };
    let chunks = code.chunks_exact(usize::try_from(bytes).ok()?);
    for (at, entry) in (0u64..).zip(chunks.take(MAX_ENTRIES)) {
        let address = start.checked_add(at.checked_mul(bytes)?)?;
        if let Some(name) = slot(address, entry).and_then(|slot| slots.get(&slot)) {
            entries.push(Entry {
                start: address,
                bytes,
                name: name.clone(),
            });
        }
    }
    Some(())
}

/// `jmp *disp32(%rip)`, perhaps after `endbr64` and with a `bnd` prefix.
fn x86_64_slot(address: u64, entry: &[u8]) -> Option<u64> {
    let at = entry.windows(2).position(|pair| pair == [0xff, 0x25])?;
    let distance = entry.get(at.checked_add(2)?..)?.first_chunk::<4>()?;
    let next = address.checked_add(u64::try_from(at.checked_add(6)?).ok()?)?;
    next.checked_add_signed(i32::from_le_bytes(*distance).into())
}

/// `adrp x16, page; ldr x17, [x16, #offset]`, perhaps after `bti c`.
fn aarch64_slot(address: u64, entry: &[u8]) -> Option<u64> {
    let words: Vec<u32> = entry
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect();
    let (at, adrp) = words
        .iter()
        .enumerate()
        .find(|(_, word)| *word & 0x9f00_001f == 0x9000_0010)?;
    let load = words.get(at.checked_add(1)?..)?.iter();
    let load = load
        .copied()
        .find(|word| word & 0xffc0_03ff == 0xf940_0211)?;
    // immhi (19 bits) and immlo (2 bits), in pages, signed.
    let pages = (adrp >> 5 & 0x7_ffff) << 2 | adrp >> 29 & 3;
    let pages = i64::from((pages << 11).cast_signed() >> 11);
    let here = address.checked_add(u64::try_from(at.checked_mul(4)?).ok()?)? & !0xfff;
    let page = here.checked_add_signed(pages.checked_mul(4096)?)?;
    page.checked_add(u64::from(load >> 10 & 0xfff) * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_an_entry_is_read_from_its_jump() {
        // objdump of programs linked by GNU ld: "jmp *0x2fe2(%rip)" at 0x1030, with and without endbr64 and bnd.
        let plain = [0xff, 0x25, 0xe2, 0x2f, 0, 0, 0x68, 0, 0, 0, 0, 0xe9];
        assert_eq!(x86_64_slot(0x1030, &plain), Some(0x4018));
        let cet = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xdd, 0x2f, 0, 0];
        assert_eq!(x86_64_slot(0x1030, &cet), Some(0x4018));
        assert_eq!(x86_64_slot(0x1030, &[0x90; 16]), None);
        // adrp x16, 0x11000; ldr x17, [x16, #24]; add x16, x16, #24; br x17, at 0x650
        let words: [u32; 4] = [0x9000_0090, 0xf940_0e11, 0x9100_6210, 0xd61f_0220];
        let entry: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(aarch64_slot(0x650, &entry), Some(0x1_0018));
    }
}
