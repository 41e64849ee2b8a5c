//! Finding jemalloc's state: by debug information, else by symbols, else by structure.
//!
//! Nothing is believed alone: an arena and its base prove each other, the array of arenas holds each at its own index,
//! the page map's leaves lead to extents that name the leaf's own pages and existing arenas.

use std::collections::BTreeMap;

use super::arenas::{self, Arenas};
use super::extents::{Extents, MAX_ADDRESS, Row, Source};
use super::layout::{Generation, Layout};
use super::lost_roots::{self, leaves};
use super::sizes::{self, Quantum, Sizes, Table};
use super::tree::{Geometry, Tree};
use crate::allocators::LocatedPart;
use crate::allocators::Miss;
use ground::scan::{words_in, words_where};
use ground::target::{Address, Cursor, LocatedBy, MemoryExt, Module, Target, TargetMemory};

/// Where the state of one jemalloc is.
pub struct Located {
    /// Layouts of its structures.
    pub layout: Layout,
    /// Size classes.
    pub sizes: Sizes,
    /// Its arenas.
    pub arenas: Arenas,
    /// Its page map.
    pub tree: Tree,
    /// Its extents.
    pub extents: Extents,
    /// Each part with the way it was found.
    pub parts: Vec<LocatedPart>,
}

/// What its own names begin with: as configured by itself, by Rust's crate, by FreeBSD's libc.
const PREFIXES: [&str; 3] = ["je_", "_rjem_je_", ""];

struct Finder<'a, 't> {
    target: Target<'t>,
    module: &'a Module,
    parts: Vec<LocatedPart>,
}

impl Finder<'_, '_> {
    fn part(&mut self, part: &'static str, at: Address, by: LocatedBy) {
        self.parts.push(LocatedPart { part, at, by });
    }
}

/// The address of one of its variables by the best permitted way.
pub fn named(target: Target<'_>, module: &Module, name: &str) -> Option<(Address, LocatedBy)> {
    let Target {
        limit,
        symbols,
        types,
        ..
    } = target;
    let names = PREFIXES.map(|prefix| format!("{prefix}{name}"));
    if limit.permits(LocatedBy::DebugInfo)
        && let Some(variable) = names
            .iter()
            .find_map(|name| types.variable(module.id, name))
    {
        return Some((variable.address, LocatedBy::DebugInfo));
    }
    if !limit.permits(LocatedBy::Symbols) {
        return None;
    }
    let symbol = names
        .iter()
        .find_map(|name| symbols.symbol(module.id, name))?;
    Some((symbol.address, LocatedBy::Symbols))
}

/// Whether the module's file name says that it is jemalloc.
pub fn is_named(module: &Module) -> bool {
    module.name.starts_with("libjemalloc")
}

/// Finds the state in `module`.
///
/// # Errors
/// Whether it is not there at all or only not whole.
pub fn locate(target: Target<'_>, module: &Module) -> Result<Located, Miss> {
    let memory = target.memory;
    let mut finder = Finder {
        target,
        module,
        parts: Vec::new(),
    };
    // A pass over the module's variables decides whether anything else of it is looked at.
    let by_structure = sizes::find_table(memory, module);
    let may_be_pointer = |_, word: u64| word.is_multiple_of(64) && word < MAX_ADDRESS;
    let candidates: Vec<(Address, u64)> = words_where(memory, module, may_be_pointer)
        .filter(|(_, word)| arenas::may_be_arena(memory, *word))
        .collect();
    if by_structure.is_none() && candidates.is_empty() && !is_named(module) {
        return Err(Miss::NotHere);
    }
    let table = find_table(&mut finder, by_structure);
    if let Some(Table::OtherPage(_, bytes)) = table {
        return Err(Miss::Incomplete(format!(
            "it was built for pages of {bytes} bytes; only builds for 4096 are read"
        )));
    }
    let table = table.and_then(|table| match table {
        Table::Found(_, sizes) => Some(sizes),
        Table::OtherPage(..) => None,
    });
    let Some((layout, slots, by)) = find_arenas(&finder, &candidates, table.as_ref()) else {
        if table.is_none() && !is_named(module) {
            return Err(Miss::NotHere);
        }
        return Err(Miss::Incomplete(
            "no array of arenas as releases 5.0 to 5.3.1 have it was found".into(),
        ));
    };
    finder.part("arenas", slots, by);
    let sizes = match table {
        Some(sizes) => sizes,
        // Its table of bins is a constant, which cores leave out; bins have no shards yet.
        None if layout.generation < Generation::V5_2 => Sizes::usual(layout.quantum),
        None => {
            return Err(Miss::Incomplete(
                "its table of size classes was not found".into(),
            ));
        }
    };
    let arenas = Arenas::read(memory, &layout, slots);
    let (map, root, by) = find_root(&finder, &layout, &sizes, &arenas)
        .ok_or_else(|| Miss::Incomplete("its page map was not found".into()))?;
    let name = match layout.generation.is_5_3() {
        true => "arena_emap_global",
        false => "extents_rtree",
    };
    finder.part(name, map, by);
    let (tree, extents) = read_tree(memory, &layout, &sizes, &arenas, root)?;
    Ok(Located {
        layout,
        sizes,
        arenas,
        tree,
        extents,
        parts: finder.parts,
    })
}

fn find_table(finder: &mut Finder<'_, '_>, by_structure: Option<Table>) -> Option<Table> {
    let memory = finder.target.memory;
    let named = ["bin_infos", "arena_bin_info"]
        .into_iter()
        .find_map(|name| {
            let (at, by) = named(finder.target, finder.module, name)?;
            let sizes = Quantum::ALL
                .into_iter()
                .find_map(|quantum| sizes::read_table(memory, at, quantum))?;
            Some((Table::Found(at, sizes), by))
        });
    let (table, by) = named.or(by_structure.map(|table| (table, LocatedBy::Structure)))?;
    if let Table::Found(at, _) = &table {
        finder.part("bin_infos", *at, by);
    }
    Some(table)
}

/// Words that speak for an array of arenas, and words that speak against it.
type Votes = (usize, std::cmp::Reverse<u64>);

/// `arenas`, and the layout with which most of its words are arenas.
fn find_arenas(
    finder: &Finder<'_, '_>,
    candidates: &[(Address, u64)],
    table: Option<&Sizes>,
) -> Option<(Layout, Address, LocatedBy)> {
    let memory = finder.target.memory;
    let layouts: Vec<Layout> = Generation::ALL
        .into_iter()
        .flat_map(|generation| {
            Quantum::ALL
                .into_iter()
                .filter(|quantum| table.is_none_or(|table| table.quantum == *quantum))
                .map(move |quantum| Layout::built_in(generation, quantum))
        })
        .collect();
    let mut best: Option<(Votes, Layout, Address)> = None;
    for &layout in &layouts {
        // address of the array -> words that stand where it has them
        let mut votes: BTreeMap<Address, usize> = BTreeMap::new();
        for (slot, word) in candidates {
            if let Some(arena) = arenas::arena_at(memory, &layout, Address::new(*word))
                && let Some(start) = slot.checked_sub(u64::from(arena.index) * 8)
            {
                {
                    let slot = votes.entry(start).or_default();
                    *slot = slot.saturating_add(1);
                };
            }
        }
        for (start, count) in votes {
            // Other variables name arena 0, too: what follows them is something else.
            let strangers = Arenas::strangers(memory, &layout, start);
            if strangers > count as u64 {
                continue;
            }
            let votes = (count, std::cmp::Reverse(strangers));
            if best.is_none_or(|(most, ..)| votes > most) {
                best = Some((votes, layout, start));
            }
        }
    }
    let Some((_, layout, start)) = best else {
        // Any module may have words like these; only one with a table of size classes is searched.
        table?;
        let at = named(finder.target, finder.module, "arenas");
        let (layout, slots) =
            lost_roots::find_arenas(memory, finder.module, &layouts, at.map(|(at, _)| at))?;
        return Some((layout, slots, at.map_or(LocatedBy::Structure, |(_, by)| by)));
    };
    let named = named(finder.target, finder.module, "arenas").filter(|(named, _)| {
        let first = memory.read_pointer(*named).ok();
        *named == start
            || first.is_some_and(|first| arenas::arena_at(memory, &layout, first).is_some())
    });
    let (at, by) = named.unwrap_or((start, LocatedBy::Structure));
    Some((layout, at, by))
}

/// The object that holds the page map, and the address of its root.
fn find_root(
    finder: &Finder<'_, '_>,
    layout: &Layout,
    sizes: &Sizes,
    arenas: &Arenas,
) -> Option<(Address, Address, LocatedBy)> {
    let memory = finder.target.memory;
    let named = |name| {
        let (at, by) = named(finder.target, finder.module, name)?;
        Some((at, at.checked_add(layout.root)?, by))
    };
    let Some(offset) = layout.arena.map else {
        return named("extents_rtree").or_else(|| {
            let root = find_root_by_leaves(finder, layout, arenas).or_else(|| {
                lost_roots::find_root(memory, finder.module, (layout, sizes, arenas))
            })?;
            Some((root.checked_sub(layout.root)?, root, LocatedBy::Structure))
        });
    };
    let mut votes: BTreeMap<Address, usize> = BTreeMap::new();
    for arena in &arenas.rows {
        let map = memory.read_pointer(arena.at.saturating_add(offset)).ok();
        // It begins with a base, or its name was written over.
        let is_map = |map: &Address| {
            let base = memory.read_pointer(*map).unwrap_or_default();
            finder.module.range.contains(map) && arenas.rows.iter().any(|arena| arena.base == base)
        };
        if let Some(map) = map.filter(is_map) {
            {
                let slot = votes.entry(map).or_default();
                *slot = slot.saturating_add(1);
            };
        }
    }
    let told = votes.into_iter().max_by_key(|(_, count)| *count);
    let told = told.map(|(map, _)| map).or_else(|| {
        let root = find_root_by_leaves(finder, layout, arenas)?;
        root.checked_sub(layout.root)
    });
    let told =
        told.and_then(|map| Some((map, map.checked_add(layout.root)?, LocatedBy::Structure)));
    named("arena_emap_global").or(told)
}

/// Leaf elements that are looked at to tell where a root is, or which geometry is right.
const SAMPLES: usize = 256;

/// Where the root's slots must begin so that leaves map the pages that their extents name.
fn find_root_by_leaves(
    finder: &Finder<'_, '_>,
    layout: &Layout,
    arenas: &Arenas,
) -> Option<Address> {
    const MAX_NODES: usize = 4096;
    let memory = finder.target.memory;
    let mut votes: BTreeMap<Address, usize> = BTreeMap::new();
    let nodes = words_where(memory, finder.module, |_, word| word % 64 == 0).filter(|(_, word)| {
        let at = Address::new(*word);
        arenas.is_own(at) && !arenas.is_arena(at)
    });
    for (slot, word) in nodes.take(MAX_NODES) {
        for geometry in Geometry::ALL {
            // As if this slot were the root's first.
            let node = Address::new(word);
            let Some(page) = first_page_below(memory, layout, arenas, node, geometry) else {
                continue;
            };
            let below = geometry
                .level_bits()
                .saturating_mul(geometry.inner_levels().saturating_add(1));
            if let Some(root) = slot.checked_sub((page >> below).saturating_mul(8)) {
                {
                    let slot = votes.entry(root).or_default();
                    *slot = slot.saturating_add(1);
                };
            }
        }
    }
    let best = votes.into_iter().max_by_key(|(_, count)| *count);
    best.map(|(root, _)| root)
}

/// A page that an extent below a child of the root names, if the way there agrees with it.
fn first_page_below(
    memory: &dyn TargetMemory,
    layout: &Layout,
    arenas: &Arenas,
    child: Address,
    geometry: Geometry,
) -> Option<u64> {
    let bits = geometry.level_bits();
    let mut cursor = Cursor::new(memory);
    let mut leaf = child;
    let mut inner = 0;
    if geometry.inner_levels() == 1 {
        let slots = child..child.checked_add(8 << bits)?;
        let (slot, word) = words_in(memory, slots, |_, _| true).next()?;
        leaf = Some(Address::new(word)).filter(|leaf| arenas.is_own(*leaf))?;
        inner = slot.offset_from(child)? / 8;
    }
    let tree = Tree::empty(layout, geometry);
    let mut looked = 0usize;
    for (index, at) in geometry.elements(memory, leaf, 1 << bits) {
        let element = tree.element(&mut cursor, at)?;
        if element.extent.is_null() {
            continue;
        }
        looked = looked.saturating_add(1);
        if looked > SAMPLES {
            break;
        }
        let row = own_row(&mut cursor, layout, arenas, element.extent)?;
        let page = row.start().get() >> Tree::PAGE_SHIFT;
        if page & (1u64 << bits).saturating_sub(1) == index
            && (geometry.inner_levels() == 0
                || page >> bits & (1u64 << bits).saturating_sub(1) == inner)
        {
            return Some(page);
        }
    }
    None
}

fn own_row(cursor: &mut Cursor<'_>, layout: &Layout, arenas: &Arenas, at: Address) -> Option<Row> {
    (at.is_aligned(layout.extent.alignment) && arenas.is_own(at))
        .then(|| Row::read(cursor, layout, at))
        .flatten()
}

/// The tree in the geometry in which its leaves lead to extents of their own pages, with all extents. If what the root leads
/// to makes no sense, with the leaves that are there all the same.
fn read_tree(
    memory: &dyn TargetMemory,
    layout: &Layout,
    sizes: &Sizes,
    arenas: &Arenas,
    root: Address,
) -> Result<(Tree, Extents), Miss> {
    let is_own = |at| arenas.is_own(at);
    let source = Source {
        memory,
        layout,
        sizes,
        arenas,
        tree: &Tree::empty(layout, Geometry::Bits48),
    };
    let read = |tree: &Tree| Extents::read(source.with(tree));
    let rooted = Geometry::ALL
        .into_iter()
        .map(|geometry| Tree::read(memory, layout, root, geometry, &is_own));
    let first = match best_tree(arenas, rooted, read) {
        Ok((tree, extents)) => {
            return Ok(match leaves::add(source.with(&tree), &extents) {
                Some(tree) => {
                    let extents = read(&tree);
                    (tree, extents)
                }
                None => (tree, extents),
            });
        }
        first => first,
    };
    let found = Geometry::ALL
        .into_iter()
        .filter_map(|geometry| leaves::find(source.with(&Tree::empty(layout, geometry)), root));
    best_tree(arenas, found, read).or(first)
}

/// The tree whose elements and extents agree best, if they do.
fn best_tree(
    arenas: &Arenas,
    trees: impl Iterator<Item = Tree>,
    read: impl Fn(&Tree) -> Extents,
) -> Result<(Tree, Extents), Miss> {
    let mut best: Option<(Tree, Extents)> = None;
    for tree in trees {
        let extents = read(&tree);
        let fits = |extents: &Extents| {
            let rows = i64::try_from(extents.rows.len()).unwrap_or(i64::MAX);
            rows.saturating_sub_unsigned(extents.strays)
        };
        if best
            .as_ref()
            .is_none_or(|(_, known)| fits(&extents) > fits(known))
        {
            best = Some((tree, extents));
        }
    }
    let (tree, extents) =
        best.ok_or_else(|| Miss::Incomplete("its page map was not found".into()))?;
    // Every extent belongs to an arena that exists; damage changes a few, a wrong layout most.
    let known = extents
        .rows
        .iter()
        .filter(|row| arenas.get(row.arena).is_some())
        .count();
    let wrong = (extents.rows.len().saturating_sub(known) as u64).saturating_add(extents.strays);
    const TOLERATED: u64 = 16;
    if known == 0 || wrong > TOLERATED.max(known as u64 / 2) {
        return Err(Miss::Incomplete(format!(
            "its page map does not agree with its extents: {known} fit, {wrong} do not"
        )));
    }
    Ok((tree, extents))
}
