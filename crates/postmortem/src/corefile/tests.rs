//! Cores whole, cut, damaged and packed.

use ground::target::{Address, Fault, MemoryExt, Source, TargetMemory};

use super::testing::{R, RW, RX, TestCore, parse, view};
use super::*;

/// A small core with everything in it.
fn sample() -> TestCore {
    let mut registers = [0; 27];
    registers[16] = 0x40_1234; // rip
    registers[19] = 0x7ffe_0010; // rsp
    registers[21] = 0x7fff_0000; // fs_base
    registers[10] = 0xaaaa; // rax
    TestCore::default()
        .thread(100, 11, registers)
        .process(100, "victim", "./victim now")
        .signal(11, 1, 0xdead)
        .auxv(&[(6, 4096), (33, 0x9000)])
        .files(&[
            (0x1000, 0x3000, 0, "/bin/victim"),
            (0x3000, 0x4000, 2, "/bin/victim"),
        ])
        .note(2, vec![7; 512])
        .thread(101, 0, [1; 27])
        .part(0x1000, 0x2000, RX, &[1; 0x1000])
        .load(0x3000, RW, &[2; 0x1000])
        .load(0x4000, RW, &[3; 0x2000])
        .part(0x6000, 0x1000, RW, &[])
        .load(0x9000, RX, &[4; 0x1000])
}

fn at(value: u64) -> Address {
    Address::new(value)
}

#[test]
fn notes_are_read() {
    let core = sample().open();
    let [first, second] = core.threads() else {
        panic!("{:?}", core.threads());
    };
    assert_eq!(
        (first.tid, first.pc, first.sp),
        (100, at(0x40_1234), at(0x7ffe_0010))
    );
    assert_eq!(first.thread_pointer, Some(at(0x7fff_0000)));
    assert_eq!(first.registers.get(0), Some(0xaaaa));
    assert_eq!((first.signal, first.name.as_deref()), (11, Some("victim")));
    assert_eq!((second.tid, second.name.as_deref()), (101, None));
    assert_eq!(core.fp_registers(0), Some(&[7; 512][..]));
    assert_eq!(core.fp_registers(1), None);
    assert_eq!(core.process().arguments.as_deref(), Some("./victim now"));
    assert_eq!(
        (core.process().pid, core.process().uid),
        (Some(100), Some(1000))
    );
    let signal = core.signal().unwrap();
    assert_eq!(
        (signal.signal, signal.fault_address),
        (11, Some(at(0xdead)))
    );
    assert_eq!(core.auxv(auxv::AT_SYSINFO_EHDR), Some(0x9000));
    assert_eq!(core.files()[1].file_offset, 0x2000);
    assert!(!core.truncated() && core.diagnostics().is_empty());
}

#[test]
fn absence_is_typed() {
    let memory = AddressSpace::new(&sample().open());
    assert_eq!(memory.read_u8(at(0x1fff)), Ok(1));
    assert_eq!(
        memory.read_u8(at(0x2000)),
        Err(Fault::NotDumped(at(0x2000)))
    );
    assert_eq!(
        memory.read_u8(at(0x6fff)),
        Err(Fault::NotDumped(at(0x6fff)))
    );
    assert_eq!(memory.read_u8(at(0x7000)), Err(Fault::Unmapped(at(0x7000))));
    assert_eq!(memory.read_u8(at(0xfff)), Err(Fault::Unmapped(at(0xfff))));
    assert_eq!(
        memory.read_u8(at(u64::MAX)),
        Err(Fault::Unmapped(at(u64::MAX)))
    );
}

#[test]
fn a_window_runs_over_mappings_that_continue_each_other() {
    let memory = AddressSpace::new(&sample().open());
    let window = memory.window(at(0x3ff8)).unwrap();
    assert_eq!(window.bytes.len(), 8 + 0x2000);
    assert_eq!(memory.read_u64(at(0x3ffc)), Ok(0x0303_0303_0202_0202));
}

#[test]
fn bytes_that_are_cut_off_are_told_from_those_not_dumped() {
    let whole = sample().bytes();
    let core = parse(&whole[..whole.len() - 0x1800]).unwrap();
    assert!(core.truncated());
    assert_eq!(core.expected_bytes(), whole.len() as u64);
    let memory = AddressSpace::new(&core);
    assert_eq!(memory.read_u8(at(0x57ff)), Ok(3));
    assert_eq!(
        memory.read_u8(at(0x5800)),
        Err(Fault::Truncated(at(0x5800)))
    );
    assert_eq!(
        memory.read_u8(at(0x6000)),
        Err(Fault::NotDumped(at(0x6000)))
    );
    assert_eq!(
        memory.read_u8(at(0x9000)),
        Err(Fault::Truncated(at(0x9000)))
    );
}

fn backing(start: u64, end: u64, read_only: bool) -> Backing {
    Backing {
        range: at(start)..at(end),
        file: view(&[9; 0x3000]),
        file_offset: 0,
        read_only,
        executable: read_only,
    }
}

#[test]
fn files_fill_only_what_was_never_written() {
    let mut memory = AddressSpace::new(&sample().open());
    memory.add_backing(&[
        backing(0x1000, 0x3000, true),
        backing(0x3000, 0x7000, false),
    ]);
    assert_eq!(memory.read_u8(at(0x1fff)), Ok(1)); // the core's own
    let window = memory.window(at(0x2000)).unwrap();
    assert_eq!((window.bytes[0], window.source), (9, Source::ModuleFile));
    assert_eq!(memory.read_u8(at(0x3000)), Ok(2));
    // 0x6000 is mapped writable and was left out whole: never written. But the file has only 0x3000 bytes.
    assert_eq!(
        memory.read_u8(at(0x6000)),
        Err(Fault::NotDumped(at(0x6000)))
    );
}

#[test]
fn a_dump_without_written_memory_proves_nothing_about_what_it_left_out() {
    let core = TestCore::default()
        .part(0x1000, 0x1000, RW, &[])
        .part(0x2000, 0x1000, RX, &[])
        .open();
    let mut memory = AddressSpace::new(&core);
    assert!(!memory.writes_are_dumped());
    memory.add_backing(&[
        backing(0x1000, 0x2000, false),
        backing(0x2000, 0x3000, true),
    ]);
    assert_eq!(
        memory.read_u8(at(0x1000)),
        Err(Fault::NotDumped(at(0x1000)))
    );
    assert_eq!(memory.read_u8(at(0x2000)), Ok(9));
}

#[test]
fn parts_of_a_writable_mapping_that_somebody_left_out_are_unknown() {
    let with = |middle: bool| {
        let core = TestCore::default()
            .files(&[(0x1000, 0x4000, 0, "/l")])
            .load(0x8000, RW, &[2; 0x1000]);
        let core = if middle {
            core.load(0x1000, RW, &[1; 0x1000])
                .part(0x2000, 0x1000, RW, &[])
                .load(0x3000, RW, &[3; 0x1000])
        } else {
            core.part(0x1000, 0x3000, RW, &[])
        };
        let mut memory = AddressSpace::new(&core.open());
        memory.add_backing(&[backing(0x1000, 0x4000, false)]);
        memory
    };
    assert_eq!(
        with(true).read_u8(at(0x2000)),
        Err(Fault::NotDumped(at(0x2000)))
    );
    // All of it was left out: never written.
    assert_eq!(with(false).read_u8(at(0x2000)), Ok(9));
}

#[test]
fn gcore_tells_neither_segments_nor_permissions_of_what_it_leaves_out() {
    let core = TestCore::default()
        .files(&[(0x1000, 0x2000, 0, "/l"), (0x2000, 0x3000, 1, "/l")])
        .load(0x1000, R, &[1; 0x1000])
        .load(0x8000, RW, &[2; 0x1000])
        .open();
    let mut memory = AddressSpace::new(&core);
    assert_eq!(
        memory.read_u8(at(0x2000)),
        Err(Fault::NotDumped(at(0x2000)))
    );
    memory.add_backing(&[backing(0x1000, 0x3000, true)]);
    assert_eq!(memory.read_u8(at(0x2000)), Ok(9));
    let executable: Vec<bool> = memory
        .regions()
        .iter()
        .map(|region| region.executable)
        .collect();
    assert_eq!(executable, [false, true, false]);
}

#[test]
fn the_thread_that_crashed_comes_first() {
    // As gdb writes it: the selected thread first, a SIGINFO after each.
    let core = TestCore::default()
        .thread(7, 0, [0; 27])
        .signal(19, 0, 0)
        .thread(8, 11, [0; 27])
        .signal(11, 1, 0x10)
        .open();
    let tids: Vec<u32> = core.threads().iter().map(|thread| thread.tid).collect();
    assert_eq!(tids, [8, 7]);
    assert_eq!(core.signal().unwrap().fault_address, Some(at(0x10)));
}

#[test]
fn the_image_of_a_living_process_has_no_signal() {
    let core = TestCore::default()
        .thread(7, 0, [0; 27])
        .signal(19, 0, 0)
        .open();
    assert_eq!(core.signal(), None);
}

#[test]
fn a_core_without_signal_info_takes_the_signal_of_its_first_thread() {
    let core = TestCore::default().thread(7, 6, [0; 27]).open();
    let signal = core.signal().unwrap();
    assert_eq!((signal.signal, signal.code), (6, None));
}

#[test]
fn extended_numbering_survives_the_loss_of_its_section_header() {
    let mut core = TestCore {
        extended_numbering: true,
        ..TestCore::default()
    };
    for index in 0..66_000u64 {
        core = core.part(0x10_0000 + index * 0x1000, 0x1000, RW, &[]);
    }
    core = core.load(0x1000, RW, &[5; 0x1000]);
    let whole = core.bytes();
    let last = at(0x10_0000 + 65_999 * 0x1000);
    let check = |bytes: &[u8]| {
        let core = parse(bytes).unwrap();
        let memory = AddressSpace::new(&core);
        assert_eq!(memory.regions().len(), 66_001);
        assert_eq!(memory.window(last).err(), Some(Fault::NotDumped(last)));
        core.diagnostics().len()
    };
    assert_eq!(check(&whole), 0);
    assert_eq!(check(&whole[..whole.len() - 65]), 1);
}

#[test]
fn damaged_lengths_do_not_hide_the_segments_behind_them() {
    let core = TestCore::default()
        .part(0x1000, u64::MAX, RW, &[1; 0x1000])
        .load(0x5000, RW, &[2; 0x1000])
        .open();
    let memory = AddressSpace::new(&core);
    assert_eq!(memory.read_u8(at(0x5000)), Ok(2));
    assert_eq!(
        memory.read_u8(at(0x4fff)),
        Err(Fault::NotDumped(at(0x4fff)))
    );
    assert_eq!(core.diagnostics().len(), 1);
}

#[test]
fn what_is_no_core_is_refused_in_one_line() {
    let with = |index: usize, value: u8| {
        let mut bytes = sample().bytes();
        bytes[index] = value;
        bytes
    };
    let cases: [(Vec<u8>, &str); 12] = [
        (Vec::new(), "the file is empty"),
        (b"hello\n".to_vec(), "a text file, not ELF"),
        (vec![0, 1, 2], "data, not ELF"),
        (b"MDMP\0\0".to_vec(), "a minidump, not ELF"),
        (b"\x7fEL".to_vec(), "ends inside its ELF header"),
        (
            sample().bytes()[..63].to_vec(),
            "ends inside its ELF header",
        ),
        (
            sample().bytes()[..200].to_vec(),
            "ends inside its program headers",
        ),
        (with(16, 2), "not a core file but an executable"),
        (with(16, 3), "not a core file but a shared object"),
        (with(4, 1), "a 32-bit core"),
        (
            with(18, 243),
            "a core of riscv64; only amd64 or arm64 is read",
        ),
        (with(7, 9), "a core of FreeBSD"),
    ];
    for (bytes, expected) in cases {
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let mut big_endian = with(5, 2);
    big_endian[16..20].copy_from_slice(&[0, 4, 0, 21]);
    let error = parse(&big_endian).unwrap_err().to_string();
    assert!(error.contains("ppc64 (big-endian)"), "{error}");
}

/// Reads whatever can be read; what counts is that it ends and does not panic.
fn exercise(bytes: &[u8]) -> bool {
    let Ok(core) = parse(bytes) else { return false };
    let mut memory = AddressSpace::new(&core);
    memory.add_backing(&[
        backing(0x1000, 0x3000, true),
        backing(0x2000, 0x9000, false),
    ]);
    let mut before = at(0);
    for region in memory.regions() {
        assert!(before <= region.range.start && region.range.start < region.range.end);
        assert!(region.present_bytes <= region.dumped_bytes);
        assert!(region.dumped_bytes <= region.bytes());
        before = region.range.end;
        let last = region.range.end.checked_sub(1).unwrap();
        for at in [region.range.start, last] {
            if let Ok(window) = memory.window(at) {
                assert!(!window.bytes.is_empty() && window.start == at);
            }
        }
    }
    true
}

#[test]
fn a_core_cut_anywhere_is_read_from_its_program_headers_on() {
    let bytes = sample().bytes();
    let headers_end = 64 + 56 * 6;
    for length in 0..bytes.len().min(6000) {
        assert_eq!(
            exercise(&bytes[..length]),
            length >= headers_end,
            "{length}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn flipped_bytes_never_panic(
        flips in proptest::collection::vec((0usize..0x1000, proptest::num::u8::ANY), 1..6),
        length in 0usize..0x6000,
    ) {
        let mut bytes = sample().bytes();
        for (at, value) in flips {
            bytes[at] = value;
        }
        exercise(&bytes);
        bytes.truncate(length);
        exercise(&bytes);
    }
}

#[test]
fn a_packed_core_is_unpacked_and_a_cut_one_as_far_as_it_goes() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        temporary_dir: dir.path().to_owned(),
        ..OpenOptions::default()
    };
    let whole = sample().bytes();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    packer.write_all(&whole).unwrap();
    let packed = packer.finish().unwrap();
    let path = dir.path().join("core.gz");

    std::fs::write(&path, &packed).unwrap();
    let core = CoreFile::open_with(&path, &options).unwrap();
    assert_eq!(core.view.bytes(), whole);
    assert!(!core.truncated() && core.diagnostics().is_empty());

    std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
    let core = CoreFile::open_with(&path, &options).unwrap();
    assert!(core.truncated() && core.diagnostics().len() == 1);
    assert!(whole.starts_with(core.view.bytes()));

    std::fs::write(&path, &packed).unwrap();
    let limited = OpenOptions {
        max_unpacked_bytes: Some(0x1800),
        ..options.clone()
    };
    let core = CoreFile::open_with(&path, &limited).unwrap();
    assert!(core.truncated() && core.file_bytes() == 0x1800);

    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&[0; 1 << 20]).unwrap();
    std::fs::write(&path, packer.finish().unwrap()).unwrap();
    let error = CoreFile::open_with(&path, &options).unwrap_err();
    assert!(matches!(error, CoreError::NotElf { .. }), "{error}");

    std::fs::write(&path, &packed[..12]).unwrap();
    let error = CoreFile::open_with(&path, &options).unwrap_err();
    assert!(matches!(error, CoreError::Unpack { .. }), "{error}");
}

#[test]
fn pages_of_zeros_become_holes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let whole = TestCore::default()
        .load(0x1000, RW, &[0; 1 << 22])
        .load(0x80_0000, RW, &[1; 0x1000])
        .bytes();
    let file = tempfile::tempfile_in(dir.path()).unwrap();
    let copied = input::copy_sparse(&mut whole.as_slice(), &file, &input::Bounds::NONE).unwrap();
    assert_eq!(copied.bytes, whole.len() as u64);
    let metadata = file.metadata().unwrap();
    assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
    assert_eq!(Mapping::of(&file).unwrap().bytes(), whole);

    let bounds = input::Bounds {
        written: 0x1000,
        ..input::Bounds::NONE
    };
    let full = vec![1u8; 8 << 20];
    let copied = input::copy_sparse(&mut full.as_slice(), &file, &bounds).unwrap();
    assert_eq!(copied.over, Some(input::Bound::Written));
    assert!(copied.bytes < full.len() as u64 / 2, "{}", copied.bytes);
}
