//! Names of types and variables, hashed part by part as the DIE tree has them.

use std::hash::{DefaultHasher, Hasher};

/// What a namespace without a name is called.
pub(super) const ANONYMOUS: &str = "(anonymous namespace)";

/// The hash of a qualified name: of the parts so far, and one more. Blanks that compilers put differently into template
/// arguments (`a<b >`, `a<b, c>`) do not count.
pub(super) fn extend(scope: u64, part: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(scope);
    if part.contains(&b'<') {
        let mut previous = b' ';
        for (at, &byte) in part.iter().enumerate() {
            let next = part.get(at.saturating_add(1)).copied().unwrap_or(b' ');
            let joins = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if byte == b' ' && !(joins(previous) && joins(next)) {
                continue;
            }
            hasher.write_u8(byte);
            previous = byte;
        }
    } else {
        for byte in part {
            hasher.write_u8(*byte);
        }
    }
    hasher.finish()
}

/// The hash of nothing: the scope of the whole program.
pub(super) const GLOBAL: u64 = 0;

/// A name as asked for, cut into the parts between `::`, those inside template arguments and parentheses left alone.
/// `struct`, `class`, `union` and `enum` in front are dropped.
pub(super) fn parts(name: &str) -> Vec<&str> {
    let mut name = name.trim();
    for word in ["struct ", "class ", "union ", "enum "] {
        name = name.strip_prefix(word).unwrap_or(name);
    }
    name = name.strip_prefix("::").unwrap_or(name);
    let mut parts = Vec::new();
    let mut depth = 0usize;
    let mut from = 0;
    let mut colon = false;
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'<' | b'(' => depth += 1,
            b'>' | b')' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && colon => {
                parts.push(name.get(from..at.saturating_sub(1)).unwrap_or(""));
                from = at.saturating_add(1);
                colon = false;
                continue;
            }
            _ => {}
        }
        colon = byte == b':' && depth == 0;
    }
    parts.push(name.get(from..).unwrap_or(""));
    parts
}

/// The hash of a whole name's parts.
pub(super) fn hash_of(parts: &[&str]) -> u64 {
    parts
        .iter()
        .fold(GLOBAL, |scope, part| extend(scope, part.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_scopes_only() {
        for (name, expected) in [
            ("tcmalloc::Span", &["tcmalloc", "Span"][..]),
            ("struct malloc_state", &["malloc_state"]),
            ("a::b<c::d, e>::f", &["a", "b<c::d, e>", "f"]),
            ("(anonymous namespace)::x", &["(anonymous namespace)", "x"]),
            ("::x", &["x"]),
            ("", &[""]),
        ] {
            assert_eq!(parts(name), expected, "{name}");
        }
    }

    #[test]
    fn blanks_in_template_arguments_do_not_count() {
        let hash = |name| hash_of(&[name]);
        assert_eq!(hash("a<b<c> >"), hash("a<b<c>>"));
        assert_eq!(hash("a<b, c>"), hash("a<b,c>"));
        assert_ne!(hash("a<unsigned long>"), hash("a<unsignedlong>"));
        assert_ne!(hash("ab"), hash_of(&["a", "b"]));
    }
}
