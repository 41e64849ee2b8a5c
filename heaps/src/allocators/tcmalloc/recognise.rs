//! Which release this is, and which look-alikes are refused.

use super::structure::Traces;
use crate::allocators::Limit;
use crate::target::{LocatedBy, Module, Target};

/// The release, from the text `gperftools X.Y` in the module's read-only memory (usually only in
/// its file).
pub fn version(target: Target<'_>, module: &Module) -> Option<String> {
    const MARK: &[u8] = b"gperftools ";
    const MAX_SEGMENT: u64 = 64 << 20;
    for segment in module.segments.iter().filter(|segment| !segment.writable) {
        let mut at = segment.range.start;
        let end = segment
            .range
            .end
            .min(segment.range.start.saturating_add(MAX_SEGMENT));
        while at < end {
            let Ok(window) = target.memory.window(at) else {
                break;
            };
            let length = usize::try_from(end.get() - at.get())
                .unwrap_or(usize::MAX)
                .min(window.bytes.len());
            let bytes = window.bytes.get(..length).unwrap_or_default();
            if let Some(version) = find_version(bytes, MARK) {
                return Some(version);
            }
            at = at.saturating_add(length.max(1) as u64);
        }
    }
    None
}

fn find_version(bytes: &[u8], mark: &[u8]) -> Option<String> {
    let mut rest = bytes;
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        rest = rest.get(at + mark.len()..)?;
        let text: String = rest
            .iter()
            .take(16)
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .map(|byte| char::from(*byte))
            .collect();
        if text.contains('.') && text.starts_with(|first: char| first.is_ascii_digit()) {
            return Some(text.trim_end_matches('.').to_owned());
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::find_version;

    #[test]
    fn a_release_is_read_from_text() {
        let mark = b"gperftools ";
        assert_eq!(
            find_version(b"xx gperftools 2.18.1\0yy", mark).as_deref(),
            Some("2.18.1")
        );
        assert_eq!(
            find_version(b"gperftools (x) gperftools 2.10\0", mark).as_deref(),
            Some("2.10")
        );
        assert_eq!(find_version(b"see gperftools docs", mark), None);
    }
}
