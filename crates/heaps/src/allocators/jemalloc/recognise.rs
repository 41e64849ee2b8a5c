//! Which release this is, and which look-alikes are refused.

use crate::allocators::Limit;
use ground::scan;
use ground::target::{LocatedBy, Module, Target};

/// The release, from the text `X.Y.Z-N-g<hash>` in the module's read-only memory (usually only in its file).
pub fn version(target: Target<'_>, module: &Module) -> Option<String> {
    scan::find_in_constants(target.memory, module, find_version)
}

fn find_version(bytes: &[u8]) -> Option<String> {
    const HASH: usize = 40;
    /// `5.3.0-1234`, with room to spare.
    const BEFORE: usize = 16;
    let mark = b"-g";
    let mut from = 0;
    while let Some(place) = memchr::memmem::find(bytes.get(from..)?, mark) {
        let at = from.saturating_add(place);
        from = at.saturating_add(mark.len());
        let hash = bytes.get(from..from.saturating_add(HASH))?;
        if !hash.iter().all(u8::is_ascii_hexdigit) {
            continue;
        }
        let before = bytes.get(at.saturating_sub(BEFORE)..at)?;
        let text: Vec<u8> = before
            .rsplit(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'-'))
            .next()?
            .to_vec();
        let text = String::from_utf8(text).ok()?;
        let release = text.split('-').next()?;
        let numbers = release.split('.').filter(|part| !part.is_empty()).count();
        if numbers == 3 && release.starts_with(['3', '4', '5']) {
            return Some(release.to_owned());
        }
    }
    None
}

/// Allocators of the same family that are known by name and have other structures.
pub fn refused(target: Target<'_>, module: &Module) -> Option<Limit> {
    let symbol = |name| {
        target.limit.permits(LocatedBy::Symbols) && target.symbols.symbol(module.id, name).is_some()
    };
    let (what, why) = if module.name.starts_with("libmozglue") {
        (
            "mozjemalloc",
            "Firefox' allocator is a descendant of jemalloc 2 with chunks and runs of its own",
        )
    } else if module.name == "libc.so.7" && symbol("__je_arenas") {
        (
            "FreeBSD's jemalloc",
            "the copy inside FreeBSD's libc is built with other options than those that were checked",
        )
    } else {
        return None;
    };
    Some(Limit {
        what: format!("the heap of {what} ({})", module.name),
        why: format!("{why}; this version of heapcheck does not read it"),
        incomplete: true,
    })
}

#[cfg(test)]
mod tests {
    use super::find_version;

    #[test]
    fn a_release_is_read_from_text() {
        let hash = "54eaed1d8b56b1aa528be3bdd1877e59c56fa90c";
        let found = |text: String| find_version(text.as_bytes());
        assert_eq!(
            found(format!("xx\05.3.0-0-g{hash}\0yy")).as_deref(),
            Some("5.3.0")
        );
        assert_eq!(
            found(format!("a-good -g 5.2.1-0-g{hash}")).as_deref(),
            Some("5.2.1")
        );
        assert_eq!(found(format!("v2-0-g{hash}")), None);
        assert_eq!(found("5.3.0-0-g54eaed1d".into()), None);
    }
}
