//! Where a pointer leads that was given to `free`, or that an allocator took for a free block: to a block, to a variable, to no
//! memory at all.

use ground::target::{Address, Frame, FrameTrust, MemoryExt, ModuleId, Target};
use heaps::allocators::Detail;
use heaps::map::{Block, BlockState};

use crate::analysis::{Analysis, HeapAnalysis};

/// Below this there is no memory.
const MIN_ADDRESS: u64 = 1 << 16;
/// Threads whose stacks are asked.
const MAX_THREADS: usize = 1 << 12;
/// Arguments of the program that are looked at.
const MAX_ARGUMENTS: u64 = 1 << 12;

/// What part of a module it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Instructions.
    Code,
    /// Variables.
    Variables,
    /// What is never written: literals, tables.
    Constants,
}

/// Where a pointer leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into a block.
    Block {
        /// Index of the heap.
        heap: usize,
        /// The block.
        block: Block,
        /// Its state.
        state: BlockState,
        /// Bytes from its start.
        offset: u64,
    },
    /// Into the unused rest of a heap.
    Top {
        /// Index of the heap.
        heap: usize,
    },
    /// Into the allocator's own memory.
    Own {
        /// Index of the heap.
        heap: usize,
    },
    /// Onto a thread's stack.
    Stack {
        /// The thread.
        thread: u32,
        /// It is the one that died.
        is_crashing: bool,
        /// The frame, and the bytes above its stack pointer, where that is known.
        frame: Option<(usize, u64)>,
        /// It lies below all frames, where functions were that have returned.
        is_below: bool,
    },
    /// To the program's arguments or its environment.
    Arguments {
        /// The argument that begins there.
        number: Option<u64>,
    },
    /// Into a module.
    Module {
        /// The module.
        id: ModuleId,
        /// The part.
        part: Part,
        /// The variable and the bytes from its start.
        symbol: Option<(String, u64)>,
    },
    /// Into memory that is mapped and no heap's.
    Mapping,
    /// To a number that is no address: so small that nothing is mapped there.
    Small,
    /// To a number that the processor takes for no address.
    NonCanonical,
    /// Where nothing is mapped.
    Unmapped,
}

impl Place {
    /// Finds it. The heap at `first` is asked before the others.
    pub fn of(
        target: Target<'_>,
        analysis: &Analysis<'_>,
        first: Option<usize>,
        at: Address,
    ) -> Self {
        let order = first
            .into_iter()
            .chain((0..analysis.heaps.len()).filter(|index| Some(*index) != first));
        let mut found = order
            .filter_map(|index| in_heap(index, analysis.heaps.get(index)?, at))
            .peekable();
        let first = found.peek().cloned();
        // Two heaps may have grown in one mapping: what one keeps there for itself may be the other's block.
        let block = found.find(|place| !matches!(place, Self::Own { .. }));
        block.or(first).unwrap_or_else(|| Self::outside(target, at))
    }

    /// Finds it for a pointer that leads into no heap.
    pub fn outside(target: Target<'_>, at: Address) -> Self {
        let sign = at.get() >> 47;
        if sign != 0 && sign != (1 << 17) - 1 {
            return Self::NonCanonical;
        }
        if at.get() < MIN_ADDRESS {
            return Self::Small;
        }
        if let Some(place) = in_module(target, at).or_else(|| on_stack(target, at)) {
            return place;
        }
        match target.memory.region_at(at) {
            Some(_) => Self::Mapping,
            None => Self::Unmapped,
        }
    }

    /// The same for a pointer of an earlier call: other functions may stand on that part of the stack by now.
    pub fn of_earlier_call(self) -> Self {
        match self {
            Self::Stack {
                thread,
                is_crashing,
                ..
            } => Self::Stack {
                thread,
                is_crashing,
                frame: None,
                is_below: false,
            },
            place => place,
        }
    }

    /// What it is and what to do, for mapped memory that is no heap's; the words follow those of the pointer.
    pub fn words(&self, target: Target<'_>) -> Option<(String, &'static str)> {
        Some(match self {
            Self::Stack {
                thread,
                is_crashing,
                frame,
                is_below,
            } => (
                stack_words(*thread, *is_crashing, *frame, *is_below),
                "memory of a function's own (arrays, alloca, variable-length arrays) goes by itself: do not free it",
            ),
            Self::Arguments { number } => (
                match number {
                    Some(number) => format!("which is the program's argument argv[{number}]"),
                    None => "which is among the strings of the program's arguments and environment"
                        .to_owned(),
                },
                "copy it (strdup) where its owner frees it",
            ),
            Self::Module { id, part, symbol } => (
                module_words(target, *id, *part, symbol.as_ref()),
                "a literal or a variable with static storage is nobody's to free: copy it (strdup) where its owner frees it",
            ),
            Self::Mapping => (
                "which is mapped memory of no heap".to_owned(),
                "find out who mapped it: what mmap gave goes back by munmap",
            ),
            _ => return None,
        })
    }
}

fn in_heap(index: usize, heap: &HeapAnalysis<'_>, at: Address) -> Option<Place> {
    let rest = tops(heap).find(|top| {
        let row = heap.map.row_at(*top);
        *top <= at && row.is_some() && row == heap.map.row_at(at)
    });
    if rest.is_some() {
        return Some(Place::Top { heap: index });
    }
    heap.map.place(at)?;
    Some(match heap.map.block_at(at) {
        Some((block, offset)) => Place::Block {
            heap: index,
            block,
            state: heap.map.state(block.id),
            offset,
        },
        None => Place::Own { heap: index },
    })
}

/// The top chunk of each arena, as the walker's own facts name them.
pub fn tops(heap: &HeapAnalysis<'_>) -> impl Iterator<Item = Address> {
    let arenas = heap.details.iter().find(|(name, _)| *name == "arenas");
    let arenas = match arenas {
        Some((_, Detail::List(arenas))) => arenas.as_slice(),
        _ => &[],
    };
    arenas.iter().filter_map(|arena| match arena {
        Detail::Table(rows) => rows.iter().find_map(|(name, value)| match (*name, value) {
            ("top", Detail::Address(top)) => Some(*top),
            _ => None,
        }),
        _ => None,
    })
}

fn in_module(target: Target<'_>, at: Address) -> Option<Place> {
    let (module, segment) = target.modules.iter().find_map(|module| {
        let segment = module
            .segments
            .iter()
            .find(|segment| segment.range.contains(&at))?;
        Some((module, segment))
    })?;
    let symbol = target.symbols.variable_at(module.id, at);
    let part = match (segment.executable, segment.writable) {
        (true, _) => Part::Code,
        (false, true) => Part::Variables,
        (false, false) => Part::Constants,
    };
    Some(Place::Module {
        id: module.id,
        part,
        symbol: symbol.filter(|_| part != Part::Code),
    })
}

fn on_stack(target: Target<'_>, at: Address) -> Option<Place> {
    let region = target.memory.region_at(at)?;
    let pointers = target
        .environment
        .pointers()
        .filter(|first| region.range.contains(first));
    if pointers.is_some_and(|first| first <= at) {
        return Some(Place::Arguments {
            number: pointers.and_then(|first| argument(target, first, at)),
        });
    }
    let threads = target.threads.list().iter().enumerate().take(MAX_THREADS);
    let (index, thread) = threads
        .into_iter()
        .find(|(_, thread)| region.range.contains(&thread.sp))?;
    let frames = target.threads.frames(index);
    // Where the next one begins must be known.
    let by_rules = |frame: &Frame| matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi);
    let known = frames.iter().take_while(|frame| by_rules(frame)).count();
    let frame = frames
        .iter()
        .take(known)
        .rposition(|frame| frame.sp <= at && region.range.contains(&frame.sp));
    Some(Place::Stack {
        thread: thread.tid,
        is_crashing: index == 0,
        frame: frame
            .filter(|number| number + 1 < known || known == frames.len())
            .and_then(|number| Some((number, at.offset_from(frames.get(number)?.sp)?))),
        is_below: thread.sp > at,
    })
}

/// Which of the program's arguments begins at `at`: their pointers stand before those of the environment, behind their number.
fn argument(target: Target<'_>, environment: Address, at: Address) -> Option<u64> {
    let word = |index: u64| {
        target
            .memory
            .read_u64(environment.checked_sub(index.checked_mul(8)?)?)
            .ok()
    };
    // From the last one down, behind the null that ends them, to the number of them.
    let found = (2..MAX_ARGUMENTS).find(|index| word(*index) == Some(at.get()))?;
    let count = (found..MAX_ARGUMENTS).find(|index| word(*index) == Some(index.wrapping_sub(2)))?;
    count.checked_sub(found)?.checked_sub(1)
}

fn stack_words(
    thread: u32,
    is_crashing: bool,
    frame: Option<(usize, u64)>,
    is_below: bool,
) -> String {
    let whose = match is_crashing {
        true => String::new(),
        false => format!(" of thread {thread}"),
    };
    match frame {
        Some((number, above)) => format!(
            "which is on the stack{whose}: a variable of frame {number}, {above} bytes above its stack pointer"
        ),
        None if is_below => {
            format!("which is on the stack{whose}, where functions were that have returned")
        }
        None => format!("which is on the stack{whose}"),
    }
}

fn module_words(
    target: Target<'_>,
    id: ModuleId,
    part: Part,
    symbol: Option<&(String, u64)>,
) -> String {
    let module = usize::try_from(id.0)
        .ok()
        .and_then(|index| target.modules.get(index));
    let name = module.map_or("a module", |module| module.name.as_str());
    match (symbol, part) {
        (Some((symbol, 0)), _) => format!("which is the variable {symbol} of {name}"),
        (Some((symbol, offset)), _) => {
            format!("which is {offset} bytes into the variable {symbol} of {name}")
        }
        (None, Part::Code) => format!("which is code of {name}"),
        (None, Part::Variables) => format!("which is among the variables of {name}"),
        (None, Part::Constants) => format!("which is among the literals and constants of {name}"),
    }
}
