//! Whether `junk` makes jemalloc fill memory, as far as its own words or its options tell.
//!
//! | told by | found |
//! |---|---|
//! | `opt_junk_alloc`, `opt_junk_free` | by name |
//! | `opt_junk`, which points at `"true"`, `"free"` ... | by that text, where no other variable of the module points at such a one |
//! | `MALLOC_CONF` in the environment, with the prefix of this copy | on the first thread's stack |
//! | `malloc_conf`, which points at the program's own options | by name, where any module defines it |
//!
//! jemalloc reads the options in the other order, so that the last word counts. `/etc/malloc.conf` and what was configured
//! into the build are not seen; the first two rows are.

use super::locate;
use ground::scan::nonzero_words;
use ground::target::{Address, LocatedBy, MemoryExt, Module, Target, text_at};

/// What is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Junk {
    /// New blocks.
    pub new: bool,
    /// Freed blocks.
    pub freed: bool,
    /// It is jemalloc's own word, or an option that this copy certainly read.
    pub certain: bool,
}

/// What stands before a name: nothing, or a prefix that jemalloc was configured with.
const PREFIXES: [&str; 3] = ["", "je_", "_rjem_"];

/// What is filled, if anything tells.
pub fn junk(target: Target<'_>, module: &Module) -> Option<Junk> {
    by_flags(target, module)
        .or_else(|| by_word(target, module))
        .or_else(|| by_options(target, module))
}

fn by_flags(target: Target<'_>, module: &Module) -> Option<Junk> {
    let flag = |name| {
        let (at, _) = locate::named(target, module, name)?;
        match target.memory.read_u8(at) {
            Ok(0) => Some(false),
            Ok(1) => Some(true),
            _ => None,
        }
    };
    Some(Junk {
        new: flag("opt_junk_alloc")?,
        freed: flag("opt_junk_free")?,
        certain: true,
    })
}

/// By the only variable that points at a value of `junk`.
fn by_word(target: Target<'_>, module: &Module) -> Option<Junk> {
    /// Pointers of one module that are followed.
    const MAX_POINTERS: usize = 1 << 18;
    /// Variables with such a value that are remembered.
    const MAX_VALUES: usize = 64;
    let is_constant = |at: Address| {
        let mut segments = module.segments.iter();
        segments.any(|segment| !segment.writable && segment.range.contains(&at))
    };
    let values: Vec<(Address, Vec<u8>)> = nonzero_words(target.memory, module)
        .map(|(at, word)| (at, Address::new(word)))
        .filter(|(_, text)| is_constant(*text))
        .take(MAX_POINTERS)
        .filter_map(|(at, text)| Some((at, short_text(target, text)?)))
        .filter(|(_, text)| value(text).is_some())
        .take(MAX_VALUES)
        .collect();
    only_value(&values)
}

/// What the only variable says that stands for itself; `zero_realloc_mode_names` is "alloc", "free", "abort".
fn only_value(values: &[(Address, Vec<u8>)]) -> Option<Junk> {
    let is_pair = |pair: &[(Address, Vec<u8>)]| match pair {
        [(first, alloc), (second, free)] => {
            first.checked_add(8) == Some(*second) && alloc == b"alloc" && free == b"free"
        }
        _ => false,
    };
    let mut alone = Vec::new();
    let mut rest = values;
    while let Some(((_, text), others)) = rest.split_first() {
        if rest.get(..2).is_some_and(is_pair) {
            rest = rest.get(2..).unwrap_or_default();
        } else {
            alone.push(text);
            rest = others;
        }
    }
    match alone.as_slice() {
        [text] => value(text),
        _ => None,
    }
}

/// A text of a few letters.
fn short_text(target: Target<'_>, at: Address) -> Option<Vec<u8>> {
    let word: [u8; 6] = target.memory.read_bytes(at).ok()?;
    let length = word.iter().position(|byte| *byte == 0)?;
    word.get(..length).map(<[u8]>::to_vec)
}

fn by_options(target: Target<'_>, module: &Module) -> Option<Junk> {
    let known = if target.limit.permits(LocatedBy::Symbols) {
        let symbol = |prefix: &&str| {
            let name = format!("{prefix}malloc_conf");
            target.symbols.symbol(module.id, &name).is_some()
        };
        PREFIXES.into_iter().find(symbol)
    } else {
        None
    };
    // A library that can be preloaded takes the place of the usual functions: it has none.
    let prefixes: Vec<&str> = match known {
        Some(prefix) => vec![prefix],
        None if !module.is_executable => vec![""],
        None => PREFIXES.to_vec(),
    };
    let certain = prefixes.len() == 1;
    let told = |options: Option<Vec<u8>>| last_junk(&options?);
    let environment = prefixes.iter().filter_map(|prefix| {
        let name = format!("{}MALLOC_CONF", prefix.to_uppercase());
        told(target.environment.value(target.memory, &name))
    });
    agreed(environment)
        .or_else(|| {
            let compiled = prefixes
                .iter()
                .filter_map(|prefix| told(compiled_in(target, &format!("{prefix}malloc_conf"))));
            agreed(compiled)
        })
        .map(|junk| Junk { certain, ..junk })
}

/// What all say, if they say the same.
fn agreed(mut said: impl Iterator<Item = Junk>) -> Option<Junk> {
    let first = said.next()?;
    said.all(|other| other == first).then_some(first)
}

/// The options that a program brings itself. The first module that defines the name is believed by all.
fn compiled_in(target: Target<'_>, name: &str) -> Option<Vec<u8>> {
    if !target.limit.permits(LocatedBy::Symbols) {
        return None;
    }
    let texts = target.modules.iter().filter_map(|module| {
        let symbol = target.symbols.symbol(module.id, name)?;
        let text = target.memory.read_pointer(symbol.address).ok()?;
        text_at(target.memory, text)
    });
    let mut texts = texts.filter(|text| !text.is_empty());
    texts.next()
}

/// The last `junk:...` among options like `narenas:1,junk:true`.
fn last_junk(options: &[u8]) -> Option<Junk> {
    let pairs = options.split(|byte| *byte == b',');
    let values = pairs.filter_map(|pair| pair.strip_prefix(b"junk:"));
    values.filter_map(value).next_back()
}

fn value(text: &[u8]) -> Option<Junk> {
    let (new, freed) = match text {
        b"true" => (true, true),
        b"false" => (false, false),
        b"alloc" => (true, false),
        b"free" => (false, true),
        _ => return None,
    };
    Some(Junk {
        new,
        freed,
        certain: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let junk = |options: &str| last_junk(options.as_bytes()).map(|junk| (junk.new, junk.freed));
        assert_eq!(junk("junk:true"), Some((true, true)));
        assert_eq!(
            junk("narenas:1,junk:free,tcache:false"),
            Some((false, true))
        );
        assert_eq!(junk("junk:true,junk:alloc"), Some((true, false)));
        assert_eq!(junk("junk:false"), Some((false, false)));
        assert_eq!(junk("junk:maybe"), None);
        assert_eq!(junk("xjunk:true,junk"), None);
        assert_eq!(junk(""), None);
    }

    #[test]
    fn names_of_modes_are_no_option() {
        let texts = |texts: &[(u64, &str)]| -> Vec<(Address, Vec<u8>)> {
            let words = texts.iter();
            words
                .map(|(at, text)| (Address::new(*at), text.as_bytes().to_vec()))
                .collect()
        };
        let freed = |words: &[(u64, &str)]| only_value(&texts(words)).map(|junk| junk.freed);
        assert_eq!(
            freed(&[(8, "alloc"), (16, "free"), (40, "true")]),
            Some(true)
        );
        assert_eq!(
            freed(&[(0, "false"), (8, "alloc"), (16, "free")]),
            Some(false)
        );
        assert_eq!(freed(&[(8, "alloc"), (32, "free")]), None);
        assert_eq!(freed(&[(8, "false"), (32, "false")]), None);
        assert_eq!(freed(&[(8, "free")]), Some(true));
    }
}
