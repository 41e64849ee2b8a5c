//! Frames that are nobody's mistake: allocators, interceptors, libc, the language's library.

use super::names::{LAMBDA, Name};
use crate::record::Frame;

/// What the user wants kept or dropped, over what is built in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Patterns of functions or modules that are dropped from keys.
    pub ignore: Vec<String>,
    /// Patterns that are kept, whatever else is said of them.
    pub keep: Vec<String>,
}

impl Frames {
    /// True if the user has said nothing.
    pub fn is_default(&self) -> bool {
        self.ignore.is_empty() && self.keep.is_empty()
    }

    fn says(&self, name: &str, frame: &Frame) -> Option<bool> {
        let module = frame.module.as_deref().unwrap_or("");
        let hit = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| matches(pattern, name) || matches(pattern, module))
        };
        if hit(&self.keep) {
            return Some(true);
        }
        hit(&self.ignore).then_some(false)
    }
}

/// A pattern with `*` for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// What a frame is to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The program's own, with a name.
    Own,
    /// The program's own, without a name.
    Unnamed,
    /// Starts threads and programs: the stack is whole.
    Root,
    /// A library's function that has a name: allocator, libc, the language's library.
    Library,
    /// Nothing: no module, a stack's own memory.
    Nothing,
}

/// Classes a frame.
pub(super) fn class(frame: &Frame, name: &Name, rules: &Frames) -> Class {
    let text = name.text();
    match rules.says(&text, frame) {
        Some(true) if !text.is_empty() => return Class::Own,
        Some(false) => return Class::Library,
        _ => {}
    }
    let last = name.last();
    if is_root(last) {
        return Class::Root;
    }
    if text.is_empty() {
        return match frame.module.as_deref() {
            Some(module) if module.starts_with('[') => Class::Nothing,
            Some(module) if is_library(module) => Class::Library,
            Some(_) => Class::Unnamed,
            None if frame.file.is_some() => Class::Unnamed,
            None if frame.address.is_some() => Class::Nothing,
            None => Class::Nothing,
        };
    }
    if frame.module.as_deref().is_some_and(is_library)
        || frame.file.as_deref().is_some_and(is_library_source)
    {
        return Class::Library;
    }
    if is_allocator(last) || is_language(name) || (frame.file.is_none() && is_libc(last)) {
        return Class::Library;
    }
    Class::Own
}

fn is_root(name: &str) -> bool {
    matches!(
        name,
        "_start"
            | "__libc_start_main"
            | "__libc_start_main_impl"
            | "__libc_start_call_main"
            | "generic_start_main"
            | "start_thread"
            | "clone"
            | "clone3"
            | "__clone"
            | "__clone3"
            | "(below main)"
            | "asan_thread_start"
            | "__tsan_thread_start_func"
            | "thread_start"
            | "mythread_wrapper"
            | "vgDrd_thread_wrapper"
            | "lang_start"
            | "lang_start_internal"
    ) || name.starts_with("call_init")
}

/// True of modules that are no program's own.
fn is_library(module: &str) -> bool {
    const STARTS: [&str; 32] = [
        "libc.so",
        "libc-2.",
        "libc_malloc_debug",
        "libpthread",
        "libm.so",
        "libm-2.",
        "libdl.so",
        "libdl-2.",
        "librt.so",
        "librt-2.",
        "ld-linux",
        "ld-2.",
        "ld-musl",
        "libstdc++",
        "libc++",
        "libgcc_s",
        "libasan",
        "libtsan",
        "liblsan",
        "libubsan",
        "libclang_rt",
        "vgpreload_",
        "libtcmalloc",
        "libjemalloc",
        "libmimalloc",
        "libdrmemory",
        "libmemleak",
        "libmtrace",
        "linux-vdso",
        "linux-gate",
        "libprofiler",
        "valgrind",
    ];
    STARTS.iter().any(|start| module.starts_with(start))
}

/// True of files that belong to a compiler's runtime, libc or the language's library.
fn is_library_source(file: &str) -> bool {
    const PARTS: [&str; 18] = [
        "libsanitizer/",
        "compiler-rt/",
        "sanitizer_common",
        "vg_replace_",
        "hg_intercepts",
        "drd_pthread_intercepts",
        "sysdeps/",
        "csu/libc-start",
        "/c++/",
        "libstdc++",
        "/nptl/",
        "/glibc-",
        "/rustc/",
        "drmemory",
        "tcmalloc.cc",
        "jemalloc.c",
        "cxxabi/",
        "malloc/malloc.c",
    ];
    PARTS.iter().any(|part| file.contains(part))
}

/// True of functions that get and give memory, and of thin covers of them.
pub(super) fn is_allocator(name: &str) -> bool {
    let name = name.strip_suffix("_impl").unwrap_or(name);
    let stripped = [
        "___interceptor_",
        "__interceptor_",
        "__interceptor_trampoline_",
        "__interceptor_",
        "interceptor_",
        "__asan_",
        "__libc_",
        "__GI_",
        "__wrap_",
        "replace_",
        "tc_",
        "je_",
        "mi_",
        "vg_",
    ]
    .iter()
    .fold(name, |name, start| name.strip_prefix(start).unwrap_or(name));
    if stripped != name
        && stripped.len() > 2
        && (name.contains("interceptor")
            || name.starts_with("__asan_")
            || name.starts_with("replace_"))
    {
        return true;
    }
    if name.starts_with("operator new") || name.starts_with("operator delete") {
        return true;
    }
    let plain = ["x", "g_", "safe_", "checked_", "my_"]
        .iter()
        .fold(stripped, |name, start| {
            name.strip_prefix(start).unwrap_or(name)
        });
    matches!(
        plain,
        "malloc"
            | "free"
            | "cfree"
            | "calloc"
            | "realloc"
            | "reallocarray"
            | "memalign"
            | "aligned_alloc"
            | "posix_memalign"
            | "valloc"
            | "pvalloc"
            | "strdup"
            | "strndup"
            | "wcsdup"
            | "malloc0"
            | "zalloc"
            | "__strdup"
            | "__strndup"
            | "malloc_usable_size"
            | "__libc_malloc"
            | "free_sized"
            | "_int_malloc"
            | "_int_free"
            | "_int_realloc"
            | "mallocx"
            | "dallocx"
            | "sdallocx"
            | "rallocx"
    ) || name.starts_with("tcmalloc::")
}

/// True of the language's own library.
fn is_language(name: &Name) -> bool {
    let first = name.parts.first().map_or("", String::as_str);
    let last = name.last();
    (name.parts.len() > 1
        && matches!(
            first,
            "std"
                | "__gnu_cxx"
                | "__cxxabiv1"
                | "core"
                | "alloc"
                | "hashbrown"
                | "__asan"
                | "__tsan"
                | "__lsan"
                | "__msan"
                | "__ubsan"
                | "__sanitizer"
                | "tcmalloc"
                | "__interception"
                | "libmemleak"
                | "_pstack"
        ))
        || last.starts_with("__invoke")
        || matches!(
            last,
            "__rust_alloc"
                | "__rust_realloc"
                | "__rust_dealloc"
                | "__rust_begin_short_backtrace"
                | "rust_begin_unwind"
                | "__rdl_alloc"
                | "__rg_alloc"
                | "main_thread"
        )
        || last.starts_with("__ubsan_handle_")
        || last.starts_with("__msan_")
        || last.starts_with("__tsan_")
        || last.starts_with("__cxa_")
        || (last == LAMBDA && matches!(first, "std" | "core" | "alloc"))
}

/// True of functions of libc that tools intercept or that call back.
fn is_libc(name: &str) -> bool {
    let name = name.trim_start_matches("__GI_").trim_start_matches("__");
    const NAMES: [&str; 106] = [
        "abort",
        "accept",
        "asprintf",
        "atexit",
        "atoi",
        "atol",
        "bcmp",
        "bcopy",
        "bsearch",
        "bzero",
        "exit",
        "fclose",
        "fgets",
        "fopen",
        "fprintf",
        "fputs",
        "fread",
        "fscanf",
        "fwrite",
        "getaddrinfo",
        "getcwd",
        "getdelim",
        "getenv",
        "getline",
        "gets",
        "gsignal",
        "index",
        "kill",
        "libc_message",
        "longjmp",
        "memccpy",
        "memchr",
        "memcmp",
        "memcpy",
        "memmem",
        "memmove",
        "mempcpy",
        "memrchr",
        "memset",
        "open",
        "pread",
        "printf",
        "pthread_cond_wait",
        "pthread_create",
        "pthread_join",
        "pthread_kill",
        "pthread_kill_implementation",
        "pthread_mutex_destroy",
        "pthread_mutex_lock",
        "pthread_mutex_unlock",
        "pthread_once",
        "puts",
        "pwrite",
        "qsort",
        "qsort_r",
        "raise",
        "rawmemchr",
        "read",
        "readv",
        "recv",
        "recvfrom",
        "recvmsg",
        "rindex",
        "scanf",
        "send",
        "sendmsg",
        "sendto",
        "setenv",
        "setvbuf",
        "snprintf",
        "sprintf",
        "sscanf",
        "stpcpy",
        "stpncpy",
        "strcasecmp",
        "strcat",
        "strchr",
        "strchrnul",
        "strcmp",
        "strcpy",
        "strcspn",
        "strlcat",
        "strlcpy",
        "strlen",
        "strncasecmp",
        "strncat",
        "strncmp",
        "strncpy",
        "strnlen",
        "strpbrk",
        "strrchr",
        "strspn",
        "strstr",
        "strtok",
        "strtol",
        "strtoul",
        "vasprintf",
        "vfprintf",
        "vprintf",
        "vsnprintf",
        "vsprintf",
        "wcscpy",
        "wcslen",
        "wmemcpy",
        "write",
        "writev",
    ];
    NAMES.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: &str, file: &str, module: &str) -> Class {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let frame = Frame {
            function: some(function),
            file: some(file),
            module: some(module),
            ..Frame::default()
        };
        class(&frame, &Name::of(function), &Frames::default())
    }

    #[test]
    fn classes() {
        assert_eq!(of("taste", "/src/a.c", ""), Class::Own);
        assert_eq!(
            of("__interceptor_malloc", "../x/libsanitizer/a.cpp", ""),
            Class::Library
        );
        assert_eq!(of("___interceptor_strcpy", "", "prog"), Class::Library);
        assert_eq!(of("free", "", "prog"), Class::Library);
        assert_eq!(of("free_list", "", "prog"), Class::Own);
        assert_eq!(of("xmalloc", "/src/a.c", ""), Class::Library);
        assert_eq!(of("read", "/src/a.c", ""), Class::Own);
        assert_eq!(of("read", "", "prog"), Class::Library);
        assert_eq!(of("__strdup", "", "libc.so.6"), Class::Library);
        assert_eq!(
            of("std::vector<int>::push_back(int const&)", "", ""),
            Class::Library
        );
        assert_eq!(
            of(
                "__invoke_impl<void, f>",
                "/usr/include/c++/12/bits/invoke.h",
                ""
            ),
            Class::Library
        );
        assert_eq!(of("", "", "prog"), Class::Unnamed);
        assert_eq!(of("", "", "[stack]"), Class::Nothing);
        assert_eq!(of("__libc_start_main", "", ""), Class::Root);
        assert_eq!(of("main", "", ""), Class::Own);
    }

    #[test]
    fn the_user_decides() {
        let rules = Frames {
            ignore: vec!["wrap_*".to_owned()],
            keep: vec!["libc.so*".to_owned()],
        };
        let frame = Frame {
            module: Some("libc.so.6".to_owned()),
            ..Frame::default()
        };
        assert_eq!(class(&frame, &Name::of("qsort"), &rules), Class::Own);
        assert_eq!(
            class(&Frame::default(), &Name::of("wrap_new"), &rules),
            Class::Library
        );
        assert!(
            matches("a*b*c", "aXbYc")
                && !matches("a*b", "aXc")
                && matches("*", "")
                && !matches("a", "ab")
        );
    }

    #[test]
    fn libc_names_are_sorted() {
        assert!(
            is_libc("abort")
                && is_libc("memset")
                && is_libc("writev")
                && is_libc("pthread_kill")
                && !is_libc("zebra")
        );
    }
}
