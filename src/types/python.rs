//! Objects of CPython (3.9 to 3.13 with the lock): each names its type.
//!
//! ```text
//! object ──> +0 references   +8 type ──> +8 its type ... ──> `type`, whose type is itself
//!                                        +24 name   +32 bytes of an object   +40 bytes of an item
//! in front of an object that the collector knows stand 2 words, of one with a dictionary of its own 2 more
//! ```
//!
//! Blocks of up to 512 bytes come from pools in mappings of the interpreter's own (Include/internal/pycore_obmalloc.h):
//!
//! ```text
//! pool, 16 KiB (3.10 and later) or 4 KiB ──> +0 u32 in use   +8 first free   +32 u32 arena   +36 u32 class   +40 u32 used to   +44 u32 size - block
//! ```
//!
//! Nothing depends on an address that is known beforehand: the one object whose type is itself is looked for, and its name is `type`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use ground::parallel;
use ground::target::{Address, MemoryExt, TargetMemory};
use heaps::map::BlockState;
use postmortem::session::Session;

use super::{KnownBy, Place, Type};

/// Bytes of modules' data that are looked through for `type`.
const MAX_DATA: u64 = 64 << 20;
/// Longest name of a type.
const MAX_NAME: u64 = 256;
/// Types of types of types.
const MAX_CHAIN: usize = 4;
/// References to one object: 2^32 - 1 is an immortal one.
const MAX_REFERENCES: u64 = 1 << 32;
/// Types that are remembered.
const MAX_TYPES: usize = 1 << 20;
/// Bytes of the smallest `str`, whose type says more.
const LEAST_TEXT: u64 = 40;
/// Where in a block an object can begin.
const STARTS: [u64; 3] = [0, 16, 32];
/// Pools that are looked at.
const MAX_POOLS: u64 = 1 << 24;
/// Bytes of a pool's header.
const POOL_HEADER: u64 = 48;
/// Buffers of objects that are remembered.
const MAX_BUFFERS: usize = 1 << 22;

/// Where objects of a type keep a pointer to what else is theirs.
const BUFFERS: [(&str, u64, &str); 4] = [
    ("dict", 32, "keys of dict"),
    ("dict", 40, "values of dict"),
    ("list", 24, "items of list"),
    ("set", 40, "table of set"),
];

/// A type of Python's.
#[derive(Clone, Debug)]
struct Class {
    name: Arc<str>,
    basic: u64,
}

/// The interpreter of one process.
pub struct Python {
    of_types: u64,
    module: String,
    known: RwLock<BTreeMap<u64, Option<Class>>>,
}

/// Objects of one type in the interpreter's own pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// Its name; `None`: no object.
    pub name: Option<String>,
    /// How many.
    pub blocks: u64,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// The lowest.
    pub example: Address,
}

impl Python {
    /// The interpreter of a process; `None` if it has none, or `type` has no name that can be read.
    pub fn find(session: &Session) -> Option<Self> {
        let memory = session.target().memory;
        let mut left = MAX_DATA;
        for module in session.modules().modules() {
            for segment in &module.segments {
                let range = &segment.range;
                let bytes = range.end.offset_from(range.start).unwrap_or(u64::MAX);
                if segment.executable || bytes > left {
                    continue;
                }
                left = left.saturating_sub(bytes);
                let own = |at: Address, word: u64| at.get().checked_sub(8) == Some(word);
                let mut found = ground::scan::words_in(memory, range.clone(), own);
                let of_types = found.find_map(|(_, word)| {
                    let name = name_of(memory, word)?;
                    (name == "type").then_some(word)
                });
                if let Some(of_types) = of_types {
                    return Some(Self {
                        of_types,
                        module: module.name.clone(),
                        known: RwLock::default(),
                    });
                }
            }
        }
        None
    }

    /// The object that a block holds.
    pub fn of_block(&self, memory: &dyn TargetMemory, block: Place) -> Option<Type> {
        if block.state != BlockState::InUse {
            return None;
        }
        let (_, class) = self.object_in(memory, block.address.get(), block.bytes)?;
        Some(Type {
            name: format!("Python {}", class.name),
            known_by: KnownBy::Content,
            module: self.module.clone(),
            size: Some(class.basic),
            was: false,
            is_base: false,
            conflict: None,
        })
    }

    /// The object in a block: where it begins, and its type.
    fn object_in(&self, memory: &dyn TargetMemory, start: u64, bytes: u64) -> Option<(u64, Class)> {
        STARTS.iter().find_map(|ahead| {
            let at = start.checked_add(*ahead)?;
            let room = bytes.checked_sub(*ahead)?;
            let references = word(memory, at, 0)?;
            if references == 0 || references >= MAX_REFERENCES {
                return None;
            }
            let class = self.class(memory, word(memory, at, 8)?)?;
            let least = match &*class.name {
                "str" => LEAST_TEXT,
                _ => class.basic,
            };
            (least <= room).then_some((at, class))
        })
    }

    /// The type at an address.
    fn class(&self, memory: &dyn TargetMemory, at: u64) -> Option<Class> {
        if at == 0 || !at.is_multiple_of(8) {
            return None;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&at) {
            return known.clone();
        }
        drop(known);
        let found = self.read_class(memory, at);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_TYPES {
            known.insert(at, found.clone());
        }
        found
    }

    fn read_class(&self, memory: &dyn TargetMemory, at: u64) -> Option<Class> {
        let mut of = at;
        let is_type = (0..MAX_CHAIN).any(|_| {
            of = word(memory, of, 8).unwrap_or(0);
            of == self.of_types
        });
        let basic = word(memory, at, 32)?;
        if !is_type || !(16..=1 << 20).contains(&basic) {
            return None;
        }
        Some(Class {
            name: name_of(memory, at)?.into(),
            basic,
        })
    }

    /// Objects in the interpreter's own pools, by type, those with most bytes first.
    pub fn objects(&self, memory: &dyn TargetMemory, mappings: &[Range<Address>]) -> Vec<Objects> {
        let pools = pools(memory, mappings);
        let parts = parallel::map(&pools, |pool| {
            let mut objects: Vec<(u64, Option<Class>)> = Vec::new();
            pool.each_used(memory, |at| {
                let found = self.object_in(memory, at, pool.size);
                objects.push((at, found.map(|(_, class)| class)));
            });
            let mut buffers = Vec::new();
            for (at, class) in &objects {
                let Some(class) = class else { continue };
                let Some((start, _)) = self.object_in(memory, *at, pool.size) else {
                    continue;
                };
                for (kind, (of, offset, _)) in BUFFERS.iter().enumerate() {
                    if **of == *class.name
                        && let Some(to) = word(memory, start, *offset)
                    {
                        buffers.push((to, kind));
                    }
                }
            }
            (objects, buffers)
        });
        let buffers = parts.iter().flat_map(|(_, buffers)| buffers);
        let mut buffers: Vec<(u64, usize)> = buffers.copied().take(MAX_BUFFERS).collect();
        buffers.sort_unstable();
        let mut sums: BTreeMap<Option<String>, Objects> = BTreeMap::new();
        for (pool, (objects, _)) in pools.iter().zip(&parts) {
            for (at, class) in objects {
                let buffer = || {
                    let place = buffers.partition_point(|(start, _)| start < at);
                    let (_, kind) = buffers.get(place).filter(|(start, _)| start == at)?;
                    let (_, _, name) = BUFFERS.get(*kind)?;
                    Some((*name).to_owned())
                };
                let name = match class {
                    Some(class) => Some(class.name.to_string()),
                    None => buffer(),
                };
                let sum = sums.entry(name.clone()).or_insert(Objects {
                    name,
                    blocks: 0,
                    bytes: 0,
                    example: Address::new(*at),
                });
                sum.blocks = sum.blocks.saturating_add(1);
                sum.bytes = sum.bytes.saturating_add(pool.size);
                sum.example = sum.example.min(Address::new(*at));
            }
        }
        let mut rows: Vec<Objects> = sums.into_values().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        rows
    }
}

/// A pool of blocks of one size.
#[derive(Clone, Copy, Debug)]
struct Pool {
    start: u64,
    /// Bytes of a block.
    size: u64,
    /// Bytes from the pool's start to the first block that never was used.
    used: u64,
    free: u64,
}

impl Pool {
    /// The pool at an address, if its header agrees with itself.
    fn at(memory: &dyn TargetMemory, start: u64, bytes: u64) -> Option<Self> {
        let half = |offset: u64| {
            let at = Address::new(start.checked_add(offset)?);
            memory.read_u32(at).ok().map(u64::from)
        };
        let class = half(36).filter(|class| *class < 32)?;
        let size = class.checked_add(1)?.checked_mul(16)?;
        let used = half(40)?;
        let is_pool = half(44)? == bytes.checked_sub(size)?
            && half(0)?.checked_mul(size)? <= bytes
            && used <= bytes
            && used >= POOL_HEADER
            && used.checked_sub(POOL_HEADER)?.is_multiple_of(size);
        let free = word(memory, start, 8)?;
        let is_inside = free == 0 || (start..start.saturating_add(bytes)).contains(&free);
        (is_pool && is_inside && half(0)? > 0).then_some(Self {
            start,
            size,
            used,
            free,
        })
    }

    /// Calls `visit` with each block in use.
    fn each_used(&self, memory: &dyn TargetMemory, mut visit: impl FnMut(u64)) {
        let count = self.used.saturating_sub(POOL_HEADER) / self.size.max(1);
        let mut is_free = vec![false; usize::try_from(count).unwrap_or(0)];
        let first = self.start.saturating_add(POOL_HEADER);
        let mut free = self.free;
        for _ in 0..count {
            let Some(inside) = free.checked_sub(first).filter(|_| free != 0) else {
                break;
            };
            let index = usize::try_from(inside / self.size.max(1)).unwrap_or(usize::MAX);
            let Some(slot) = is_free.get_mut(index).filter(|slot| !**slot) else {
                break;
            };
            *slot = true;
            free = word(memory, free, 0).unwrap_or(0);
        }
        for (index, is_free) in (0u64..).zip(&is_free) {
            if !is_free {
                visit(first.saturating_add(index.saturating_mul(self.size)));
            }
        }
    }
}

/// All pools in mappings of the program's own.
fn pools(memory: &dyn TargetMemory, mappings: &[Range<Address>]) -> Vec<Pool> {
    let mut left = MAX_POOLS;
    let mut found = Vec::new();
    for range in mappings {
        for bytes in [16u64 << 10, 4 << 10] {
            let before = found.len();
            let mut at = range.start.get().checked_next_multiple_of(bytes);
            while let Some(start) = at
                && left > 0
                && start.saturating_add(bytes) <= range.end.get()
            {
                left -= 1;
                found.extend(Pool::at(memory, start, bytes));
                at = start.checked_add(bytes);
            }
            if found.len() > before {
                break;
            }
        }
    }
    found
}

fn word(memory: &dyn TargetMemory, at: u64, offset: u64) -> Option<u64> {
    memory.read_u64(Address::new(at.checked_add(offset)?)).ok()
}

/// The name of the type at an address.
fn name_of(memory: &dyn TargetMemory, at: u64) -> Option<String> {
    let mut next = word(memory, at, 24)?;
    let mut name = String::new();
    for _ in 0..MAX_NAME {
        match memory.read_u8(Address::new(next)).ok()? {
            0 => return Some(name).filter(|name| !name.is_empty()),
            byte if byte.is_ascii_graphic() || byte == b' ' => name.push(char::from(byte)),
            _ => return None,
        }
        next = next.checked_add(1)?;
    }
    None
}
