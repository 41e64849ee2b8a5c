//! What the place of an address is: block, allocator, stack, storage of a thread, module, mapping.

use ground::target::{Address, Fault, MemoryExt, Region, SymbolTable};
use heaps::graph::roots::RootKind;
use heaps::map::Block;

use super::{Inspection, Mapped, What, function, plus, structure, view, words};
use crate::analysis::HeapAnalysis;
use crate::checks::place::Place;
use crate::graph::Ground;
use crate::graph::holders::FrameSlot;
use crate::graph::holders::variables::Belonging;

/// One address that is looked at.
pub(super) struct Look<'g, 'a> {
    pub ground: &'g Ground<'a>,
    pub at: Address,
}

impl Look<'_, '_> {
    /// Says what it is.
    pub fn place(&self, found: &mut Inspection) {
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
        if let Err(Fault::NotDumped(_) | Fault::Truncated(_)) = memory.read_u8(self.at) {
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
            block.address,
            block.bytes,
            heap.identity.name()
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
            found.message = format!("the unused rest of {}'s heap", heap.identity.name());
        }
    }

    fn own(&self, found: &mut Inspection, heap: &HeapAnalysis<'_>) {
        found.what = What::Allocator;
        found.structure = structure::of(heap, self.at, found);
        let name = heap.identity.name();
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
        found.symbol = names.variable_at(module.id, self.at);
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
