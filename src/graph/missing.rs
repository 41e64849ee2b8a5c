//! What the core does not hold of the memory in which pointers may stand.

use ground::target::{Region, RegionKind, TargetMemory};
use heaps::map::{Owner, Shape};
use postmortem::session::{Limit, Session};

use crate::analysis::Analysis;

/// Absent mappings that are no more are taken for ones that were never touched: alternate stacks of signals, guards.
const MAX_UNTOUCHED: u64 = 1 << 20;

/// What a leak search cannot know because the core does not hold it.
///
/// The kernel leaves out a mapping that nobody wrote to, and one that must not be dumped (`MADV_DONTDUMP`, a filter): they look alike.
/// What was in use was written to: a stack, variables of a module, a thread's own memory, an allocator's structures and small blocks.
pub fn find(session: &Session, analysis: &Analysis<'_>) -> Option<Limit> {
    let memory = session.memory();
    let (mut bytes, mut untouched) = (0u64, 0u64);
    for region in memory.regions() {
        let absent = region.bytes().saturating_sub(region.present_bytes);
        if absent == 0 || !region.writable || !region.readable {
            continue;
        }
        let is_anonymous = region.kind == RegionKind::Anonymous;
        let is_cut = region.dumped_bytes > 0 || !memory.writes_are_dumped();
        let sum = match () {
            () if was_in_use(session, analysis, region) => &mut bytes,
            () if is_anonymous && is_cut => &mut bytes,
            () if is_anonymous => &mut untouched,
            () => continue,
        };
        *sum = sum.saturating_add(absent);
    }
    if untouched > MAX_UNTOUCHED {
        bytes = bytes.saturating_add(untouched);
    }
    let why = "what seems lost may be held from there, so nothing counts as definitely lost";
    if bytes > 0 {
        return Some(Limit {
            what: format!("{bytes} bytes of writable memory as a place of pointers"),
            why: format!("the core does not hold them: {why}"),
            incomplete: false,
        });
    }
    let is_partial = analysis.heaps.iter().any(|heap| heap.heap.is_partial());
    (is_partial || analysis.limits.iter().any(|limit| limit.incomplete)).then(|| Limit {
        what: "the heap as a place of pointers".into(),
        why: format!("a part of it was not read: {why}"),
        incomplete: false,
    })
}

/// Whether something lies in the region, whose end at least is absent, that must have been written to.
fn was_in_use(session: &Session, analysis: &Analysis<'_>, region: &Region) -> bool {
    let absent = region.range.start.saturating_add(region.present_bytes)..region.range.end;
    let mut threads = session.threads().list().iter().enumerate();
    let is_of_a_thread = threads.any(|(index, thread)| {
        // A handler may run on a stack of its own.
        let frames = session.threads().frames(index).iter();
        let mut stacks = frames
            .filter(|frame| frame.interrupted)
            .map(|frame| frame.sp)
            .chain([thread.sp]);
        stacks.any(|sp| region.range.contains(&sp))
            || thread.thread_pointer.is_some_and(|tp| absent.contains(&tp))
    });
    let mut modules = session.target().modules.iter();
    let mut has_variables = || {
        modules.any(|module| {
            let mut segments = module.segments.iter();
            // A library of which nobody uses anything has a `.bss` that was never touched.
            (region.kind == RegionKind::File || module.is_executable)
                && segments.any(|segment| {
                    segment.writable
                        && segment.range.start < absent.end
                        && absent.start < segment.range.end
                })
        })
    };
    let mut heaps = analysis.heaps.iter();
    let mut is_of_a_heap = || {
        heaps.any(|heap| {
            let extents = heap.map.extents();
            let from = extents.partition_point(|extent| extent.end() <= absent.start);
            let mut inside = extents
                .iter()
                .skip(from)
                .take_while(|extent| extent.start < absent.end);
            inside.any(|extent| match extent.shape {
                Shape::Slab { .. } | Shape::Chunks { .. } => extent.owner == Owner::InUse,
                Shape::Metadata => true,
                _ => false,
            })
        })
    };
    is_of_a_thread || has_variables() || is_of_a_heap()
}
