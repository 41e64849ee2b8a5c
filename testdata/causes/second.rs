//! The cases of Rust's `unsafe` of the set `second` (`second.cc`): one a run, the number as the argument, then perhaps `beside`.
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::Arc;

fn truth(class: &str, block: usize, word: usize) {
    println!("CLASS {class}");
    if block != 0 {
        println!("BLOCK {block:#x}");
    }
    if word != 0 {
        println!("WORD {word:#x}");
    }
}

// A callback of a C library, whose user data was dropped.
#[repr(C)]
struct Progress {
    total: *mut u64,
    calls: u64,
    unit: u64,
}

#[derive(Clone, Copy)]
struct Registration {
    call: unsafe extern "C" fn(u64, *mut c_void),
    user: *mut c_void,
}

#[inline(never)]
unsafe extern "C" fn on_progress(done: u64, user: *mut c_void) {
    let progress = unsafe { &mut *user.cast::<Progress>() };
    progress.calls += 1;
    unsafe { *progress.total += done * progress.unit };
}

#[inline(never)]
fn transfer(registered: &[Registration]) {
    for it in registered {
        unsafe { (it.call)(512, it.user) };
    }
}

fn f_user_of_library() {
    let total: &'static mut u64 = Box::leak(Box::new(0));
    let progress = Box::new(Progress { total, calls: 0, unit: 8 });
    let other = Box::new(Progress { total: std::ptr::null_mut(), calls: 0, unit: 1 });
    let user: *mut Progress = Box::into_raw(progress);
    let registered = vec![Registration { call: on_progress, user: user.cast() }];
    drop(black_box(other));
    drop(unsafe { Box::from_raw(user) });
    truth("freed", user as usize, user as usize);
    transfer(black_box(&registered));
}

// A slab: a key that is older than the slab, looked up without a check.
struct Slab {
    entries: Vec<Option<Box<[u64; 4]>>>,
}

#[inline(never)]
fn third_of(slab: &Slab, key: usize) -> u64 {
    let entry = unsafe { slab.entries.get_unchecked(key) };
    entry.as_ref().map_or(0, |it| it[2])
}

fn w_stale_key() {
    let stale = vec![0x5757_5757_5757_5757u64; 40];
    drop(black_box(stale));
    let mut slab = Slab { entries: Vec::with_capacity(40) };
    for i in 0..8 {
        slab.entries.push(Some(Box::new([i; 4])));
    }
    let start = slab.entries.as_ptr() as usize;
    truth("wild", start, start + 30 * 8);
    black_box(third_of(black_box(&slab), black_box(30)));
}

// A lifetime that was made longer than it is.
#[repr(C)]
struct Scope<'a> {
    parent: Option<&'a Scope<'a>>,
    depth: u64,
    name: String,
}

#[inline(never)]
fn depth_of(scope: &Scope<'_>) -> u64 {
    let mut depth = 0;
    let mut at = Some(scope);
    while let Some(scope) = at {
        depth += scope.depth;
        at = scope.parent;
    }
    depth
}

fn f_longer_lifetime() {
    let root: &'static Scope<'static> = Box::leak(Box::new(Scope { parent: None, depth: 0, name: "root".into() }));
    let outer = Box::new(Scope { parent: Some(root), depth: 1, name: "outer".into() });
    let spare = Box::new(Scope { parent: Some(root), depth: 9, name: "spare".into() });
    let longer: &'static Scope<'static> = unsafe { &*(&raw const *outer) };
    let inner = Box::new(Scope { parent: Some(longer), depth: 2, name: "inner".into() });
    drop(black_box(spare));
    drop(black_box(outer));
    truth("freed", longer as *const _ as usize, longer as *const _ as usize);
    black_box(depth_of(black_box(&inner)));
    black_box(&inner.name);
}

// An Arc whose count went down once too often.
struct Shared {
    queue: Vec<&'static u64>,
    name: String,
}

#[inline(never)]
fn front_of(shared: &Shared) -> u64 {
    *shared.queue[0] + shared.name.len() as u64
}

fn f_count_too_low() {
    let value: &'static u64 = Box::leak(Box::new(7));
    let shared = Arc::new(Shared { queue: vec![value; 6], name: "queue".into() });
    let buffer = shared.queue.as_ptr() as usize;
    let again = shared.clone();
    let inner = Arc::as_ptr(&shared) as usize - 16;
    unsafe { Arc::decrement_strong_count(Arc::as_ptr(&shared)) };
    drop(shared);
    truth("freed", inner, 0);
    truth("freed", buffer, buffer);
    black_box(front_of(black_box(&again)));
    std::mem::forget(again);
}

fn beside() {
    let size = 760;
    let layout = Layout::from_size_align(size, 8).unwrap();
    let mut all: Vec<*mut u8> = Vec::new();
    for _ in 0..96 {
        all.push(unsafe { alloc(layout) });
        for i in 0..all.len() {
            for j in 0..all.len() {
                let distance = (all[j] as isize) - (all[i] as isize);
                if distance >= size as isize && distance < size as isize + 24 {
                    unsafe {
                        dealloc(all[j], layout);
                        black_box(all[i]).write_bytes(b'z', size + 24);
                    }
                    return;
                }
            }
        }
    }
}

fn main() {
    let cases: [(&str, fn()); 4] = [
        ("f_user_of_library", f_user_of_library),
        ("w_stale_key", w_stale_key),
        ("f_longer_lifetime", f_longer_lifetime),
        ("f_count_too_low", f_count_too_low),
    ];
    let mut arguments = std::env::args().skip(1);
    let number: usize = arguments.next().and_then(|it| it.parse().ok()).unwrap_or(99);
    let Some((name, run)) = cases.get(number) else {
        std::process::exit(94);
    };
    if arguments.next().is_some() {
        beside();
    }
    println!("NAME {name}");
    run();
    std::process::exit(95);
}
