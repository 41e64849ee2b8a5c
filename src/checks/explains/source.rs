//! Where the value came from that the process died of, whether or not any error is known: the word that it was loaded from, and
//! what that is.

use ground::target::{Address, MemoryExt, Target};
use heaps::allocators::Family;
use heaps::map::BlockState;

use super::way;
use crate::analysis::Analysis;
use crate::checks::finding::{BlockView, Cause};
use crate::checks::place::{Part, Place};
use crate::crash::origin::{Load, Origin, Role};
use crate::crash::{Access, Crash};

/// Bytes of a page's start that glibc keeps in front of a block with a mapping of its own.
const MAPPED_LEAD: u64 = 16;
/// Most that is added to a pointer for a member.
const MAX_MEMBER: u64 = 1 << 16;
/// Bits of the half of a pointer.
const HALF: u32 = 32;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The value.
    pub value: u64,
    /// The word; `None` where the value itself tells what it is.
    pub at: Option<Address>,
    /// What it is, in words that follow those of the word or the value.
    pub meaning: String,
    /// The block that the word lies in, or that the value was to lead to.
    pub block: Option<BlockView>,
    /// The function that loaded it.
    pub function: Option<String>,
    /// The frame of that function.
    pub frame: Option<usize>,
    /// The way back, step by step.
    pub steps: Vec<Cause>,
}

/// The source of the value at fault, if it is known.
pub fn of_fault(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash) -> Option<Source> {
    // Where the stack ends no value is wrong.
    if !crash.is_by_memory || crash.exhausted.is_some() {
        return None;
    }
    let by_value = || {
        let mut values = crash.origins.iter().map(|origin| origin.value);
        values
            .find_map(|value| cut(analysis, value))
            .or_else(|| {
                crash
                    .origins
                    .iter()
                    .find_map(|it| returned(target, crash, it))
            })
            .or_else(|| constant(target, crash))
            .or_else(|| mapped(target, analysis, crash.fault_address?))
    };
    let called = crash.origins.iter().filter(|it| it.role == Role::Target);
    let others = crash.origins.iter().filter(|it| it.role == Role::Address);
    let mut origins = called.chain(others);
    origins
        .find_map(|origin| {
            beyond(analysis, crash, origin, Address::new(origin.value))
                .or_else(|| loaded(target, analysis, crash, origin))
                .or_else(|| beyond(analysis, crash, origin, base(target, analysis, origin)?))
        })
        .or_else(by_value)
}

/// The pointer to which an index was added, where the index itself is lost.
fn base(target: Target<'_>, analysis: &Analysis<'_>, origin: &Origin) -> Option<Address> {
    let is_block = |at: &Address| {
        let mut heaps = analysis.heaps.iter();
        heaps.any(|heap| heap.map.block_at(*at).is_some())
    };
    let slots = origin
        .loads
        .iter()
        .filter(|load| load.is_slot && load.factor == 1 && load.bytes == 8);
    let words = slots.filter_map(|load| target.memory.read_u64(load.at?).ok());
    let parts = origin.parts.iter().copied();
    let mut found = words.map(Address::new).chain(parts).filter(is_block);
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// A pointer that is good, and an index that led far away from it.
fn beyond(analysis: &Analysis<'_>, crash: &Crash, origin: &Origin, at: Address) -> Option<Source> {
    let fault = crash.fault_address?;
    let (heap, (block, _)) = analysis
        .heaps
        .iter()
        .find_map(|heap| Some((heap, heap.map.block_at(at)?)))?;
    let state = heap.map.state(block.id);
    if origin.role != Role::Address || state != BlockState::InUse {
        return None;
    }
    let (distance, which) = match fault.offset_from(block.address) {
        Some(distance) => (distance, "behind the start of"),
        None => (block.address.offset_from(fault)?, "in front of"),
    };
    Some(Source {
        value: fault.get(),
        at: None,
        meaning: format!(
            "{distance} bytes {which} the block {} of {} bytes: an index or a length that is wrong",
            block.address, block.bytes
        ),
        block: Some(BlockView {
            block,
            state,
            offset: 0,
        }),
        function: None,
        frame: Some(origin.frame),
        steps: way(crash, origin, origin.loads.len()),
    })
}

/// A literal or a constant that was to be written.
fn constant(target: Target<'_>, crash: &Crash) -> Option<Source> {
    let fault = crash.fault_address?;
    let operand = crash.instruction.as_ref()?.operands.first()?;
    let writes = matches!(operand.access, Access::Write | Access::ReadWrite);
    let place = Place::outside(target, fault);
    let is_constant = matches!(
        place,
        Place::Module {
            part: Part::Constants | Part::Code,
            ..
        }
    );
    let (words, _) = place.words(target).filter(|_| writes && is_constant)?;
    let words = words.strip_prefix("which is ").unwrap_or(&words);
    Some(Source {
        value: fault.get(),
        at: None,
        meaning: format!("{words}, which cannot be written"),
        block: None,
        function: None,
        frame: None,
        steps: Vec::new(),
    })
}

/// The word that the value was loaded from.
fn loaded(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    origin: &Origin,
) -> Option<Source> {
    // What stands in a frame was put there from elsewhere.
    let (index, load) = origin
        .loads
        .iter()
        .enumerate()
        .find(|(_, load)| !load.is_slot)?;
    let is_it = |at: Address| target.memory.read_u64(at).ok() == Some(origin.value);
    let found = match load.at.filter(|at| load.bytes == 8 && is_it(*at)) {
        Some(at) => (index, at, origin.value, String::new()),
        None => part(target, crash, origin)?,
    };
    let (index, at, value, how) = found;
    let load = origin.loads.get(index)?;
    let place = Place::of(target, analysis, None, at);
    let (meaning, block) = words(target, analysis, &place, at)?;
    Some(Source {
        value,
        at: Some(at),
        meaning: meaning + &how,
        block,
        function: load.function.clone(),
        frame: Some(load.frame),
        steps: way(crash, origin, index),
    })
}

/// The word that was wrong of those that were added up: a pointer that leads nowhere, or an index beside a pointer that is good.
/// Its place among the loads, its address, its value, and what it was, in words.
fn part(
    target: Target<'_>,
    crash: &Crash,
    origin: &Origin,
) -> Option<(usize, Address, u64, String)> {
    let is_there = |at: u64| {
        let at = Address::new(at);
        target.memory.read_u8(at).is_ok() || target.memory.is_absent(at)
    };
    let read = |load: &Load| {
        let at = load.at.filter(|_| !load.is_slot && load.factor != 0)?;
        let word = match load.bytes {
            8 => target.memory.read_u64(at).ok()?,
            4 => target.memory.read_u32(at).ok()?.into(),
            2 => target.memory.read_u16(at).ok()?.into(),
            1 => target.memory.read_u8(at).ok()?.into(),
            _ => return None,
        };
        Some((at, word))
    };
    let parts = || {
        let all = origin.loads.iter().enumerate();
        all.filter_map(|(index, load)| Some((index, load, read(load)?)))
    };
    // The pointer may be in another register of the instruction.
    let operand = crash
        .instruction
        .as_ref()
        .and_then(|instruction| instruction.operands.first());
    let is_beside_pointer = operand.is_some_and(|operand| {
        let others = operand
            .registers
            .iter()
            .filter(|it| Some(it.name) != origin.register);
        let mut values = others.filter_map(|it| it.value);
        values.any(|value| value >= MAX_MEMBER && is_there(value))
    });
    // Of a null and an index the null is wrong.
    let mut pointers = parts().filter(|(_, load, (_, word))| {
        let is_near = origin.value.wrapping_sub(*word) < MAX_MEMBER
            || word.wrapping_sub(origin.value) < MAX_MEMBER;
        load.factor == 1 && load.bytes == 8 && !is_there(*word) && (is_near || *word >= MAX_MEMBER)
    });
    if let Some((index, _, (at, word))) = pointers.next() {
        let added = origin.value.wrapping_sub(word);
        let how = match added < MAX_MEMBER {
            true => format!("; {added:#x} was added to it"),
            false => String::new(),
        };
        return Some((index, at, word, how));
    }
    parts().find_map(|(index, load, (at, word))| {
        let signed = match load.bytes {
            4 => ((word << 32).cast_signed() >> 32).cast_unsigned(),
            _ => word,
        };
        let leads_back = [word, signed].into_iter().any(|count| {
            let rest = origin.value.wrapping_sub(count.wrapping_mul(load.factor));
            let is_far = origin.value >= MAX_MEMBER || is_beside_pointer && word != 0;
            let is_alone = rest == 0 && load.bytes < 8 && is_far;
            is_alone || rest >= MAX_MEMBER && is_there(rest)
        });
        let each = match load.factor {
            1 => "; it was added to a pointer that is good".to_owned(),
            size => {
                format!("; it is an index, of {size} bytes each, beside a pointer that is good")
            }
        };
        (leads_back && load.factor < MAX_MEMBER).then_some((index, at, word, each))
    })
}

/// A value that a call returned, as it is. A pointer to memory is not what is wrong.
fn returned(target: Target<'_>, crash: &Crash, origin: &Origin) -> Option<Source> {
    if target.memory.read_u8(Address::new(origin.value)).is_ok() {
        return None;
    }
    let name = origin.returned.as_ref()?.name.as_ref()?;
    Some(Source {
        value: origin.value,
        at: None,
        meaning: match origin.or_constant {
            false => format!("what {name} returned"),
            true => format!("what {name} returned, if it was called: else a constant of the code"),
        },
        block: None,
        function: None,
        frame: Some(origin.frame),
        steps: way(crash, origin, origin.loads.len()),
    })
}

/// What the word's place is.
fn words(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    place: &Place,
    at: Address,
) -> Option<(String, Option<BlockView>)> {
    match place {
        Place::Block {
            heap,
            block,
            offset,
            ..
        } => {
            let map = &analysis.heaps.get(*heap)?.map;
            let state = map.state(block.id);
            let which = match state {
                BlockState::InUse => "the block",
                _ => "the free block",
            };
            let view = BlockView {
                block: *block,
                state,
                offset: *offset,
            };
            let meaning = format!(
                "+{offset:#x} in {which} {}, {} bytes",
                block.address, block.bytes
            );
            Some((meaning, Some(view)))
        }
        Place::Own { heap } => between(analysis, *heap, at),
        place => {
            let (words, _) = place.words(target)?;
            let words = words.strip_prefix("which is ").unwrap_or(&words);
            Some((words.to_owned(), None))
        }
    }
}

/// A word that the allocator keeps between two blocks.
fn between(
    analysis: &Analysis<'_>,
    heap: usize,
    at: Address,
) -> Option<(String, Option<BlockView>)> {
    let map = &analysis.heaps.get(heap)?.map;
    let mut behind = [8, 16].into_iter();
    let next = behind.find_map(|bytes| {
        let (block, offset) = map.block_at(at.checked_add(bytes)?)?;
        (offset == 0).then_some(block)
    })?;
    let before = map.block_before(next)?;
    let offset = at.offset_from(before.address)?;
    let is_end = offset >= before.bytes && offset - before.bytes < 16;
    let view = BlockView {
        block: before,
        state: map.state(before.id),
        offset,
    };
    is_end.then(|| {
        let meaning = format!(
            "the allocator's own word between the end of the block {} of {} bytes and the block {}",
            before.address, before.bytes, next.address
        );
        (meaning, Some(view))
    })
}

/// The lower half of a pointer to a block, with zeros or its sign above: it went through a number of 32 bits.
fn cut(analysis: &Analysis<'_>, value: u64) -> Option<Source> {
    let upper = value >> HALF;
    if upper != 0 && upper != u64::MAX >> HALF || value & (u64::MAX >> HALF) < 1 << 16 {
        return None;
    }
    let low = value & (u64::MAX >> HALF);
    let mut found = analysis.heaps.iter().flat_map(|heap| {
        let extents = heap.map.extents();
        let mut uppers: Vec<u64> = extents
            .iter()
            .flat_map(|extent| [extent.start.get() >> HALF, extent.end().get() >> HALF])
            .filter(|upper| *upper != 0)
            .collect();
        uppers.dedup();
        uppers.into_iter().filter_map(move |upper| {
            let whole = Address::new(upper << HALF | low);
            let (block, offset) = heap.map.block_at(whole)?;
            (offset == 0).then_some((whole, heap, block))
        })
    });
    let (whole, heap, block) = found.next()?;
    if found.any(|(other, ..)| other != whole) {
        return None;
    }
    let state = heap.map.state(block.id);
    Some(Source {
        value,
        at: None,
        meaning: format!(
            "the lower half of {whole}, a pointer to a block of {} bytes that was cut to 32 bits (an int, or a function that is not declared)",
            block.bytes
        ),
        block: Some(BlockView {
            block,
            state,
            offset: 0,
        }),
        function: None,
        frame: None,
        steps: Vec::new(),
    })
}

/// An address of no memory that looks as glibc's blocks with mappings of their own do, which free gives back.
fn mapped(target: Target<'_>, analysis: &Analysis<'_>, fault: Address) -> Option<Source> {
    let page = target.memory.abi().page_bytes.max(1);
    let is_glibc = analysis
        .heaps
        .iter()
        .any(|heap| heap.identity.family == Family::Ptmalloc);
    // Mappings lie among the libraries.
    let is_among = target.modules.iter().any(|module| {
        let distance = module.range.start.get().abs_diff(fault.get());
        module.range.start.get() >> 40 == fault.get() >> 40 && distance < 1 << 36
    });
    let is_start = fault.get() % page == MAPPED_LEAD;
    let is_none = matches!(Place::outside(target, fault), Place::Unmapped);
    (is_glibc && is_among && is_start && is_none).then(|| Source {
        value: fault.get(),
        at: None,
        meaning: "no memory; glibc's large blocks, which have mappings of their own, begin at such addresses: perhaps one that was freed"
            .into(),
        block: None,
        function: None,
        frame: None,
        steps: Vec::new(),
    })
}
