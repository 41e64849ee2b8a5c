//! What an address is, by every witness: the heap's block or the allocator's own structure, the thread's stack and variable, the module's
//! symbol, the mapping; what stands around it, and who points there.
//!
//! ```text
//! address ──┬── place    what it is            words ── each word around it, decoded
//!           └── near     the blocks beside it  references ── who points there         (graph)
//! ```

mod structure;
mod words;

use std::ops::Range;

use ground::target::{Address, Fault, MemoryExt, ModuleId, Region};
use heaps::allocators::Standing;
use heaps::graph::roots::RootKind;
use heaps::map::Block;

use crate::analysis::HeapAnalysis;
use crate::checks::finding::BlockView;
use crate::checks::place::Place;
use crate::graph::Ground;
use crate::graph::holders::variables::Belonging;
use crate::graph::holders::{FrameSlot, MAX_SHOWN, References};
pub use words::Word;

/// Below this a word is a number.
const SMALL: u64 = 1 << 16;

/// What an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// In a block of a heap.
    HeapBlock,
    /// In an allocator's own memory.
    Allocator,
    /// On a thread's stack.
    Stack,
    /// In thread-local storage, or what libc keeps of a thread.
    Tls,
    /// Among the variables and constants of a module.
    Global,
    /// Instructions.
    Code,
    /// In another mapping.
    Mapping,
    /// Mapped, and not in the core.
    NotDumped,
    /// No memory.
    #[default]
    Unmapped,
    /// No memory, and made of characters.
    Text,
}

impl What {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            What::HeapBlock => "heap-block",
            What::Allocator => "allocator",
            What::Stack => "stack",
            What::Tls => "tls",
            What::Global => "global",
            What::Code => "code",
            What::Mapping => "mapping",
            What::NotDumped => "not-dumped",
            What::Unmapped => "unmapped",
            What::Text => "text",
        }
    }
}

/// A block beside an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// It lies before; else behind.
    pub is_before: bool,
    /// The block; its offset is 0.
    pub block: BlockView,
}

/// A variable, a function: its name, and the bytes from its start.
pub type Named = (String, u64);

/// Everything that is known of an address.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The address.
    pub at: Address,
    /// What it is.
    pub what: What,
    /// The same in a sentence.
    pub message: String,
    /// Index of the heap that it belongs to.
    pub heap: Option<usize>,
    /// The block that holds it.
    pub block: Option<BlockView>,
    /// The list that holds that block.
    pub standing: Option<Standing>,
    /// Where that block was allocated, if the allocator recorded it: innermost first.
    pub allocated_by: Vec<Address>,
    /// The blocks before and behind.
    pub neighbours: Vec<Neighbour>,
    /// The allocator's structure that it is in.
    pub structure: Option<String>,
    /// The thread whose stack or storage it is in.
    pub thread: Option<u32>,
    /// The frame that it lies in.
    pub slot: Option<FrameSlot>,
    /// The variable of that frame.
    pub variable: Option<Named>,
    /// The variable of a module or a thread; the function, for code.
    pub symbol: Option<Named>,
    /// The module, and the bytes from its start.
    pub module: Option<Named>,
    /// The section of the module's file.
    pub section: Option<String>,
    /// The source of an instruction: file and line.
    pub source: Option<(String, Option<u32>)>,
    /// The mapping that it lies in.
    pub mapping: Option<Mapped>,
    /// The words around it.
    pub words: Vec<Word>,
    /// Who points there.
    pub references: References,
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its addresses.
    pub range: Range<Address>,
    /// As `rw-`.
    pub permissions: String,
    /// The file that is mapped there.
    pub file: Option<String>,
}

/// What each of these addresses is; `words` of each are decoded. Who points there costs one pass for all.
pub fn inspect(ground: &Ground<'_>, addresses: &[Address], words: usize) -> Vec<Inspection> {
    let references = ground.references(addresses, MAX_SHOWN);
    let looks = addresses.iter().zip(references);
    looks
        .map(|(at, references)| {
            let mut found = Inspection {
                at: *at,
                references,
                ..Inspection::default()
            };
            let look = Look { ground, at: *at };
            look.place(&mut found);
            if found.what == What::Unmapped && at.get() < SMALL {
                // Words that hold a small number point nowhere.
                found.references = References::default();
            }
            found.words = words::around(ground, &found, words);
            found
        })
        .collect()
}

/// One address that is looked at.
struct Look<'g, 'a> {
    ground: &'g Ground<'a>,
    at: Address,
}

impl Look<'_, '_> {
    fn place(&self, found: &mut Inspection) {
        let memory = self.ground.session.memory();
        let region = memory.region_at(self.at);
        found.mapping = region.map(|region| self.mapped(region));
        self.in_module(found);
        self.on_stack(found);
        let is_heaps = self.in_heap(found);
        if !is_heaps && found.what == What::Unmapped {
            self.elsewhere(found, region);
        }
        // Whatever it is, the core may not hold it.
        match memory.read_u8(self.at) {
            Err(Fault::NotDumped(_) | Fault::Truncated(_)) => {
                let was = std::mem::take(&mut found.message);
                let what = "the core does not hold this byte";
                found.message = match was.is_empty() || found.what == What::Mapping {
                    true => what.into(),
                    false => format!("{was}; {what}"),
                };
                if !is_heaps && found.what == What::Mapping {
                    found.what = What::NotDumped;
                }
            }
            _ => {}
        }
    }

    fn mapped(&self, region: &Region) -> Mapped {
        let letter = |is: bool, letter| if is { letter } else { '-' };
        let file = self.ground.session.mapped_file(self.at);
        Mapped {
            range: region.range.clone(),
            permissions: [
                letter(region.readable, 'r'),
                letter(region.writable, 'w'),
                letter(region.executable, 'x'),
            ]
            .iter()
            .collect(),
            file: file.map(|file| file.path.clone()),
        }
    }

    /// A block, the memory between blocks, or what an allocator keeps beside its blocks.
    fn in_heap(&self, found: &mut Inspection) -> bool {
        let heaps = &self.ground.analysis.heaps;
        let place = heaps.iter().enumerate().find_map(|(index, heap)| {
            heap.map.place(self.at)?;
            Some((index, heap))
        });
        if let Some((index, heap)) = place {
            found.heap = Some(index);
            match heap.map.block_at(self.at) {
                Some((block, offset)) if offset < block.bytes => {
                    self.in_block(found, heap, block, offset);
                }
                _ => self.between(found, index, heap),
            }
            return true;
        }
        let mut own = self.ground.own.iter();
        let Some(index) = own.position(|own| own.contains(self.at)) else {
            return false;
        };
        let Some(heap) = heaps.get(index) else {
            return false;
        };
        found.heap = Some(index);
        self.own(found, heap);
        true
    }

    fn in_block(&self, found: &mut Inspection, heap: &HeapAnalysis<'_>, block: Block, offset: u64) {
        let map = &heap.map;
        let view = view(heap, block, offset);
        found.block = Some(view);
        found.neighbours = structure::neighbours(heap, block);
        if self.ground.universe.lookup.is_own(block.address.get()) {
            self.own(found, heap);
            return;
        }
        found.what = What::HeapBlock;
        found.standing = heap.heap.standing(map, block);
        found.allocated_by = heap.heap.recorded_stack(block.address).unwrap_or_default();
        let state = match view.state.name() {
            "in-use" => "in use",
            "lost" => "free, and cut off from every list",
            other => other,
        };
        let place = match offset {
            0 => "the start of".to_owned(),
            offset => format!("{offset} bytes into"),
        };
        found.message = format!(
            "{place} the block {} of {} bytes of {}, {state}",
            block.address, block.bytes, heap.identity.name
        );
    }

    /// What is in the heap's memory and in no block.
    fn between(&self, found: &mut Inspection, index: usize, heap: &HeapAnalysis<'_>) {
        let place = Place::of(
            self.ground.session.target(),
            self.ground.analysis,
            Some(index),
            self.at,
        );
        found.neighbours = structure::beside(heap, self.at);
        self.own(found, heap);
        if matches!(place, Place::Top { .. }) {
            found.structure = Some("the unused rest of the heap, its top chunk".into());
            found.message = format!("the unused rest of {}'s heap", heap.identity.name);
        }
    }

    fn own(&self, found: &mut Inspection, heap: &HeapAnalysis<'_>) {
        found.what = What::Allocator;
        found.structure = structure::of(heap, self.at, found);
        let name = heap.identity.name;
        found.message = match &found.structure {
            Some(structure) => format!("{name}'s own memory: {structure}"),
            None => format!("{name}'s own memory"),
        };
    }

    fn in_module(&self, found: &mut Inspection) {
        let session = self.ground.session;
        let Some(module) = session.modules().module_at(self.at) else {
            return;
        };
        let offset = self.at.offset_from(module.range.start).unwrap_or(0);
        found.module = Some((module.name.clone(), offset));
        let names = session.debug_info();
        found.section = names.section_at(module.id, self.at);
        if module.has_code_at(self.at) {
            found.what = What::Code;
            found.symbol = function(self.ground, module.id, self.at);
            let source = names.source_at(module.id, self.at);
            found.source = source
                .frames
                .first()
                .and_then(|frame| Some((frame.file.clone()?, frame.line)));
            found.message = match &found.symbol {
                Some(symbol) => format!("code of {} in {}", plus(symbol), module.name),
                None => format!("code of {}", module.name),
            };
            return;
        }
        found.what = What::Global;
        found.symbol = ground::target::SymbolTable::variable_at(names, module.id, self.at);
        let section = found.section.as_deref();
        let section = section.map_or(String::new(), |section| format!(", section {section}"));
        found.message = match &found.symbol {
            Some(symbol) => format!("variable {} of {}{section}", plus(symbol), module.name),
            None => format!("data of {}{section}", module.name),
        };
    }

    /// The stack or the thread-local storage of a thread.
    fn on_stack(&self, found: &mut Inspection) {
        let ground = self.ground;
        let root = ground.universe.root_at(self.at).map(|(_, root)| root);
        let owner = root.map(|root| (root.kind, root.owner as usize));
        match owner {
            Some((RootKind::Stack, thread)) => {
                found.what = What::Stack;
                self.in_frame(found, thread, root.map_or(self.at, |root| root.range.start));
            }
            Some((RootKind::Tls, index)) => {
                found.what = What::Tls;
                let thread = ground.thread(index);
                found.thread = thread.map(|thread| thread.tid);
                let variable = thread.and_then(|thread| {
                    let locals = &ground.thread_locals;
                    locals.variable(ground.session, thread, self.at)
                });
                let of = found
                    .thread
                    .map_or(String::new(), |tid| format!(" of thread {tid}"));
                found.message = match &variable {
                    Some(variable) => match &variable.symbol {
                        Some(symbol) => {
                            format!(
                                "thread-local variable {} of {}{of}",
                                plus(symbol),
                                variable.module.0
                            )
                        }
                        None => format!("thread-local variables of {}{of}", variable.module.0),
                    },
                    None => format!("thread-local storage{of}, or what libc keeps of it"),
                };
                if let Some(variable) = variable {
                    found.symbol = variable.symbol;
                    found.module = Some(variable.module);
                }
            }
            _ => self.on_dead_stack(found),
        }
    }

    fn in_frame(&self, found: &mut Inspection, thread: usize, floor: Address) {
        let ground = self.ground;
        found.thread = ground.thread(thread).map(|thread| thread.tid);
        let of = found
            .thread
            .map_or(String::new(), |tid| format!(" of thread {tid}"));
        found.slot = ground.slot(thread, self.at, floor);
        let Some(slot) = &mut found.slot else {
            found.message = format!("the stack{of}");
            return;
        };
        let word = Address::new(self.at.get() & !7);
        let belongs = ground
            .variables
            .at_word(ground.session, thread, slot.frame, word);
        let offset = slot.offset.unwrap_or(0);
        let sp = match offset {
            0.. => format!("sp+{offset:#x}"),
            below => format!("sp-{:#x}", below.unsigned_abs()),
        };
        let frame = |slot: &FrameSlot| {
            let function = slot.function.as_deref();
            let function = function.map_or(String::new(), |name| format!(" {name}"));
            format!("frame {}{function}", slot.frame)
        };
        found.message = format!("the stack{of}, {}, {sp}", frame(slot));
        let register = |number| ground.session.threads().register_name(number);
        match belongs {
            Some(Belonging::Variable(variable)) => {
                let inside = self.at.offset_from(word).unwrap_or(0);
                let named = (variable.name, variable.offset.saturating_add(inside));
                let frames = ground.session.threads().frames(thread);
                let outer = frames.get(variable.frame);
                let outer = outer.and_then(|frame| ground.source_function(frame));
                let own = FrameSlot {
                    frame: variable.frame,
                    function: variable.inlined.or(outer),
                    offset: slot.offset,
                };
                found.message = match variable.register {
                    Some(number) => format!(
                        "variable {} of {}{of}: its {}, which {} keeps at {sp}",
                        plus(&named),
                        frame(&own),
                        register(number),
                        frame(slot)
                    ),
                    None => format!("variable {} of {}{of}, {sp}", plus(&named), frame(&own)),
                };
                found.variable = Some(named);
                if own.frame != slot.frame {
                    let sp = frames.get(own.frame).map(|frame| frame.sp.get());
                    let offset = sp.map(|sp| i128::from(self.at.get()) - i128::from(sp));
                    slot.offset = offset.and_then(|offset| i64::try_from(offset).ok());
                }
                slot.frame = own.frame;
                slot.function = own.function;
            }
            Some(Belonging::Saved {
                register: number, ..
            }) => {
                found.message = format!(
                    "{}: where it keeps {} of its caller",
                    found.message,
                    register(number)
                );
            }
            None => {}
        }
    }

    /// Below a stack pointer, or above all frames.
    fn on_dead_stack(&self, found: &mut Inspection) {
        if found.module.is_some() {
            return;
        }
        let target = self.ground.session.target();
        match Place::outside(target, self.at) {
            Place::Stack {
                thread, is_below, ..
            } => {
                found.what = What::Stack;
                found.thread = Some(thread);
                found.message = match is_below {
                    true => format!(
                        "the stack of thread {thread}, below the stack pointer: what functions that have returned left there"
                    ),
                    false => format!("the stack of thread {thread}"),
                };
            }
            Place::Arguments { number } => {
                found.what = What::Stack;
                found.message = match number {
                    Some(number) => format!("the program's argument argv[{number}]"),
                    None => "the program's arguments and environment".into(),
                };
            }
            _ => {}
        }
    }

    fn elsewhere(&self, found: &mut Inspection, region: Option<&Region>) {
        let value = self.at.get();
        let Some(region) = region else {
            found.what = What::Unmapped;
            found.message = match Place::outside(self.ground.session.target(), self.at) {
                Place::Small => {
                    format!("no memory: the number {value}, so low that nothing is mapped there")
                }
                Place::NonCanonical => "no memory: not an address that the processor takes".into(),
                _ => "no memory is mapped there".into(),
            };
            if let Some(length) = words::text_length(value) {
                found.what = What::Text;
                found.message = format!("no memory: the word is text of {length} characters");
            }
            return;
        };
        if region.executable {
            found.what = What::Code;
            found.message = "code that was made at run time".into();
            return;
        }
        found.what = What::Mapping;
        let file = found
            .mapping
            .as_ref()
            .and_then(|mapping| mapping.file.as_deref());
        let own = self
            .ground
            .mappings
            .iter()
            .any(|mapping| mapping.contains(&self.at));
        found.message = match (file, own) {
            (Some(file), _) => format!("the mapped file {file}"),
            (None, true) => "memory that the program mapped itself".into(),
            (None, false) => "a mapping that no heap, module or thread claims".into(),
        };
    }
}

/// A block as reports show it.
fn view(heap: &HeapAnalysis<'_>, block: Block, offset: u64) -> BlockView {
    BlockView {
        block,
        state: heap.map.state(block.id),
        offset,
    }
}

/// The function at an address, and the bytes from its start.
fn function(ground: &Ground<'_>, module: ModuleId, at: Address) -> Option<Named> {
    let found = ground.session.debug_info().function_at(module, at)?;
    Some((found.name, at.offset_from(found.start)?))
}

/// `name+0x10`.
fn plus((name, offset): &Named) -> String {
    match offset {
        0 => name.clone(),
        offset => format!("{name}+{offset:#x}"),
    }
}
