//! A small process with jemalloc 5.3.0, page map of 48 bits, written word by word.
//!
//! The numbers are those of builds with debug information (see the design notes), not taken from the walker's layouts: a
//! wrong layout must not approve itself.

use ground::target::RegionKind;
use synth::{FakeMemory, Process, frame, module, thread};

pub const CODE: u64 = 0x7f00_0000_0000;
const DATA: u64 = CODE + 0x10_0000;
const DATA_BYTES: u64 = 0x30_0000;
const ARENAS: u64 = DATA + 0x40;
const EMAP: u64 = DATA + 0x9000;
const BIN_INFOS: u64 = DATA + 0x20_a000;
/// Sizes by class.
const ORDER: u64 = DATA + 0x20_c000;
/// The block of base memory: header, base, arena, descriptors, a leaf of the page map.
const BLOCK: u64 = 0x7f10_0000_0000;
const BLOCK_BYTES: u64 = 0x60_0000;
const BASE: u64 = BLOCK + 0xc0;
const ARENA: u64 = BLOCK + 0x10c0;
/// The first descriptor; the others follow, 128 bytes each.
pub const EDATA: u64 = BLOCK + 0x2_0000;
const LEAF: u64 = BLOCK + 0x20_0000;
/// The element of the first slab's only page.
pub const ELEMENT: u64 = LEAF + ((SLAB >> 12) & 0x3_ffff) * 8;
/// The page cache of dirty extents, its list and the heap that the only one is in.
const DIRTY_CACHE: u64 = ARENA + 0x29e8;
pub const DIRTY_LIST: u64 = DIRTY_CACHE + 0x2610;
pub const DIRTY_HEAP: u64 = DIRTY_CACHE + 0x70 + 0x20 + 7 * 32;
/// Pages in use.
pub const ACTIVE: u64 = ARENA + 0x29a0;
/// A leaf for memory of another gigabyte.
const FAR_LEAF: u64 = BLOCK + 0x40_0000;
const FAR: u64 = 0x7f40_0000_0000;
/// The slot of the page map that leads there.
pub const FAR_SLOT: u64 = EMAP + 0x78 + 8 * (FAR >> 30);
/// Two slabs of 64 regions of 64 bytes.
pub const SLAB: u64 = 0x7f20_0000_0000;
pub const SLAB_2: u64 = SLAB + 0x1000;
/// A large block of 16384 bytes, 64 bytes into its extent.
pub const LARGE: u64 = SLAB + 0x1_0040;
const DIRTY: u64 = SLAB + 0x2_0000;
/// The cache's entries: a large block of the allocator's own.
const STACK: u64 = SLAB + 0x3_0000;
const TLS: u64 = 0x7f30_0000_0000;
const THREAD_POINTER: u64 = TLS + 0x1800;
const TSD: u64 = THREAD_POINTER - 2632;
const SLOW: u64 = TSD + 0x100;
const CACHE: u64 = TSD + 0x358;
/// Class of 64 bytes.
const CLASS: u64 = 4;
const BIN: u64 = ARENA + 0x13468 + CLASS * 224;
const CAPACITY: u64 = 16;

#[derive(Clone)]
pub struct Scene {
    pub process: Process,
}

/// `e_bits`: slab, state, size class, free regions.
fn bits(slab: bool, state: u64, class: u64, free: u64) -> u64 {
    u64::from(slab) << 12 | 1 << 13 | state << 17 | class << 20 | free << 28
}

impl Scene {
    /// Everything in order: 61 small blocks and a large one in use, three in the cache of a thread that is elsewhere.
    pub fn healthy() -> Self {
        let mut memory = FakeMemory::new();
        memory.zeroes(CODE..CODE + 0x1000, "rx", RegionKind::File);
        memory.zeroes(DATA..DATA + DATA_BYTES, "rw", RegionKind::Anonymous);
        memory.zeroes(BLOCK..BLOCK + BLOCK_BYTES, "rw", RegionKind::Anonymous);
        memory.zeroes(SLAB..SLAB + 0x4_0000, "rw", RegionKind::Anonymous);
        memory.zeroes(TLS..TLS + 0x2000, "rw", RegionKind::Anonymous);
        let mut process = Process::new(memory);
        process.modules.push(module(
            0,
            "libjemalloc.so.2",
            &[(CODE..CODE + 0x1000, "rx"), (DATA..DATA + DATA_BYTES, "rw")],
        ));
        let elsewhere = 0x1000;
        let mut state = thread(7, elsewhere, THREAD_POINTER);
        state.sp = ground::target::Address::new(TLS + 0x1f00);
        process.threads.push(state, vec![frame(elsewhere, &[])]);
        let mut scene = Self { process };
        scene.write_globals();
        scene.write_arena();
        scene.write_extents();
        scene.write_thread();
        scene.cache(&[SLAB, SLAB + 64, SLAB + 128]);
        scene
    }

    fn word(&mut self, at: u64, value: u64) {
        self.process.memory.write_u64(at, value);
    }

    fn write_globals(&mut self) {
        self.word(ARENAS, ARENA);
        self.word(DATA + 8, ARENA); // a0
        self.word(EMAP, BASE);
        self.word(EMAP + 0x78 + 8 * (SLAB >> 30), LEAF);
        let mut sizes = vec![8u64];
        sizes.extend((1..=4).map(|k| 16 * k));
        for power in 6..14 {
            sizes.extend((1..=4).map(|k| (1 << power) + (k << (power - 2))));
        }
        for (row, size) in (0u64..36).zip(sizes) {
            let slab = (1..)
                .map(|pages| pages * 4096)
                .find(|slab| slab % size == 0);
            let slab = slab.unwrap();
            let regions = slab / size;
            let at = BIN_INFOS + row * 40;
            let words = [size, slab, regions | 1 << 32, regions, regions.div_ceil(64)];
            for (offset, word) in (0..).step_by(8).zip(words) {
                self.word(at + offset, word);
            }
        }
    }

    fn write_arena(&mut self) {
        self.word(BLOCK, BLOCK_BYTES);
        self.word(BASE + 0xa0, BLOCK);
        self.word(ARENA, 1); // threads
        self.word(ARENA + 0x13440, EMAP);
        self.word(ARENA + 0x13458, BASE);
        self.word(ACTIVE, 1 + 1 + 5 + 8);
        for (state, cache) in (1..).zip([0x29e8, 0x75d8, 0xc1c8]) {
            self.process.memory.write_u32(ARENA + cache + 0x4be0, state);
        }
        let dirty = EDATA + 3 * 128;
        self.word(DIRTY_LIST, dirty);
        self.word(DIRTY_CACHE + 0x2618, 8);
        self.word(dirty + 64, dirty);
        self.word(dirty + 72, dirty);
        // The root of one of its heaps.
        self.word(DIRTY_HEAP, dirty);
        self.set_current(EDATA);
        self.word(BIN + 200, EDATA + 128);
        self.word(BIN + 112, 100); // taken
        self.word(BIN + 112 + 8, 36); // given back
        self.set_regions(64);
        self.word(BIN + 112 + 64, 2);
        self.word(BIN + 112 + 72, 1);
    }

    fn write_extents(&mut self) {
        let extents = [
            (SLAB, 0x1000, bits(true, 0, CLASS, 4), true),
            (SLAB_2, 0x1000, bits(true, 0, CLASS, 60), true),
            (LARGE, 0x5000, bits(false, 0, 36, 0), false),
            (DIRTY, 0x8000, bits(false, 1, 232, 0), false),
            (STACK, 0x8000, bits(false, 0, 39, 0), false),
        ];
        for (row, (address, bytes, bits, slab)) in (0u64..).zip(extents) {
            let at = EDATA + row * 128;
            self.word(at, bits);
            self.word(at + 8, address);
            self.word(at + 16, bytes);
            let (class, state) = (bits >> 20 & 0xff, bits >> 17 & 7);
            let element = class << 48 | at | u64::from(slab) | state << 2;
            let page = (address >> 12) & 0x3_ffff;
            self.word(LEAF + page * 8, element);
            self.word(LEAF + (page + bytes / 4096 - 1) * 8, element);
        }
        // Ones are free: the last four of the first slab, all but four of the second.
        self.word(EDATA + 64, 0xf << 60);
        self.word(EDATA + 128 + 64, !0xf);
    }

    fn write_thread(&mut self) {
        self.word(TSD + 0x88, ARENA);
        self.word(TSD + 0x90, ARENA);
        self.word(SLOW, SLOW);
        self.word(SLOW + 8, SLOW);
        self.word(SLOW + 40, ARENA);
        self.word(SLOW + 160, STACK);
        self.word(SLOW + 168, CACHE);
        self.word(CACHE, SLOW);
        self.word(ARENA + 0x2898, SLOW);
    }

    /// A free extent of four pages in another gigabyte, the only one of its leaf, in the list of free extents and in a heap.
    pub fn go_far(&mut self) {
        let memory = &mut self.process.memory;
        memory.zeroes(FAR..FAR + 0x4000, "rw", RegionKind::Anonymous);
        let (dirty, far) = (EDATA + 3 * 128, EDATA + 5 * 128);
        self.word(FAR_SLOT, FAR_LEAF);
        self.word(far, bits(false, 1, 232, 0));
        self.word(far + 8, FAR);
        self.word(far + 16, 0x4000);
        let page = (FAR >> 12) & 0x3_ffff;
        for page in [page, page + 3] {
            self.word(FAR_LEAF + page * 8, 232 << 48 | far | 1 << 2);
        }
        for (at, other) in [(dirty, far), (far, dirty)] {
            self.word(at + 64, other);
            self.word(at + 72, other);
        }
        self.word(DIRTY_CACHE + 0x2618, 8 + 4);
        self.word(DIRTY_HEAP - 4 * 32, far);
    }

    /// What the cache holds of the class of 64 bytes: the one that malloc takes next comes first.
    pub fn cache(&mut self, entries: &[u64]) {
        let full = STACK + 0x100;
        let empty = full + CAPACITY * 8;
        let head = empty - entries.len() as u64 * 8;
        for (index, entry) in (0..).zip(entries) {
            self.word(head + index * 8, *entry);
        }
        let bin = CACHE + 8 + CLASS * 24;
        self.word(bin, head);
        // It was empty once: the low water mark is where it begins then.
        let low = empty & 0xffff;
        self.word(bin + 16, low | (full & 0xffff) << 16 | low << 32);
    }

    /// Free regions that the descriptor of a slab counts.
    pub fn set_free_count(&mut self, slab: u64, free: u64) {
        self.word(EDATA + slab * 128, bits(true, 0, CLASS, free));
    }

    /// The slab that the bin takes regions from.
    pub fn set_current(&mut self, slab: u64) {
        self.word(BIN + 192, slab);
    }

    /// Regions in use that the bin counts.
    pub fn set_regions(&mut self, count: u64) {
        self.word(BIN + 112 + 24, count);
    }

    /// The thread holds the bin's lock.
    pub fn hold_bin_lock(&mut self) {
        self.process.memory.write_u32(BIN + 64, 1);
        self.process.memory.write_u32(BIN + 72, 7);
    }

    /// The thread holds the lock of the dirty extents.
    pub fn hold_dirty_lock(&mut self) {
        self.process.memory.write_u32(DIRTY_CACHE + 64, 1);
        self.process.memory.write_u32(DIRTY_CACHE + 72, 7);
    }

    /// jemalloc is a part of the program: only functions that refer to its variables are its own.
    pub fn link_into_program(&mut self) {
        self.process.modules[0].is_executable = true;
        self.process.modules[0].name = "program".to_owned();
        // sz_index2size_tab.
        let mut sizes = vec![8u64];
        sizes.extend((1..=4).map(|k| 16 * k));
        for power in 6..61 {
            sizes.extend((1..=4).map(|k| (1 << power) + (k << (power - 2))));
        }
        for (index, size) in (0..232).zip(sizes) {
            self.word(ORDER + index * 8, size);
        }
    }

    /// The thread stopped in a function that looks sizes up, or in one that does not.
    pub fn stop_in_function(&mut self, looks_up: bool) {
        let start = CODE + 0x100;
        let from = start + 7;
        let to = if looks_up { ORDER } else { DATA + 0x2f_0000 };
        // lea to(%rip),%rax; ret
        let mut code = vec![0x48, 0x8d, 0x05];
        code.extend_from_slice(&((to - from) as u32).to_le_bytes());
        code.push(0xc3);
        self.process.memory.write(start, &code);
        let mut inside = frame(from, &[]);
        let at = ground::target::Address::new;
        inside.function = Some((at(start), at(start + 8)));
        self.process.threads.set_frames(0, vec![inside]);
    }

    /// Free memory holds 0x5a, ends of blocks in use 0xa5.
    pub fn fill_with_junk(&mut self) {
        for slab in [SLAB, SLAB_2] {
            self.process.memory.write(slab, &[0xa5; 0x1000]);
        }
        self.process.memory.write(SLAB, &[0x5a; 3 * 64]);
    }

    /// The thread stopped at this instruction.
    pub fn stop_at(&mut self, pc: u64) {
        self.process.threads.set_frames(0, vec![frame(pc, &[])]);
    }

    /// The table of size classes is one for pages of 64 KiB.
    pub fn say_pages_of_64k(&mut self) {
        let regions = 65536 / 8;
        for (offset, word) in (0..).step_by(8).zip([8, 65536, regions | 1 << 32, regions]) {
            self.word(BIN_INFOS + offset, word);
        }
        for row in 1..36 {
            self.word(BIN_INFOS + row * 40 + 8, 65536);
        }
    }
}
