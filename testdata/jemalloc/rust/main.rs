//! Rust programs whose heap is jemalloc's, linked statically by the crate tikv-jemallocator; the first argument says which one.
//! Truth goes to standard output as for the C programs (testdata/README.md). The errors are made as `unsafe` Rust makes them:
//! through the global allocator, with raw pointers.
//!
//! | word | what happens | what remains |
//! |---|---|---|
//! | `double-free` | a block is deallocated twice | it is twice in the thread's cache |
//! | `double-free-threads` | two threads deallocate it | it is in two threads' caches |
//! | `wrong-layout` | a block is deallocated with the layout of a bigger one | it is in the cache of another size class |
//! | `healthy-stats` | known numbers of blocks of classes that nothing else uses | nothing is wrong |
//! | `healthy-threads` | eight threads work until they are stopped from outside | nothing is wrong |

use std::alloc::{alloc, dealloc, Layout};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SMALL: usize = 96;

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Blocks of one class, none of which is given back by chance.
fn blocks_of(size: usize, count: usize) -> Vec<*mut u8> {
    (0..count)
        .map(|_| black_box(unsafe { alloc(layout(size)) }))
        .inspect(|block| assert!(!block.is_null()))
        .collect()
}

fn free(block: *mut u8, size: usize) {
    unsafe { dealloc(black_box(block), layout(size)) }
}

fn die() -> ! {
    say("DIES signal=SIGABRT");
    std::process::abort()
}

fn double_free() -> ! {
    let blocks = blocks_of(SMALL, 8);
    let block = blocks[3];
    say(&format!(
        "EXPECT kind=double-free address={block:p} block={block:p} size={SMALL}"
    ));
    free(block, SMALL);
    free(blocks[5], SMALL);
    free(block, SMALL);
    die()
}

fn double_free_threads() -> ! {
    let blocks = blocks_of(SMALL, 8);
    let block = blocks[3];
    say(&format!(
        "EXPECT kind=double-free address={block:p} block={block:p} size={SMALL} threads=2"
    ));
    let address = block as usize;
    let freed = Arc::new(Barrier::new(2));
    let in_thread = Arc::clone(&freed);
    std::thread::spawn(move || {
        // A thread that has never allocated has no cache.
        free(blocks_of(SMALL, 1)[0], SMALL);
        free(address as *mut u8, SMALL);
        in_thread.wait();
        loop {
            std::thread::park();
        }
    });
    freed.wait();
    free(block, SMALL);
    die()
}

fn wrong_layout() -> ! {
    let blocks = blocks_of(SMALL, 8);
    let block = blocks[3];
    say(&format!(
        "EXPECT kind=invalid-free-entry address={block:p} block={block:p} size={SMALL}"
    ));
    free(block, 640);
    die()
}

fn healthy_stats() -> ! {
    say("HEALTHY");
    // Sizes that are classes, and that the runtime itself does not ask for.
    for (size, take, give_back) in [
        (768, 500, 0),
        (1792, 100, 11),
        (7168, 40, 7),
        (14336, 9, 3),
        (40960, 6, 2),
    ] {
        let mut blocks = blocks_of(size, take);
        for block in blocks.drain(..give_back) {
            free(block, size);
        }
        std::mem::forget(blocks);
        say(&format!("CLASS size={size} in_use={}", take - give_back));
    }
    die()
}

/// Strings, vectors and maps, some of them handed to other threads, so that they are freed elsewhere.
fn work(seed: u64, shared: &Mutex<Vec<Vec<u8>>>) {
    let mut state = seed * 2 + 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut map = BTreeMap::new();
    loop {
        let size = ((next() % 512) as usize) << (next() % 8);
        match next() % 6 {
            0 => map
                .insert(next() % 300, vec![0x5a_u8; size])
                .map_or((), drop),
            1 => drop(map.remove(&(next() % 300))),
            2 => shared.lock().unwrap().push(vec![1; size]),
            3 => drop(shared.lock().unwrap().pop()),
            4 => drop(format!("{size:>width$}", width = size % 200)),
            _ => {
                for value in map.values_mut().take(20) {
                    value.resize(size, 2);
                }
            }
        }
    }
}

/// The process is stopped by a signal to all of it; whichever thread takes it dies wherever it is.
fn healthy_threads(seed: u64) -> ! {
    let shared = Arc::new(Mutex::new(Vec::new()));
    let (started, all_started) = channel();
    for thread in 0..8 {
        let (shared, started) = (Arc::clone(&shared), started.clone());
        std::thread::spawn(move || {
            started.send(()).unwrap();
            work(seed * 8 + thread, &shared)
        });
    }
    for _ in 0..8 {
        all_started.recv().unwrap();
    }
    say("HEALTHY");
    say("DIES signal=SIGABRT");
    loop {
        std::thread::park();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("double-free") => double_free(),
        Some("double-free-threads") => double_free_threads(),
        Some("wrong-layout") => wrong_layout(),
        Some("healthy-stats") => healthy_stats(),
        Some("healthy-threads") => healthy_threads(arguments[2].parse().unwrap()),
        _ => say("GIVE-UP no such program"),
    }
}
