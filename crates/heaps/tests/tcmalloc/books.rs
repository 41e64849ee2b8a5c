//! Bookkeeping beside the lists (slots, counts, spans, tables), broken on purpose: what the walker says, in the words of
//! `bench.rs`.

use crate::bench::{CLASS, OTHER, check};
use crate::numbers::{cache, central, span};

#[test]
fn a_slots_tail_is_wrong() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::SLOTS + 8;
            bench.scene.poke(at, bench.object(40));
        },
        &["damage at central[4]+136: TransferSlotTail"],
    );
}

#[test]
fn a_slots_tail_is_no_object() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::SLOTS + 8;
            bench.scene.poke(at, bench.object(53) + 8);
        },
        &["damage at central[4]+136: TransferSlotTail"],
    );
}

#[test]
fn more_slots_are_used_than_there_are() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::USED_SLOTS;
            bench.scene.poke_u32(at, 70);
        },
        &[
            "damage at central[4]+1152: CentralFreeListUsedSlots",
            "in use +32",
        ],
    );
}

#[test]
fn a_slot_too_many_is_used() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::USED_SLOTS;
            bench.scene.poke_u32(at, 2);
        },
        &["central[4]+144 holds L: other class, lost 32", "in use -32"],
    );
}

#[test]
fn the_number_of_spans_is_wrong() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::NUM_SPANS;
            bench.scene.poke(at, 9);
        },
        &["count at central[4]+112: CentralFreeListNumSpans"],
    );
}

#[test]
fn the_number_of_free_objects_is_wrong() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::COUNTER;
            bench.scene.poke(at, 9);
        },
        &["count at central[4]+120: CentralFreeListCounter"],
    );
}

#[test]
fn a_span_counts_one_block_too_many() {
    check(
        |bench| {
            let at = bench.s + span::FLAGS;
            let flags = bench.scene.peek(at);
            bench.scene.poke(at, flags + 1);
        },
        &["S+40 counts 109, has 110"],
    );
}

#[test]
fn a_span_counts_more_blocks_than_it_has() {
    check(
        |bench| {
            let at = bench.s + span::FLAGS;
            let flags = bench.scene.peek(at);
            bench.scene.poke(at, flags & !0xffff | 999);
        },
        &["damage at S+40: SpanRefcount"],
    );
}

#[test]
fn a_cache_counts_its_bytes_wrongly() {
    check(
        |bench| {
            let at = bench.model.caches[0].at + cache::SIZE;
            bench.scene.poke_u32(at, 77);
        },
        &["count at A+4096: ThreadCacheSize"],
    );
}

#[test]
fn the_page_heaps_sums_are_wrong() {
    check(
        |bench| {
            let at = bench.scene.stats;
            bench.scene.poke(at + 8, 77);
        },
        &["count at stats_+8: FreeBytes"],
    );
}

// --- metadata ------------------------------------------------------------------------------------

#[test]
fn a_span_is_nowhere() {
    check(
        |bench| {
            let at = bench.s + span::FLAGS + 3;
            bench.scene.poke_u8(at, 3);
        },
        &["damage at S+40: ClassOfListedSpan"],
    );
}

#[test]
fn a_large_span_is_nowhere() {
    check(
        |bench| {
            let at = bench.span(bench.large) + span::FLAGS + 3;
            bench.scene.poke_u8(at, 3);
        },
        &["damage at L.span+40: SpanLocation"],
    );
}

#[test]
fn a_large_span_says_that_it_is_free() {
    for location in [1, 2] {
        check(
            |bench| {
                let at = bench.span(bench.large) + span::FLAGS + 3;
                bench.scene.poke_u8(at, location);
            },
            &["damage at L.span+40: SpanLocation", "in use -1"],
        );
    }
}

#[test]
fn a_span_has_another_class() {
    check(
        |bench| {
            let at = bench.s + span::FLAGS + 2;
            bench.scene.poke_u8(at, 14);
        },
        &["damage at S+40: ClassOfListedSpan"],
    );
}

#[test]
fn a_span_has_no_such_class() {
    check(
        |bench| {
            let at = bench.s + span::FLAGS + 2;
            bench.scene.poke_u8(at, 200);
        },
        &["damage at S+40: ClassOfListedSpan"],
    );
}

#[test]
fn a_central_list_has_another_class() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::SIZE_CLASS;
            bench.scene.poke(at, 5);
        },
        &["damage at central[4]+8: CentralFreeListSizeClass"],
    );
}

#[test]
fn a_lock_holds_seven() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::LOCK;
            bench.scene.poke_u32(at, 7);
        },
        &["damage at central[4]: CentralFreeListLock"],
    );
}

#[test]
fn a_span_without_free_objects_is_on_the_wrong_list() {
    check(
        |bench| bench.scene.poke(bench.t + span::OBJECTS, 0x4141_4141_4141),
        &["T+32 holds 0x414141414141: unmapped"],
    );
}

#[test]
fn a_span_with_free_objects_lost_its_chain() {
    check(
        |bench| bench.scene.poke(bench.s + span::OBJECTS, 0),
        &[
            "damage at S+32: ObjectsOfNonemptySpan",
            "statistics lost 110",
        ],
    );
}

#[test]
fn a_ring_of_spans_is_broken_at_its_sentinel() {
    check(
        |bench| {
            let at = bench.scene.central(CLASS) + central::NONEMPTY + span::NEXT;
            bench.scene.poke(at, 0x4141_4141);
        },
        &["damage at central[4]+80: SpanListLink"],
    );
}

#[test]
fn a_ring_of_spans_does_not_lead_back() {
    check(
        |bench| bench.scene.poke(bench.s + span::PREV, bench.t),
        &["damage at S+24: SpanListLink"],
    );
}

#[test]
fn a_ring_of_free_spans_is_broken() {
    check(
        |bench| {
            let at = bench.scene.free + span::NEXT;
            bench.scene.poke(at, 0x4141_4141);
        },
        &["damage at free_+16: SpanListLink"],
    );
}

#[test]
fn a_free_span_has_another_length() {
    check(
        |bench| {
            let at = bench.span(bench.free_span) + span::LENGTH;
            bench.scene.poke(at, 2);
        },
        &["damage at G.span+8: SpanLength"],
    );
}

#[test]
fn a_large_block_was_freed_twice() {
    check(
        |bench| {
            // The second DLL_Prepend of a span that is on the list already.
            let at = bench.span(bench.free_span);
            bench.scene.poke(at + span::NEXT, at);
            bench.scene.poke(at + span::PREV, at);
            let sentinel = bench.scene.free;
            bench.scene.poke(sentinel + span::NEXT, at);
        },
        &["G is shared by free_+16 and G.span+16, circle of 1"],
    );
}

#[test]
fn the_list_of_caches_is_broken() {
    check(
        |bench| {
            let at = bench.model.caches[1].at + bench.model.release.next;
            bench.scene.poke(at, 0x4141_4141);
        },
        &["damage at B.next: ThreadCacheListLink"],
    );
}

#[test]
fn the_number_of_caches_is_wrong() {
    check(
        |bench| {
            let at = bench.scene.heap_count;
            bench.scene.poke_u32(at, 3);
        },
        &["count at thread_heap_count_: ThreadCacheThreadHeapCount"],
    );
}

#[test]
fn a_list_repeats_another_size() {
    check(
        |bench| {
            let at = bench.list(0, OTHER) + cache::OBJECT_BYTES;
            bench.scene.poke_u32(at, 0x41);
        },
        &["damage at A[14]+24: FreeListSize"],
    );
}

#[test]
fn a_list_may_grow_without_end() {
    check(
        |bench| {
            let at = bench.list(0, OTHER) + cache::MAX_LENGTH;
            bench.scene.poke_u32(at, 0x4141_4141);
        },
        &["damage at A[14]+16: FreeListMaxLength"],
    );
}

#[test]
fn the_reverse_table_of_sizes_is_wrong() {
    check(
        |bench| {
            let at = bench.scene.size_map + 6;
            bench.scene.poke_u8(at, 9);
        },
        &["damage at size_map+6: SizeMapClassArray"],
    );
}

#[test]
fn a_sampled_span_names_no_stack() {
    check(
        |bench| {
            let at = bench.span(bench.sampled) + span::OBJECTS;
            bench.scene.poke(at, 0x4141_4141);
        },
        &["damage at M.span+32: ObjectsOfSampledSpan"],
    );
}

#[test]
fn the_list_of_samples_is_broken() {
    check(
        |bench| {
            let at = bench.span(bench.sampled) + span::PREV;
            bench.scene.poke(at, 0x4141_4141);
        },
        &["damage at M.span+24: SpanListLink"],
    );
}
