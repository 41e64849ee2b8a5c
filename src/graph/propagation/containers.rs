//! Containers of libstdc++ and libc++: which block is theirs, and what its elements are.
//!
//! ```text
//!            libstdc++ (new ABI)                                libc++ (ABI 1)
//! string     {p, length, capacity or text}  32                  short: length·2, text; long: {capacity|1, length, p}  24
//! vector     {begin, end, capacity's end}                        the same  24
//! list       {next, prev, n}  node {next, prev, T}  24           {prev, next, n}  node {prev, next, T}  24
//! map, set   {compare, color, parent, left, right, n}  48        {leftmost, root, n}  24
//!            node {color, parent, left, right, T}                 node {left, right, parent, black, T}
//! unordered  {buckets, nb, first, n, load, resize, one}  56      {buckets, nb, first, n, load}  40
//!            node {next, T, hash or not}                          node {next, hash, T}
//! deque      {table, size, start{cur,first,last,node}, finish}  80    {table, first, last, limit, start, n}  48
//! ```
//!
//! A container whose words do not agree with each other, or with the blocks that they lead to, is left alone: it was not made yet, or it is damaged.

mod nodes;

use super::labels::{Label, Rank, What};
use super::table::TypeId;
use super::walker::{Walker, Work};

/// What kind of container a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// libstdc++ and libc++.
    Vector,
    /// `std::vector<bool>` of both.
    BitVector,
    /// libstdc++.
    String,
    List,
    ForwardList,
    Tree,
    Hash,
    Deque,
    /// The control block of `make_shared`.
    Counted,
    /// libc++.
    ShortString,
    BackwardList,
    LeafTree,
    HashOfAll,
    SplitDeque,
    /// Rust: `Vec`, `String`, `VecDeque`, `HashMap` and `HashSet`, `BTreeMap`, a pointer to a trait object.
    RustVec,
    RustString,
    RustDeque,
    RustTable,
    RustTree,
    RustObject,
}

/// Nodes and elements of one container.
const MAX_NODES: u64 = 1 << 28;

/// The container that a structure of this name and size is.
pub fn classify(name: &str, size: u64) -> Option<Container> {
    if let Some(rust) = super::rust::classify(name) {
        return Some(rust);
    }
    let rest = name.strip_prefix("std::")?;
    if let Some(rest) = rest.strip_prefix("__1::") {
        let (base, _) = rest.split_once('<')?;
        return Some(match (base, size) {
            ("vector", 24) if rest.starts_with("vector<bool") => Container::BitVector,
            ("vector", 24) => Container::Vector,
            ("basic_string", 24) => Container::ShortString,
            ("list", 24) => Container::BackwardList,
            ("map" | "set" | "multimap" | "multiset", 24) => Container::LeafTree,
            (
                "unordered_map" | "unordered_set" | "unordered_multimap" | "unordered_multiset",
                40,
            ) => Container::HashOfAll,
            ("deque", 48) => Container::SplitDeque,
            _ => return None,
        });
    }
    let rest = rest.strip_prefix("__cxx11::").unwrap_or(rest);
    let (base, _) = rest.split_once('<')?;
    Some(match (base, size) {
        ("vector", 40) if rest.starts_with("vector<bool") => Container::BitVector,
        ("vector", 24) => Container::Vector,
        ("basic_string", 32) => Container::String,
        ("list", 24) => Container::List,
        ("forward_list", 8) => Container::ForwardList,
        ("map" | "set" | "multimap" | "multiset", 48) => Container::Tree,
        ("unordered_map" | "unordered_set" | "unordered_multimap" | "unordered_multiset", 56) => {
            Container::Hash
        }
        ("deque", 80) => Container::Deque,
        ("_Sp_counted_ptr_inplace", _) => Container::Counted,
        _ => return None,
    })
}

impl Walker<'_, '_, '_> {
    /// Follows what a container at `at` holds.
    pub fn container(&mut self, kind: Container, at: u64, id: TypeId) -> Option<()> {
        match kind {
            Container::Vector => self.vector(at, id),
            Container::BitVector => {
                let start = self.field(at, 0)?;
                self.own(start, What::Buffer(id), None);
                Some(())
            }
            Container::String => self.string(at, id),
            Container::ShortString => self.short_string(at, id),
            Container::List => self.list(at, id, 0),
            Container::BackwardList => self.list(at, id, 8),
            Container::ForwardList => {
                let element = self.table.argument(id, 0)?;
                let first = self.field(at, 0)?;
                self.chain(first, id, element, 8, 0, MAX_NODES)
            }
            Container::Tree => self.tree(at, id),
            Container::LeafTree => self.leaf_tree(at, id),
            Container::Hash => self.hash(at, id),
            Container::HashOfAll => self.hash_of_all(at, id),
            Container::Deque => self.deque(at, id),
            Container::SplitDeque => self.split_deque(at, id),
            Container::Counted => self.counted(at, id),
            _ => self.rust_container(kind, at, id),
        }
    }

    /// Claims the block that begins at `start` for a container, and follows what it holds.
    pub fn own(&mut self, start: u64, what: What, inside: Option<Work>) -> bool {
        let Some((node, _)) = self.block_at(start) else {
            return false;
        };
        let label = Label {
            what,
            of: inside.map(|work| work.of),
            rank: self.rank.max(Rank::Container),
        };
        self.claim(node, label, inside)
    }

    fn vector(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (begin, end, limit) = (self.field(at, 0)?, self.field(at, 8)?, self.field(at, 16)?);
        if begin == 0 || end < begin || limit < end {
            return None;
        }
        let element = self.table.argument(id, 0)?;
        let size = self.table.get(element)?.size;
        let used = end - begin;
        let (_, bytes) = self.block_at(begin)?;
        let is_whole =
            size > 0 && used.is_multiple_of(size) && (limit - begin).is_multiple_of(size);
        if !is_whole || limit - begin > bytes {
            return None;
        }
        let work = Work {
            at: begin,
            of: element,
            count: used / size,
        };
        self.own(begin, What::Buffer(id), Some(work));
        Some(())
    }

    fn string(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (text, length, capacity) =
            (self.field(at, 0)?, self.field(at, 8)?, self.field(at, 16)?);
        if text.checked_sub(16) == Some(at) {
            return None; // within the string itself
        }
        self.characters(id, text, length, capacity)
    }

    /// Text of `length` characters in a block with room for `capacity`, and the zero behind them.
    fn characters(&mut self, id: TypeId, text: u64, length: u64, capacity: u64) -> Option<()> {
        let character = self.table.argument(id, 0)?;
        let size = self.table.get(character)?.size.max(1);
        let (_, bytes) = self.block_at(text)?;
        let room = capacity.checked_add(1)?.checked_mul(size)?;
        if length > capacity || room > bytes {
            return None;
        }
        let end = text.checked_add(length.checked_mul(size)?)?;
        if self.number(end, size.min(8))? != 0 {
            return None;
        }
        self.own(text, What::Characters(id), None);
        Some(())
    }

    fn short_string(&mut self, at: u64, id: TypeId) -> Option<()> {
        let capacity = self.field(at, 0)?;
        if capacity & 1 == 0 {
            return None; // within the string itself
        }
        let room = (capacity & !1).checked_sub(1)?;
        let (length, text) = (self.field(at, 8)?, self.field(at, 16)?);
        self.characters(id, text, length, room)
    }

    fn deque(&mut self, at: u64, id: TypeId) -> Option<()> {
        const BUFFER: u64 = 512;
        let element = self.table.argument(id, 0)?;
        let size = self.table.get(element)?.size;
        let (table, slots) = (self.field(at, 0)?, self.field(at, 8)?);
        let (start, first) = (self.field(at, 16)?, self.field(at, 40)?);
        let (finish, last) = (self.field(at, 48)?, self.field(at, 72)?);
        let (_, bytes) = self.block_at(table)?;
        let end = table.checked_add(slots.checked_mul(8)?)?;
        let is_table =
            slots.checked_mul(8)? <= bytes && table <= first && first <= last && last < end;
        if size == 0 || !is_table {
            return None;
        }
        self.own(table, What::Table(id), None);
        let each = (BUFFER / size).max(1);
        let mut slot = first;
        while slot <= last && self.spend() {
            let buffer = self.word(slot)?;
            let from = if slot == first { start } else { buffer };
            let to = match slot == last {
                true => finish,
                false => buffer.checked_add(each.checked_mul(size)?)?,
            };
            let inside = from >= buffer && to >= from && to - buffer <= each.checked_mul(size)?;
            let (_, bytes) = self.block_at(buffer)?;
            if !inside || bytes < each.checked_mul(size)? {
                return None;
            }
            let work = Work {
                at: from,
                of: element,
                count: (to - from) / size,
            };
            self.own(buffer, What::Buffer(id), Some(work));
            slot = slot.checked_add(8)?;
        }
        Some(())
    }

    /// A table whose used part is `first..last`; elements count from `start` in the first buffer.
    fn split_deque(&mut self, at: u64, id: TypeId) -> Option<()> {
        const BUFFER: u64 = 4096;
        const LEAST: u64 = 16;
        let element = self.table.argument(id, 0)?;
        let size = self.table.get(element)?.size;
        let (table, first) = (self.field(at, 0)?, self.field(at, 8)?);
        let (last, limit) = (self.field(at, 16)?, self.field(at, 24)?);
        let (start, count) = (self.field(at, 32)?, self.field(at, 40)?);
        let each = match size < BUFFER / LEAST {
            true => BUFFER.checked_div(size)?,
            false => LEAST,
        };
        let (_, bytes) = self.block_at(table)?;
        let is_table = table <= first && first <= last && last <= limit;
        if !is_table || limit.checked_sub(table)? > bytes {
            return None;
        }
        self.own(table, What::Table(id), None);
        let end = start.checked_add(count)?;
        let mut slot = first;
        let mut before = 0u64;
        while slot < last && self.spend() {
            let buffer = self.field(slot, 0)?;
            let behind = before.checked_add(each)?;
            let (from, to) = (start.clamp(before, behind), end.clamp(before, behind));
            let (_, bytes) = self.block_at(buffer)?;
            if bytes < each.checked_mul(size)? {
                return None;
            }
            let inside = from.checked_sub(before)?.checked_mul(size)?;
            let work = Work {
                at: buffer.checked_add(inside)?,
                of: element,
                count: to.saturating_sub(from),
            };
            self.own(buffer, What::Buffer(id), Some(work));
            (slot, before) = (slot.checked_add(8)?, behind);
        }
        Some(())
    }

    /// The object that `make_shared` puts behind its counts.
    fn counted(&mut self, at: u64, id: TypeId) -> Option<()> {
        let element = self.table.argument(id, 0)?;
        let (offset, _) = self.table.member(id, &["_M_impl", "_M_storage"])?;
        self.inside(at.checked_add(offset)?, element);
        Some(())
    }
}
