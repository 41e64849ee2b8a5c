//! Memory that nothing names, or that a damaged word names: a main arena in several pieces, and chunks with mappings of
//! their own.

use ground::target::RegionKind;
use heaps::anomaly::{AnomalyKind, BrokenWord};

use crate::bench::{ARENA, Bench, HEAP, HEAP_BYTES, MP, V2_36, V2_43};
use crate::healthy::furnished;
use crate::{definite, walked};

/// Where the arena went on when it could not grow in place.
const PIECE: u64 = 0x7f00_2000_0000;
const PIECE_BYTES: u64 = 0x10_0000;
const CHUNK: u64 = 0x210;
const TOP: u64 = PIECE + 100 * CHUNK;
const FLAGS: u64 = ARENA + 4;
const TOP_WORD: u64 = ARENA + 96;
const SYSTEM_MEM: u64 = ARENA + 2184;

/// A heap that is closed by fenceposts, and a piece of memory behind which the top chunk lies.
fn in_pieces() -> Bench {
    let mut bench = furnished(V2_36);
    let top = bench.word(TOP_WORD);
    let end = HEAP + HEAP_BYTES;
    bench.write(top + 8, (end - 32 - top) | 1);
    bench.write(end - 24, 0x11);
    bench.write(end - 8, 0x11);
    let piece = PIECE..PIECE + PIECE_BYTES;
    bench
        .process
        .memory
        .zeroes(piece.clone(), "rw", RegionKind::Anonymous);
    for chunk in (PIECE..TOP).step_by(CHUNK as usize) {
        bench.write(chunk + 8, CHUNK | 1);
        bench.process.memory.place(chunk + 16, 0x200).fill(0xb5);
    }
    bench.write(TOP + 8, (piece.end - TOP) | 1);
    bench.process.memory.write_u32(FLAGS, 2);
    bench.write(TOP_WORD, TOP);
    for offset in [0, 8] {
        bench.write(SYSTEM_MEM + offset, HEAP_BYTES + PIECE_BYTES);
    }
    bench
}

fn the_word_said(bench: &Bench) -> u64 {
    let walked = walked(bench);
    let [
        AnomalyKind::Metadata {
            word: BrokenWord { at, .. },
            ..
        }
        | AnomalyKind::Header { at, .. },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    at.get()
}

#[test]
fn each_damaged_word_of_an_arena_in_pieces_is_one_anomaly() {
    let healthy = walked(&in_pieces());
    assert_eq!(healthy.anomalies, []);
    for (at, word) in [
        (TOP_WORD, 0x6161_6161_6161_6161),
        (PIECE + 8, 0x6161_6161_6161_6161),
        (PIECE + 3 * CHUNK + 8, 0x6161_6161_6161_6161),
        (PIECE + 95 * CHUNK + 8, 0x6161_6161_6161_6161),
        (TOP + 8, u64::MAX),
    ] {
        let mut bench = in_pieces();
        bench.write(at, word);
        assert_eq!(the_word_said(&bench), at);
    }
    let mut bench = in_pieces();
    bench.process.memory.write_u32(FLAGS, 0);
    assert_eq!(the_word_said(&bench), FLAGS);
    assert_eq!(walked(&bench).statistics.in_use, healthy.statistics.in_use);
}

#[test]
fn lists_that_lead_into_memory_that_was_not_found_are_not_accused() {
    let mut bench = in_pieces();
    // The piece is found neither by its chunks nor by what was counted.
    bench.write(PIECE + 8, 0x6161_6161);
    for offset in [0, 8] {
        bench.write(SYSTEM_MEM + offset, HEAP_BYTES + PIECE_BYTES + 4096);
    }
    bench.cache_block(0, PIECE + 60 * CHUNK + 16, CHUNK);
    let walked = walked(&bench);
    assert_eq!(definite(&walked), Vec::<&AnomalyKind>::new());
    assert!(walked.limits.iter().any(|limit| limit.incomplete));
}

#[test]
fn either_word_of_a_mapped_chunk_is_told_by_the_other() {
    for (release, trailer) in [(V2_36, 0), (V2_43, 16)] {
        let [n_mmaps, mmapped_mem, ..] = release.mp;
        let header = (PIECE_BYTES - trailer) | 2;
        // As malloc leaves it, and as memalign does.
        for moved in [0, 240] {
            let mapped = || {
                let mut bench = furnished(release);
                let piece = PIECE..PIECE + PIECE_BYTES;
                bench
                    .process
                    .memory
                    .zeroes(piece, "rw", RegionKind::Anonymous);
                bench.process.memory.write_u32(MP + n_mmaps, 1);
                bench.process.memory.write_u32(MP + n_mmaps + 8, 1);
                bench.write(MP + mmapped_mem, PIECE_BYTES);
                bench.write(PIECE + 8, header);
                bench.write(PIECE + moved, moved);
                bench.write(PIECE + moved + 8, header - moved);
                bench
            };
            assert_eq!(walked(&mapped()).anomalies, [], "{moved}");
            for at in [PIECE + moved, PIECE + moved + 8] {
                let mut bench = mapped();
                bench.write(at, 0x6161_6161_6161_6161);
                assert_eq!(the_word_said(&bench), at);
            }
        }
    }
}
