//! The cases of Rust's `unsafe` of the set `fourth` (`fourth.cc`): one a run, the number as the argument, then perhaps `beside`.
use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;

fn truth(class: &str, block: usize, word: usize) {
    println!("CLASS {class}");
    if block != 0 {
        println!("BLOCK {block:#x}");
    }
    if word != 0 {
        println!("WORD {word:#x}");
    }
}

// A block that two boxes are made of: the first drops it.
struct Node {
    value: u64,
    tail: [u64; 3],
    next: *const u64,
}

#[inline(never)]
fn follow(node: &Node) -> u64 {
    unsafe { *node.next + node.value + node.tail[0] }
}

fn f_from_raw_twice() {
    let raw = Box::into_raw(Box::new(Node { value: 1, tail: [0; 3], next: 0x4141_4141_4141_4140 as *const u64 }));
    let again = std::mem::ManuallyDrop::new(unsafe { Box::from_raw(raw) });
    drop(unsafe { Box::from_raw(raw) });
    truth("freed", raw as usize, unsafe { &raw const (*raw).next } as usize);
    println!("{}", follow(black_box(&again)));
}

// An index from a file, not checked.
struct Table {
    index: usize,
    entries: Vec<u64>,
}

#[inline(never)]
fn entry(table: &Table) -> u64 {
    unsafe { *table.entries.get_unchecked(table.index) }
}

fn w_unchecked_index() {
    let table = Box::new(Table { index: 0x0100_0000_0000, entries: vec![7; 32] });
    truth("wild", &raw const *table as usize, &raw const table.index as usize);
    println!("{}", entry(black_box(&table)));
}

// A slice of references, longer-lived than its vector.
#[inline(never)]
fn last(all: &[&u64]) -> u64 {
    **all.last().unwrap()
}

fn f_dangling_slice() {
    static VALUE: u64 = 5;
    let mut all = vec![&VALUE; 24];
    let bad = 0x6363_6363_6363_6360usize;
    all[23] = unsafe { &*std::ptr::with_exposed_provenance::<u64>(bad) };
    let slice: &'static [&u64] = unsafe { std::slice::from_raw_parts(all.as_ptr(), all.len()) };
    drop(black_box(all));
    truth("freed", slice.as_ptr() as usize, &raw const slice[23] as usize);
    println!("{}", last(black_box(slice)));
}

fn beside() {
    let layout = Layout::from_size_align(760, 8).unwrap();
    let mut all: Vec<*mut u8> = Vec::new();
    for _ in 0..96 {
        let it = unsafe { alloc(layout) };
        let near = all.iter().find(|one| (760..784).contains(&(it as isize - **one as isize)));
        if let Some(&one) = near {
            unsafe { dealloc(it, layout) };
            unsafe { std::ptr::write_bytes(one, b'z', 784) };
            black_box(one);
            return;
        }
        all.push(it);
    }
    std::process::exit(96);
}

fn main() {
    let cases: [(&str, fn()); 3] = [
        ("f_from_raw_twice", f_from_raw_twice),
        ("w_unchecked_index", w_unchecked_index),
        ("f_dangling_slice", f_dangling_slice),
    ];
    let number: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    if std::env::args().nth(2).is_some() {
        beside();
    }
    println!("NAME {}", cases[number].0);
    cases[number].1();
}
