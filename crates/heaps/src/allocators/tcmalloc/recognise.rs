//! Which release this is, and which look-alikes are refused.

use super::structure::Traces;
use crate::allocators::Limit;
use ground::scan;
use ground::target::{LocatedBy, Module, Target};

/// The release, from the text `gperftools X.Y` in the module's read-only memory (usually only in
/// its file).
pub fn version(target: Target<'_>, module: &Module) -> Option<String> {
    scan::version_after(target.memory, module, b"gperftools ")
}

/// Allocators of the same family that are known by name and not read yet.
pub fn refused(target: Target<'_>, module: &Module, traces: Traces) -> Option<Limit> {
    let symbol = |name| {
        target.limit.permits(LocatedBy::Symbols) && target.symbols.symbol(module.id, name).is_some()
    };
    let debug = module.name.contains("tcmalloc_debug")
        || module.name.contains("tcmalloc_minimal_debug")
        || symbol("_ZN11MallocBlock11free_queue_E");
    if debug {
        return Some(Limit {
            what: format!("the heap of gperftools' debug allocator ({})", module.name),
            why: "its blocks carry headers and trailers that this version of heapcheck does not read yet".into(),
            incomplete: true,
        });
    }
    let google = symbol("TCMalloc_Internal_ForceCpuCacheActivation")
        || symbol("_ZN8tcmalloc17tcmalloc_internal10tc_globalsE")
        || symbol("tcmalloc_slabs")
        || traces.google;
    google.then(|| Limit {
        what: format!("the heap of google/tcmalloc ({})", module.name),
        why: "its per-CPU caches and compressed lists are not read by this version of heapcheck; \
              gperftools' tcmalloc is another allocator"
            .into(),
        incomplete: true,
    })
}
