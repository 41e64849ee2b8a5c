//! A word's place in the words of a person.

use ground::target::{Address, Frame, MemoryExt, SymbolTable, Thread};
use heaps::graph::references::{Place, Reference};
use heaps::graph::roots::{RootKind, Strength};

use super::variables::{Belonging, LocalVariable};
use super::{FrameSlot, Holder, HolderKind};
use crate::graph::{Ground, roots};

impl Ground<'_> {
    /// Names a reference.
    pub fn holder(&self, reference: &Reference) -> Holder {
        let mut holder = Holder {
            kind: HolderKind::History,
            strength: reference.strength,
            address: Some(reference.at),
            value: reference.value,
            thread: None,
            register: None,
            slot: None,
            variable: None,
            symbol: None,
            module: None,
            block: None,
            block_type: None,
            member: None,
            note: None,
            points_at: reference.offset,
            points_at_member: (reference.offset > 0)
                .then(|| self.member_at(Address::new(reference.value)))
                .flatten(),
        };
        match reference.place {
            Place::Register(index) => self.name_register(&mut holder, index),
            Place::Root(index) => self.name_root(&mut holder, index, reference.at),
            Place::Node(node, offset) => {
                holder.block = self.block_of(node, offset);
                holder.kind = match holder.block {
                    Some(_) => HolderKind::Heap,
                    None => HolderKind::Mapping,
                };
                let mapping = self.universe.lookup.mapping(node);
                let mapping = mapping.and_then(|index| self.mappings.get(index as usize));
                holder.note = mapping.map(|range| {
                    format!(
                        "+{offset:#x} in the program's own mapping {}-{}",
                        range.start, range.end
                    )
                });
            }
            Place::Free(node, offset) => {
                holder.block = self.block_of(node, offset);
                holder.strength = Strength::Weak;
                holder.note = Some("a free block: what it held before".into());
            }
            Place::Silent => {
                holder.strength = Strength::Weak;
                self.name_silent(&mut holder, reference.at);
            }
        }
        holder.block_type = holder
            .block
            .and_then(|block| self.type_of_block(block.place()));
        holder.member = self.member(reference);
        holder
    }

    /// The member that a word is: of its block's object, or of its variable.
    fn member(&self, reference: &Reference) -> Option<String> {
        match reference.place {
            Place::Node(..) | Place::Root(_) => self.member_at(reference.at),
            _ => None,
        }
    }

    /// The member that the word at an address is: of what its block holds, or of a variable, with that one's name.
    pub fn member_at(&self, at: Address) -> Option<String> {
        let typed = self.typed()?;
        let lookup = &self.universe.lookup;
        match lookup.find(at.get()) {
            Some(hit) if lookup.is_live(hit.node) => typed.member(lookup, hit.node, hit.offset),
            Some(_) => None,
            None => {
                let path = typed.variable(at)?;
                // The variable alone has a name already.
                path.contains(['.', '[']).then_some(path)
            }
        }
    }

    /// The thread at this index.
    pub fn thread(&self, index: usize) -> Option<&Thread> {
        self.session.threads().list().get(index)
    }

    fn name_register(&self, holder: &mut Holder, index: u32) {
        holder.kind = HolderKind::Register;
        holder.address = None;
        let Some(register) = self.universe.registers.get(index as usize) else {
            return;
        };
        let thread = self.thread(register.thread as usize);
        holder.thread = thread.map(|thread| thread.tid);
        holder.note = (register.strength == Strength::Weak)
            .then(|| "left over: the code that follows does not read it".into());
        holder.register = match register.number.checked_sub(roots::FIRST_VECTOR) {
            Some(vector) => self.vectors.get(usize::from(vector)).cloned(),
            None => Some(
                self.session
                    .threads()
                    .register_name(register.number)
                    .to_owned(),
            ),
        };
        let thread = register.thread as usize;
        let found = self
            .variables
            .in_register(self.session, thread, register.number);
        if let Some(found) = found {
            self.name_variable(holder, thread, found, None);
        }
    }

    /// Notes the variable of a frame. `at`: its word, where it is on the stack.
    fn name_variable(
        &self,
        holder: &mut Holder,
        thread: usize,
        found: LocalVariable,
        at: Option<Address>,
    ) {
        let threads = self.session.threads();
        let frame = threads.frames(thread).get(found.frame);
        let outer = frame.and_then(|frame| self.source_function(frame));
        let was = holder.note.take();
        holder.note = match (found.register, found.saved_by) {
            (Some(register), Some(by)) => Some(format!(
                "{} of that frame, which frame {by} keeps here",
                threads.register_name(register)
            )),
            _ => was,
        };
        if let (Some(_), Some(outer)) = (&found.inlined, &outer) {
            let inlined = format!("inlined into {outer}");
            holder.note = Some(match holder.note.take() {
                Some(note) => format!("{inlined}; {note}"),
                None => inlined,
            });
        }
        let offset = frame.zip(at).and_then(|(frame, at)| {
            let offset = i128::from(at.get()) - i128::from(frame.sp.get());
            i64::try_from(offset).ok()
        });
        holder.slot = Some(FrameSlot {
            frame: found.frame,
            function: found.inlined.or(outer),
            offset,
        });
        holder.variable = Some((found.name, found.offset));
    }

    fn name_root(&self, holder: &mut Holder, index: u32, at: Address) {
        let Some(root) = self.universe.roots.get(index as usize) else {
            return;
        };
        let owner = root.owner as usize;
        match root.kind {
            RootKind::Stack => {
                holder.kind = HolderKind::Stack;
                holder.thread = self.thread(owner).map(|thread| thread.tid);
                holder.slot = self.slot(owner, at, root.range.start);
                self.name_local(holder, owner, at);
            }
            RootKind::Tls => {
                holder.kind = HolderKind::Tls;
                holder.thread = self.thread(owner).map(|thread| thread.tid);
                let found = self
                    .thread(owner)
                    .and_then(|thread| self.thread_locals.variable(self.session, thread, at));
                if let Some(variable) = found {
                    holder.symbol = variable.symbol;
                    holder.module = Some(variable.module);
                }
            }
            RootKind::Global => {
                holder.kind = HolderKind::Global;
                let module = self.session.target().modules.get(owner);
                if let Some(module) = module {
                    let offset = at.offset_from(module.range.start).unwrap_or(0);
                    holder.module = Some((module.name.clone(), offset));
                    holder.symbol = self.session.debug_info().variable_at(module.id, at);
                }
            }
            RootKind::Mapping => {
                holder.kind = HolderKind::Mapping;
                holder.note = Some(match root.any_byte {
                    true => "code that was made at run time".into(),
                    false => format!("the mapping at {}", root.range.start),
                });
            }
        }
    }

    /// Says which variable a word of the stack is.
    fn name_local(&self, holder: &mut Holder, thread: usize, at: Address) {
        let Some(frame) = holder.slot.as_ref().map(|slot| slot.frame) else {
            return;
        };
        match self.variables.at_word(self.session, thread, frame, at) {
            Some(Belonging::Variable(found)) => {
                self.name_variable(holder, thread, found, Some(at));
            }
            Some(Belonging::Saved { register, by }) => {
                let name = self.session.threads().register_name(register);
                holder.note = Some(format!("{name} of the caller, which frame {by} keeps here"));
            }
            None if self.leftovers.is_leftover(self.session, thread, frame, at) => {
                holder.strength = Strength::Weak;
                holder.note = Some("left over: that function does not read it".into());
            }
            None => {}
        }
    }

    /// The frame of a thread that a place of its stack lies in. `floor`: where that stack's live part begins.
    pub fn slot(&self, thread: usize, at: Address, floor: Address) -> Option<FrameSlot> {
        let frames = self.session.threads().frames(thread);
        // Frames of another stack lie outside of this one.
        let here = frames
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.sp >= floor);
        let below = here.clone().filter(|(_, frame)| frame.sp <= at);
        let found = below.max_by_key(|(index, frame)| (frame.sp, *index));
        let (index, frame) =
            found.or_else(|| here.min_by_key(|(index, frame)| (frame.sp, *index)))?;
        let offset = i128::from(at.get()) - i128::from(frame.sp.get());
        Some(FrameSlot {
            frame: index,
            function: self.function(frame),
            offset: i64::try_from(offset).ok(),
        })
    }

    /// The function of a frame.
    pub fn function(&self, frame: &Frame) -> Option<String> {
        let found = self
            .session
            .debug_info()
            .function_at(frame.module?, frame.lookup)?;
        Some(found.name)
    }

    /// The function of a frame by its name in the source: parts of it that lie elsewhere (`f.cold`) have the same.
    pub fn source_function(&self, frame: &Frame) -> Option<String> {
        let source = self
            .session
            .debug_info()
            .source_at(frame.module?, frame.lookup);
        let named = source.frames.last().and_then(|last| last.function.clone());
        named.or_else(|| self.function(frame))
    }

    /// Memory that is no source.
    fn name_silent(&self, holder: &mut Holder, at: Address) {
        let is_own = self.universe.lookup.is_own(at.get());
        let mut heaps = self.analysis.heaps.iter().zip(&self.own);
        let owner = heaps.find(|(heap, own)| {
            let inside = is_own && heap.map.place(at).is_some();
            inside || own.contains(at)
        });
        if let Some((heap, _)) = owner {
            holder.note = Some(format!("{}'s own memory", heap.identity.name()));
            return;
        }
        let memory = self.session.memory();
        let region = memory.region_at(at);
        let threads = self.session.threads().list().iter();
        let mut on_it = threads.filter(|thread| {
            region.is_some_and(|region| region.range.contains(&thread.sp)) && thread.sp > at
        });
        let thread = on_it.next();
        holder.thread = thread.map(|thread| thread.tid);
        holder.note = Some(match thread {
            Some(_) => "dead stack, below the stack pointer".into(),
            None => "memory that is in use no more".into(),
        });
    }
}
