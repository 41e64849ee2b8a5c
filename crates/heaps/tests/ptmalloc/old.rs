//! glibc 2.12 to 2.22: no caches, no count of an arena's threads, and up to 2.16 another `malloc_par`.

use heaps::allocators::Detail;
use heaps::walk::Walked;

use crate::bench::{ARENA, Bench, HEAP_BYTES, MP, Release, V2_31};
use crate::walked;

const V2_12: Release = Release {
    name: "2.12-2.16",
    bins: 104,
    fastbins: Some(8),
    // The last one, of the caches, does not exist: it lies behind the structure.
    mp: [40, 64, 88, 0x100],
    ..V2_31
};
const V2_17: Release = Release {
    name: "2.17-2.22",
    mp: [40, 56, 80, 0x100],
    ..V2_12
};
/// `malloc_par.pagesize`, up to 2.16 (`unsigned int`).
const PAGE_BYTES: u64 = 56;

/// Closes the heap as one of these releases has it.
fn finish(bench: Bench) -> Bench {
    let mut bench = bench.finish();
    let tail = ARENA + bench.release.bins + 254 * 8 + 16;
    bench.write(tail + 16, HEAP_BYTES); // system_mem
    bench.write(tail + 24, HEAP_BYTES); // max_system_mem
    bench.write(tail + 32, 0);
    if bench.release == V2_12 {
        bench.process.memory.write_u32(MP + PAGE_BYTES, 4096);
    }
    bench
}

/// A heap of one of these releases, with something in its bins and fastbins.
fn furnished(release: Release) -> Bench {
    let mut bench = Bench::new(release, 0);
    for _ in 0..5 {
        bench.used(0x110);
        bench.binned(0x120);
        bench.used(0x20);
        bench.fast(0x40);
        bench.used(0x30);
    }
    finish(bench)
}

fn layout(walked: &Walked) -> Option<&Detail> {
    let mut details = walked.details.iter();
    details
        .find(|(name, _)| *name == "layout")
        .map(|(_, detail)| detail)
}

#[test]
fn healthy_heaps_are_read_to_the_block() {
    for release in [V2_12, V2_17] {
        let bench = furnished(release);
        let walked = walked(&bench);
        assert_eq!(walked.anomalies, [], "{}", release.name);
        assert_eq!(walked.limits, [], "{}", release.name);
        assert_eq!(walked.statistics.in_use.blocks, bench.used);
        assert_eq!(walked.statistics.free.blocks, 10);
        assert_eq!(layout(&walked), Some(&Detail::Text(release.name.into())));
    }
}

#[test]
fn a_header_that_was_written_over_is_seen() {
    let mut bench = Bench::new(V2_12, 0);
    bench.used(0x30);
    let victim = bench.used(0x30);
    bench.used(0x30);
    let mut bench = finish(bench);
    bench.write(victim - 8, 0x4141_4141_4141_4141);
    assert_ne!(walked(&bench).anomalies, []);
}
