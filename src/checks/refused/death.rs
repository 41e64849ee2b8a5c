//! Whether the process died inside an allocator: of a fault in its code, or because the allocator ended it.
//!
//! A thread that stands in `free` because somebody killed the process from outside, or because another thread died, did not die
//! of it.

use ground::arch::x86_64::calls::{RT_SIGPROCMASK, TGKILL};
use ground::arch::x86_64::registers::{RCX, RDX, RSI};
use ground::target::{
    Address, Frame, FrameTrust, InstructionSet, MemoryExt, Module, ModuleId, Target,
};
use heaps::allocators::Family;
use heaps::anomaly::{Anomaly, AnomalyKind};

use super::sayings::{self, Saying};
use super::{call, entered, musl};
use crate::analysis::Analysis;
use crate::crash::argument::Call;
use crate::crash::{Access, Crash, LastWords, Speaker};

/// Frames from the innermost one that may be the allocator's, or of the library that ended the process for it.
const MAX_FRAMES: usize = 64;

/// Signals, one of whose handlers another one interrupted, that are looked at.
const MAX_SIGNALS: usize = 8;

/// Functions by which an allocator is entered.
const ENTRIES: [&str; 24] = [
    "free",
    "cfree",
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "__libc_malloc",
    "__libc_free",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "malloc_trim",
    "_Znwm",
    "_Znam",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvSt11align_val_t",
];

/// Libraries of allocators that may be there without being walked: their names, and the allocators'.
const UNWALKED: [(&str, Family); 6] = [
    ("libtcmalloc", Family::Tcmalloc),
    ("libjemalloc", Family::Jemalloc),
    ("libmimalloc", Family::Other("mimalloc")),
    ("libsnmalloc", Family::Other("snmalloc")),
    ("librpmalloc", Family::Other("rpmalloc")),
    ("libhoard", Family::Other("hoard")),
];

/// A death inside an allocator.
#[derive(Clone, Copy)]
pub struct Death<'a> {
    /// Index of the heap; `None` for an allocator that is not walked.
    pub heap: Option<usize>,
    /// The allocator.
    pub allocator: Family,
    /// What the allocator said, and what that means.
    pub said: Option<(&'static Saying, &'a LastWords)>,
    /// The call of `free`, `realloc` or `delete`.
    pub call: Option<&'a Call>,
    /// Index of the frame that called the allocator, where that is known.
    pub caller: Option<usize>,
    /// A fault ended it; otherwise the allocator did.
    pub is_fault: bool,
}

/// The death inside an allocator, if it was one.
pub fn of<'a>(target: Target<'_>, analysis: &Analysis<'_>, crash: &'a Crash) -> Option<Death<'a>> {
    let frames = target.threads.frames(crash.thread);
    let said = crash
        .last_words
        .as_ref()
        .and_then(|said| Some((sayings::of(said)?, said)));
    let entered = entered::pointer(target, crash).is_some();
    let is_fault = target.threads.faulted(crash.thread) && (entered || is_of_a_word(target, crash));
    let from = if said.is_some() { 0 } else { crash.frame };
    let call = crash
        .call
        .as_ref()
        .filter(|call| !is_interrupted(frames, from, call.caller));
    let inside = Inside {
        target,
        frames,
        from,
        is_fault: is_fault && said.is_none(),
        entered,
    };
    let found = inside.heap(analysis, call).or_else(|| looked_up(analysis));
    if let Some((_, words)) = said {
        let heap = of_speaker(analysis, words.speaker, found.map(|(heap, _)| heap));
        return Some(Death {
            heap,
            allocator: family_of(words.speaker),
            said,
            call,
            caller: call
                .map(|call| call.caller)
                .or(found.and_then(|(_, caller)| caller)),
            is_fault: false,
        });
    }
    let aborted = !target.threads.faulted(crash.thread);
    let is_own = crash.is_own && (!aborted || raised(target));
    if !is_own || !aborted && !is_fault && looked_up(analysis).is_none() {
        return None;
    }
    if let Some((heap, caller)) = found {
        return Some(Death {
            heap: Some(heap),
            allocator: analysis.heaps.get(heap)?.identity.family,
            said: None,
            call,
            caller: call.map(|call| call.caller).or(caller),
            is_fault,
        });
    }
    inside.unwalked(crash, call)
}

/// Whether an instruction died of a wrong value, and not because the stack ended or the memory that it needed was not to be had.
fn is_of_a_word(target: Target<'_>, crash: &Crash) -> bool {
    /// An access this close to the stack pointer is the stack's.
    const STACK_REACH: u64 = 64 << 10;
    let Some(instruction) = &crash.instruction else {
        return false;
    };
    let Some(operand) = instruction.operands.first() else {
        // The allocator's own trap.
        return ["ud", "hlt", "int3"]
            .iter()
            .any(|trap| instruction.text.starts_with(trap));
    };
    let Some(at) = operand.address else {
        return true;
    };
    let frames = target.threads.frames(crash.thread);
    let stack = frames.get(crash.frame).map(|frame| frame.sp.get());
    let is_stacks = stack.is_some_and(|sp| at.get().abs_diff(sp) < STACK_REACH);
    let is_allowed = target
        .memory
        .region_at(at)
        .is_some_and(|region| match operand.access {
            Access::Read => region.readable,
            Access::Write | Access::ReadWrite => region.writable,
            Access::Execute => region.executable,
        });
    !is_stacks && !is_allowed
}

/// Whether the thread sent the signal to itself and stands in the system call that did so, as `abort` does: another one may have
/// sent it while this one was at work. Up to glibc 2.33 `raise` blocks signals meanwhile, and it comes when they are let through.
fn raised(target: Target<'_>) -> bool {
    let Some(thread) = target.threads.list().first() else {
        return false;
    };
    let register = |number| thread.registers.get(number);
    // The processor leaves the return address of a system call there.
    let in_call = register(RCX) == Some(thread.pc.get());
    let sent = register(RSI) == Some(thread.tid.into())
        && register(RDX) == u64::try_from(thread.signal).ok();
    target.threads.instruction_set() == InstructionSet::X86_64
        && in_call
        && match thread.system_call {
            Some(TGKILL) => sent,
            Some(RT_SIGPROCMASK) => true,
            _ => false,
        }
}

/// The heap whose walker saw that the thread died of a pointer that it looked up: known by its registers alone.
fn looked_up(analysis: &Analysis<'_>) -> Option<(usize, Option<usize>)> {
    let is_one = |anomaly: &Anomaly| matches!(anomaly.kind, AnomalyKind::FatalFree { .. });
    let heap = analysis
        .heaps
        .iter()
        .position(|heap| heap.anomalies.iter().any(is_one))?;
    Some((heap, None))
}

/// Whether a signal interrupted a frame between two others, so that what the outer one does is not what the inner one is at.
fn is_interrupted(frames: &[Frame], inner: usize, outer: usize) -> bool {
    let between = frames
        .iter()
        .take(outer.saturating_add(1))
        .skip(inner.saturating_add(1));
    between.into_iter().any(|frame| frame.interrupted)
}

/// The heap that the speaker keeps: the one that the thread is in, if it is the speaker's.
fn of_speaker(analysis: &Analysis<'_>, speaker: Speaker, found: Option<usize>) -> Option<usize> {
    let is_speakers = |index: &usize| {
        let heap = analysis.heaps.get(*index);
        heap.is_some_and(|heap| heap.identity.family == family_of(speaker))
    };
    found
        .filter(is_speakers)
        .or_else(|| (0..analysis.heaps.len()).find(is_speakers))
}

/// Whose words they are.
fn family_of(speaker: Speaker) -> Family {
    match speaker {
        Speaker::Glibc => Family::Ptmalloc,
        Speaker::Gperftools => Family::Tcmalloc,
        Speaker::Jemalloc => Family::Jemalloc,
    }
}

fn module(target: Target<'_>, id: ModuleId) -> Option<&Module> {
    target.modules.get(usize::try_from(id.0).ok()?)
}

/// The innermost frames of the thread that died.
struct Inside<'a> {
    target: Target<'a>,
    frames: &'a [Frame],
    from: usize,
    is_fault: bool,
    /// The innermost one stands where `free` begins.
    entered: bool,
}

impl Inside<'_> {
    /// The heap whose allocator they are in, and the frame that called it.
    fn heap(&self, analysis: &Analysis<'_>, call: Option<&Call>) -> Option<(usize, Option<usize>)> {
        let mut of_call = None;
        for (index, heap) in analysis.heaps.iter().enumerate() {
            let id = heap.identity.module;
            let Some(module) = module(self.target, id) else {
                continue;
            };
            if let Some(caller) = self.of_module(module) {
                return Some((index, caller));
            }
            // Without names the call alone tells, where the instruction at fault is the allocator's.
            let first = self.frames.get(self.from);
            let tells = call.is_some() || self.entered && heap.identity.family == Family::Ptmalloc;
            if tells && first.is_some_and(|frame| frame.module == Some(id)) {
                of_call = of_call.or(Some((index, call.map(|call| call.caller))));
            }
        }
        of_call
    }

    /// A death in an allocator that is not walked.
    fn unwalked<'a>(&self, crash: &Crash, call: Option<&'a Call>) -> Option<Death<'a>> {
        let in_module = |module: &&Module| {
            self.frames
                .iter()
                .take(MAX_FRAMES)
                .any(|frame| frame.module == Some(module.id))
        };
        let modules = self.target.modules.iter().filter(in_module);
        let death = |allocator, caller: Option<usize>, is_fault| Death {
            heap: None,
            allocator,
            said: None,
            call,
            caller: call.map(|call| call.caller).or(caller),
            is_fault,
        };
        modules.into_iter().find_map(|module| {
            let is_musl = module.name.starts_with("ld-musl") || module.path.contains("musl");
            if is_musl {
                let first = self.frames.get(self.from)?;
                let guard = self.target.symbols.function(module.id, "__stack_chk_fail");
                let is_guard = guard.is_some_and(|guard| {
                    first
                        .pc
                        .offset_from(guard.address)
                        .is_some_and(|at| at < guard.size)
                });
                let traps = musl::is_trap(crash);
                let is_inside =
                    traps || call.is_some() || musl::pointer(self.target, crash).is_some();
                let died =
                    self.is_fault && first.module == Some(module.id) && !is_guard && is_inside;
                return died.then(|| death(Family::Musl, None, !traps));
            }
            let (_, allocator) = *UNWALKED
                .iter()
                .find(|(name, _)| module.name.starts_with(name))?;
            let caller = self.of_module(module)?;
            Some(death(allocator, caller, self.is_fault))
        })
    }

    /// Whether they are in this module's allocator, and which frame called it.
    fn of_module(&self, allocator: &Module) -> Option<Option<usize>> {
        let is_alone = !allocator.is_executable && !is_libc(allocator);
        let entries: Vec<(Address, u64)> = ENTRIES
            .iter()
            .filter_map(|name| self.target.symbols.function(allocator.id, name))
            .map(|symbol| (symbol.address, symbol.size))
            .collect();
        let is_entry = |frame: &Frame| {
            let covers = |(start, size): &(Address, u64)| {
                let offset = frame.lookup.offset_from(*start);
                offset.is_some_and(|offset| offset < *size)
                    || frame
                        .function
                        .is_some_and(|(function, _)| function == *start)
            };
            frame.module == Some(allocator.id) && entries.iter().any(covers)
        };
        let mut met = false;
        let walk = self
            .frames
            .iter()
            .enumerate()
            .skip(self.from)
            .take(MAX_FRAMES);
        for (number, frame) in walk {
            if number > self.from && frame.interrupted || frame.trust == FrameTrust::Scan {
                return None;
            }
            let is_own = frame.module == Some(allocator.id);
            let libc = frame
                .module
                .and_then(|id| module(self.target, id))
                .is_some_and(is_libc);
            if is_alone {
                match (is_own, met) {
                    (true, _) => met = true,
                    (false, true) => return Some(Some(number)),
                    // abort stands in front of it; what a fault is in is the allocator's, or what it has called.
                    (false, false) if libc => {}
                    (false, false) => return None,
                }
            } else if is_entry(frame) {
                return Some(
                    Some(number.saturating_add(1)).filter(|caller| *caller < self.frames.len()),
                );
            } else if !is_own && met {
                // The entry may have left its frame to another function by a jump.
                let called = call::callee(self.target, frame.pc)?;
                return entries
                    .iter()
                    .any(|(start, _)| *start == called)
                    .then_some(Some(number));
            } else if !is_own && (!libc || self.is_fault) {
                return None;
            }
            met |= is_own;
        }
        (met && is_alone).then_some(None)
    }
}

fn is_libc(module: &Module) -> bool {
    (module.name.starts_with("libc.so") || module.name.starts_with("libc-2."))
        && !module.path.contains("musl")
}

/// Whether the handler of a signal called the allocator while the thread was in it already: the frame in which it was
/// interrupted, and the one by which it was entered again.
pub fn reentry(target: Target<'_>, allocator: &Module, thread: usize) -> Option<(usize, usize)> {
    let frames = target.threads.frames(thread);
    let interrupted = |from: usize| {
        let found = frames.iter().enumerate().skip(from).take(MAX_FRAMES);
        let mut found = found.filter(|(number, frame)| *number > from && frame.interrupted);
        found.next().map(|(number, _)| number)
    };
    let mut inner = 0;
    for _ in 0..MAX_SIGNALS {
        let outer = interrupted(inner)?;
        let inside = Inside {
            target,
            frames,
            from: outer,
            is_fault: true,
            entered: false,
        };
        let was_inside = inside.of_module(allocator).is_some();
        let again = (inner..outer).find_map(|from| {
            let caller = Inside { from, ..inside }.of_module(allocator)?;
            // The frame by which it was entered.
            Some(
                caller
                    .and_then(|caller| caller.checked_sub(1))
                    .unwrap_or(from),
            )
        });
        if let Some(again) = again.filter(|_| was_inside) {
            return Some((outer, again));
        }
        inner = outer;
    }
    None
}
