//! Lists of free blocks, broken on purpose: what the walker says, in the words of `bench.rs`.

use crate::bench::{CLASS, check};
use crate::numbers::span;

#[test]
fn an_undamaged_bench_is_healthy() {
    check(|_| {}, &[]);
}

// --- freed twice ---------------------------------------------------------------------------------

#[test]
fn freed_twice_in_a_row() {
    check(
        |bench| {
            let at = bench.object(5);
            bench.give_back(0, at);
            bench.free(0, at);
        },
        &["s5 is shared by A[4] and s5, circle of 1, lost 5"],
    );
}

#[test]
fn freed_twice_with_two_others_between() {
    check(
        |bench| {
            for k in [5, 6, 7] {
                bench.give_back(0, bench.object(k));
            }
            bench.free(0, bench.object(5));
        },
        &["s5 is shared by A[4] and s6, circle of 3, lost 5"],
    );
}

#[test]
fn freed_by_two_threads_with_equal_lists() {
    check(
        |bench| {
            bench.give_back(0, bench.object(5));
            bench.free(1, bench.object(5));
        },
        &["s5 is shared by A[4] and B[4], lost 5"],
    );
}

#[test]
fn freed_by_two_threads_with_other_frees_after_it() {
    check(
        |bench| {
            bench.give_back(0, bench.object(5));
            bench.give_back(0, bench.object(6));
            bench.free(1, bench.object(5));
            bench.give_back(1, bench.object(7));
            bench.give_back(1, bench.object(8));
        },
        &["s5 is shared by s6 and s7, lost 5"],
    );
}

#[test]
fn freed_again_after_it_went_back_to_its_span() {
    check(
        |bench| bench.free(0, bench.object(60)),
        &["s60 is shared by A[4] and S+32, lost 109"],
    );
}

#[test]
fn freed_again_from_the_middle_of_a_spans_chain() {
    check(
        |bench| bench.free(0, bench.object(100)),
        &["s100 is shared by A[4] and s99, lost 69"],
    );
}

#[test]
fn freed_again_while_parked_in_a_transfer_slot() {
    check(
        |bench| bench.free(0, bench.object(30)),
        &["s30 is shared by A[4] and s29, lost 23"],
    );
}

// --- freed wrongly -------------------------------------------------------------------------------

#[test]
fn an_inner_pointer_was_freed_last() {
    check(
        |bench| bench.free(0, bench.object(5) + 2),
        &["A[4] holds s5+2: misaligned, leads on"],
    );
}

#[test]
fn an_inner_pointer_was_freed_and_others_after_it() {
    check(
        |bench| {
            bench.free(0, bench.object(5) + 16);
            bench.give_back(0, bench.object(7));
            bench.give_back(0, bench.object(8));
        },
        &["s7 holds s5+16: misaligned, leads on"],
    );
}

#[test]
fn a_block_of_another_class_was_freed_with_the_wrong_size() {
    check(
        |bench| {
            bench.free(0, bench.other(1));
            bench.give_back(0, bench.object(8));
        },
        &["s8 holds u1: other class, leads on"],
    );
}

#[test]
fn an_entry_lies_in_a_span_that_is_free() {
    check(
        |bench| bench.free(0, bench.free_span),
        &["A[4] holds G: free span, leads on"],
    );
}

// --- written over --------------------------------------------------------------------------------

#[test]
fn a_terminator_fell_into_a_link() {
    check(
        |bench| bench.scene.poke_u8(bench.object(12), 0),
        &["s12 holds s10+32: misaligned, was s13, lost 2"],
    );
}

#[test]
fn a_terminator_fell_into_a_link_and_two_repairs_fit() {
    check(
        |bench| {
            bench.scene.poke_u8(bench.object(12), 0);
            bench.scene.poke(bench.object(15), bench.object(16));
            bench.scene.poke(bench.object(16), 0);
        },
        &["s12 holds s10+32: misaligned, may be s13, lost 2"],
    );
}

#[test]
fn a_terminator_fell_into_the_link_of_a_spans_chain() {
    check(
        |bench| bench.scene.poke_u8(bench.object(98), 0),
        &["s98 holds s96: wrong entry, was s99, lost 71"],
    );
}

#[test]
fn a_link_is_zero() {
    check(
        |bench| bench.scene.poke(bench.object(12), 0),
        &["s12 holds 0x0: early end, may be s13, lost 2"],
    );
}

#[test]
fn a_link_is_text() {
    check(
        |bench| bench.scene.poke(bench.object(12), 0x4141_4141_4141_4141),
        &["s12 holds 0x4141414141414141: unmapped, may be s13, lost 2"],
    );
}

#[test]
fn a_link_in_a_transfer_slot_is_text() {
    check(
        |bench| bench.scene.poke(bench.object(30), 0x4141_4141_4141_4141),
        &["s30 holds 0x4141414141414141: unmapped, was s31, lost 23"],
    );
}

#[test]
fn a_link_in_a_transfer_slot_is_zero() {
    check(
        |bench| {
            // Not in the order of the blocks: s22 to s30, s45 to s52, s31 to s44, s53.
            bench.scene.poke(bench.object(52), bench.object(31));
            bench.scene.poke(bench.object(44), bench.object(53));
            // As old links in blocks in use do, this leads on as the lost link did.
            bench.scene.poke(bench.object(5), bench.object(46));
            bench.scene.poke(bench.object(30), 0);
        },
        &["s30 holds 0x0: early end, lost 23"],
    );
}

#[test]
fn a_link_names_the_program() {
    check(
        |bench| bench.scene.poke(bench.object(12), 0x40_0100),
        &["s12 holds 0x400100: outside, may be s13, lost 2"],
    );
}

#[test]
fn a_link_names_the_tail_of_a_span() {
    check(
        |bench| bench.scene.poke(bench.object(12), bench.object(170)),
        &["s12 holds s170: no block, may be s13, lost 2"],
    );
}

#[test]
fn the_head_of_a_list_is_text() {
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, 0x4141_4141_4141_4141);
        },
        &["A[4] holds 0x4141414141414141, the link of one that is not known, lost 5"],
    );
}

#[test]
fn the_head_of_a_list_is_zero() {
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, 0);
        },
        &["A[4]+8 counts 5, has 0, lost 5"],
    );
}

#[test]
fn a_spans_objects_is_text() {
    check(
        |bench| bench.scene.poke(bench.s + span::OBJECTS, 0x4141_4141_4141),
        &["S+32 holds 0x414141414141, the link of one that is not known, lost 110"],
    );
}

// --- counted wrongly -----------------------------------------------------------------------------

#[test]
fn a_list_counts_too_few() {
    check(|bench| bench.set_length(0, 3), &["A[4]+8 counts 3, has 5"]);
}

#[test]
fn a_list_counts_too_many() {
    check(
        |bench| bench.set_length(0, 9),
        &["A[4]+8 counts 9, has 5, lost 4", "in use -4"],
    );
}

#[test]
fn a_list_was_popped_below_zero() {
    check(
        |bench| {
            let at = bench.object(5);
            bench.give_back(0, at);
            bench.free(0, at);
            bench.set_length(0, u32::MAX - 3);
        },
        &[
            "s5 is shared by A[4] and s5, circle of 1, taken from",
            "in use +5",
        ],
    );
}
