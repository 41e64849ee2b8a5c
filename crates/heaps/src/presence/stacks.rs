//! The stacks of a thread: what stands on them, and contexts that a signal left there.

use std::ops::Range;

use super::{Presence, Presences};
use ground::arch::X86_64;
use ground::arch::x86_64::registers::{RIP, RSP};
use ground::target::{Address, Cursor, InstructionSet, MemoryExt};

/// Registers of a context, in the kernel's order, the program counter last.
pub(super) type Context = [u64; X86_64.signal_frame.order.len()];

/// The place of a register, by its DWARF number, in a context.
fn slot(number: u16) -> usize {
    let mut order = X86_64.signal_frame.order.iter();
    order
        .position(|other| *other == number)
        .unwrap_or(usize::MAX)
}

impl Presences<'_> {
    /// Whether the thread's calls may have an address at hand: a word of the last ones' frames is it.
    pub fn has_on_stack(&self, thread: usize, address: Address) -> bool {
        /// Bytes of the frames between the allocator's verdict and the end of the process.
        const LAST_CALLS: u64 = 16 << 10;
        let Some(words) = self.stacks(thread).first() else {
            return true;
        };
        let mut cursor = Cursor::new(self.target.memory);
        let end = words.end.min(words.start.saturating_add(LAST_CALLS));
        (words.start.get()..end.get())
            .step_by(8)
            .any(|at| cursor.read_u64(Address::new(at)) == Ok(address.get()))
    }

    /// Whether any word of the thread's stacks, from its stack pointer up, is an address in the
    /// allocator's module. If none is, the thread cannot be inside it, whatever its frames are: a
    /// call leaves its return address there, a signal the interrupted program counter.
    pub(super) fn stack_names_allocator(&self, thread: usize) -> bool {
        let stacks = self.stacks(thread);
        let mut cursor = Cursor::new(self.target.memory);
        let mut names = |words: &Range<Address>| {
            let mut at = words.start;
            while at < words.end {
                match cursor.read_u64(at) {
                    Ok(word) if !self.module.has_code_at(Address::new(word)) => {}
                    _ => return true,
                }
                at = at.saturating_add(8);
            }
            false
        };
        stacks.is_empty() || stacks.iter().any(&mut names)
    }

    /// Contexts that the kernel saved on the thread's stack when a signal interrupted it inside the
    /// allocator, told by their shape: for where no rules lead to them.
    ///
    /// ```text
    /// +0 r8 .. r15   +64 rdi rsi rbp rbx rdx rax rcx rsp   +128 rip  eflags  cs gs fs ss
    /// ```
    ///
    /// (Linux, `struct sigcontext_64`, x86-64.)
    pub(super) fn signal_contexts(&self, thread: usize) -> impl Iterator<Item = &Context> {
        let contexts = self.contexts(thread).iter();
        let is_inside = |pc: &u64| self.module.has_code_at(Address::new(*pc));
        contexts.filter(move |context| context.get(slot(RIP)).is_some_and(is_inside))
    }

    /// Whether no signal has interrupted the thread.
    pub(super) fn was_never_interrupted(&self, thread: usize) -> bool {
        self.contexts(thread).is_empty() && self.shows_handlers(thread)
    }

    /// Whether none has interrupted it inside the allocator.
    pub(super) fn was_not_interrupted_inside(&self, thread: usize) -> bool {
        self.signal_contexts(thread).next().is_none() && self.shows_handlers(thread)
    }

    /// Whether a handler under way would be seen: the stacks are in the core; or no signal is blocked, and a handler's own is
    /// while it runs (unless it was installed with `SA_NODEFER`).
    fn shows_handlers(&self, thread: usize) -> bool {
        let memory = self.target.memory;
        let state = self.target.threads.list().get(thread);
        let mut stacks = self.stacks(thread).iter();
        stacks.all(|words| memory.holds(words))
            || state.is_some_and(|state| state.blocked_signals == Some(0))
    }

    /// Whether the core lacks what tells where the thread is: it may be inside, and nothing of its stack from its stack pointer up is there.
    pub fn has_lost_stack(&self, thread: usize) -> bool {
        let memory = self.target.memory;
        self.of(thread) == Presence::Unknown
            && self
                .stacks(thread)
                .first()
                .is_none_or(|words| memory.read_u64(words.start).is_err())
    }

    /// All contexts on a thread's stacks.
    pub(super) fn contexts(&self, thread: usize) -> &[Context] {
        let known = self.contexts.get(thread);
        known.map_or(&[], |known| {
            known.get_or_init(|| {
                let mut found = Vec::new();
                for words in self.stacks(thread) {
                    self.contexts_in(words, &mut found);
                }
                found
            })
        })
    }

    /// Contexts in a part of a stack, at most [`MAX_CONTEXTS`](Self::MAX_CONTEXTS) in all.
    fn contexts_in(&self, words: &Range<Address>, found: &mut Vec<Context>) {
        const USER_CODE_SEGMENT: u64 = 0x33;
        /// Interrupts enabled, and the bit that is always set.
        const FLAGS: u64 = 0x202;
        if self.target.threads.instruction_set() != InstructionSet::X86_64 {
            return;
        }
        let mut cursor = Cursor::new(self.target.memory);
        let mut word = |at: Address| cursor.read_u64(at).unwrap_or(0);
        let mut at = words.start;
        while at < words.end && found.len() < Self::MAX_CONTEXTS {
            let flags = word(at.saturating_add(8));
            let pc = Address::new(word(at));
            if flags & FLAGS == FLAGS
                && flags < 1 << 22
                && word(at.saturating_add(16)) & 0xffff == USER_CODE_SEGMENT
                && self.is_code(pc)
                && let Some(first) = at.checked_sub(16 * 8)
            {
                let mut registers: Context = [0; X86_64.signal_frame.order.len()];
                for (index, register) in (0u64..).zip(&mut registers) {
                    *register = word(first.saturating_add(index.saturating_mul(8)));
                }
                found.push(registers);
            }
            at = at.saturating_add(8);
        }
    }

    /// The thread's stack from its stack pointer up, as far as it is searched; and where a handler runs on a stack of its
    /// own (`sigaltstack`), that of the code that it interrupted.
    pub(super) fn stacks(&self, thread: usize) -> &[Range<Address>] {
        let known = self.stacks.get(thread);
        known.map_or(&[], |known| known.get_or_init(|| self.find_stacks(thread)))
    }

    fn find_stacks(&self, thread: usize) -> Vec<Range<Address>> {
        let Some(state) = self.target.threads.list().get(thread) else {
            return Vec::new();
        };
        let mut stacks: Vec<Range<Address>> = self.stack_from(state.sp).into_iter().collect();
        let mut next = 0;
        while let Some(words) = stacks.get(next).cloned() {
            next = next.saturating_add(1);
            let mut contexts = Vec::new();
            self.contexts_in(&words, &mut contexts);
            for sp in contexts.iter().filter_map(|context| context.get(slot(RSP))) {
                let sp = Address::new(*sp);
                let is_known = stacks.iter().any(|stack| stack.contains(&sp));
                if !is_known && stacks.len() < Self::MAX_STACKS {
                    stacks.extend(self.stack_from(sp));
                }
            }
        }
        stacks
    }

    fn stack_from(&self, sp: Address) -> Option<Range<Address>> {
        let end = self.target.memory.region_at(sp)?.range.end;
        Some(Address::new(sp.get() & !7)..end.min(sp.saturating_add(Self::MAX_STACK)))
    }
}
