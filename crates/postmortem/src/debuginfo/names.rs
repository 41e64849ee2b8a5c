//! Names of types and variables, hashed part by part as the DIE tree has them.

/// What a namespace without a name is called.
pub(super) const ANONYMOUS: &str = "(anonymous namespace)";

/// The hash of a qualified name: of the parts so far, and one more. Blanks that compilers put differently into template
/// arguments (`a<b >`, `a<b, c>`) do not count.
pub(super) fn extend(scope: u64, part: &[u8]) -> u64 {
    if !part.contains(&b'<') {
        return hash(scope, part);
    }
    let mut kept = Vec::with_capacity(part.len());
    let mut previous = b' ';
    for (at, &byte) in part.iter().enumerate() {
        let next = part.get(at.saturating_add(1)).copied().unwrap_or(b' ');
        let joins = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if byte == b' ' && !(joins(previous) && joins(next)) {
            continue;
        }
        kept.push(byte);
        previous = byte;
    }
    hash(scope, &kept)
}

/// A hash of bytes that is cheap for short ones. Names that are made to collide are taken for one another, no more.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    // Odd numbers without a pattern: digits of the golden ratio and of the square root of two.
    const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x6a09_e667_f3bc_c909];
    let fold = |word: u64, factor: u64| {
        let product = u128::from(word).wrapping_mul(factor.into());
        let [high, low] = [product >> 64, product & u128::from(u64::MAX)];
        u64::try_from(high ^ low).unwrap_or(0)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let words = words.iter().chain([&last]);
    let start = seed ^ FACTORS[1] ^ (bytes.len() as u64).rotate_left(32);
    words.fold(start, |so_far, word| {
        fold(so_far ^ u64::from_le_bytes(*word), FACTORS[0]).wrapping_add(FACTORS[1])
    })
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
            b'<' | b'(' => depth = depth.saturating_add(1),
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
