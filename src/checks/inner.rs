//! How a pointer came to be inside of a block: a base of an object, the first element of an array behind its count, what stands
//! behind a header of the program's own.
//!
//! ```text
//! block ──> table of a class ──> type_info ──> its bases, each with its distance      delete by a base
//!      +0   n     +8  elements                                                        delete of new[]
//!      +0   size  +k  so many bytes to the end                                        a header
//! ```

use ground::target::{Address, MemoryExt, Target};
use heaps::map::Block;

use crate::types::rtti;
use crate::types::shorten::shortened;

/// Largest number that is taken for the count of an array's elements.
const MAX_COUNT: u64 = 1 << 20;
/// Bytes of a word.
const WORD: u64 = 8;
/// Bytes of the largest header that programs put in front of what they hand out.
const MAX_HEADER: u64 = 64;
/// Bases of a class, and classes over each other, that are looked at.
const MAX_BASES: u64 = 64;
const MAX_DEPTH: usize = 16;

/// What it is, after the offset and the block, and what to do.
pub struct Inner {
    /// Empty where nothing shows.
    pub hint: String,
    /// One step.
    pub next: String,
}

/// How a pointer that was freed came to be `offset` bytes into a block.
pub fn told(target: Target<'_>, at: Address, block: Block, offset: u64) -> Inner {
    let found = by_base(target, at, block, offset)
        .or_else(|| array(target, at, block, offset))
        .or_else(|| in_front(target, at, block, offset))
        .or_else(|| part(target, at, offset))
        .or_else(|| header(target, block, offset));
    found.unwrap_or_else(|| {
        let is_by_hand = at.is_aligned(64) && !block.address.is_aligned(64);
        Inner {
            hint: String::new(),
            next: match is_by_hand {
                true => "look for a pointer that was aligned by hand: free what malloc gave, not what was made of it".to_owned(),
                false => format!("look for a pointer to a member, or one that was advanced by {offset}, that is passed to free"),
            },
        }
    })
}

/// `delete[]` of what `new` gave: it looks for the count in front of the object, and gives back what begins there.
fn in_front(target: Target<'_>, at: Address, block: Block, offset: u64) -> Option<Inner> {
    let next = at.checked_add(WORD)?;
    if offset.checked_add(WORD) != Some(block.bytes) {
        return None;
    }
    let what = class_at(target, next).map_or_else(String::new, |class| {
        format!(", where an object of {} begins", class.name)
    });
    Some(Inner {
        hint: format!(
            "; {WORD} bytes in front of the next block{what}: so delete[] frees what new gave, looking there for the number of elements"
        ),
        next: "look for a delete[] of what new gave, or a pointer that was moved back".to_owned(),
    })
}

/// A class by the virtual table that an object begins with.
struct Class {
    info: Address,
    name: String,
    /// From the table's place in the object to its start: 0 or negative.
    to_top: i64,
}

fn class_at(target: Target<'_>, at: Address) -> Option<Class> {
    let memory = target.memory;
    let table = memory.read_pointer(at).ok()?;
    let is_data = |at: Address| {
        let mut segments = target.modules.iter().flat_map(|module| &module.segments);
        segments.any(|segment| !segment.executable && segment.range.contains(&at))
    };
    let is_code = |at: Address| target.modules.iter().any(|module| module.has_code_at(at));
    let info = memory.read_pointer(table.checked_sub(WORD)?).ok()?;
    let to_top = memory.read_u64(table.checked_sub(2 * WORD)?).ok()?;
    let to_top = to_top.cast_signed();
    let function = memory.read_pointer(table).ok()?;
    let is_table = table.is_aligned(WORD) && is_data(table) && is_data(info) && to_top <= 0;
    // The destructors of an abstract class are zeros.
    let is_function = is_code(function) || function.is_null();
    let name = rtti::name_of(memory, info).filter(|_| is_table && is_function)?;
    Some(Class {
        info,
        name: shortened(&name),
        to_top,
    })
}

/// The base of a class that begins so many bytes into its objects, by its type_info (Itanium C++ ABI, 2.9.5): flags and count, then
/// pairs of a base's type_info and its distance, eight bits further up, over flags of which the lowest says virtual.
fn base_at(target: Target<'_>, class: Address, offset: u64) -> Option<String> {
    let memory = target.memory;
    let (mut info, mut offset) = (class, offset);
    for _ in 0..MAX_DEPTH {
        let first = info.checked_add(2 * WORD)?;
        let bases = memory.read_u32(first.checked_add(4)?).ok()?;
        let flags = memory.read_u32(first).ok()?;
        if flags > 3 || bases == 0 || u64::from(bases) > MAX_BASES {
            // A class with one base, which begins where it does.
            let base = memory.read_pointer(first).ok()?;
            rtti::name_of(memory, base)?;
            info = base;
            continue;
        }
        // The last one that does not begin behind the place holds it.
        let base = |index: u64| {
            let at = first.checked_add(WORD + index * 2 * WORD)?;
            let base = memory.read_pointer(at).ok()?;
            let flags = memory.read_u64(at.checked_add(WORD)?).ok()?.cast_signed();
            let inside = u64::try_from(flags >> 8).ok()?;
            (flags & 1 == 0).then_some((base, inside))
        };
        let all = (0..u64::from(bases)).filter_map(base);
        let (base, inside) = all
            .filter(|(_, inside)| *inside <= offset)
            .max_by_key(|(_, inside)| *inside)?;
        if inside == offset {
            return rtti::name_of(memory, base).map(|name| shortened(&name));
        }
        (info, offset) = (base, offset.checked_sub(inside)?);
    }
    None
}

/// The block begins with an object, one of whose bases begins at the pointer. Its destructor may have run and put its own table there.
fn by_base(target: Target<'_>, at: Address, block: Block, offset: u64) -> Option<Inner> {
    let class = class_at(target, block.address).filter(|class| class.to_top == 0)?;
    let base = base_at(target, class.info, offset);
    let there = class_at(target, at);
    let is_part = there.as_ref().is_some_and(|there| {
        there.info == class.info && there.to_top.checked_neg() == i64::try_from(offset).ok()
    });
    let hint = match &base {
        Some(base) => format!(
            "; {base} is there, a base of the {} that begins the block",
            class.name
        ),
        None if is_part => format!(
            "; an object of {} begins the block, and one of its bases is there",
            class.name
        ),
        None => return None,
    };
    let base = base.unwrap_or_else(|| "that base".to_owned());
    Some(Inner {
        hint: format!("{hint}: deleted by a pointer to that base, whose destructor is not virtual"),
        next: format!(
            "give {base} a virtual destructor, or delete the object by the type that it was made as"
        ),
    })
}

/// `new T[n]` keeps n in front of the first element where T has a destructor.
fn array(target: Target<'_>, at: Address, block: Block, offset: u64) -> Option<Inner> {
    let count = target.memory.read_u64(at.checked_sub(WORD)?).ok()?;
    let room = block.bytes.checked_sub(WORD)?;
    let fits = (1..=MAX_COUNT).contains(&count) && count <= room;
    if offset != WORD || !fits {
        return None;
    }
    let of = class_at(target, at)
        .filter(|class| class.to_top == 0)
        .map_or_else(
            || "elements".to_owned(),
            |class| format!("{} objects", class.name),
        );
    Some(Inner {
        hint: format!(
            "; the word before it is {count}, as new[] keeps the number of {of} there: freed by delete or free, not by delete[]"
        ),
        next: "free what new[] gave by delete[]".to_owned(),
    })
}

/// An object with a virtual table is there, of whose whole nothing more is known.
fn part(target: Target<'_>, at: Address, offset: u64) -> Option<Inner> {
    let class = class_at(target, at).filter(|_| offset.is_multiple_of(WORD))?;
    let hint = match class.to_top {
        0 => format!("; an object of {} is there", class.name),
        to_top => format!(
            "; a base of an object of {} is there, {} bytes into that",
            class.name,
            to_top.unsigned_abs()
        ),
    };
    Some(Inner {
        hint: format!("{hint}: a member, or a base without a virtual destructor"),
        next:
            "delete the object by the type that it was made as, and what a member is by its owner"
                .to_owned(),
    })
}

/// The program's own functions keep a size in front of what they hand out: as many bytes as follow to the end of the block.
fn header(target: Target<'_>, block: Block, offset: u64) -> Option<Inner> {
    if offset > MAX_HEADER || !offset.is_multiple_of(WORD) {
        return None;
    }
    let rest = block.bytes.checked_sub(offset)?;
    let is_size = |size: u64| size > 0 && size <= rest && rest - size < 2 * WORD;
    let (at, size) = (0..offset / WORD).find_map(|index| {
        let at = block.address.checked_add(index * WORD)?;
        let size = target.memory.read_u64(at).ok()?;
        is_size(size).then_some((at, size))
    })?;
    Some(Inner {
        hint: format!(
            "; the word {at} in front of it is {size}, about as many bytes as follow: a header of functions that hand out what is behind it"
        ),
        next: "give it back by the function that belongs to the one that made it, not by free"
            .to_owned(),
    })
}
