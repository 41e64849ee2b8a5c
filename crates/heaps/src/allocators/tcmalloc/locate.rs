//! Finding gperftools' state: by debug information, else by symbols, else by structure.

use super::layout::{Generation, Layout, PageHeapLayout};
use super::size_map::SizeMap;
use super::structure;
use crate::allocators::LocatedPart;
use crate::allocators::Miss;
use ground::target::{Address, LocatedBy, MemoryExt, Module, Target};

/// Where the state of one tcmalloc is.
#[derive(Clone, Debug)]
pub struct Located {
    /// Layouts of its structures.
    pub layout: Layout,
    /// Size classes.
    pub sizes: SizeMap,
    /// `Static::sizemap_`.
    pub size_map: Address,
    /// `Static::central_cache_`.
    pub central: Address,
    /// `Static::pageheap_`.
    pub page_heap: Address,
    /// The page heap's lock.
    pub page_heap_lock: Option<Address>,
    /// Thread caches that something outside the caches points at.
    pub caches: Vec<Address>,
    /// `ThreadCache::thread_heap_count_`, if it could be named.
    pub cache_count: Option<Address>,
    /// `Static::sampled_objects_`, if it could be named.
    pub sampled: Option<Address>,
    /// Each part with the way it was found.
    pub parts: Vec<LocatedPart>,
}

/// A named variable: its name in debug information and its mangled name.
struct Name {
    source: &'static str,
    mangled: &'static str,
}

const SIZE_MAP: Name = Name {
    source: "tcmalloc::Static::sizemap_",
    mangled: "_ZN8tcmalloc6Static8sizemap_E",
};
const CENTRAL: Name = Name {
    source: "tcmalloc::Static::central_cache_",
    mangled: "_ZN8tcmalloc6Static14central_cache_E",
};
const PAGE_HEAP: Name = Name {
    source: "tcmalloc::Static::pageheap_",
    mangled: "_ZN8tcmalloc6Static9pageheap_E",
};
const PAGE_HEAP_LOCK: Name = Name {
    source: "tcmalloc::Static::pageheap_lock_",
    mangled: "_ZN8tcmalloc6Static14pageheap_lock_E",
};
const SAMPLED: Name = Name {
    source: "tcmalloc::Static::sampled_objects_",
    mangled: "_ZN8tcmalloc6Static16sampled_objects_E",
};
const THREAD_HEAPS: Name = Name {
    source: "tcmalloc::ThreadCache::thread_heaps_",
    mangled: "_ZN8tcmalloc11ThreadCache13thread_heaps_E",
};
const THREAD_HEAP_COUNT: Name = Name {
    source: "tcmalloc::ThreadCache::thread_heap_count_",
    mangled: "_ZN8tcmalloc11ThreadCache18thread_heap_count_E",
};

struct Finder<'a, 't> {
    target: Target<'t>,
    module: &'a Module,
    parts: Vec<LocatedPart>,
}

impl Finder<'_, '_> {
    /// The variable's address by the best permitted way. `debug_info`: whether to ask for it there.
    fn by_name(&self, name: &Name, debug_info: bool) -> Option<(Address, LocatedBy)> {
        let Target {
            limit,
            types,
            symbols,
            ..
        } = self.target;
        if debug_info
            && limit.permits(LocatedBy::DebugInfo)
            && let Some(variable) = types.variable(self.module.id, name.source)
        {
            return Some((variable.address, LocatedBy::DebugInfo));
        }
        if limit.permits(LocatedBy::Symbols) {
            let symbol = symbols.symbol(self.module.id, name.mangled)?;
            return Some((symbol.address, LocatedBy::Symbols));
        }
        None
    }

    fn part(&mut self, part: &'static str, found: (Address, LocatedBy)) -> Address {
        self.parts.push(LocatedPart {
            part,
            at: found.0,
            by: found.1,
        });
        found.0
    }
}

/// Whether the module's file name says that it is tcmalloc.
pub fn is_named(module: &Module) -> bool {
    module.name.starts_with("libtcmalloc")
}

/// Finds the state in `module`.
///
/// # Errors
/// Whether it is not there at all or only not whole.
pub fn locate(target: Target<'_>, module: &Module) -> Result<Located, Miss> {
    let by_structure = structure::find_size_map(target.memory, module);
    if by_structure.is_none() && !is_named(module) {
        return Err(Miss::NotHere); // and no debug information is touched
    }
    let mut finder = Finder {
        target,
        module,
        parts: Vec::new(),
    };
    let resolved = Layout::resolve(target, module.id);
    let debug_info = resolved.is_some();

    let (size_map, generation, sizes) = find_size_map(&finder, resolved.as_ref(), by_structure)
        .ok_or_else(|| Miss::Incomplete("its size map was not found".into()))?;
    let size_map = finder.part("Static::sizemap_", size_map);

    let (page_heap, page_shift) = find_page_heap(&finder, resolved.as_ref(), generation)
        .ok_or_else(|| Miss::Incomplete("its page heap was not found".into()))?;
    let page_heap = finder.part("Static::pageheap_", page_heap);

    let layout = resolved.unwrap_or_else(|| {
        structure::settle_generation(target, module, generation, &sizes, page_shift)
    });

    let classes = u32::from(sizes.classes());
    let central = finder
        .by_name(&CENTRAL, debug_info)
        .filter(|(at, _)| structure::central_is_at(target.memory, *at, &layout.central, classes))
        .or_else(|| {
            Some((
                structure::find_central(target.memory, module, classes)?,
                LocatedBy::Structure,
            ))
        })
        .ok_or_else(|| Miss::Incomplete("its central cache was not found".into()))?;
    let central = finder.part("Static::central_cache_", central);

    let caches = find_caches(&mut finder, &layout, &sizes, debug_info);
    let page_heap_lock = match layout.page_heap.lock {
        Some(offset) => page_heap.checked_add(offset.into()),
        None => finder
            .by_name(&PAGE_HEAP_LOCK, debug_info)
            .map(|(at, _)| at),
    };
    Ok(Located {
        cache_count: finder
            .by_name(&THREAD_HEAP_COUNT, debug_info)
            .map(|(at, _)| at),
        sampled: finder.by_name(&SAMPLED, debug_info).map(|(at, _)| at),
        layout,
        sizes,
        size_map,
        central,
        page_heap,
        page_heap_lock,
        caches,
        parts: finder.parts,
    })
}

type FoundSizeMap = ((Address, LocatedBy), Generation, SizeMap);

fn find_size_map(
    finder: &Finder<'_, '_>,
    resolved: Option<&Layout>,
    by_structure: Option<(Address, Generation, SizeMap)>,
) -> Option<FoundSizeMap> {
    let memory = finder.target.memory;
    if let Some((at, way)) = finder.by_name(&SIZE_MAP, resolved.is_some()) {
        let candidates = match resolved {
            Some(layout) => vec![(layout.generation, layout.size_map)],
            None => [Generation::V2_8, Generation::V2_11]
                .map(|generation| {
                    (
                        generation,
                        super::layout::SizeMapLayout::built_in(generation),
                    )
                })
                .to_vec(),
        };
        for (generation, layout) in candidates {
            if let Some(sizes) = SizeMap::read(memory, at, &layout) {
                return Some(((at, way), generation, sizes));
            }
        }
    }
    let (at, generation, sizes) = by_structure?;
    Some(((at, LocatedBy::Structure), generation, sizes))
}

fn find_page_heap(
    finder: &Finder<'_, '_>,
    resolved: Option<&Layout>,
    generation: Generation,
) -> Option<((Address, LocatedBy), u32)> {
    let Finder { target, module, .. } = finder;
    // allocator_ is a function of this module: the proof of an address that a name gave.
    let proven = |at: Address, layout: &PageHeapLayout| {
        at.checked_add(layout.allocator)
            .and_then(|at| target.memory.read_pointer(at).ok())
            .is_some_and(|function| module.has_code_at(function))
    };
    if let Some((at, way)) = finder.by_name(&PAGE_HEAP, resolved.is_some()) {
        let shifts: Vec<PageHeapLayout> = match resolved {
            Some(layout) => vec![layout.page_heap],
            None => PageHeapLayout::PAGE_SHIFTS
                .map(|shift| PageHeapLayout::built_in(generation, shift))
                .collect(),
        };
        let size = target
            .symbols
            .symbol(module.id, PAGE_HEAP.mangled)
            .map_or(0, |symbol| symbol.size);
        let fits =
            |layout: &&PageHeapLayout| resolved.is_some() || size == 0 || size == layout.bytes;
        if let Some(layout) = shifts.iter().filter(fits).find(|layout| proven(at, layout)) {
            return Some(((at, way), layout.page_shift));
        }
    }
    let (free_lists, page_shift) = structure::find_free_lists(target.memory, module)?;
    let layout = resolved
        .map(|layout| layout.page_heap)
        .unwrap_or_else(|| PageHeapLayout::built_in(generation, page_shift));
    let at = free_lists.checked_sub(layout.free_lists)?;
    Some(((at, LocatedBy::Structure), page_shift))
}

/// The heads of the list of caches. Found by structure even where a name gives one: a damaged
/// list must not hide the caches behind the damage.
fn find_caches(
    finder: &mut Finder<'_, '_>,
    layout: &Layout,
    sizes: &SizeMap,
    debug_info: bool,
) -> Vec<Address> {
    let memory = finder.target.memory;
    let mut caches = Vec::new();
    if let Some((at, way)) = finder.by_name(&THREAD_HEAPS, debug_info)
        && let Ok(first) = memory.read_pointer(at)
    {
        finder.part("ThreadCache::thread_heaps_", (at, way));
        if structure::is_cache(memory, first, &layout.cache, sizes) {
            caches.push(first);
        }
    }
    let found = structure::find_caches(finder.target, finder.module, &layout.cache, sizes);
    if !finder
        .parts
        .iter()
        .any(|part| part.part == "ThreadCache::thread_heaps_")
    {
        // thread_heaps_ is the word whose cache has none before it.
        let head = found
            .iter()
            .find(|(_, cache)| layout.cache.prev.read(memory, *cache) == Ok(0));
        if let Some((word, _)) = head.or(found.first()) {
            finder.part("ThreadCache::thread_heaps_", (*word, LocatedBy::Structure));
        }
    }
    caches.extend(found.into_iter().map(|(_, cache)| cache));
    caches.sort_unstable();
    caches.dedup();
    caches
}
