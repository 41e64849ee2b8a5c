//! Unwinding of assembled stacks, and of ones with flipped bytes.

use std::sync::Arc;

use ground::target::{
    Abi, Address, Fault, FrameTrust, Module, ModuleId, ModuleSegment, Region, RegionKind,
    RegisterSet, Source as Origin, TargetMemory, Thread, Threads, Window,
};

use super::tables::{Kind, Source, Tables};
use super::*;
use crate::debuginfo::image::SectionBytes;
use ground::arch::{AARCH64, X86_64};

const CODE: u64 = 0x40_1000;
const STACK: u64 = 0x7fff_0000;
const RBX: u16 = 3;
const RBP: u16 = 6;
const RSP: u16 = 7;
const RIP: u16 = 16;

/// A piece of code and a stack.
struct Fake {
    parts: Vec<(u64, Vec<u8>)>,
    regions: Vec<Region>,
}

impl Fake {
    fn new(code: Vec<u8>, stack: Vec<u8>) -> Self {
        let region = |start: u64, bytes: usize, executable: bool| Region {
            range: Address::new(start)..Address::new(start + bytes as u64),
            readable: true,
            writable: !executable,
            executable,
            kind: RegionKind::Anonymous,
            dumped_bytes: bytes as u64,
            present_bytes: bytes as u64,
        };
        Self {
            regions: vec![
                region(CODE, code.len(), true),
                region(STACK, stack.len(), false),
            ],
            parts: vec![(CODE, code), (STACK, stack)],
        }
    }
}

impl TargetMemory for Fake {
    fn abi(&self) -> Abi {
        Abi {
            pointer_bytes: 8,
            little_endian: true,
            page_bytes: 4096,
        }
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        for (start, bytes) in &self.parts {
            let offset = at.get().wrapping_sub(*start) as usize;
            if let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
                return Ok(Window {
                    start: at,
                    bytes: rest,
                    source: Origin::Core,
                });
            }
        }
        Err(Fault::Unmapped(at))
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }
}

/// 4 KiB of code: every 16 bytes a `call` ends at offset 5 and the rest is `nop`.
fn code() -> Vec<u8> {
    [
        0xe8, 0, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    ]
    .repeat(256)
}

fn stack(words: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(4096, 0);
    bytes
}

/// An FDE: start and length of its function, and its instructions.
type Fde<'a> = (u64, u64, &'a [u8]);

/// `.debug_frame` with one CIE: CFA = rsp + 8, return address at CFA - 8.
fn debug_frame(augmentation: &str, fdes: &[Fde<'_>]) -> Vec<u8> {
    let mut cie = vec![0xff, 0xff, 0xff, 0xff, 3];
    cie.extend(augmentation.bytes());
    cie.extend([0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1]);
    while cie.len() % 8 != 4 {
        cie.push(0);
    }
    let mut out = (cie.len() as u32).to_le_bytes().to_vec();
    out.extend(cie);
    for (start, length, instructions) in fdes {
        let mut fde = 0u32.to_le_bytes().to_vec();
        fde.extend(start.to_le_bytes());
        fde.extend(length.to_le_bytes());
        fde.extend(*instructions);
        while fde.len() % 8 != 4 {
            fde.push(0);
        }
        out.extend((fde.len() as u32).to_le_bytes());
        out.extend(fde);
    }
    out
}

fn tables_of(frames: Vec<u8>) -> Tables {
    Tables::new(vec![Source {
        frames: SectionBytes::File(0..frames.len()),
        file: FileBytes::Memory(frames.into()),
        kind: Kind::DebugFrame,
        bases: gimli::BaseAddresses::default(),
        address: 0,
        vendor: gimli::Vendor::Default,
    }])
}

fn unwind(memory: Fake, frames: Vec<u8>, registers: &[(u16, u64)]) -> (Vec<Frame>, StackEnd) {
    let mut set = RegisterSet::empty();
    for (number, value) in registers {
        set.set(*number, *value);
    }
    let thread = Thread {
        tid: 1,
        name: None,
        pc: Address::new(set.get(RIP).unwrap()),
        sp: Address::new(set.get(RSP).unwrap()),
        thread_pointer: None,
        registers: set,
        signal: 0,
        system_call: None,
        blocked_signals: None,
    };
    let range = Address::new(CODE)..Address::new(CODE + 4096);
    let module = Module {
        id: ModuleId(0),
        name: "m".into(),
        path: "/m".into(),
        range: range.clone(),
        bias: 0,
        segments: vec![ModuleSegment {
            range,
            writable: false,
            executable: true,
        }],
        build_id: None,
        is_executable: true,
    };
    let file = FileBytes::Memory(Arc::new([]));
    let mut unwinder = Unwinder::over(
        Arc::new(memory),
        Modules::Bare(vec![(module, file)]),
        vec![thread],
        &X86_64,
    );
    unwinder.tables = vec![OnceLock::from(tables_of(frames))];
    (unwinder.frames(0).to_vec(), unwinder.end(0).unwrap())
}

fn pcs(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.pc.get()).collect()
}

/// pc in a function that pushed rbx, called by one without locals, called by the outermost.
fn three_frames() -> (Fake, Vec<u8>) {
    let frames = debug_frame(
        "",
        &[
            // push rbx: CFA = rsp + 16, rbx at CFA - 16
            (CODE, 0x20, &[0x0e, 16, 0x83, 2]),
            (CODE + 0x20, 0x20, &[]),
            // the return address is undefined
            (CODE + 0x40, 0x20, &[0x07, 16]),
        ],
    );
    let words = [0x1234_5678, CODE + 0x25, CODE + 0x45];
    (Fake::new(code(), stack(&words)), frames)
}

#[test]
fn registers_are_recovered_by_their_rules() {
    let (memory, frames) = three_frames();
    let (frames, end) = unwind(
        memory,
        frames,
        &[(RIP, CODE + 8), (RSP, STACK), (RBX, 99), (RBP, 7), (0, 1)],
    );
    assert_eq!(pcs(&frames), [CODE + 8, CODE + 0x25, CODE + 0x45]);
    assert_eq!(end, StackEnd::Complete);
    assert_eq!(frames[0].trust, FrameTrust::Context);
    assert_eq!(frames[1].trust, FrameTrust::Cfi);
    assert_eq!(frames[1].registers.get(RBX), Some(0x1234_5678));
    assert_eq!(frames[1].registers.get(RBP), Some(7));
    assert_eq!(frames[1].registers.get(0), None, "rax is the callee's");
    assert_eq!(frames[1].sp.get(), STACK + 16);
    assert_eq!(frames[1].lookup.get(), CODE + 0x24);
    let function = (Address::new(CODE + 0x20), Address::new(CODE + 0x40));
    assert_eq!(frames[1].function, Some(function));
}

#[test]
fn a_call_through_a_null_pointer_shows_its_caller() {
    let (_, frames) = three_frames();
    let memory = Fake::new(code(), stack(&[CODE + 0x25, CODE + 0x45]));
    let (frames, end) = unwind(memory, frames, &[(RIP, 0), (RSP, STACK), (RBX, 5)]);
    assert_eq!(pcs(&frames), [0, CODE + 0x25, CODE + 0x45]);
    assert_eq!(frames[1].trust, FrameTrust::Scan);
    assert_eq!(frames[1].registers.get(RBX), Some(5));
    assert_eq!(end, StackEnd::Complete);
}

#[test]
fn without_rules_the_frame_pointer_leads_on() {
    let words = [0, 0, STACK + 48, CODE + 0x85, 0, 0, 0, CODE + 0x95];
    let memory = Fake::new(code(), stack(&words));
    let (frames, end) = unwind(
        memory,
        Vec::new(),
        &[(RIP, CODE + 0x108), (RSP, STACK), (RBP, STACK + 16)],
    );
    assert_eq!(pcs(&frames), [CODE + 0x108, CODE + 0x85, CODE + 0x95]);
    assert_eq!(frames[1].trust, FrameTrust::FramePointer);
    assert_eq!(end, StackEnd::Complete, "the last frame pointer is zero");
}

#[test]
fn without_a_frame_pointer_the_stack_is_scanned() {
    let words = [1, CODE + 0x83, 2, CODE + 0x85, 3]; // the first is not behind a call
    let memory = Fake::new(code(), stack(&words));
    let (frames, end) = unwind(memory, Vec::new(), &[(RIP, CODE + 0x108), (RSP, STACK)]);
    assert_eq!(pcs(&frames), [CODE + 0x108, CODE + 0x85]);
    assert_eq!(frames[1].trust, FrameTrust::Scan);
    assert_eq!(end, StackEnd::Lost);
}

/// The frame that a signal interrupted, with the registers that the kernel saved, and where the trampoline is.
fn signal_stack(trampoline: u64) -> Vec<u64> {
    let mut words = vec![trampoline, 0, 0, 0, 0, 0];
    let saved = [
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
        70,
        71,
        STACK + 0x400,
        33,
        72,
        73,
        74,
        STACK + 0x200,
        CODE + 8,
    ];
    words.extend(saved);
    words.resize(0x40, 0);
    words.extend([0xb0b, CODE + 0x25, CODE + 0x45]);
    words
}

#[test]
fn a_signal_is_crossed_by_the_trampolines_code() {
    let (_, frames) = three_frames();
    let mut bytes = code();
    bytes[0x800..0x809].copy_from_slice(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    let memory = Fake::new(bytes, stack(&signal_stack(CODE + 0x800)));
    let (frames, end) = unwind(memory, frames, &[(RIP, CODE + 0x28), (RSP, STACK)]);
    assert_eq!(
        pcs(&frames),
        [
            CODE + 0x28,
            CODE + 0x800,
            CODE + 8,
            CODE + 0x25,
            CODE + 0x45
        ]
    );
    let interrupted = &frames[2];
    assert!(interrupted.interrupted && interrupted.lookup == interrupted.pc);
    assert_eq!(interrupted.trust, FrameTrust::Context);
    assert_eq!(interrupted.registers.get(RBX), Some(33));
    assert_eq!(interrupted.registers.get(0), Some(73), "rax too");
    assert_eq!(frames[3].registers.get(RBX), Some(0xb0b));
    assert_eq!(end, StackEnd::Complete);
}

#[test]
fn a_circle_ends() {
    // val_expression: the caller's rsp is 8 below; its pc is the same again
    let frames = debug_frame("", &[(CODE, 0x20, &[0x16, 7, 3, 0x38, 0x1c, 0x96])]);
    let mut words = vec![1; 512];
    words[..3].fill(CODE + 5);
    let memory = Fake::new(code(), stack(&words));
    let (frames, end) = unwind(memory, frames, &[(RIP, CODE + 8), (RSP, STACK + 8)]);
    assert!(frames.len() < 10, "{}", frames.len());
    assert_ne!(end, StackEnd::Complete);
}

#[test]
fn a_deep_recursion_keeps_both_ends() {
    let depth = 20_000;
    let mut words = vec![CODE + 0x25; depth];
    words.push(CODE + 0x45);
    let (_, frames) = three_frames();
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let memory = Fake::new(code(), bytes);
    let (kept, end) = unwind(memory, frames, &[(RIP, CODE + 0x28), (RSP, STACK)]);
    assert_eq!(kept.len(), KEPT_INNER + KEPT_OUTER);
    assert_eq!(kept.last().unwrap().pc.get(), CODE + 0x45);
    assert_eq!(end, StackEnd::Complete);
}

/// A small generator of numbers, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

#[test]
fn flipped_bytes_never_panic_and_always_end() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let expressions: [&[u8]; 3] = [
        // CFA by expression: rsp + 16; rbx by val_expression; rbp by expression
        &[0x0f, 2, 0x77, 16, 0x16, 3, 2, 0x77, 8, 0x10, 6, 2, 0x77, 0],
        &[0x0e, 16, 0x83, 2, 0x0a, 0x41, 0x0b],
        &[0x40, 0x0e, 24, 0x02, 5, 0x0d, 6],
    ];
    for round in 0..4000 {
        let mut frames = debug_frame(
            ["", "zR", "S"][round % 3],
            &[
                (CODE, 0x20, expressions[0]),
                (CODE + 0x20, 0x20, expressions[1]),
                (CODE + 0x40, 0x20, expressions[2]),
            ],
        );
        let mut words = signal_stack(CODE + 0x25);
        for _ in 0..random.next(6) {
            let at = random.next(words.len());
            words[at] = STACK + 8 * random.next(64) as u64;
        }
        let mut stack = stack(&words);
        for _ in 0..random.next(10) {
            let at = random.next(frames.len());
            frames[at] ^= 1 << random.next(8);
            let at = random.next(600);
            stack[at] ^= 1 << random.next(8);
        }
        let memory = Fake::new(code(), stack);
        let pc = CODE + random.next(0x60) as u64;
        let (frames, _) = unwind(
            memory,
            frames,
            &[(RIP, pc), (RSP, STACK), (RBP, STACK + 16), (RBX, 1)],
        );
        assert!(!frames.is_empty() && frames.len() < 1000);
    }
}

/// What a signal's frame says: of words by their places from the stack pointer of the trampoline.
fn signal_of(arch: &ArchInfo, words: &[(u64, u64)]) -> Option<(i32, Option<Address>)> {
    let mut stack = vec![0u64; 512];
    for (offset, word) in words {
        stack[usize::try_from(offset / 8).unwrap()] = *word;
    }
    let memory = Fake::new(code(), self::stack(&stack));
    let found = SignalInfo::of_frame(&memory, arch, Address::new(STACK))?;
    Some((found.signal, found.fault_address))
}

#[test]
fn old_words_where_a_handler_was_given_no_siginfo_are_no_fault() {
    const INFO: u64 = 304;
    let (trap, fault, pc) = (40 + 20 * 8, 40 + 22 * 8, 40 + 16 * 8);
    let place = 0x7f00_0000_1000;
    // A forbidden system call: SIGSYS, SYS_SECCOMP, and the address behind the call.
    let call = [(INFO, 31), (INFO + 8, 1), (INFO + 16, place)];
    let at = |pc_word| [&call[..], &[(pc, pc_word)]].concat();
    assert_eq!(signal_of(&X86_64, &at(place)), Some((31, None)));
    assert_eq!(
        signal_of(&X86_64, &at(place + 2)),
        None,
        "an alarm, anywhere"
    );
    // SIGSEGV, SEGV_MAPERR.
    let access = [(INFO, 11), (INFO + 8, 1), (INFO + 16, 0x10)];
    let beside = |trap_word, fault_word| {
        let words = [(trap, trap_word), (fault, fault_word), (pc, place)];
        signal_of(&X86_64, &[&access[..], &words].concat())
    };
    assert_eq!(beside(14, 0x10), Some((11, Some(Address::new(0x10)))));
    assert_eq!(beside(14, 0x18), None, "the last fault was another one");
    assert_eq!(beside(0, 0x10), None, "there was no fault");
    // SIGFPE, FPE_INTDIV.
    let division = |address| [(INFO, 8), (INFO + 8, 1), (INFO + 16, address), (pc, place)];
    assert!(signal_of(&X86_64, &division(place)).is_some());
    assert_eq!(signal_of(&X86_64, &division(place + 1)), None);
    // On arm64 the siginfo comes first; one of the two addresses has its tag.
    let tagged = |fault_word| {
        let words = [(0, 11), (8, 1), (16, 0x10), (128 + 176, fault_word)];
        signal_of(&AARCH64, &words)
    };
    assert!(tagged(0xb400_0000_0000_0010).is_some());
    assert_eq!(tagged(0x20), None);
}
