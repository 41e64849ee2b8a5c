//! Whether a thread is inside an allocator, where no rules tell how to unwind its stack.

use ground::target::{Address, FrameTrust, RegionKind};
use heaps::presence::{Code, Presence, Presences};
use synth::{FakeMemory, Process, frame, module, thread};

const PROGRAM: u64 = 0x40_0000;
const LIBC: u64 = 0x7f00_0000_0000;
const ALLOCATOR: u64 = 0x7f10_0000_0000;
const STACK: u64 = 0x7fff_0000_0000;
/// `sigaltstack`: a variable of the program's.
const HANDLERS_STACK: u64 = PROGRAM + 0x10_0000;
const BYTES: u64 = 0x1000;

/// A handler on a stack of its own waits in libc; it interrupted `pc`, whose stack holds the return address `caller`.
fn interrupted(pc: u64, caller: u64) -> Process {
    let mut memory = FakeMemory::new();
    for code in [PROGRAM, LIBC, ALLOCATOR] {
        memory.zeroes(code..code + BYTES, "rx", RegionKind::File);
    }
    for stack in [HANDLERS_STACK, STACK] {
        memory.zeroes(stack..stack + BYTES, "rw", RegionKind::Anonymous);
    }
    // struct sigcontext_64: rsp, rip, eflags, cs.
    let context = HANDLERS_STACK + 0x400;
    memory.write_u64(context + 120, STACK + 0x200);
    memory.write_u64(context + 128, pc);
    memory.write_u64(context + 136, 0x246);
    memory.write_u64(context + 144, 0x33);
    memory.write_u64(STACK + 0x280, caller);
    let mut process = Process::new(memory);
    for (id, (name, at)) in (0..).zip([
        ("program", PROGRAM),
        ("libc.so.6", LIBC),
        ("libjemalloc.so.2", ALLOCATOR),
    ]) {
        process
            .modules
            .push(module(id, name, &[(at..at + BYTES, "rx")]));
    }
    let mut state = thread(7, LIBC + 0x10, 0);
    state.sp = Address::new(HANDLERS_STACK + 0x100);
    let mut guessed = frame(LIBC + 0x20, &[]);
    guessed.trust = FrameTrust::Scan;
    process
        .threads
        .push(state, vec![frame(LIBC + 0x10, &[]), guessed]);
    process
}

fn presence(process: &Process) -> Presence {
    let allocator = &process.modules[2];
    Presences::new(process.target(), allocator, Code::Module).of(0)
}

#[test]
fn what_a_handler_on_its_own_stack_interrupted_is_looked_at() {
    let called_by = |caller| presence(&interrupted(LIBC + 0x30, caller));
    assert_eq!(called_by(ALLOCATOR + 0x100), Presence::Unknown);
    assert_eq!(called_by(PROGRAM + 0x100), Presence::Outside);
}

#[test]
fn a_context_that_leads_round_in_circles_ends() {
    let mut process = interrupted(LIBC + 0x30, PROGRAM + 0x100);
    let context = HANDLERS_STACK + 0x400;
    process
        .memory
        .write_u64(context + 120, HANDLERS_STACK + 0x100);
    assert_eq!(presence(&process), Presence::Outside);
    process.memory.write_u64(context + 120, u64::MAX);
    assert_eq!(presence(&process), Presence::Outside);
}

#[test]
fn one_thread_of_what_were_several_is_known_by_its_control_block() {
    /// `tcbhead_t.multiple_threads`.
    const MULTIPLE_THREADS: u64 = 24;
    let at = PROGRAM + 0x10_0800;
    let mut process = interrupted(LIBC + 0x30, PROGRAM + 0x100);
    let is_left = |process: &Process| {
        Presences::new(process.target(), &process.modules[2], Code::Module).is_left_of_several()
    };
    assert!(is_left(&process), "nobody can tell");
    process.threads.thread_mut(0).thread_pointer = Some(Address::new(at));
    assert!(!is_left(&process));
    process.memory.write_u64(at + MULTIPLE_THREADS, 1);
    assert!(is_left(&process));
    process.threads.set_forked(Some(true));
    assert!(is_left(&process));
    process.threads.set_forked(Some(false));
    assert!(!is_left(&process), "the others ended");
    process.threads.set_forked(None);
    process.threads.push(thread(8, LIBC, 0), Vec::new());
    assert!(!is_left(&process), "another one is there");
}

#[test]
fn what_a_thread_has_at_hand_is_on_its_stack() {
    let mut process = interrupted(LIBC + 0x30, PROGRAM + 0x100);
    process
        .memory
        .write_u64(HANDLERS_STACK + 0x300, ALLOCATOR + 8);
    process
        .memory
        .write_u64(HANDLERS_STACK + 0x80, ALLOCATOR + 16);
    let presences = Presences::new(process.target(), &process.modules[2], Code::Module);
    let has = |at| presences.has_on_stack(0, Address::new(at));
    assert!(has(ALLOCATOR + 8));
    assert!(!has(ALLOCATOR + 16), "below the stack pointer");
}

#[test]
fn the_linker_may_be_at_work_for_an_allocator_that_has_no_frame() {
    const LINKER: u64 = 0x7f20_0000_0000;
    const LINK_MAP: u64 = LINKER + BYTES;
    let presence_with = |dynamic| {
        let mut process = interrupted(LIBC + 0x30, PROGRAM + 0x100);
        let memory = &mut process.memory;
        memory.zeroes(LINKER..LINK_MAP, "rx", RegionKind::File);
        memory.zeroes(LINK_MAP..LINK_MAP + BYTES, "rw", RegionKind::Anonymous);
        memory.write_u64(LINK_MAP + 16, dynamic);
        memory.write_u64(STACK + 0x300 - 24, LINK_MAP);
        let segments = [(LINKER..LINKER + BYTES, "rx")];
        process
            .modules
            .push(module(3, "ld-linux-x86-64.so.2", &segments));
        // A function of the allocator's ended with a call that is bound now: the caller's frame is the program's.
        let (mut inner, mut outer) = (frame(LINKER + 0x10, &[]), frame(PROGRAM + 0x20, &[]));
        inner.sp = Address::new(STACK + 0x100);
        outer.sp = Address::new(STACK + 0x300);
        process.threads.set_frames(0, vec![inner, outer]);
        presence(&process)
    };
    assert_eq!(presence_with(ALLOCATOR + 0x800), Presence::Unknown);
    assert_eq!(presence_with(PROGRAM + 0x800), Presence::Outside);
}
