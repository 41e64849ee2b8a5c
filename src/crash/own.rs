//! Whose code a frame is in: the program's own, or that of the C library, the language's runtime or an allocator. `abort`,
//! `free` and `std::vector` say little about a crash; who called them does.

/// File names of modules that are nobody's own code begin with one of these, up to `.so`, `-` or a digit.
const MODULES: &[&str] = &[
    "ld",
    "ld-linux",
    "ld-linux-x",
    "ld-linux-aarch",
    "ld-musl-x",
    "ld-musl-aarch",
    "libc",
    "libc_malloc_debug",
    "libm",
    "libdl",
    "librt",
    "libpthread",
    "libgcc_s",
    "libstdc++",
    "libc++",
    "libc++abi",
    "libunwind",
    "libtcmalloc",
    "libtcmalloc_minimal",
    "libtcmalloc_debug",
    "libtcmalloc_minimal_debug",
    "libtcmalloc_and_profiler",
    "libjemalloc",
    "libmimalloc",
    "libasan",
    "libtsan",
    "libubsan",
    "libefence",
    "linux-vdso",
];

/// Functions of libraries that may be linked into the program, by the beginning of their names.
const PREFIXES: &[&str] = &[
    "_start",
    "__libc_",
    "__GI_",
    "_IO_",
    "_dl_",
    "__run_exit_handlers",
    "__pthread_",
    "pthread_kill",
    "start_thread",
    "clone3",
    "__clone",
    "__restore_rt",
    "__assert_fail",
    "__malloc_",
    "__stack_chk_fail",
    "__fortify_fail",
    "__chk_fail",
    "_int_",
    "malloc_",
    "munmap_chunk",
    "unlink_chunk",
    "ptmalloc_",
    "sysmalloc",
    "systrim",
    "tcache_",
    "je_",
    "tc_",
    "tcmalloc::",
    "operator new",
    "operator delete",
    "std::",
    "core::",
    "alloc::",
    "<std::",
    "<core::",
    "<alloc::",
    "__rust",
    "_rust_",
    "rust_begin_unwind",
    "rust_panic",
    "__gnu_cxx::",
    "__cxa_",
    "__cxxabiv1::",
    "_Unwind_",
];

/// The same, by their whole names.
const FUNCTIONS: &[&str] = &[
    "abort",
    "raise",
    "gsignal",
    "exit",
    "_exit",
    "kill",
    "tgkill",
    "clone",
    "malloc",
    "calloc",
    "realloc",
    "free",
    "cfree",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "reallocarray",
    "memcpy",
    "memmove",
    "memset",
    "memchr",
    "memcmp",
    "strlen",
    "strnlen",
    "strcpy",
    "strncpy",
    "strcat",
    "strncat",
    "strcmp",
    "strncmp",
    "strchr",
    "strrchr",
    "strstr",
    "strdup",
    "strndup",
    "printf",
    "fprintf",
    "sprintf",
    "snprintf",
    "vsnprintf",
    "puts",
    "fputs",
    "fclose",
    "qsort",
    "__memcpy_chk",
    "__strcpy_chk",
];

/// Whether a frame is in code of the C library, a runtime or an allocator. `function`: its name, demangled.
pub fn is_runtime(module: Option<&str>, function: Option<&str>) -> bool {
    let by_module = module.is_some_and(|name| {
        let file = name.split(".so").next().unwrap_or(name);
        let stem =
            file.trim_end_matches(|letter: char| matches!(letter, '0'..='9' | '.' | '-' | '_'));
        MODULES.contains(&stem) || file.starts_with("ld-linux") || file.starts_with("linux-vdso")
    });
    by_module || function.is_some_and(is_runtime_function)
}

fn is_runtime_function(name: &str) -> bool {
    let name = name.trim_end_matches("@plt");
    // `__memcpy_avx_unaligned_erms`: an implementation that the C library chose by the processor.
    let chosen = ["_sse", "_avx", "_evex", "_ssse", "_erms"]
        .iter()
        .any(|set| name.starts_with("__") && name.contains(set));
    // A function of a type `void std::f<int>(int)` is named behind its result.
    let behind_result = name
        .split_once(' ')
        .is_some_and(|(_, rest)| rest.starts_with("std::") || rest.starts_with("__gnu_cxx::"));
    chosen
        || behind_result
        || FUNCTIONS.contains(&plain_name(name).as_str())
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A function's name without what a rebuild changes: parameters, template arguments, what a compiler appends to clones, and
/// Rust's hash.
pub fn plain_name(name: &str) -> String {
    let name = name.split(" [clone").next().unwrap_or(name);
    let mut plain = String::new();
    let (mut angles, mut rounds) = (0u32, 0u32);
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        // Of the brackets only those that follow a name enclose arguments: not `operator()`, `(anonymous namespace)`, `<T as U>`.
        let operator = plain.ends_with("operator") || plain.ends_with("operator<");
        let after_name = !plain.is_empty() && !plain.ends_with(':') && !operator;
        if rounds == 0 && angles == 0 && rest.starts_with("(anonymous namespace)") {
            plain.push_str("(anonymous namespace)");
            rest = rest.get("(anonymous namespace)".len()..).unwrap_or("");
            continue;
        }
        match letter {
            '<' if after_name || angles > 0 => angles = angles.saturating_add(1),
            '>' if angles > 0 => angles -= 1,
            '(' if angles == 0 && (after_name || rounds > 0) => rounds = rounds.saturating_add(1),
            ')' if angles == 0 && rounds > 0 => rounds -= 1,
            _ if angles == 0 && rounds == 0 => plain.push(letter),
            _ => {}
        }
        rest = rest.get(letter.len_utf8()..).unwrap_or("");
    }
    let plain = plain.trim_end_matches(" const");
    let plain = [
        ".cold",
        ".part.",
        ".isra.",
        ".constprop.",
        ".llvm.",
        ".lto_priv.",
    ]
    .iter()
    .fold(plain, |plain, suffix| {
        plain.split(suffix).next().unwrap_or(plain)
    });
    // A template function's name stands behind its result: `int f`.
    let plain = match plain.rsplit_once(' ') {
        Some((before, last))
            if !before.ends_with("operator")
                && !before.ends_with("(anonymous")
                && !plain.starts_with('<') =>
        {
            last
        }
        _ => plain,
    };
    match plain.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_runtimes_are_not_the_programs_own() {
        for (module, function, expected) in [
            ("libc.so.6", "abort", true),
            ("libc-2.31.so", "main", true),
            ("libc_malloc_debug.so.0", "free", true),
            ("ld-linux-x86-64.so.2", "_dl_start", true),
            ("libstdc++.so.6.0.30", "f", true),
            ("libtcmalloc_minimal.so.4.5.9", "f", true),
            ("libcurl.so.4", "f", false),
            ("libmine.so", "f", false),
            ("prog", "_start", true),
            ("prog", "main", false),
            ("prog", "free", true),
            ("prog", "free_session", false),
            ("prog", "abort_session", false),
            ("prog", "std::vector<int>::push_back(int const&)", true),
            ("prog", "void std::sort<int*>(int*, int*)", true),
            (
                "prog",
                "<alloc::vec::Vec<T> as core::ops::Drop>::drop",
                true,
            ),
            ("prog", "__memcpy_avx_unaligned_erms", true),
            ("prog", "free@plt", true),
            ("prog", "standard::f", false),
        ] {
            assert_eq!(
                is_runtime(Some(module), Some(function)),
                expected,
                "{module} {function}"
            );
        }
        assert!(!is_runtime(None, None));
    }

    #[test]
    fn a_plain_name_is_what_a_rebuild_keeps() {
        for (name, plain) in [
            ("f", "f"),
            ("f(int, char const*)", "f"),
            ("ns::f<int>(int) const", "ns::f"),
            ("int max<int>(int, int)", "max"),
            ("f(int) [clone .cold]", "f"),
            ("f.part.0", "f"),
            ("f.constprop.0", "f"),
            ("A::operator()(int) const", "A::operator()"),
            ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
            ("prog::main::h0123456789abcdef", "prog::main"),
            ("<A as B>::f", "<A as B>::f"),
            ("", ""),
        ] {
            assert_eq!(plain_name(name), plain, "{name}");
        }
    }
}
