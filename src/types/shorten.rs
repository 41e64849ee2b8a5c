//! Names of types as a person writes them: without what the standard library adds by itself.

/// Arguments of templates that everybody leaves out, by their beginnings.
const DEFAULTS: &[&str] = &[
    "std::allocator<",
    "std::char_traits<",
    "std::less<",
    "std::hash<",
    "std::equal_to<",
    "std::default_delete<",
    "(__gnu_cxx::_Lock_policy)",
    "alloc::alloc::Global",
    "std::hash::random::RandomState",
];
/// Numbers as compilers write them in debug information, and as people do; longer ones first.
const NUMBERS: &[(&str, &str)] = &[
    ("long long unsigned int", "unsigned long long"),
    ("long unsigned int", "unsigned long"),
    ("short unsigned int", "unsigned short"),
    ("long long int", "long long"),
    ("long int", "long"),
    ("short int", "short"),
];
/// Rust's types that everybody knows without their paths.
const RUST: &[(&str, &str)] = &[
    ("alloc::vec::Vec<", "Vec<"),
    ("alloc::string::String", "String"),
    ("alloc::boxed::Box<", "Box<"),
    ("alloc::rc::", ""),
    ("alloc::sync::", ""),
    ("alloc::collections::vec_deque::", ""),
    ("alloc::collections::btree::map::", ""),
    ("alloc::collections::btree::set::", ""),
    ("std::collections::hash::map::", ""),
    ("std::collections::hash::set::", ""),
    ("core::option::Option<", "Option<"),
    ("core::cell::RefCell<", "RefCell<"),
];
/// Longer names are left as they are.
const MAX_BYTES: usize = 16 << 10;

/// The same name, shorter: `std::map<int, std::string>`.
pub fn shortened(name: &str) -> String {
    if name.len() > MAX_BYTES {
        return name.to_owned();
    }
    let mut name = name
        .replace("std::__cxx11::", "std::")
        .replace("std::__1::", "std::");
    for (written, plain) in NUMBERS {
        if name.contains(written) {
            name = name.replace(written, plain);
        }
    }
    for (path, plain) in RUST {
        if name.contains(path) {
            name = name.replace(path, plain);
        }
    }
    without_defaults(&name).replace("std::basic_string<char>", "std::string")
}

/// Takes default arguments that are not the first out of all brackets.
fn without_defaults(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        let behind = rest.strip_prefix(", ");
        let is_default =
            behind.is_some_and(|behind| DEFAULTS.iter().any(|start| behind.starts_with(start)));
        if let Some(behind) = behind.filter(|_| is_default) {
            rest = behind.get(argument(behind)..).unwrap_or("");
            continue;
        }
        // A blank between closing brackets is the old way to write them.
        let is_blank = letter == ' ' && rest.starts_with(" >");
        if !is_blank {
            out.push(letter);
        }
        rest = rest.get(letter.len_utf8()..).unwrap_or("");
    }
    out
}

/// Bytes of the argument that a text begins with: up to the comma or bracket that ends it.
fn argument(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '<' | '(' | '[' => depth = depth.saturating_add(1),
            '>' | ')' | ']' if depth == 0 => return at,
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn what_everybody_leaves_out_is_left_out() {
        for (name, expected) in [
            ("Session", "Session"),
            ("ns::Pair<int, long>", "ns::Pair<int, long>"),
            (
                "Box<std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > >",
                "Box<std::string>",
            ),
            (
                "std::_Sp_counted_ptr_inplace<Session, std::allocator<void>, (__gnu_cxx::_Lock_policy)2>",
                "std::_Sp_counted_ptr_inplace<Session>",
            ),
            (
                "Table<std::map<int, char, std::less<int>, std::allocator<std::pair<int const, char> > >, int>",
                "Table<std::map<int, char>, int>",
            ),
            ("std::set<long int, std::less<long int> >", "std::set<long>"),
            (
                "alloc::vec::Vec<alloc::string::String, alloc::alloc::Global>",
                "Vec<String>",
            ),
            ("Own<std::allocator<int>>", "Own<std::allocator<int>>"),
            ("a<b, std::allocator<c", "a<b"),
            ("", ""),
        ] {
            assert_eq!(shortened(name), expected, "{name}");
        }
    }
}
