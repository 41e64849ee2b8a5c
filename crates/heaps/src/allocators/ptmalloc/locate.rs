//! Finding `main_arena` and `mp_` of a module, by the best way that is permitted.

use super::layout::{ArenaLayout, FLAGS, ParametersLayout, Releases};
use super::parameters;
use super::structure::{self, Shape};
use crate::allocators::LocatedPart;
use ground::scan;
use ground::target::{Address, LocatedBy, MemoryExt, Module, Target};

/// What the name of glibc's second malloc begins with: `libc_malloc_debug.so.0`, which calls libc's unless it is told to check.
const SECOND: &str = "libc_malloc_debug";

/// Where the state of one copy of glibc's malloc is.
#[derive(Clone, Debug)]
pub struct Located {
    /// `main_arena`.
    pub main: Address,
    /// Its layout.
    pub arena: ArenaLayout,
    /// It is one beside libc's own: what is in nobody's memory is libc's.
    pub is_second: bool,
    /// Whether anybody ever called this malloc.
    pub shape: Shape,
    /// `mp_`, if it was found.
    pub parameters: Option<(Address, ParametersLayout)>,
    /// Releases that fit the layouts.
    pub releases: Releases,
    /// The release that the module's own text names.
    pub version: Option<String>,
    /// Each part with the way it was found.
    pub parts: Vec<LocatedPart>,
}

/// Finds glibc's malloc in a module.
pub fn locate(target: Target<'_>, module: &Module) -> Option<Located> {
    let memory = target.memory;
    // By structure first, so that no debug information is opened for the other modules.
    let (main, mut layout, shape) = structure::find_main_arena(memory, module)?;
    let mut parts = Vec::new();
    let named = by_name(target, module, "main_arena").filter(|(at, _)| *at == main);
    let main_by = named.map_or(LocatedBy::Structure, |(_, by)| by);
    parts.push(LocatedPart {
        part: "main_arena",
        at: main,
        by: main_by,
    });
    let by_debug_info = main_by == LocatedBy::DebugInfo;
    if by_debug_info
        && let Some(resolved) = target
            .types
            .layout(module.id, "malloc_state")
            .and_then(|fields| ArenaLayout::resolve(&fields))
    {
        layout = resolved;
    }
    let version = scan::version_after(memory, module, b"stable release version ");
    let release = version.as_deref().and_then(release_number);
    let told = release.map_or(layout.releases, |number| {
        layout.releases.narrow(Releases::new(number, number))
    });
    let parameters = find_parameters(target, module, main, (&layout, told), &mut parts);
    let mut releases = layout.releases;
    if let Some((_, parameters)) = parameters {
        releases = releases.narrow(parameters.releases);
    }
    if let Some(number) = release {
        releases = releases.narrow(Releases::new(number, number));
    }
    Some(Located {
        main,
        arena: layout,
        is_second: module.name.starts_with(SECOND),
        shape,
        parameters,
        releases,
        version,
        parts,
    })
}

fn release_number(version: &str) -> Option<u8> {
    version.strip_prefix("2.")?.split('.').next()?.parse().ok()
}

fn by_name(target: Target<'_>, module: &Module, name: &str) -> Option<(Address, LocatedBy)> {
    if target.limit.permits(LocatedBy::DebugInfo)
        && let Some(variable) = target.types.variable(module.id, name)
    {
        return Some((variable.address, LocatedBy::DebugInfo));
    }
    if !target.limit.permits(LocatedBy::Symbols) {
        return None;
    }
    let symbol = target.symbols.symbol(module.id, name)?;
    Some((symbol.address, LocatedBy::Symbols))
}

fn find_parameters(
    target: Target<'_>,
    module: &Module,
    main: Address,
    (layout, releases): (&ArenaLayout, Releases),
    parts: &mut Vec<LocatedPart>,
) -> Option<(Address, ParametersLayout)> {
    let memory = target.memory;
    let word = |offset: u64| memory.read_u64(main.saturating_add(offset)).ok();
    let top = word(layout.top).map(Address::new);
    let expected_base = top.and_then(|top| {
        let size = memory.read_u64(top.checked_add(8)?).ok()? & !FLAGS;
        top.checked_add(size)?.checked_sub(word(layout.system_mem)?)
    });
    let by_structure = parameters::find(memory, module, main, layout, releases, expected_base);
    let named = by_name(target, module, "mp_");
    let debug = named.filter(|(_, by)| *by == LocatedBy::DebugInfo);
    let resolved = debug.and_then(|(at, _)| {
        let fields = target.types.layout(module.id, "malloc_par")?;
        Some((at, ParametersLayout::resolve(&fields)?))
    });
    let (found, by) = match (resolved, named, by_structure) {
        (Some(found), ..) => (found, LocatedBy::DebugInfo),
        (None, Some((at, by)), Some(found)) if found.0 == at => (found, by),
        // Its words were changed beyond recognition: the first layout of the release.
        (None, Some((at, _)), None) => {
            let fits = |known: &ParametersLayout| {
                known.releases.high <= layout.releases.high
                    && known.releases.low >= layout.releases.low
                    && known.releases.low <= releases.high
                    && releases.low <= known.releases.high
            };
            let known = ParametersLayout::ALL.into_iter().find(fits)?;
            ((at, known), LocatedBy::Symbols)
        }
        (None, _, Some(found)) => (found, LocatedBy::Structure),
        (None, None, None) => return None,
    };
    parts.push(LocatedPart {
        part: "mp_",
        at: found.0,
        by,
    });
    Some(found)
}
