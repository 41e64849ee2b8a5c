//! Modules found in synthetic cores, and the files found for them.

use std::fs;
use std::os::unix::fs::symlink;

use ground::target::{MemoryExt, Source, TargetMemory};

use super::testing::{PAGE, TestElf};
use super::*;
use crate::corefile::testing::{R, RW, RX, TestCore};

fn at(value: u64) -> Address {
    Address::new(value)
}

/// Maps an image as the dynamic linker does: headers dumped, code left out, data dumped.
fn loaded(core: TestCore, elf: &TestElf, base: u64) -> TestCore {
    core.load(base, R, &elf.first_page())
        .part(base + PAGE, PAGE, RX, &[])
        .load(base + 2 * PAGE, RW, &[0x77; PAGE as usize])
}

fn mapped(base: u64, path: &str) -> [(u64, u64, u64, &str); 3] {
    let page = |index| (base + index * PAGE, base + (index + 1) * PAGE, index, path);
    [page(0), page(1), page(2)]
}

fn discover(core: &TestCore, search: &SearchPaths) -> (ModuleSet, AddressSpace) {
    let core = core.open();
    let mut memory = AddressSpace::new(&core);
    let set = ModuleSet::discover(&core, &memory, search);
    memory.add_backing(set.backing());
    (set, memory)
}

fn nowhere() -> SearchPaths {
    SearchPaths {
        defaults: false,
        ..SearchPaths::default()
    }
}

fn names(set: &ModuleSet) -> Vec<(&str, u64)> {
    let row = |module: &Module| module.range.start.get();
    set.modules()
        .iter()
        .map(|module| (module.name.as_str(), row(module)))
        .collect()
}

#[test]
fn a_file_loaded_twice_is_two_modules() {
    let elf = TestElf::default();
    let files = [
        mapped(0x10_0000, "/lib/a.so"),
        mapped(0x20_0000, "/lib/a.so"),
    ]
    .concat();
    let core = loaded(
        loaded(TestCore::default().files(&files), &elf, 0x10_0000),
        &elf,
        0x20_0000,
    );
    let (set, _) = discover(&core, &nowhere());
    assert_eq!(names(&set), [("a.so", 0x10_0000), ("a.so", 0x20_0000)]);
    let module = set.module_at(at(0x20_1000)).unwrap();
    assert_eq!((module.id, module.bias), (ModuleId(1), 0x20_0000));
    assert_eq!(module.build_id.as_deref(), Some(&[0xab; 20][..]));
    assert!(module.has_code_at(at(0x20_1000)) && !module.has_code_at(at(0x20_2000)));
    assert!(set.module_at(at(0x20_3000)).is_none());
}

#[test]
fn a_bias_comes_from_the_segments_whatever_they_are_linked_at() {
    let elf = TestElf {
        base: 0x40_0000,
        ..TestElf::default()
    };
    let prelinked = TestCore::default().files(&mapped(0x70_0000, "/lib/p.so (deleted)"));
    let (set, _) = discover(&loaded(prelinked, &elf, 0x70_0000), &nowhere());
    let module = &set.modules()[0];
    assert_eq!(
        (module.bias, module.path.as_str()),
        (0x30_0000, "/lib/p.so")
    );
}

#[test]
fn a_file_mapped_as_data_is_no_module() {
    let elf = TestElf::default();
    let text = [(0x50_0000, 0x50_1000, 0, "/etc/locale")];
    let whole = [(0x30_0000, 0x30_3000, 0, "/lib/a.so")];
    let core = TestCore::default()
        .files(&[&whole[..], &text[..]].concat())
        .load(0x30_0000, R, &elf.file())
        .load(0x50_0000, R, &[b'x'; PAGE as usize]);
    assert_eq!(names(&discover(&core, &nowhere()).0), []);
}

#[test]
fn a_module_without_headers_has_the_segments_of_its_mappings() {
    let base = 0x10_0000;
    let code = |core: TestCore, first: &[u8]| {
        core.part(base, PAGE, R, first)
            .part(base + PAGE, PAGE, RX, &[])
            .load(base + 2 * PAGE, RW, &[0x77; PAGE as usize])
            .load(base + 3 * PAGE, RW, &[0; PAGE as usize]) // .bss
            .load(base + 8 * PAGE, RW, &[0; PAGE as usize]) // somebody's
    };
    let whole_page = [0; PAGE as usize];
    for first in [&[][..], &whole_page] {
        let files = mapped(base, "/lib/a.so");
        let core = code(TestCore::default().files(&files), first);
        let (set, _) = discover(&core, &nowhere());
        let segments = set.modules()[0].segments.iter();
        let writable = segments.filter(|segment| segment.writable);
        let writable: Vec<_> = writable
            .map(|segment| segment.range.start..segment.range.end)
            .collect();
        assert_eq!(
            writable,
            [
                at(base + 2 * PAGE)..at(base + 3 * PAGE),
                at(base + 3 * PAGE)..at(base + 4 * PAGE)
            ]
        );
    }
}

#[test]
fn a_module_whose_headers_were_not_dumped_is_known_by_its_code() {
    let core = TestCore::default()
        .files(
            &[
                &mapped(0x10_0000, "/lib/a.so")[..],
                &[(0x20_0000, 0x20_1000, 0, "/data")],
            ]
            .concat(),
        )
        .part(0x10_0000, PAGE, R, &[])
        .part(0x10_1000, PAGE, RX, &[])
        .load(0x10_2000, RW, &[1; PAGE as usize])
        .part(0x20_0000, PAGE, R, &[]);
    let (set, _) = discover(&core, &nowhere());
    assert_eq!(names(&set), [("a.so", 0x10_0000)]);
    assert_eq!(set.modules()[0].range.end, at(0x10_3000));
    // What its mappings are, its segments are.
    assert_eq!(set.modules()[0].segments.len(), 3);
}

/// An executable at 0x400000 whose dynamic linker lists two libraries, the second of them in a circle.
fn linked_core(with_notes: bool) -> TestCore {
    let executable = TestElf {
        kind: 2,
        base: 0x40_0000,
        dynamic: Some(0x40_2000),
        interpreter: true,
        ..TestElf::with_id(1)
    };
    let library = TestElf {
        dynamic: Some(0x2000),
        ..TestElf::with_id(2)
    };
    let mut data = vec![0; PAGE as usize];
    let put = |data: &mut Vec<u8>, offset: usize, words: &[u64]| {
        for (index, word) in words.iter().enumerate() {
            data[offset + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
    };
    put(&mut data, 0, &[12, 5, 21, 0x50_0000, 0, 0]); // DT_INIT, DT_DEBUG
    let mut heap = vec![0; PAGE as usize];
    put(&mut heap, 0, &[1, 0x50_0100]); // r_debug
    put(&mut heap, 0x100, &[0, 0x50_0800, 0x40_2000, 0x50_0200]); // executable
    put(
        &mut heap,
        0x200,
        &[0x10_0000, 0x50_0900, 0x10_2000, 0x50_0300],
    );
    put(
        &mut heap,
        0x300,
        &[0x20_0000, 0x50_0a00, 0x20_2000, 0x50_0200],
    ); // back
    heap[0x900..0x909].copy_from_slice(b"/lib/a.so");
    heap[0xa00..0xa09].copy_from_slice(b"/lib/b.so");
    heap[0xb00..0xb08].copy_from_slice(b"/bin/exe");
    let mut core = TestCore::default();
    if with_notes {
        core = core.auxv(&[(3, 0x40_0040), (5, 6), (9, 0x40_1000), (31, 0x50_0b00)]);
    }
    core = core
        .load(0x40_0000, R, &executable.first_page())
        .part(0x40_1000, PAGE, RX, &[])
        .load(0x40_2000, RW, &data)
        .load(0x50_0000, RW, &heap);
    loaded(loaded(core, &library, 0x10_0000), &library, 0x20_0000)
}

#[test]
fn the_dynamic_linkers_list_stands_in_for_the_list_of_files() {
    let (set, _) = discover(&linked_core(true), &nowhere());
    let expected = [("a.so", 0x10_0000), ("b.so", 0x20_0000), ("exe", 0x40_0000)];
    assert_eq!(names(&set), expected);
    let executable = set.executable().unwrap();
    assert_eq!((executable.name.as_str(), executable.bias), ("exe", 0));
}

#[test]
fn without_any_note_the_dynamic_linkers_list_is_still_found() {
    let (set, _) = discover(&linked_core(false), &nowhere());
    assert_eq!(names(&set)[..2], [("a.so", 0x10_0000), ("b.so", 0x20_0000)]);
    assert!(
        set.executable()
            .is_some_and(|module| module.range.start == at(0x40_0000))
    );
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn sysroot(&self, dir: &str) -> SearchPaths {
        SearchPaths {
            sysroots: vec![self.path(dir)],
            ..SearchPaths::default()
        }
    }
}

fn one_module(elf: &TestElf, path: &str) -> TestCore {
    loaded(
        TestCore::default().files(&mapped(0x10_0000, path)),
        elf,
        0x10_0000,
    )
}

#[test]
fn a_file_with_the_cores_build_id_gives_the_pages_left_out() {
    let place = Place::new();
    let elf = TestElf::default();
    let path = place.put("root/lib/a.so", &elf.file());
    let (set, memory) = discover(&one_module(&elf, "/lib/a.so"), &place.sysroot("root"));
    let file = set.file(ModuleId(0)).unwrap();
    assert_eq!((&file.path, file.verified), (&path, true));
    assert_eq!(file.data(), elf.file());
    let window = memory.window(at(0x10_1000)).unwrap();
    assert_eq!((window.bytes[0], window.source), (0x90, Source::ModuleFile));
    assert_eq!(memory.read_u8(at(0x10_2000)), Ok(0x77)); // the core's own
}

#[test]
fn a_file_with_another_build_id_is_never_used() {
    let place = Place::new();
    place.put("root/lib/a.so", &TestElf::with_id(9).file());
    let core = one_module(&TestElf::default(), "/lib/a.so");
    let (set, memory) = discover(&core, &place.sysroot("root"));
    assert!(set.file(ModuleId(0)).is_none() && memory.read_u8(at(0x10_1000)).is_err());
    let [refused] = set.refused() else { panic!() };
    assert_eq!(refused.build_id.as_deref(), Some(&[9; 20][..]));
}

#[test]
fn without_a_build_id_in_the_core_only_a_named_file_is_used_and_marked() {
    let place = Place::new();
    let elf = TestElf {
        build_id: None,
        ..TestElf::default()
    };
    let path = place.put("root/lib/a.so", &elf.file());
    let by_default = one_module(&elf, path.to_str().unwrap());
    assert!(
        discover(&by_default, &SearchPaths::default())
            .0
            .file(ModuleId(0))
            .is_none()
    );
    let (set, _) = discover(&one_module(&elf, "/lib/a.so"), &place.sysroot("root"));
    assert!(!set.file(ModuleId(0)).unwrap().verified);
    assert_eq!(set.unverified().count(), 1);
    // Not even then, if its segments are others.
    let other = TestElf {
        segments: vec![4, 5, 6, 6],
        ..elf.clone()
    };
    place.put("root/lib/a.so", &other.file());
    let (set, _) = discover(&one_module(&elf, "/lib/a.so"), &place.sysroot("root"));
    assert!(set.file(ModuleId(0)).is_none() && set.refused()[0].build_id.is_none());
}

#[test]
fn the_binary_serves_any_module_with_its_build_id() {
    let place = Place::new();
    let elf = TestElf::default();
    let binary = place.put("somewhere/else", &elf.file());
    let search = SearchPaths {
        binary: Some(binary.clone()),
        ..nowhere()
    };
    let (set, _) = discover(&one_module(&elf, "/lib/a.so"), &search);
    assert_eq!(set.file(ModuleId(0)).unwrap().path, binary);
    assert!(set.refused().is_empty());
    let (set, _) = discover(&one_module(&TestElf::with_id(5), "/lib/a.so"), &search);
    assert!(set.file(ModuleId(0)).is_none());
    assert_eq!(set.refused().len() + set.diagnostics().len(), 1);
}

#[test]
fn a_sysroot_replaces_the_path_in_the_core_and_no_defaults_means_none() {
    let place = Place::new();
    let elf = TestElf::default();
    let path = place.put("lib/a.so", &elf.file());
    let core = one_module(&elf, path.to_str().unwrap());
    let is_found = |search: &SearchPaths| discover(&core, search).0.file(ModuleId(0)).is_some();
    assert!(is_found(&SearchPaths::default()));
    assert!(!is_found(&nowhere()));
    assert!(!is_found(&place.sysroot("empty")));
}

#[test]
fn images_and_debug_files_are_found_by_build_id() {
    let place = Place::new();
    let elf = TestElf::default();
    let rest = "ab".repeat(19);
    place.put(&format!("d/.build-id/ab/{rest}"), &elf.file());
    let search = SearchPaths {
        debug_dirs: vec![place.path("d")],
        ..nowhere()
    };
    let (set, _) = discover(&one_module(&elf, "/gone/a.so"), &search);
    assert!(set.file(ModuleId(0)).unwrap().verified);

    let link = |name: &'static [u8], bytes: &[u8]| Some((name, crc32fast::hash(bytes)));
    let debug = elf.file();
    let image = place.path("bin/a.so");
    let found = |search: &SearchPaths, link| search.find_debug(None, link, &image);
    assert!(found(&search, link(b"a.debug", &debug)).is_none());
    let path = place.put("d/a.debug", &debug);
    assert_eq!(found(&search, link(b"a.debug", &debug)).unwrap().path, path);
    assert!(found(&search, link(b"a.debug", b"other")).is_none());
    assert!(found(&search, link(b"../d/a.debug", &debug)).is_none());
    // Beside the image: a default place, which --debug-dir replaces.
    place.put("bin/.debug/b.debug", &debug);
    assert!(found(&search, link(b"b.debug", &debug)).is_none());
    assert!(found(&SearchPaths::default(), link(b"b.debug", &debug)).is_some());
    assert!(found(&nowhere(), link(b"b.debug", &debug)).is_none());
}

#[test]
fn nothing_leads_out_of_a_sysroot() {
    let place = Place::new();
    let elf = TestElf::default();
    let secret = place.put("outside/a.so", &elf.file());
    fs::create_dir_all(place.path("root/lib")).unwrap();
    let is_found = |path: &str| {
        let core = one_module(&elf, path);
        discover(&core, &place.sysroot("root"))
            .0
            .file(ModuleId(0))
            .is_some()
    };
    assert!(!is_found("/lib/../../outside/a.so"));
    symlink(&secret, place.path("root/lib/a.so")).unwrap();
    assert!(!is_found("/lib/a.so"));
    symlink("/lib", place.path("root/lib64")).unwrap();
    symlink("loop", place.path("root/lib/loop")).unwrap();
    assert!(!is_found("/lib/loop"));
    place.put("root/lib/real.so", &elf.file());
    assert!(is_found("/lib64/real.so")); // an absolute link is meant within the root
    // By build ID likewise: where `.build-id` leads is meant within the root.
    let id: String = elf
        .build_id
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = format!("{}/{}", &id[..2], &id[2..]);
    place.put(&format!("outside/ids/{name}"), &elf.file());
    fs::create_dir_all(place.path("root/usr/lib/debug")).unwrap();
    symlink(
        place.path("outside/ids"),
        place.path("root/usr/lib/debug/.build-id"),
    )
    .unwrap();
    assert!(!is_found("/lib/by-id.so"));
    place.put(&format!("root/ids/{name}"), &elf.file());
    fs::remove_file(place.path("root/usr/lib/debug/.build-id")).unwrap();
    symlink("/ids", place.path("root/usr/lib/debug/.build-id")).unwrap();
    assert!(is_found("/lib/by-id.so"));
}

#[test]
fn code_replaced_by_the_program_does_not_come_from_the_file() {
    let place = Place::new();
    let elf = TestElf::default();
    place.put("root/lib/a.so", &elf.file());
    // The program put anonymous memory where its code was (as for huge pages), and the dump left that out.
    let files = mapped(0x10_0000, "/lib/a.so");
    let core = TestCore::default()
        .files(&[files[0], files[2]])
        .load(0x10_0000, R, &elf.first_page())
        .part(0x10_1000, PAGE, RX, &[])
        .load(0x10_2000, RW, &[0x77; PAGE as usize]);
    let (set, memory) = discover(&core, &place.sysroot("root"));
    assert!(set.file(ModuleId(0)).is_some());
    assert!(memory.read_u8(at(0x10_1000)).is_err());
}

proptest::proptest! {
    #[test]
    fn damaged_headers_and_lists_never_panic(
        flips in proptest::collection::vec((0usize..0x9000, proptest::num::u8::ANY), 1..8),
        with_notes: bool,
    ) {
        let mut bytes = linked_core(with_notes).bytes();
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(core) = crate::corefile::testing::parse(&bytes) {
            let mut memory = AddressSpace::new(&core);
            let set = ModuleSet::discover(&core, &memory, &nowhere());
            memory.add_backing(set.backing());
            for module in set.modules() {
                assert!(module.range.start <= module.range.end);
            }
        }
    }
}
