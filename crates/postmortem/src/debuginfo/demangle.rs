//! Names as a person knows them: C++ and Rust symbols demangled, bounded in time and size.
//!
//! A mangled name is a small program: back references let forty bytes expand to gigabytes, and
//! nesting recurses. Input length, recursion and output are therefore capped; a name beyond a cap
//! is shown as stored. Clones keep their suffix in the style of debuggers: `f(int) [clone .cold]`.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Longer names are shown as stored, cut to this many bytes.
const MAX_INPUT_BYTES: usize = 16 << 10;
/// Demangled text stops here.
const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// Nesting allowed to the C++ demangler.
const MAX_RECURSION: u32 = 192;

/// `name` demangled, or as it is where it is not mangled or beyond the caps.
pub fn demangle(name: &str) -> String {
    if name.len() > MAX_INPUT_BYTES {
        let end = (0..=MAX_INPUT_BYTES).rev();
        let end = end.into_iter().find(|&at| name.is_char_boundary(at));
        return name.get(..end.unwrap_or(0)).unwrap_or("").to_owned();
    }
    rust(name)
        .or_else(|| cpp(name))
        .unwrap_or_else(|| name.to_owned())
}

fn rust(name: &str) -> Option<String> {
    let symbol = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Capped::default();
    // The alternate form leaves out the hash.
    write!(out, "{symbol:#}").ok()?;
    Some(out.text)
}

fn cpp(name: &str) -> Option<String> {
    if !(name.starts_with("_Z") || name.starts_with("___Z")) {
        return None;
    }
    let (mangled, clone) = match name.find('.') {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    };
    let parse = ParseOptions::default().recursion_limit(MAX_RECURSION);
    let symbol = Symbol::new_with_options(mangled.as_bytes(), &parse).ok()?;
    let options = DemangleOptions::new().recursion_limit(MAX_RECURSION);
    let mut out = Capped::default();
    symbol.structured_demangle(&mut out, &options).ok()?;
    if !clone.is_empty() {
        write!(out, " [clone {clone}]").ok()?;
    }
    Some(out.text)
}

/// Text that refuses to grow past the cap, which makes the demangler give up.
#[derive(Default)]
struct Capped {
    text: String,
}

impl Write for Capped {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len().saturating_add(part.len()) > MAX_OUTPUT_BYTES {
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_are_shown_as_their_source_has_them() {
        for (mangled, shown) in [
            ("malloc", "malloc"),
            (
                "_ZN8tcmalloc11SLL_SetNextEPvS0_",
                "tcmalloc::SLL_SetNext(void*, void*)",
            ),
            (
                "_ZN8tcmalloc6Static9pageheap_E",
                "tcmalloc::Static::pageheap_",
            ),
            ("_Z3foov.cold", "foo() [clone .cold]"),
            ("_Z3foov.part.0", "foo() [clone .part.0]"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_Znonsense", "_Znonsense"),
            ("foo.part.0", "foo.part.0"),
        ] {
            assert_eq!(demangle(mangled), shown, "{mangled}");
        }
    }

    #[test]
    fn hostile_names_end_quickly() {
        // Each back reference doubles: 2^60 bytes of text if nobody stopped it.
        let mut doubling = String::from("_Z1fI");
        doubling.push_str("St4pairIiiE");
        for step in 0..60u32 {
            let digit = char::from_digit(step % 36, 36)
                .unwrap()
                .to_ascii_uppercase();
            doubling.push_str(&format!("St4pairIS{digit}_S{digit}_E"));
        }
        doubling.push_str("Evv");
        assert!(demangle(&doubling).len() <= 64 << 10);
        let nested = format!("_Z1f{}i", "P".repeat(15_000));
        assert!(!demangle(&nested).is_empty());
        let long = "é".repeat(20_000);
        assert!(demangle(&long).len() <= 16 << 10);
    }
}
