//! Allocators that heapcheck knows by name and does not walk, and how each is told: by the name of its library, by functions
//! that it defines, by text that is in its code. Names are those of the projects' own sources.

use ground::target::Module;

/// What an allocator is to a process that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes the place of `malloc` wherever it is, and no other library has its name.
    Replaces,
    /// It may take the place of `malloc`, or be called by names of its own.
    Offers,
    /// A language's own heap beside `malloc`.
    Runtime,
}

/// An allocator that is known by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name in reports.
    pub name: &'static str,
    /// What it is to the process.
    pub role: Role,
    /// How the names of its libraries' files begin.
    pub files: &'static [&'static str],
    /// Functions that only it defines.
    pub symbols: &'static [&'static str],
    /// Text in its constants or variables.
    pub texts: &'static [&'static [u8]],
}

const fn known(
    name: &'static str,
    role: Role,
    files: &'static [&'static str],
    symbols: &'static [&'static str],
    texts: &'static [&'static [u8]],
) -> Known {
    Known {
        name,
        role,
        files,
        symbols,
        texts,
    }
}

use Role::{Offers, Replaces, Runtime};

/// All of them. One whose text is part of another's stands behind that.
pub const ALL: &[Known] = &[
    known(
        "HWAddressSanitizer",
        Replaces,
        &["libhwasan.so", "libclang_rt.hwasan"],
        &["__hwasan_init"],
        &[b"HWAddressSanitizer"],
    ),
    known(
        "AddressSanitizer",
        Replaces,
        &["libasan.so", "libclang_rt.asan"],
        &["__asan_init"],
        &[b"AddressSanitizer"],
    ),
    known(
        "ThreadSanitizer",
        Replaces,
        &["libtsan.so", "libclang_rt.tsan"],
        &["__tsan_init"],
        &[b"ThreadSanitizer"],
    ),
    known(
        "MemorySanitizer",
        Replaces,
        &["libclang_rt.msan"],
        &["__msan_init"],
        &[b"MemorySanitizer"],
    ),
    known(
        "LeakSanitizer",
        Replaces,
        &["liblsan.so", "libclang_rt.lsan"],
        &["__lsan_init"],
        &[b"LeakSanitizer"],
    ),
    known(
        "scudo",
        Replaces,
        &["libclang_rt.scudo", "libscudo"],
        &["__scudo_print_stats"],
        &[b"Scudo ERROR", b"Scudo INFO"],
    ),
    known(
        "valgrind",
        Replaces,
        &[
            "vgpreload_memcheck",
            "vgpreload_helgrind",
            "vgpreload_drd",
            "vgpreload_massif",
            "vgpreload_dhat",
        ],
        &[],
        &[],
    ),
    known(
        "mimalloc",
        Offers,
        &["libmimalloc"],
        &["mi_malloc", "mi_heap_malloc", "_mi_heap_main"],
        &[b"mimalloc: error: ", b"mimalloc: warning: "],
    ),
    known(
        "musl (oldmalloc)",
        Offers,
        &[],
        &["__malloc_replaced", "__expand_heap"],
        &[],
    ),
    known(
        "tcmalloc (google)",
        Offers,
        &[],
        &[
            "TCMalloc_Internal_GetStats",
            "MallocExtension_Internal_GetNumericProperty",
        ],
        &[b"tcmalloc_internal"],
    ),
    known(
        "PartitionAlloc (Chromium)",
        Offers,
        &[],
        &[],
        &[b"partition_alloc::", b"PartitionAllocMemoryReclaimer"],
    ),
    known(
        "mozjemalloc",
        Offers,
        &["libmozglue"],
        &["moz_arena_malloc", "moz_create_arena_with_params"],
        &[],
    ),
    known(
        "rpmalloc",
        Offers,
        &["librpmalloc"],
        &["rpmalloc", "rpmalloc_initialize"],
        &[],
    ),
    known(
        "snmalloc",
        Offers,
        &["libsnmalloc"],
        &["sn_malloc", "sn_rust_alloc"],
        &[],
    ),
    known("Hoard", Offers, &["libhoard"], &[], &[]),
    known(
        "hardened_malloc",
        Offers,
        &["libhardened_malloc"],
        &[],
        &[b"fatal allocator error: "],
    ),
    known(
        "TBB's scalable allocator",
        Offers,
        &["libtbbmalloc"],
        &["scalable_malloc"],
        &[],
    ),
    known("Electric Fence", Offers, &["libefence"], &[], &[]),
    known("D.U.M.A.", Offers, &["libduma"], &[], &[]),
    known("dmalloc", Offers, &["libdmalloc"], &["dmalloc_error"], &[]),
    known("Mesh", Offers, &["libmesh.so"], &[], &[]),
    known("isoalloc", Offers, &["libisoalloc"], &["iso_alloc"], &[]),
    known("lockless malloc", Offers, &["libllalloc"], &[], &[]),
    known("libumem", Offers, &["libumem"], &["umem_alloc"], &[]),
    known(
        "the Go runtime",
        Runtime,
        &[],
        &["runtime.mheap_"],
        &[b"\xff Go buildinf:"],
    ),
    known(
        "the Java virtual machine",
        Runtime,
        &["libjvm.so"],
        &[],
        &[],
    ),
];

/// Whether a module is musl: its library is the dynamic linker, too, and some distributions call it `libc.so`.
pub fn is_musl(module: &Module) -> bool {
    MUSL.has_file(&module.name) || module.name == "libc.so"
}

/// musl's allocator has no name in a program; its library has.
pub const MUSL: Known = known(
    "musl",
    Replaces,
    &["ld-musl-", "libc.musl-"],
    &["__malloc_context", "__malloc_alloc_meta"],
    &[],
);

impl Known {
    /// Whether a library's file name is one of its own.
    pub fn has_file(&self, name: &str) -> bool {
        self.files.iter().any(|prefix| name.starts_with(prefix))
    }
}
