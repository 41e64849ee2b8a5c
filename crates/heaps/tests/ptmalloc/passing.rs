//! States that malloc passes through while it works: nobody is to be accused of them.

use ground::target::{Address, RegionKind};
use heaps::anomaly::AnomalyKind;

use crate::bench::{ARENA, Bench, LIBC, TLS, V2_31, V2_36, V2_43};
use crate::healthy::furnished;
use crate::{definite, walked};

/// A heap with a chunk on its way (T2): free by its neighbour's header, in no bin.
fn in_flight(threads: usize) -> (Bench, u64) {
    let mut bench = Bench::new(V2_36, threads);
    bench.used(0x30);
    let block = bench.in_flight(0x120);
    bench.used(0x30);
    (bench.finish(), block)
}

#[test]
fn a_chunk_on_its_way_is_excused_by_the_lock() {
    let (mut bench, _) = in_flight(2);
    bench.process.memory.write_u32(ARENA, 1);
    assert_eq!(definite(&walked(&bench)), Vec::<&AnomalyKind>::new());
    bench.process.memory.write_u32(ARENA, 0);
    assert_eq!(
        definite(&walked(&bench)).len(),
        1,
        "without a lock it is damage"
    );
}

#[test]
fn a_lock_excuses_only_what_its_holder_has_in_hand() {
    const RAX: u16 = 0;
    let (mut bench, block) = in_flight(2);
    bench.process.memory.write_u32(ARENA, 1);
    for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
        bench.process.symbols.object(0, name, address, 0x100);
    }
    for (held, count) in [(block, 0), (block - 16, 0), (block + 0x400, 1)] {
        let inside = vec![
            synth::frame(LIBC + 0x9100, &[(RAX, held)]),
            synth::frame(crate::bench::PROGRAM, &[]),
        ];
        bench.process.threads.set_frames(0, inside);
        assert_eq!(definite(&walked(&bench)).len(), count, "{held:#x}");
    }
}

/// What is freed is merged with the chunks on both sides; by the time that the three become one, all but one of their addresses
/// may be forgotten.
#[test]
fn of_three_chunks_that_become_one_only_one_is_in_hand() {
    const RAX: u16 = 0;
    let mut bench = Bench::new(V2_43, 2);
    bench.used(0x30);
    let before_that = bench.used(0x440);
    let first = bench.used(0x450);
    bench.used(0x460);
    let unlinked = bench.in_flight(0x470);
    bench.used(0x430);
    let mut bench = bench.finish();
    bench.process.memory.write_u32(ARENA, 1);
    for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
        bench.process.symbols.object(0, name, address, 0x100);
    }
    for (held, count) in [(unlinked, 0), (first, 0), (before_that, 1)] {
        let inside = vec![
            synth::frame(LIBC + 0x9100, &[(RAX, held - 16)]),
            synth::frame(crate::bench::PROGRAM, &[]),
        ];
        bench.process.threads.set_frames(0, inside);
        assert_eq!(definite(&walked(&bench)).len(), count, "{held:#x}");
    }
}

#[test]
fn a_process_of_one_thread_takes_no_lock() {
    let (mut bench, _) = in_flight(1);
    assert_eq!(definite(&walked(&bench)).len(), 1, "the thread is outside");
    for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
        bench.process.symbols.object(0, name, address, 0x100);
    }
    let inside = vec![
        synth::frame(LIBC + 0x9100, &[]),
        synth::frame(crate::bench::PROGRAM, &[]),
    ];
    bench.process.threads.set_frames(0, inside);
    assert_eq!(definite(&walked(&bench)), Vec::<&AnomalyKind>::new());
}

#[test]
fn a_signal_that_somebody_sent_stops_malloc_anywhere() {
    const SIGSEGV: i32 = 11;
    let (mut bench, _) = in_flight(1);
    for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
        bench.process.symbols.object(0, name, address, 0x100);
    }
    let inside = vec![
        synth::frame(LIBC + 0x9100, &[]),
        synth::frame(crate::bench::PROGRAM, &[]),
    ];
    bench.process.threads.set_frames(0, inside);
    bench.process.threads.thread_mut(0).signal = SIGSEGV;
    assert_eq!(definite(&walked(&bench)).len(), 1, "a fault of its own");
    bench.process.threads.killed_from_outside();
    assert_eq!(definite(&walked(&bench)), Vec::<&AnomalyKind>::new());
}

#[test]
fn an_instruction_that_only_names_memory_is_no_fault() {
    const SIGSEGV: i32 = 11;
    /// lea 0xc(%rcx,%rcx),%eax; mov 0xc(%rcx,%rcx),%eax; nopl 0xc(%rcx,%rcx): `rcx` is no pointer.
    const CODE: [(&[u8], usize); 3] = [
        (&[0x8d, 0x44, 0x09, 0x0c], 0),
        (&[0x8b, 0x44, 0x09, 0x0c], 1),
        (&[0x0f, 0x1f, 0x44, 0x09, 0x0c], 0),
    ];
    for (code, count) in CODE {
        let (mut bench, _) = in_flight(1);
        for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
            bench.process.symbols.object(0, name, address, 0x100);
        }
        let memory = &mut bench.process.memory;
        memory.zeroes(LIBC + 0x9000..LIBC + 0xa000, "rx", RegionKind::File);
        memory.write(LIBC + 0x9100, code);
        let inside = vec![
            synth::frame(LIBC + 0x9100, &[]),
            synth::frame(crate::bench::PROGRAM, &[]),
        ];
        bench.process.threads.set_frames(0, inside);
        let thread = bench.process.threads.thread_mut(0);
        thread.signal = SIGSEGV;
        thread.pc = Address::new(LIBC + 0x9100);
        thread.registers.set(2, 0xc);
        bench.process.threads.killed_from_outside();
        assert_eq!(definite(&walked(&bench)).len(), count, "{code:x?}");
    }
}

#[test]
fn a_top_chunk_without_its_header_is_excused_by_the_lock() {
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = furnished(release);
        let top = bench.word(ARENA + release.bins - 16);
        bench.write(top + 8, 0);
        bench.process.memory.write_u32(ARENA, 2);
        assert_eq!(definite(&walked(&bench)), Vec::<&AnomalyKind>::new());
        bench.process.memory.write_u32(ARENA, 0);
        let kinds = walked(&bench);
        assert!(
            matches!(definite(&kinds)[..], [AnomalyKind::Header { .. }]),
            "{:?}",
            kinds.anomalies
        );
    }
}

/// Memory that nobody wrote to yet is zero, as is what a kernel left out of the core.
#[test]
fn a_top_chunk_in_an_untouched_page_is_excused_by_the_lock_and_else_a_hole() {
    const PAGE: u64 = 0x1000;
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = Bench::new(release, 2);
        let end = bench.used(0x30) + 0x20;
        bench.used((end & !(PAGE - 1)) + 2 * PAGE - end);
        let mut bench = bench.finish();
        let top = bench.word(ARENA + release.bins - 16);
        assert_eq!(top % PAGE, 0);
        bench.write(top, 0); // the block before reaches into it
        bench.write(top + 8, 0);
        for (lock, passing, holes) in [(1, 1, 0), (0, 0, 1)] {
            bench.process.memory.write_u32(ARENA, lock);
            let walked = walked(&bench);
            assert_eq!(definite(&walked), Vec::<&AnomalyKind>::new());
            assert_eq!(walked.anomalies.len(), passing, "lock {lock}");
            let incomplete = walked.limits.iter().filter(|limit| limit.incomplete);
            assert_eq!(incomplete.count(), holes, "lock {lock}");
        }
    }
}

#[test]
fn a_cache_whose_thread_is_putting_a_block_in_counts_one_less() {
    let mut bench = furnished(V2_36);
    let (_, count) = bench.tcache_words(0, 0x30);
    bench.process.memory.write(count, &4u16.to_le_bytes());
    assert_eq!(definite(&walked(&bench)).len(), 1);
    for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
        bench.process.symbols.object(0, name, address, 0x100);
    }
    let inside = vec![
        synth::frame(LIBC + 0x9100, &[]),
        synth::frame(crate::bench::PROGRAM, &[]),
    ];
    bench.process.threads.set_frames(0, inside);
    assert_eq!(definite(&walked(&bench)), Vec::<&AnomalyKind>::new());
}

/// libc_malloc_debug's arena: a fork does not wait for it.
#[test]
fn a_lock_that_a_fork_copied_excuses_all_that_its_holder_may_have_had_in_hand() {
    /// `tcbhead_t.multiple_threads`.
    const MULTIPLE_THREADS: u64 = 24;
    let mut bench = Bench::new(V2_43, 1);
    let block = bench.used(0x200);
    bench.binned(0x620);
    bench.used(0x30);
    let mut bench = bench.finish();
    // The remainder of a chunk that is being split is put into the unsorted bin before its header is written.
    let unsorted = bench.bin(1);
    bench.write(unsorted + 16, block + 0x40);
    for (lock, several, count) in [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        bench.process.memory.write_u32(ARENA, lock);
        bench
            .process
            .memory
            .write_u64(TLS + MULTIPLE_THREADS, several);
        let walked = walked(&bench);
        let bad = definite(&walked);
        let bad = bad
            .iter()
            .filter(|kind| matches!(kind, AnomalyKind::BadEntry { .. }));
        assert_eq!(bad.count(), count, "lock {lock}, several {several}");
    }
}

/// malloc_consolidate puts a chunk from a fastbin in front of the unsorted bin and writes its links last: until then its old one
/// leads to the rest of the fastbin, which is in no list any more.
#[test]
fn a_chunk_from_a_fastbin_is_linked_before_it_has_links() {
    const RAX: u16 = 0;
    /// Bytes of a block in use that is not damaged, and of one that is.
    const NAME: &[u8; 16] = b"a name too long\0";
    let mut bench = Bench::new(V2_31, 2);
    bench.used(0x30);
    let rest: Vec<u64> = (0..4)
        .map(|_| {
            let fast = bench.used(0x50);
            bench.used(0x30);
            fast
        })
        .collect();
    let new = bench.used(0x40);
    bench.used(0x30);
    let sorted = bench.in_flight(0x120);
    let neighbour = bench.used(0x30);
    bench.used(0x30);
    let mut bench = bench.finish();
    let unsorted = bench.bin(1);
    let (new, sorted) = (new - 16, sorted - 16);
    // What the free of the neighbour's chunk had left: the old links of the fastbin, null at its end.
    for (block, next) in rest.iter().zip(rest.iter().skip(1)) {
        bench.write(*block, next - 16);
    }
    bench.write(rest[3], 0);
    bench.write(new + 16, rest[0] - 16);
    bench.write(new + 24, 0);
    let behind = bench.word(new + 0x40 + 8);
    bench.write(new + 0x40 + 8, behind & !1);
    bench.write(unsorted + 16, new);
    bench.write(unsorted + 24, sorted);
    bench.write(sorted + 16, unsorted);
    bench.write(sorted + 24, new);
    for (name, address) in [("malloc", LIBC + 0x9000), ("malloc_info", LIBC + 0xb000)] {
        bench.process.symbols.object(0, name, address, 0x100);
    }
    let mut stand = |held: u64, lock: u32| {
        let inside = vec![
            synth::frame(LIBC + 0x9100, &[(RAX, held)]),
            synth::frame(crate::bench::PROGRAM, &[]),
        ];
        bench.process.threads.set_frames(0, inside);
        bench.process.memory.write_u32(ARENA, lock);
        bench.clone()
    };
    assert_eq!(
        definite(&walked(&stand(new, 1))),
        Vec::<&AnomalyKind>::new()
    );
    assert!(
        definite(&walked(&stand(neighbour, 1))).len() > 1,
        "in nobody's hand"
    );
    assert!(!definite(&walked(&stand(new, 0))).is_empty(), "no lock");
    // Damage elsewhere is found all the same: in the same bin, and in a header.
    let mut bench = stand(new, 1);
    bench.process.memory.write(sorted + 16, NAME);
    assert!(!definite(&walked(&bench)).is_empty(), "a smashed link");
    let mut bench = stand(new, 1);
    bench.process.memory.write(neighbour + 0x20, NAME);
    assert!(!definite(&walked(&bench)).is_empty(), "a smashed header");
}
