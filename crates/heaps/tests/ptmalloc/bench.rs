//! A small process with glibc's malloc, written chunk by chunk.
//!
//! The numbers are copied from `malloc/malloc.c` and from debug information of Debian's builds, not
//! from the walker's layouts.

use ground::target::{Address, RegionKind};
use synth::{FakeMemory, Process, module, thread};

/// What differs between releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    pub name: &'static str,
    /// Offset of `bins` in `malloc_state`.
    pub bins: u64,
    pub fastbins: Option<u64>,
    /// Offsets in `malloc_par`: n_mmaps, mmapped_mem, sbrk_base, tcache_bins.
    pub mp: [u64; 4],
    /// Bytes of a count, number of bins, offset of the entries, chunk size of the cache.
    pub tcache: [u64; 4],
    pub counts_down: bool,
    pub tcache_count: u64,
    pub tcache_max_bytes: u64,
    pub mangled: bool,
}

pub const V2_31: Release = Release {
    name: "2.30-2.34",
    bins: 112,
    fastbins: Some(16),
    mp: [40, 56, 72, 80],
    tcache: [2, 64, 128, 0x290],
    counts_down: false,
    tcache_count: 7,
    tcache_max_bytes: 1032,
    mangled: false,
};

pub const V2_36: Release = Release {
    name: "2.35-2.41",
    mp: [60, 80, 96, 104],
    mangled: true,
    ..V2_31
};

pub const V2_43: Release = Release {
    name: "2.43",
    bins: 24,
    fastbins: None,
    mp: [68, 88, 104, 112],
    tcache: [2, 76, 152, 0x300],
    counts_down: true,
    tcache_count: 16,
    tcache_max_bytes: 1041,
    mangled: true,
};

pub const LIBC: u64 = 0x7f00_0000_0000;
pub const DATA: u64 = LIBC + 0x10_0000;
pub const ARENA: u64 = DATA + 0x1000;
pub const MP: u64 = DATA + 0x400;
pub const HEAP: u64 = 0x5555_0000_0000;
pub const HEAP_BYTES: u64 = 0x21000;
/// Thread pointers, and the distance below them at which libc keeps the cache.
pub const TLS: u64 = 0x7f00_1000_0000;
pub const TLS_DISTANCE: u64 = 0x48;
pub const KEY: u64 = 0x1234_5678_9abc_def1;
/// The thread's code, outside of malloc.
pub const PROGRAM: u64 = 0x5554_0000_1000;

#[derive(Clone)]
pub struct Bench {
    pub release: Release,
    pub process: Process,
    heap_bytes: u64,
    /// Where the next chunk begins.
    next: u64,
    /// Size of the last chunk, if it is free.
    free_before: Option<u64>,
    threads: usize,
    pub caches: Vec<u64>,
    /// Members of the lists of each cache, first in last out.
    cached: Vec<Vec<(u64, u64)>>,
    binned: Vec<(u64, u64)>,
    fast: Vec<(u64, u64)>,
    /// Blocks in use.
    pub used: u64,
}

impl Bench {
    /// A process of `threads` threads, each with a cache.
    pub fn new(release: Release, threads: usize) -> Self {
        Self::with_heap(release, threads, HEAP_BYTES)
    }

    /// The same with a heap of that many bytes.
    pub fn with_heap(release: Release, threads: usize, heap_bytes: u64) -> Self {
        let mut memory = FakeMemory::new();
        memory.zeroes(DATA..DATA + 0x3000, "rw", RegionKind::File);
        memory.zeroes(HEAP..HEAP + heap_bytes, "rw", RegionKind::Anonymous);
        let mut process = Process::new(memory);
        process.modules.push(module(
            0,
            "libc.so.6",
            &[(LIBC..LIBC + 0x10_0000, "rx"), (DATA..DATA + 0x3000, "rw")],
        ));
        let mut bench = Self {
            release,
            process,
            heap_bytes,
            next: HEAP,
            free_before: None,
            threads,
            caches: Vec::new(),
            cached: vec![Vec::new(); threads],
            binned: Vec::new(),
            fast: Vec::new(),
            used: 0,
        };
        for index in 0..threads {
            let tp = TLS + 0x10_0000 * index as u64;
            bench
                .process
                .memory
                .zeroes(tp - 0x1000..tp + 0x1000, "rw", RegionKind::Anonymous);
            let state = thread(100 + index as u32, PROGRAM, tp);
            let frames = vec![synth::frame(PROGRAM, &[])];
            bench.process.threads.push(state, frames);
            let cache = bench.chunk(release.tcache[3]) + 16;
            bench.write(tp - TLS_DISTANCE, cache);
            bench.write(tp, tp); // tcbhead_t.tcb
            bench.write(tp + 16, tp); // tcbhead_t.self
            bench.caches.push(cache);
        }
        bench
    }

    pub fn write(&mut self, at: u64, word: u64) {
        self.process.memory.write_u64(at, word);
    }

    pub fn word(&mut self, at: u64) -> u64 {
        self.process.memory.word(at)
    }

    /// A chunk of this size, header only: its address.
    fn chunk(&mut self, size: u64) -> u64 {
        let at = self.next;
        if let Some(before) = self.free_before.take() {
            self.write(at, before);
            self.write(at + 8, size);
        } else {
            self.write(at + 8, size | 1);
        }
        self.next += size;
        at
    }

    /// A block in use, filled with letters; its address.
    pub fn used(&mut self, size: u64) -> u64 {
        let chunk = self.chunk(size);
        let length = (size - 8) as usize;
        let place = self.process.memory.place(chunk + 16, length);
        place.fill(0xb5);
        self.used += 1;
        chunk + 16
    }

    /// A block in the cache of a thread.
    pub fn cached(&mut self, thread: usize, size: u64) -> u64 {
        let block = self.chunk(size) + 16;
        self.cached[thread].push((block, size));
        block
    }

    /// A block in a fastbin.
    pub fn fast(&mut self, size: u64) -> u64 {
        let chunk = self.chunk(size);
        self.fast.push((chunk, size));
        chunk + 16
    }

    /// Frees the blocks in fastbins in another order.
    pub fn shuffle_fast(&mut self, seed: u64) {
        fastrand::Rng::with_seed(seed).shuffle(&mut self.fast);
    }

    /// A block in a small or large bin (in use if `self.binned` is not told of it).
    pub fn binned(&mut self, size: u64) -> u64 {
        let chunk = self.chunk(size);
        self.free_before = Some(size);
        self.binned.push((chunk, size));
        chunk + 16
    }

    /// A chunk that its neighbour calls free and that no bin holds.
    pub fn in_flight(&mut self, size: u64) -> u64 {
        let chunk = self.chunk(size);
        self.free_before = Some(size);
        chunk + 16
    }

    fn mangle(&self, at: u64, pointer: u64) -> u64 {
        if self.release.mangled {
            pointer ^ (at >> 12)
        } else {
            pointer
        }
    }

    /// Address of the pseudo-chunk of a bin.
    pub fn bin(&self, number: u64) -> u64 {
        ARENA + self.release.bins + 16 * (number - 1) - 16
    }

    /// The word of a cache that names the first entry of a bin, and the one that counts.
    pub fn tcache_words(&self, thread: usize, size: u64) -> (u64, u64) {
        let bin = (size - 0x20) / 16;
        let [count_bytes, _, entries, _] = self.release.tcache;
        let cache = self.caches[thread];
        (cache + entries + 8 * bin, cache + count_bytes * bin)
    }

    /// Closes the heap with its top chunk and writes arena, `mp_` and caches.
    pub fn finish(mut self) -> Self {
        let release = self.release;
        let top = self.next;
        self.chunk(HEAP + self.heap_bytes - top);
        for number in 1..=127 {
            let bin = self.bin(number);
            self.write(bin + 16, bin);
            self.write(bin + 24, bin);
        }
        let tail = ARENA + release.bins + 254 * 8 + 16;
        self.write(ARENA + release.bins - 16, top);
        self.write(tail, ARENA); // next
        self.write(tail + 16, 1); // attached_threads
        self.write(tail + 24, self.heap_bytes); // system_mem
        self.write(tail + 32, self.heap_bytes); // max_system_mem
        self.write_parameters();
        for (chunk, size) in std::mem::take(&mut self.binned) {
            self.bin_chunk(chunk, size);
        }
        for (chunk, size) in std::mem::take(&mut self.fast) {
            let head = ARENA + release.fastbins.unwrap() + 8 * (size / 16 - 2);
            let first = self.word(head);
            let link = self.mangle(chunk + 16, first);
            self.write(chunk + 16, link);
            self.write(head, chunk);
        }
        if release.counts_down {
            for cache in self.caches.clone() {
                for bin in 0..release.tcache[1] {
                    let count = (release.tcache_count as u16).to_le_bytes();
                    self.process.memory.write(cache + 2 * bin, &count);
                }
            }
        }
        for thread in 0..self.threads {
            for (block, size) in self.cached[thread].clone() {
                self.cache_block(thread, block, size);
            }
        }
        self
    }

    fn write_parameters(&mut self) {
        let [n_mmaps, _, sbrk_base, tcache] = self.release.mp;
        for (offset, word) in [
            (0, 0x20000),
            (8, 0x20000),
            (16, 0x20000),
            (24, 8),
            (sbrk_base, HEAP),
            (tcache, 64),
            (tcache + 8, self.release.tcache_max_bytes),
            (tcache + 16, self.release.tcache_count),
        ] {
            self.write(MP + offset, word);
        }
        self.process.memory.write_u32(MP + n_mmaps + 4, 0x10000);
    }

    /// Puts a block into a cache, as `tcache_put` does.
    pub fn cache_block(&mut self, thread: usize, block: u64, size: u64) {
        let (head, count) = self.tcache_words(thread, size);
        let first = self.word(head);
        let link = self.mangle(block, first);
        self.write(block, link);
        let key = if self.release.mangled {
            KEY
        } else {
            self.caches[thread]
        };
        self.write(block + 8, key);
        self.write(head, block);
        let counted = self.word(count) as u16;
        let counted = match self.release.counts_down {
            true => counted - 1,
            false => counted + 1,
        };
        self.process.memory.write(count, &counted.to_le_bytes());
    }

    /// Puts a chunk into its bin, behind what is there.
    fn bin_chunk(&mut self, chunk: u64, size: u64) {
        assert!(size < 0xc40, "not in these tests");
        let number = if size < 0x400 {
            size >> 4
        } else {
            48 + (size >> 6)
        };
        let bin = self.bin(number);
        let last = self.word(bin + 24);
        self.write(chunk + 16, bin);
        self.write(chunk + 24, last);
        self.write(last + 16, chunk);
        self.write(bin + 24, chunk);
        let map = ARENA + self.release.bins + 254 * 8;
        let marked = self.word(map + number / 64 * 8) | 1 << (number % 64);
        self.write(map + number / 64 * 8, marked);
        if size >= 0x400 {
            assert_eq!(last, bin, "one chunk of a large bin is enough");
            self.write(chunk + 32, chunk);
            self.write(chunk + 40, chunk);
        }
    }

    pub fn address(at: u64) -> Address {
        Address::new(at)
    }
}
