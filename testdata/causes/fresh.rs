//! The cases of Rust's `unsafe` of the set `fresh` (`fresh.cc`): one a run, the number as the argument, then perhaps `beside`.
use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::mem::ManuallyDrop;

fn truth(class: &str, block: usize, word: usize) {
    println!("CLASS {class}");
    if block != 0 {
        println!("BLOCK {block:#x}");
    }
    if word != 0 {
        println!("WORD {word:#x}");
    }
}

struct Account {
    owner: Box<u64>,
    name: String,
    limits: [u64; 4],
}

fn account(number: u64) -> Box<Account> {
    Box::new(Account { owner: Box::new(number), name: format!("account {number}"), limits: [number; 4] })
}

#[inline(never)]
fn owner_of(account: &Account) -> u64 {
    *account.owner + account.limits[0] + account.name.len() as u64
}

fn f_raw_after_drop() {
    let first = account(1);
    let raw: *const Account = &*first;
    let word = unsafe { &raw const (*raw).owner } as usize;
    let second = account(2);
    drop(second);
    drop(first);
    truth("freed", raw as usize, word);
    black_box(owner_of(unsafe { &*black_box(raw) }));
}

#[inline(never)]
fn first_of(list: &[Box<u64>]) -> u64 {
    *list[0]
}

fn f_slice_before_push() {
    let mut list: Vec<Box<u64>> = (0..4).map(Box::new).collect();
    let other: Vec<Box<u64>> = (0..4).map(Box::new).collect();
    let old: *const [Box<u64>] = &list[..];
    drop(other);
    list.reserve_exact(4000);
    truth("freed", old as *const u8 as usize, old as *const u8 as usize);
    black_box(first_of(unsafe { &*black_box(old) }));
    black_box(&list);
}

fn u_set_len() {
    let stale = vec![0x4d4d_4d4d_4d4d_4d4du64; 12];
    drop(black_box(stale));
    let mut list: Vec<Option<&u64>> = Vec::with_capacity(12);
    list.push(Some(&7));
    list.push(Some(&8));
    list.push(Some(&9));
    unsafe { list.set_len(12) };
    let start = list.as_ptr() as usize;
    truth("uninitialised", start, start + 24);
    #[inline(never)]
    fn sum(list: &[Option<&u64>]) -> u64 {
        list.iter().flatten().map(|it| **it).sum()
    }
    black_box(sum(black_box(&list)));
}

#[repr(C)]
struct Node {
    value: u64,
    next: *mut Node,
    name: [u8; 24],
}

fn u_alloc_without_write() {
    unsafe {
        let layout = Layout::new::<Node>();
        let old: Vec<*mut u8> = (0..3).map(|_| alloc(layout)).collect();
        for block in &old {
            block.write_bytes(0x61, layout.size());
        }
        for block in old {
            dealloc(block, layout);
        }
        let node = alloc(layout).cast::<Node>();
        (*node).value = 1;
        (*node).name = *b"a name of twenty-four by";
        // Nobody set `next`, which lies where allocators keep words of their own.
        truth("uninitialised", node as usize, &raw const (*node).next as usize);
        #[inline(never)]
        unsafe fn sum(mut node: *const Node) -> u64 {
            let mut sum = 0;
            while !node.is_null() {
                unsafe {
                    sum += (*node).value;
                    node = (*node).next;
                }
            }
            sum
        }
        black_box(sum(black_box(node)));
    }
}

trait Shape {
    fn area(&self) -> u64;
}
struct Square(u64);
impl Shape for Square {
    fn area(&self) -> u64 {
        self.0 * self.0
    }
}

#[inline(never)]
fn area_of(shapes: &[Box<dyn Shape>]) -> u64 {
    shapes.iter().map(|it| it.area()).sum()
}

fn o_unchecked_index() {
    let mut found = None;
    let mut all: Vec<Vec<u64>> = Vec::new();
    // Numbers and, right behind them, a table of shapes.
    for _ in 0..60 {
        all.push(vec![1u64; 8]);
        let starts: Vec<usize> = all.iter().map(|it| it.as_ptr() as usize).collect();
        for (i, one) in starts.iter().enumerate() {
            for (j, two) in starts.iter().enumerate() {
                if found.is_none() && *two > *one && *two - *one >= 64 && *two - *one < 88 {
                    found = Some((i, j, *two - *one));
                }
            }
        }
        if found.is_some() {
            break;
        }
    }
    let (one, two, apart) = found.unwrap();
    let place = all[two].as_mut_ptr();
    let shapes: ManuallyDrop<Vec<Box<dyn Shape>>> = unsafe {
        let place = place.cast::<Box<dyn Shape>>();
        for i in 0..4 {
            place.add(i).write(Box::new(Square(i as u64 + 3)));
        }
        ManuallyDrop::new(Vec::from_raw_parts(place, 4, 4))
    };
    truth("overrun", all[one].as_ptr() as usize, place as usize + 8);
    for i in 0..apart / 8 + 2 {
        unsafe { *all[one].get_unchecked_mut(i) = 0x3030_3030_3030 + i as u64 };
    }
    black_box(area_of(black_box(&shapes)));
    std::mem::forget(all);
}

fn r_two_boxes() {
    let first = account(5);
    let raw = Box::into_raw(first);
    truth("refused", raw as usize, 0);
    unsafe {
        drop(Box::from_raw(raw));
        let layout = Layout::new::<Account>();
        dealloc(black_box(raw).cast(), layout);
    }
    std::process::exit(95);
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
    let cases: [(&str, fn()); 6] = [
        ("f_raw_after_drop", f_raw_after_drop),
        ("f_slice_before_push", f_slice_before_push),
        ("u_set_len", u_set_len),
        ("u_alloc_without_write", u_alloc_without_write),
        ("o_unchecked_index", o_unchecked_index),
        ("r_two_boxes", r_two_boxes),
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
