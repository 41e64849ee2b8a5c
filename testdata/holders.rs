//! As holders.c, with what Rust holds its values by: a box in a local variable, a vector's field of a struct, a static array of atomics, a
//! thread-local cell.

use std::arch::asm;
use std::cell::Cell;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

struct Session {
    number: u64,
    name: [u8; 300],
}

struct Server {
    _number: u64,
    names: Vec<u64>,
}

static SESSIONS: [AtomicPtr<Session>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];
static READY: AtomicBool = AtomicBool::new(false);
static FOR_EVER: AtomicBool = AtomicBool::new(true);

thread_local! {
    static CACHE: Cell<*mut Session> = const { Cell::new(ptr::null_mut()) };
}

#[inline(never)]
fn session() -> Box<Session> {
    Box::new(black_box(Session { number: 7, name: [0; 300] }))
}

#[inline(never)]
fn state<T>(address: *const T, truth: &str) {
    println!("HOLDER address={:p} {truth}", black_box(address));
}

#[inline(never)]
fn wipe() {
    black_box([0u64; 12000]);
    unsafe {
        asm!(
            "xor eax, eax", "xor ecx, ecx", "xor edx, edx", "xor esi, esi", "xor edi, edi", "xor r8d, r8d", "xor r9d, r9d",
            "xor r10d, r10d", "xor r11d, r11d", "pxor xmm0, xmm0", "pxor xmm1, xmm1", "pxor xmm2, xmm2", "pxor xmm3, xmm3",
            "pxor xmm4, xmm4", "pxor xmm5, xmm5", "pxor xmm6, xmm6", "pxor xmm7, xmm7", "pxor xmm8, xmm8", "pxor xmm9, xmm9",
            "pxor xmm10, xmm10", "pxor xmm11, xmm11", "pxor xmm12, xmm12", "pxor xmm13, xmm13", "pxor xmm14, xmm14",
            "pxor xmm15, xmm15",
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
        );
    }
}

#[inline(never)]
fn in_static() {
    let made = Box::into_raw(session());
    state(made, "kind=global symbol=SESSIONS offset=16");
    black_box(&SESSIONS)[2].store(made, Ordering::Relaxed);
}

#[inline(never)]
fn in_thread_local() {
    let made = Box::into_raw(session());
    state(made, "kind=tls symbol=CACHE offset=0");
    CACHE.with(|cache| black_box(cache).set(made));
}

#[inline(never)]
fn wait_for_ever() {
    wipe();
    READY.store(true, Ordering::Release);
    while FOR_EVER.load(Ordering::Relaxed) {
        std::thread::park();
    }
}

#[inline(never)]
fn worker_loop() -> u64 {
    let mine = session();
    state(&*mine, "kind=stack variable=mine function=holders::worker_loop");
    wait_for_ever();
    black_box(CACHE.with(Cell::get));
    mine.number + u64::from(mine.name[17])
}

#[inline(never)]
fn fill(server: &mut Server) {
    server.names = vec![black_box(1); 64];
    state(server.names.as_ptr(), "kind=stack variable=server function=holders::die_holding");
}

#[inline(never)]
fn die_holding() -> u64 {
    let mut server = Server { _number: black_box(1), names: Vec::new() };
    fill(&mut server);
    wipe();
    if FOR_EVER.load(Ordering::Relaxed) {
        std::process::abort();
    }
    black_box(&server);
    black_box(SESSIONS[2].load(Ordering::Relaxed));
    server.names[0]
}

fn main() {
    let worker = std::thread::spawn(|| {
        in_thread_local();
        worker_loop()
    });
    while !READY.load(Ordering::Acquire) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    in_static();
    println!("HEALTHY\nDIES signal=SIGABRT");
    let left = die_holding();
    println!("{left} {}", worker.join().unwrap_or(0));
}
