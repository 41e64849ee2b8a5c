//! Symbol tables of one module: names to addresses and back.
//!
//! A module can have several tables: `.symtab` and `.dynsym` of the image, and `.symtab` of its
//! separate debug file. They become one column of rows at link addresses; names stay where they
//! are in the files. Two orders are built when first asked for: by hash of the name (for
//! [`SymbolIndex::find`]) and by address (for [`SymbolIndex::function_at`]).
//!
//! Cost: 48 bytes a symbol, 16 more in the order by name, 24 in the order by address.

use std::sync::OnceLock;

use ground::target::SymbolKind;
use object::elf;
use object::read::elf::{SectionHeader, Sym};
use object::{LittleEndian, SectionIndex};

use super::FileBytes;
use super::image::{ElfImage, SectionBytes};

/// Which table a name comes from, and so how far it may be trusted to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SymbolSource {
    /// The dynamic symbol table: exported names only.
    Dynsym,
    /// The full symbol table.
    Symtab,
}

/// More symbols than this in one table are not read (browsers have about 2 million).
const MAX_SYMBOLS: usize = 16 << 20;
/// Names without an end in this many bytes are not taken.
const MAX_NAME_BYTES: usize = 16 << 10;
/// Rows looked at, going down from an address, to find the function that covers it.
const MAX_LOOK_BACK: usize = 64;

/// A symbol at its link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSymbol {
    /// Link address, or the offset in the TLS block.
    pub start: u64,
    /// Bytes; 0 when not recorded.
    pub size: u64,
    /// What it names.
    pub kind: SymbolKind,
    /// The table it was found in.
    pub source: SymbolSource,
}

#[derive(Clone, Copy)]
struct Row {
    start: u64,
    size: u64,
    /// Index of the names in `tables`, and offset in it.
    table: u8,
    name: u32,
    kind: SymbolKind,
    /// End of the executable section it lies in; 0 in any other section.
    code_end: u64,
    rank: Rank,
}

/// Which of several symbols of one name, or at one address, is meant: larger is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    source: SymbolSource,
    binding: u8,
    default_version: bool,
}

struct Names {
    file: FileBytes,
    section: SectionBytes,
}

/// The symbols of one module.
#[derive(Default)]
pub struct SymbolIndex {
    tables: Vec<Names>,
    rows: Vec<Row>,
    has_symtab: bool,
    by_name: OnceLock<Vec<(u64, u32)>>,
    by_address: OnceLock<Vec<Reach>>,
    objects: OnceLock<Vec<Reach>>,
}

/// An entry of the order by address.
#[derive(Clone, Copy)]
struct Reach {
    start: u64,
    /// The furthest end of this and all earlier entries: where looking back may stop.
    furthest: u64,
    row: u32,
}

impl SymbolIndex {
    /// Reads all symbol tables of these files; what is damaged is left out.
    pub fn read(files: &[FileBytes]) -> Self {
        let mut index = Self::default();
        for file in files {
            index.add_file(file);
        }
        index
    }

    /// Adds the functions of a table that holds only some symbols: it does not count as a full one.
    #[must_use]
    pub fn with_partial(mut self, file: &FileBytes) -> Self {
        self.add_file(file);
        self.has_symtab = false;
        self.by_name = OnceLock::new();
        self.by_address = OnceLock::new();
        self
    }

    /// Whether a full symbol table was among the files.
    pub fn has_symtab(&self) -> bool {
        self.has_symtab
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn add_file(&mut self, file: &FileBytes) {
        let Ok(image) = ElfImage::parse(file.bytes()) else {
            return;
        };
        for (kind, source) in [
            (elf::SHT_SYMTAB, SymbolSource::Symtab),
            (elf::SHT_DYNSYM, SymbolSource::Dynsym),
        ] {
            self.add_table(file, &image, kind, source);
        }
    }

    fn add_table(
        &mut self,
        file: &FileBytes,
        image: &ElfImage<'_>,
        kind: elf::SectionType,
        source: SymbolSource,
    ) -> Option<()> {
        let sections = image.sections();
        let data = image.data();
        let table = sections.symbols(LittleEndian, data, kind).ok()?;
        if table.is_empty() {
            return None;
        }
        let names = sections.section(table.string_section()).ok()?;
        let (offset, size) = names.file_range(LittleEndian)?;
        let start = usize::try_from(offset).ok()?;
        let end = usize::try_from(offset.checked_add(size)?).ok()?;
        data.get(start..end)?;

        let which = u8::try_from(self.tables.len()).ok()?;
        self.tables.push(Names {
            file: file.clone(),
            section: SectionBytes::File(start..end),
        });
        self.has_symtab |= source == SymbolSource::Symtab;

        let versions = sections
            .gnu_versym(LittleEndian, data)
            .ok()
            .flatten()
            .filter(|(_, linked)| *linked == table.section())
            .map(|(versions, _)| versions)
            .unwrap_or(&[]);
        for (at, symbol) in table.iter().enumerate().take(MAX_SYMBOLS) {
            let section = table.symbol_section(LittleEndian, symbol, object::SymbolIndex(at));
            let Ok(Some(section)) = section else {
                continue; // undefined, absolute or common
            };
            let Some(kind) = kind_of(symbol) else {
                continue;
            };
            let name = symbol.st_name(LittleEndian);
            if name == 0 {
                continue;
            }
            let hidden = versions
                .get(at)
                .is_some_and(|version| version.0.get(LittleEndian).is_hidden());
            self.rows.push(Row {
                start: symbol.st_value(LittleEndian),
                size: symbol.st_size(LittleEndian),
                table: which,
                name,
                kind,
                code_end: code_end(image, section),
                rank: Rank {
                    source,
                    binding: binding_of(symbol),
                    default_version: !hidden,
                },
            });
        }
        Some(())
    }

    /// The stored name without its version, if it is text.
    fn name(&self, row: &Row) -> Option<&str> {
        self.stored_name(row)
            .map(|name| name.split('@').next().unwrap_or(name))
    }

    fn stored_name(&self, row: &Row) -> Option<&str> {
        let names = self.tables.get(usize::from(row.table))?;
        let bytes = names.section.bytes(names.file.bytes());
        let from = bytes.get(usize::try_from(row.name).ok()?..)?;
        let from = from.get(..MAX_NAME_BYTES).unwrap_or(from);
        let end = from.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(from.get(..end)?).ok()
    }

    /// The symbol called `name` (mangled, without version). Where there are several: a full table
    /// over the dynamic one, global over weak over local, a default version over an old one, the
    /// first over later ones.
    pub fn find(&self, name: &str) -> Option<LinkSymbol> {
        let order = self.by_name.get_or_init(|| self.order_by_name());
        let hash = hash(name);
        let from = order.partition_point(|entry| entry.0 < hash);
        let mut best: Option<(Rank, &Row)> = None;
        for (_, row) in order
            .get(from..)?
            .iter()
            .take_while(|entry| entry.0 == hash)
        {
            let Some(row) = self.rows.get(*row as usize) else {
                continue;
            };
            if self.name(row) != Some(name) {
                continue;
            }
            let mut rank = row.rank;
            rank.default_version &= self
                .stored_name(row)
                .is_some_and(|stored| !stored.contains('@') || stored.contains("@@"));
            if best.is_none_or(|(other, _)| rank > other) {
                best = Some((rank, row));
            }
        }
        best.map(|(_, row)| row.symbol())
    }

    fn order_by_name(&self) -> Vec<(u64, u32)> {
        let mut order: Vec<_> = (0u32..)
            .zip(&self.rows)
            .filter_map(|(at, row)| Some((hash(self.name(row)?), at)))
            .collect();
        order.sort_unstable();
        order
    }

    /// The function whose code covers the link address `at`, with its stored name. A symbol
    /// without a size reaches to the next symbol.
    pub fn function_at(&self, at: u64) -> Option<(LinkSymbol, &str)> {
        let order = self.by_address.get_or_init(|| self.order_by_address());
        let after = order.partition_point(|entry| entry.start <= at);
        let below = order.get(..after)?;
        let rows = |entry: &Reach| self.rows.get(entry.row as usize);
        // First what covers the address by its size, then the nearest label without one.
        let mut found: Option<&Row> = None;
        for entry in below.iter().rev().take(MAX_LOOK_BACK) {
            if found.is_some_and(|row| row.start != entry.start) || entry.furthest <= at {
                break;
            }
            let covering = rows(entry).filter(|row| at.saturating_sub(row.start) < row.size);
            found = match (covering, found) {
                (Some(row), Some(best)) if !self.better_name(row, best) => Some(best),
                (Some(row), _) => Some(row),
                (None, found) => found,
            };
        }
        let nearest = below.last()?.start;
        let labels = below.iter().rev().take(MAX_LOOK_BACK);
        let labels = labels
            .take_while(|entry| entry.start == nearest)
            .filter_map(rows)
            .filter(|row| row.size == 0 && at < row.code_end);
        let found = found.or_else(|| {
            labels.reduce(|best, row| match self.better_name(row, best) {
                true => row,
                false => best,
            })
        });
        let row = found?;
        Some((row.symbol(), self.name(row)?))
    }

    /// The variable, constant or virtual table that covers the link address `at`, with its stored name.
    pub fn object_at(&self, at: u64) -> Option<(LinkSymbol, &str)> {
        let order = self.objects.get_or_init(|| {
            let rows = (0u32..).zip(&self.rows);
            let objects = rows.filter(|(_, row)| row.kind == SymbolKind::Object && row.size > 0);
            let mut order: Vec<_> = objects
                .map(|(at, row)| Reach {
                    start: row.start,
                    furthest: row.start.saturating_add(row.size),
                    row: at,
                })
                .collect();
            order.sort_unstable_by_key(|entry| (entry.start, entry.row));
            order
        });
        let after = order.partition_point(|entry| entry.start <= at);
        let below = order.get(..after)?.iter().rev().take(MAX_LOOK_BACK);
        let entry = below.into_iter().find(|entry| at < entry.furthest)?;
        let row = self.rows.get(entry.row as usize)?;
        Some((row.symbol(), self.name(row)?))
    }

    /// The thread-local variable that covers this offset in the module's block: its own offset and its stored name.
    pub fn thread_local_at(&self, offset: u64) -> Option<(u64, &str)> {
        let covers = |row: &&Row| {
            let inside = offset.checked_sub(row.start);
            row.kind == SymbolKind::ThreadLocal && inside.is_some_and(|at| at < row.size)
        };
        let row = self.rows.iter().filter(covers).min_by_key(|row| row.size)?;
        Some((row.start, self.name(row)?))
    }

    /// Of two names for one function, the one a person would use: exported, with
    /// fewer underscores in front, shorter.
    fn better_name(&self, one: &Row, other: &Row) -> bool {
        let key = |row: &Row| {
            let name = self.name(row).unwrap_or("");
            let underscores = name.bytes().take_while(|&byte| byte == b'_').count();
            (
                row.size == 0,
                row.rank.binding == 0,
                underscores,
                name.len(),
            )
        };
        let (left, right) = (key(one), key(other));
        left < right || (left == right && self.name(one) < self.name(other))
    }

    fn order_by_address(&self) -> Vec<Reach> {
        let mut order: Vec<_> = (0u32..)
            .zip(&self.rows)
            .filter(|(_, row)| row.code_end > row.start && row.kind != SymbolKind::Object)
            .filter(|(_, row)| {
                // Mapping symbols of ARM assemblers ("$x", "$d") name no function.
                self.name(row).is_some_and(|name| !name.starts_with('$'))
            })
            .map(|(at, row)| Reach {
                start: row.start,
                furthest: row.start.saturating_add(row.size),
                row: at,
            })
            .collect();
        order.sort_unstable_by_key(|entry| (entry.start, entry.row));
        let mut furthest = 0;
        for entry in &mut order {
            furthest = entry.furthest.max(furthest);
            entry.furthest = furthest;
        }
        order
    }
}

impl Row {
    fn symbol(&self) -> LinkSymbol {
        LinkSymbol {
            start: self.start,
            size: self.size,
            kind: self.kind,
            source: self.rank.source,
        }
    }
}

fn kind_of(symbol: &elf::Sym64<LittleEndian>) -> Option<SymbolKind> {
    match symbol.st_type() {
        elf::STT_FUNC | elf::STT_GNU_IFUNC => Some(SymbolKind::Function),
        elf::STT_OBJECT | elf::STT_COMMON => Some(SymbolKind::Object),
        elf::STT_TLS => Some(SymbolKind::ThreadLocal),
        elf::STT_FILE | elf::STT_SECTION => None,
        _ => Some(SymbolKind::Other),
    }
}

fn binding_of(symbol: &elf::Sym64<LittleEndian>) -> u8 {
    match symbol.st_bind() {
        elf::STB_GLOBAL | elf::STB_GNU_UNIQUE => 2,
        elf::STB_WEAK => 1,
        _ => 0,
    }
}

fn code_end(image: &ElfImage<'_>, section: SectionIndex) -> u64 {
    let Ok(section) = image.sections().section(section) else {
        return 0;
    };
    if !section.sh_flags(LittleEndian).contains(elf::SHF_EXECINSTR) {
        return 0;
    }
    let start = section.sh_addr(LittleEndian);
    start.saturating_add(section.sh_size(LittleEndian))
}

fn hash(name: &str) -> u64 {
    super::names::hash(0, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::Mapping;
    use std::path::Path;
    use std::sync::Arc;

    fn own_program() -> FileBytes {
        let path = std::env::current_exe().unwrap();
        FileBytes::Mapped(Arc::new(Mapping::open(Path::new(&path)).unwrap()))
    }

    #[test]
    fn names_and_addresses_of_a_real_file_agree() {
        let index = SymbolIndex::read(&[own_program()]);
        assert!(index.has_symtab());
        let main = index.find("main").unwrap();
        assert_eq!(main.kind, SymbolKind::Function);
        assert_eq!(main.source, SymbolSource::Symtab);
        let (found, name) = index.function_at(main.start + main.size - 1).unwrap();
        assert_eq!((found.start, name), (main.start, "main"));
        assert!(index.find("no_such_symbol").is_none());
        assert!(index.function_at(0).is_none());
        assert!(index.function_at(u64::MAX).is_none());
    }

    #[test]
    fn a_damaged_file_gives_fewer_symbols_and_no_panic() {
        let file = own_program();
        let bytes = file.bytes();
        for cut in [0, 1, 63, 64, 1000, bytes.len() / 2, bytes.len() - 1] {
            let index = SymbolIndex::read(&[FileBytes::Memory(bytes[..cut].into())]);
            assert!(index.find("main").is_none() || cut > 1000);
        }
    }
}
