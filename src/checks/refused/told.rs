//! What the place of a pointer makes of it: the kind of mistake, in words.

use ground::target::{Address, MemoryExt};
use heaps::allocators::Family;
use heaps::map::{Block, BlockState, Owner};

use super::super::place::Place;
use super::sayings::{About, Saying, Seen};
use super::{HEADER_BYTES, Pointer, Scene, call};
use crate::checks::finding::FindingKind;
use crate::checks::mismatch::{self, Foreign};
use crate::checks::{double_free, inner};

/// What the place of a pointer makes of it.
pub struct Told {
    /// What it is.
    pub kind: FindingKind,
    /// What the pointer is, after "free was called with X, ".
    pub is: String,
    /// Nothing else fits, if the pointer is certain.
    pub is_clear: bool,
    /// What to do.
    pub next: Vec<String>,
}

/// What the place of a pointer makes of it; `None` for a block in use, which is no wrong pointer.
pub fn told(scene: Scene<'_>, pointer: &Pointer) -> Option<Told> {
    use FindingKind::InvalidFreeEntry;
    let saying = scene.death.said.map(|(saying, _)| saying);
    let foreign = |is: String, next: &str| Told {
        kind: InvalidFreeEntry,
        is,
        is_clear: true,
        next: vec![next.to_owned()],
    };
    let at = pointer.value;
    Some(match &pointer.place {
        Place::Block { heap, block, state, offset } if Some(*heap) == scene.death.heap => {
            return in_block(scene, pointer, *block, *state, *offset, saying);
        }
        Place::Block { offset: 0, .. } => {
            let foreign = Foreign::at(&scene.analysis.heaps, scene.death.heap, at)?;
            Told {
                kind: FindingKind::AllocatorMismatch,
                is: format!("{}; {}", foreign.words(scene.target), taken(scene)),
                is_clear: true,
                next: mismatch::next_steps(),
            }
        }
        Place::Block { heap, block, .. } => {
            let other = scene.analysis.heaps.get(*heap).map_or("another allocator", |heap| heap.identity.name());
            foreign(
                format!("which is in the block {} of {} bytes of {other}", block.address, block.bytes),
                "give it back by the functions of the library that allocated it",
            )
        }
        Place::Top { .. } => Told {
            kind: FindingKind::DoubleFree,
            is: "which is part of the unused rest of the heap: what it was a block of was freed before".to_owned(),
            is_clear: saying.is_some_and(|saying| saying.about == About::Pointer(Seen::Top)),
            next: double_free::next_steps(0),
        },
        Place::Own { .. } => foreign("which is the allocator's own memory".to_owned(), "find out who made this pointer"),
        Place::Mapping if scene.death.heap.is_none() => return unwalked(scene, at),
        Place::Stack { .. } | Place::Arguments { .. } | Place::Module { .. } | Place::Mapping => {
            let (is, next) = pointer.place.words(scene.target)?;
            foreign(is, next)
        }
        Place::Small => foreign(
            match at.get() {
                0..=0xffff => format!("which is no address but the number {}", at.get()),
                _ => "which is no address".to_owned(),
            },
            "look for a variable that was never set, or a member of an object at a null pointer",
        ),
        Place::NonCanonical => foreign(no_address(at), "find out what was written over this pointer"),
        Place::Unmapped => unmapped(scene, at),
    })
}

/// Who called the allocator that took a foreign block: `the call came from plugin.so and went to glibc's malloc (libc.so.6)`. A function
/// that ends in the call leaves no frame: only what the instruction before the return address calls is known to have been called there.
fn taken(scene: Scene<'_>) -> String {
    let frames = scene.target.threads.frames(scene.crash.thread);
    let caller = scene.death.caller.and_then(|caller| frames.get(caller));
    let heap = scene
        .death
        .heap
        .and_then(|heap| scene.analysis.heaps.get(heap));
    let inner = || frames.get(scene.death.caller?.checked_sub(1)?)?.module;
    let id = heap.map(|heap| heap.identity.module).or_else(inner);
    let taker = mismatch::owner(scene.target, scene.death.allocator, id);
    let name = caller
        .and_then(|caller| mismatch::module_of(scene.target, caller.module?))
        .map(|module| module.name.as_str());
    let is_direct = || {
        let called = call::callee(scene.target, caller?.pc)?;
        let module = mismatch::module_of(scene.target, id?)?;
        module.has_code_at(called).then_some(())
    };
    match name {
        Some(name) if is_direct().is_some() => {
            format!("the call came from {name} and went to {taker}")
        }
        Some(name) => format!("the call came by way of {name} and went to {taker}"),
        None => format!("the call went to {taker}"),
    }
}

/// A pointer to mapped memory, where the allocator's blocks are not known. musl marks the header of a block that is freed: an
/// index of all ones, and no distance to its group (mallocng/free.c).
fn unwalked(scene: Scene<'_>, at: Address) -> Option<Told> {
    if scene.death.allocator != Family::Musl {
        return None;
    }
    let is_misaligned = !at.is_aligned(HEADER_BYTES);
    let header: [u8; 3] = scene.target.memory.read_bytes(at.checked_sub(3)?).ok()?;
    let (kind, is, next) = match (is_misaligned, header) {
        (true, _) => (
            FindingKind::MisalignedFreeEntry,
            "which is not aligned as blocks are".to_owned(),
            vec![
                "look for a pointer to a member, or one that was advanced, that is passed to free"
                    .to_owned(),
            ],
        ),
        (false, [0xff, 0, 0]) => (
            FindingKind::DoubleFree,
            "whose header is marked as that of a block that is free already".to_owned(),
            double_free::next_steps(0),
        ),
        _ => return None,
    };
    Some(Told {
        kind,
        is,
        is_clear: false,
        next,
    })
}

/// A pointer to where nothing is mapped. glibc gives a large block back to the system when it is freed, and its pointers
/// stand behind a page's first header.
fn unmapped(scene: Scene<'_>, at: Address) -> Told {
    let page = scene.target.memory.abi().page_bytes.max(1);
    // Among the mappings that the system placed: below the highest of the libraries, and not far from it.
    const NEAR: u64 = 1 << 36;
    let libraries = scene
        .target
        .modules
        .iter()
        .filter(|module| !module.is_executable);
    let is_near = libraries
        .map(|module| module.range.start.get())
        .max()
        .is_some_and(|top| at.get() < top && top - at.get() < NEAR);
    let was_large =
        scene.death.allocator == Family::Ptmalloc && at.get() % page == HEADER_BYTES && is_near;
    if was_large {
        return Told {
            kind: FindingKind::DoubleFree,
            is: "where nothing is mapped: as its place in the page shows, it was a large block with a mapping of its own, which \
                 went back to the system when it was freed"
                .to_owned(),
            is_clear: false,
            next: double_free::next_steps(0),
        };
    }
    Told {
        kind: FindingKind::InvalidFreeEntry,
        is: "where nothing is mapped".to_owned(),
        is_clear: true,
        next: vec![
            "look for a variable that was never set, or an object that was freed or written over"
                .to_owned(),
        ],
    }
}

fn no_address(at: Address) -> String {
    let bytes = at.get().to_le_bytes();
    let letters = bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .count();
    match letters {
        7.. => format!(
            "which is no address but text, \"{}\"",
            bytes
                .iter()
                .map(|byte| char::from(*byte))
                .filter(|letter| !letter.is_control() && letter.is_ascii())
                .collect::<String>()
        ),
        _ if bytes.windows(2).all(|pair| pair.first() == pair.last()) => {
            "which is no address but one byte, repeated".to_owned()
        }
        _ => "which is no address".to_owned(),
    }
}

fn in_block(
    scene: Scene<'_>,
    pointer: &Pointer,
    block: Block,
    state: BlockState,
    offset: u64,
    saying: Option<&Saying>,
) -> Option<Told> {
    let seen = saying.and_then(|saying| match saying.about {
        About::Pointer(seen) => Some(seen),
        _ => None,
    });
    let whole = format!("the block {} of {} bytes", block.address, block.bytes);
    match (offset, state) {
        (0, BlockState::InUse) => None,
        // It is free because this very call had put it into a list when it died of another word.
        (0, _) if scene.death.is_fault && scene.looked_up() != Some(pointer.value) => None,
        (0, _) => Some(Told {
            kind: FindingKind::DoubleFree,
            is: format!("{whole}, which is free already"),
            is_clear: true,
            next: double_free::next_steps(block.bytes),
        }),
        // Its span or extent is free as a whole: what began there went back to the free pages.
        (_, BlockState::Free | BlockState::Lost) if is_free_whole(scene, block) => Some(Told {
            kind: FindingKind::DoubleFree,
            is: format!(
                "which is part of the free pages at {whole}: the block there was freed before"
            ),
            is_clear: false,
            next: double_free::next_steps(0),
        }),
        // It may be what a free block has been joined with.
        (_, BlockState::Free | BlockState::Lost)
            if pointer.value.is_aligned(HEADER_BYTES)
                && matches!(seen, Some(Seen::Free | Seen::Top)) =>
        {
            Some(Told {
                kind: FindingKind::DoubleFree,
                is: format!(
                    "which is part of {whole}, free as a whole: the block that began there was freed before"
                ),
                is_clear: false,
                next: double_free::next_steps(0),
            })
        }
        _ => {
            let found = inner::told(scene.target, pointer.value, block, offset);
            Some(Told {
                kind: FindingKind::MisalignedFreeEntry,
                is: format!("{offset} bytes into {whole}{}", found.hint),
                is_clear: true,
                next: vec![found.next],
            })
        }
    }
}

/// Whether the memory that a block is cut from is free as a whole, where an allocator has such.
fn is_free_whole(scene: Scene<'_>, block: Block) -> bool {
    let heap = scene
        .death
        .heap
        .and_then(|index| scene.analysis.heaps.get(index));
    let extent = heap.and_then(|heap| heap.map.extent(block.id.extent));
    extent.is_some_and(|extent| extent.owner != Owner::InUse)
}
