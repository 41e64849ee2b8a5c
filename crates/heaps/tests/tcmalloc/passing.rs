//! States that a healthy process passes through: never damage while somebody may be at work on
//! them, and damage when nobody can be.

use ground::target::Address;

use crate::bench::{Bench, CLASS, OTHER, check};
use crate::numbers::{cache, central, span};

const RAX: u16 = 0;
const RBX: u16 = 3;
const RDI: u16 = 5;
const R8: u16 = 8;

/// `free(object 5)` stopped between storing the head and linking the block.
fn published(bench: &mut Bench) {
    let at = bench.list(0, CLASS);
    bench.scene.poke(bench.object(5), 0x4141_4141_4141_4141);
    bench.scene.poke(at, bench.object(5));
}

#[test]
fn a_block_is_published_before_it_is_linked() {
    check(
        |bench| {
            published(bench);
            let registers = [(RDI, bench.object(5)), (R8, bench.object(10))];
            bench.inside(0, &registers);
            bench.given_back = 1;
        },
        &["s5 holds 0x4141414141414141: not linked yet, was s10 (passing)"],
    );
}

#[test]
fn a_block_is_published_in_an_empty_list() {
    check(
        |bench| {
            let at = bench.list(1, OTHER);
            bench.scene.poke(at, bench.other(1));
            bench.scene.poke(bench.other(1), 0x4141_4141_4141_4141);
            bench.inside(1, &[(RDI, bench.other(1))]);
            bench.given_back = 1;
        },
        &["u1 holds 0x4141414141414141: not linked yet, was 0x0 (passing)"],
    );
}

/// A child of `fork` has the caches of threads that it does not have: what they held nobody can tell.
#[test]
fn a_published_block_of_a_thread_that_is_gone_may_hold_anything() {
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(bench.object(5), bench.object(13));
            bench.scene.poke(at, bench.object(5));
            bench.scene.process.threads.thread_mut(0).thread_pointer = Some(Address::new(0x1000));
        },
        &["A[4]+8 counts 5, has 3, lost 4 (passing)"],
    );
}

/// Where an entry is not counted yet, some link is always a byte away from one that leads past an entry.
#[test]
fn an_entry_that_a_thread_that_is_gone_has_not_counted_makes_no_link_wrong() {
    check(
        |bench| {
            for k in 0..8 {
                bench.give_back(0, bench.object(k));
            }
            let at = bench.list(0, CLASS);
            let head = bench.scene.peek(at);
            bench.scene.poke(bench.object(8), head);
            bench.scene.poke(at, bench.object(8));
            bench.scene.process.threads.thread_mut(0).thread_pointer = Some(Address::new(0x1000));
        },
        &["A[4]+8 counts 13, has 14, lost 12 (passing)"],
    );
}

#[test]
fn a_published_block_in_no_register_is_not_being_inserted() {
    check(
        |bench| {
            published(bench);
            bench.inside(0, &[]);
        },
        &["s5 holds 0x4141414141414141: unmapped, may be t32, lost 4"],
    );
}

#[test]
fn a_published_block_whose_next_one_cannot_be_told_may_be_passing() {
    check(
        |bench| {
            published(bench);
            bench.inside(0, &[(RDI, bench.object(5)), (R8, bench.object(12))]);
        },
        &["s5 holds 0x4141414141414141: unmapped, may be t32, lost 4 (passing)"],
    );
}

/// The program's data may lead to a block of another class, and on from there to one of its own.
fn published_with_a_pointer(bench: &mut Bench) {
    published(bench);
    bench.scene.poke(bench.object(5), bench.other(1));
    bench.scene.poke(bench.other(1), bench.object(12));
}

#[test]
fn a_published_block_may_lead_to_a_block_of_another_class() {
    check(
        |bench| {
            published_with_a_pointer(bench);
            bench.inside(0, &[(RDI, bench.object(5)), (R8, bench.object(12))]);
        },
        &["s5 holds u1: other class, leads on, lost 4 (passing)"],
    );
    check(
        |bench| {
            published_with_a_pointer(bench);
            bench.inside(0, &[(RDI, bench.object(5))]);
        },
        &["s5 holds u1: other class, leads on", "in use +1"],
    );
}

#[test]
fn a_published_block_whose_next_one_nobody_has_is_damaged() {
    check(
        |bench| {
            published(bench);
            bench.inside(0, &[(RDI, bench.object(5))]);
        },
        &["s5 holds 0x4141414141414141: unmapped, may be t32, lost 4"],
    );
}

#[test]
fn nobody_publishes_a_block_from_outside() {
    check(
        published,
        &["s5 holds 0x4141414141414141: unmapped, may be t32, lost 4"],
    );
}

#[test]
fn another_thread_inside_proves_nothing_of_this_one() {
    check(
        |bench| {
            published(bench);
            bench.inside(1, &[(RDI, bench.object(5)), (R8, bench.object(10))]);
        },
        &["s5 holds 0x4141414141414141: unmapped, may be t32, lost 4"],
    );
}

#[test]
fn a_thread_that_faulted_inside_found_real_damage() {
    check(
        |bench| {
            published(bench);
            bench.inside(0, &[(RDI, bench.object(5))]);
            bench.faulted(0);
        },
        &["s5 holds 0x4141414141414141: unmapped, may be t32, lost 4"],
    );
}

#[test]
fn a_block_is_linked_before_it_is_counted() {
    check(
        |bench| {
            bench.scene.poke(bench.object(5), bench.object(10));
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(5));
            bench.inside(0, &[]);
            bench.given_back = 1;
        },
        &["A[4]+8 counts 5, has 6 (passing)"],
    );
}

#[test]
fn a_block_is_taken_before_it_is_uncounted() {
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(11));
            bench.inside(0, &[(RAX, bench.object(10))]);
            bench.given_back = -1;
        },
        &["A[4]+8 counts 5, has 4 (passing)"],
    );
}

#[test]
fn a_block_that_nobody_has_was_not_taken() {
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(11));
            bench.inside(0, &[(RAX, bench.object(11))]);
        },
        &["s14 holds 0x0: early end, may be s15, lost 1"],
    );
}

#[test]
fn a_range_that_is_taken_off_is_in_hand() {
    let taken = |registers: fn(&Bench) -> u64| {
        move |bench: &mut Bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(13));
            bench.scene.poke(bench.object(12), 0);
            bench.inside(0, &[(RAX, registers(bench))]);
            bench.given_back = -3;
        }
    };
    check(
        taken(|bench| bench.object(10)),
        &["A[4]+8 counts 5, has 2 (passing)"],
    );
    // Behind the second one there is one, not two.
    check(
        move |bench| {
            taken(|bench| bench.object(11))(bench);
            bench.given_back = 0;
        },
        &["A[4]+8 counts 5, has 2, lost 3"],
    );
}

#[test]
fn a_thread_that_has_called_out_has_done_what_comes_before() {
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(11));
            bench.called_out(0, &[(RAX, bench.object(10))]);
        },
        &["s14 holds 0x0: early end, may be s15, lost 1"],
    );
}

#[test]
fn a_count_that_is_off_by_more_than_a_batch_is_no_passing_state() {
    check(
        |bench| {
            bench.set_length(0, 5000);
            bench.inside(0, &[(RAX, bench.object(10))]);
        },
        &[
            "A[4]+8 counts 5000, has 5, lost 340",
            "in use -189",
            "statistics lost 189",
        ],
    );
}

#[test]
fn the_last_block_is_taken_before_it_is_uncounted() {
    check(
        |bench| {
            let at = bench.list(1, OTHER);
            bench.scene.poke_u32(at + cache::LENGTH, 1);
            bench.inside(1, &[(RAX, bench.other(0))]);
        },
        &["B[14]+8 counts 1, has 0 (passing)"],
    );
}

#[test]
fn a_count_that_is_off_by_one_outside_is_no_passing_state() {
    check(
        |bench| {
            bench.scene.poke(bench.object(5), bench.object(10));
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(5));
            bench.given_back = 1;
        },
        // The bytes of the cache agree with the count: a link leads on that should not.
        &["s13 holds s14: wrong entry, may be 0x0", "in use +1"],
    );
}

#[test]
fn a_caches_bytes_are_counted_late() {
    check(
        |bench| {
            let at = bench.model.caches[0].at + cache::SIZE;
            bench.scene.poke_u32(at, 48);
            bench.inside(0, &[]);
        },
        &[],
    );
}

/// A new span of class 4 is being cut up: on no list yet, nothing counted.
fn cut_up(bench: &mut Bench) {
    let at = bench.span(bench.large);
    let flags = (CLASS as u64) << 16;
    bench.scene.poke_u32(at + span::FLAGS, flags as u32);
    bench.scene.poke(at + span::OBJECTS, bench.large);
    bench.scene.poke(bench.large, bench.large + 48);
    bench.scene.poke(bench.large + 48, 0);
    bench.given_back = 1;
}

#[test]
fn a_span_is_being_cut_up() {
    check(
        |bench| {
            cut_up(bench);
            bench.inside(0, &[]);
        },
        &[],
    );
}

#[test]
fn nobody_cuts_a_span_up_from_outside() {
    check(cut_up, &["damage at L.span: SpanOfSmallObjects"]);
}

/// `InsertRange` has counted a slot that it has not written yet.
fn half_written_slot(bench: &mut Bench) {
    let at = bench.scene.central(CLASS);
    bench.scene.poke_u32(at + central::USED_SLOTS, 2);
    bench.scene.poke(at + central::SLOTS + 16, bench.object(30));
    bench.scene.poke(at + central::SLOTS + 24, bench.object(53));
}

#[test]
fn a_slot_is_counted_before_it_is_written() {
    for lock in [1, 2] {
        check(
            |bench| {
                half_written_slot(bench);
                let at = bench.scene.central(CLASS) + central::LOCK;
                bench.scene.poke_u32(at, lock);
                bench.inside(0, &[]);
            },
            &[],
        );
    }
}

#[test]
fn a_stale_slot_that_nobody_writes_is_damage() {
    check(
        half_written_slot,
        &[
            "s30 is shared by s29 and central[4]+144, lost 31",
            "in use -31",
        ],
    );
}

#[test]
fn a_central_lists_counters_differ_under_its_lock() {
    check(
        |bench| {
            let at = bench.scene.central(OTHER);
            bench.scene.poke(at + central::NUM_SPANS, 2);
            bench.scene.poke(at + central::COUNTER, 1);
            bench.scene.poke_u32(at + central::LOCK, 1);
            bench.inside(0, &[]);
        },
        &[],
    );
}

#[test]
fn a_span_is_off_its_ring_under_the_lock() {
    check(
        |bench| {
            let at = bench.scene.central(OTHER);
            let sentinel = at + central::NONEMPTY;
            bench.scene.poke(sentinel + span::NEXT, sentinel);
            bench.scene.poke(sentinel + span::PREV, sentinel);
            bench.scene.poke_u32(at + central::LOCK, 1);
            bench.inside(0, &[]);
        },
        &[],
    );
}

#[test]
fn a_chain_is_on_its_way() {
    // Popped from A, held by registers, in no list: looks like blocks in use.
    check(
        |bench| {
            let at = bench.list(0, CLASS);
            bench.scene.poke(at, bench.object(13));
            bench.set_length(0, 2);
            bench.inside(0, &[(RDI, bench.object(10))]);
            bench.given_back = -3;
        },
        &[],
    );
}

/// A span was taken off a page heap's list, and nothing else is done yet.
fn page_heap_at_work(bench: &mut Bench) {
    let sentinel = bench.scene.free;
    bench.scene.poke(sentinel + span::NEXT, sentinel);
    bench.scene.poke(bench.scene.stats + 8, 0);
}

#[test]
fn the_page_heap_is_at_work_under_its_lock() {
    for lock in [1, 2] {
        check(
            |bench| {
                page_heap_at_work(bench);
                bench.scene.poke_u32(bench.scene.page_heap_lock, lock);
                bench.inside(0, &[]);
            },
            &["damage at free_+16: SpanListLink (passing)"],
        );
    }
}

#[test]
fn nobody_is_at_work_who_has_called_out() {
    check(
        |bench| {
            page_heap_at_work(bench);
            bench.scene.poke_u32(bench.scene.page_heap_lock, 1);
            bench.called_out(0, &[]);
        },
        &["damage at free_+16: SpanListLink"],
    );
}

/// A span is cut, and what is left over was given back already: the length is stored last.
fn carved(bench: &mut Bench) {
    let at = bench.span(bench.large) + span::LENGTH;
    let length = bench.scene.peek(at);
    bench.scene.poke(at, length + 3);
    bench.scene.poke_u32(bench.scene.page_heap_lock, 1);
}

#[test]
fn a_span_that_is_cut_keeps_its_length_while_the_rest_is_given_back() {
    check(
        |bench| {
            carved(bench);
            bench.called_out(0, &[(RBX, bench.span(bench.large))]);
        },
        &["damage at L.span+8: SpanLength (passing)"],
    );
    check(
        |bench| {
            carved(bench);
            bench.called_out(0, &[(RBX, bench.span(bench.large) + 48)]);
        },
        &["damage at L.span+8: SpanLength"],
    );
}

#[test]
fn the_page_heap_rests_when_its_lock_is_free() {
    check(page_heap_at_work, &["damage at free_+16: SpanListLink"]);
}

#[test]
fn a_thread_has_put_its_cache_aside() {
    // Emergency malloc: the thread-local word is null, the cache is still on the list.
    check(
        |bench| {
            for thread in 0..2 {
                let pointer = crate::render::thread_pointer(thread);
                bench.scene.poke(pointer - 0x18, 0);
            }
        },
        &[],
    );
}

#[test]
fn a_sampled_span_is_not_flagged_yet() {
    check(
        |bench| {
            let sentinel = bench.scene.sampled;
            bench.scene.poke(sentinel + span::NEXT, sentinel);
            bench.scene.poke(sentinel + span::PREV, sentinel);
            let at = bench.span(bench.sampled);
            bench.scene.poke_u32(at + span::FLAGS, 0);
            bench.scene.poke(at + span::OBJECTS, 0x4141_4141);
            bench.inside(0, &[]);
        },
        &[],
    );
}
