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

use super::labels::{Label, Rank, What};
use super::table::{Form, TypeId};
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
/// Which argument of `_Hashtable` says whether hashes are kept.
const TRAITS: usize = 9;
/// Depth of a tree; one of 2^48 nodes has less than twice that of a balanced one.
const MAX_TREE_DEPTH: usize = 128;

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
        let is_whole = size > 0 && used.is_multiple_of(size) && (limit - begin).is_multiple_of(size);
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
        let (text, length, capacity) = (self.field(at, 0)?, self.field(at, 8)?, self.field(at, 16)?);
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

    /// A list: its anchor `{one, other, n}` is a node without a value. `forward`: where the link to the next node is.
    fn list(&mut self, at: u64, id: TypeId, forward: u64) -> Option<()> {
        let element = self.table.argument(id, 0)?;
        let count = self.field(at, 16)?;
        let first = self.field(at, forward)?;
        if first == at || count == 0 {
            return None;
        }
        // The ring closes behind as many nodes as the list counts, each with a link back.
        let mut before = at;
        let mut node = first;
        let mut seen = 0u64;
        while node != at {
            seen += 1;
            let is_next = self.field(node, 8 - forward) == Some(before);
            if seen > count.min(MAX_NODES) || !is_next || !self.spend() {
                return None;
            }
            before = node;
            node = self.field(node, forward)?;
        }
        if seen != count {
            return None;
        }
        self.chain(first, id, element, 16, forward, count)
    }

    /// Claims nodes from `node` on, `count` at most, whose values are at `value`.
    fn chain(
        &mut self,
        node: u64,
        id: TypeId,
        element: TypeId,
        value: u64,
        forward: u64,
        count: u64,
    ) -> Option<()> {
        let mut node = node;
        for _ in 0..count {
            if node == 0 || !self.spend() || !self.node(node, id, element, value, 0) {
                break;
            }
            node = self.word(node.checked_add(forward)?)?;
        }
        Some(())
    }

    /// Claims one node; `behind`: bytes behind the value. False if no node can be there, or it is claimed already.
    fn node(&mut self, node: u64, id: TypeId, element: TypeId, value: u64, behind: u64) -> bool {
        let size = self.table.get(element).map_or(0, |element| element.size);
        let whole = (value.saturating_add(size).saturating_add(7) & !7).saturating_add(behind);
        let fits = self
            .block_at(node)
            .is_some_and(|(_, bytes)| crate::types::fits(bytes, whole));
        let (Some(at), Ok(inside)) = (node.checked_add(value), u32::try_from(value)) else {
            return false;
        };
        let work = Work {
            at,
            of: element,
            count: 1,
        };
        fits && self.own(node, What::Node(id, inside), Some(work))
    }

    fn tree(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (_, inner) = self.table.member(id, &["_M_t"])?;
        let element = self.table.argument(inner, 1)?;
        let (root, count) = (self.field(at, 16)?, self.field(at, 40)?);
        // Links of a node, and where its value is.
        let shape = TreeShape {
            parent: 8,
            left: 16,
            right: 24,
            value: 32,
        };
        self.tree_of(root, at.checked_add(8)?, count, shape, id, element)
    }

    fn leaf_tree(&mut self, at: u64, id: TypeId) -> Option<()> {
        let element = self.leaf_value(id)?;
        let (root, count) = (self.field(at, 8)?, self.field(at, 16)?);
        let align = self.alignment(element);
        let shape = TreeShape {
            parent: 16,
            left: 0,
            right: 8,
            value: 25u64.next_multiple_of(align),
        };
        self.tree_of(root, at.checked_add(8)?, count, shape, id, element)
    }

    /// The value of a libc++ map's or set's node: the key and the value behind it as one structure, or the key.
    fn leaf_value(&mut self, id: TypeId) -> Option<TypeId> {
        let inner = self
            .table
            .member(id, &["__tree_"])
            .or_else(|| self.table.member(id, &["__table_"]))?;
        self.table.argument(inner.1, 0)
    }

    /// Alignment as far as a value's place in a node depends on it: that of its largest part.
    fn alignment(&mut self, id: TypeId) -> u64 {
        let mut id = id;
        let mut best = 1;
        for _ in 0..super::table::MAX_DEPTH {
            let Some(known) = self.table.get(id) else {
                break;
            };
            match &known.form {
                Form::Structure(structure) => {
                    let members: Vec<TypeId> =
                        structure.members.iter().map(|member| member.of).collect();
                    let sizes = members.iter().filter_map(|member| {
                        let known = self.table.get(*member)?;
                        matches!(known.form, Form::Scalar | Form::Pointer(_)).then_some(known.size)
                    });
                    best = best.max(sizes.max().unwrap_or(1));
                    if known.size.is_multiple_of(8) && members.len() > 1 {
                        return 8;
                    }
                    match members.first() {
                        Some(first) => id = *first,
                        None => break,
                    }
                }
                Form::Array { element, .. } => id = *element,
                Form::Scalar | Form::Pointer(_) => return known.size.clamp(best, 16),
                _ => return 8,
            }
        }
        best.clamp(1, 16)
    }

    fn tree_of(
        &mut self,
        root: u64,
        header: u64,
        count: u64,
        shape: TreeShape,
        id: TypeId,
        element: TypeId,
    ) -> Option<()> {
        if root == 0 || count == 0 || self.word(root.checked_add(shape.parent)?)? != header {
            return None;
        }
        let mut left = vec![root];
        let mut seen = 0u64;
        while let Some(node) = left.pop() {
            seen += 1;
            if seen > count.min(MAX_NODES) || !self.spend() {
                break;
            }
            if !self.node(node, id, element, shape.value, 0) {
                continue;
            }
            for link in [shape.right, shape.left] {
                let child = self.word(node.checked_add(link)?)?;
                let is_child = child != 0
                    && child
                        .checked_add(shape.parent)
                        .is_some_and(|at| self.word(at) == Some(node));
                if is_child && left.len() < MAX_TREE_DEPTH {
                    left.push(child);
                }
            }
        }
        Some(())
    }

    fn hash(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (buckets, count) = (self.field(at, 0)?, self.field(at, 8)?);
        let (first, elements) = (self.field(at, 16)?, self.field(at, 24)?);
        let (_, inner) = self.table.member(id, &["_M_h"])?;
        let element = self.table.argument(inner, 1)?;
        // One bucket stands in the container itself, which may begin a block.
        let is_one = buckets.checked_sub(48) == Some(at);
        if !is_one {
            self.table_of(id, buckets, count);
        }
        let align = self.alignment(element).max(8);
        let value = 8u64.next_multiple_of(align);
        // Slow hashes are kept behind the value.
        let traits = self.table.argument(inner, TRAITS)?;
        let traits = self.table.get(traits)?;
        let is_kept = traits.name.as_deref()?.contains("_Hashtable_traits<true");
        let behind = if is_kept { 8 } else { 0 };
        let mut node = first;
        for _ in 0..elements.min(MAX_NODES) {
            if node == 0 || !self.spend() || !self.node(node, id, element, value, behind) {
                break;
            }
            node = self.word(node)?;
        }
        Some(())
    }

    /// Claims a table of `count` pointers.
    fn table_of(&mut self, id: TypeId, start: u64, count: u64) -> Option<()> {
        let (_, bytes) = self.block_at(start)?;
        let fits = count.checked_mul(8)? <= bytes;
        (fits && self.own(start, What::Table(id), None)).then_some(())
    }

    fn hash_of_all(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (buckets, count) = (self.field(at, 0)?, self.field(at, 8)?);
        let (first, elements) = (self.field(at, 16)?, self.field(at, 24)?);
        let element = self.leaf_value(id)?;
        self.table_of(id, buckets, count);
        let align = self.alignment(element);
        let value = 16u64.next_multiple_of(align);
        self.chain(first, id, element, value, 0, elements.min(MAX_NODES))
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
        let is_table = slots.checked_mul(8)? <= bytes && table <= first && first <= last && last < end;
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

/// Where a tree's node has what.
#[derive(Clone, Copy)]
struct TreeShape {
    parent: u64,
    left: u64,
    right: u64,
    value: u64,
}
