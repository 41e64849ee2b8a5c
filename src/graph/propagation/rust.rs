//! Containers of Rust's standard library. Where their parts are is read from debug information: the compiler orders members as it likes.
//!
//! ```text
//! Vec, String   {cap, ptr, len}            VecDeque {cap, ptr, head, len}
//! HashMap       {ctrl, mask, growth_left, items}   ctrl: a byte for each bucket, 0x80 and more: empty; bucket i ends i sizes below ctrl
//! BTreeMap      {root {node, height}, length}      node {parent, keys[11], vals[11], len}, inner ones + edges[12]
//! Box<dyn T>    {pointer, vtable}
//! ```

use super::containers::Container;
use super::labels::{Label, Rank, What};
use super::table::{Form, TypeId};
use super::walker::{Walker, Work, is_tight};
use crate::types::{Place, fits};
use ground::target::Address;
use heaps::map::BlockState;

/// Bytes of a group of hashbrown's control bytes.
const GROUP: u64 = 16;
/// Buckets of one table.
const MAX_BUCKETS: u64 = 1 << 32;
/// Entries of a node of a B tree.
const MAX_ENTRIES: u64 = 11;
/// Nodes of one B tree that wait.
const MAX_WAITING: usize = 1 << 12;
/// Height of a B tree.
const MAX_HEIGHT: u64 = 24;
/// Bytes of a pointer to a trait object.
const FAT: u64 = 16;

/// The container that a structure of this name is.
pub fn classify(name: &str) -> Option<Container> {
    const MAPS: [&str; 4] = [
        "std::collections::hash::map::HashMap<",
        "std::collections::hash::set::HashSet<",
        "hashbrown::map::HashMap<",
        "hashbrown::set::HashSet<",
    ];
    let is_pointer = name.starts_with(['&', '*']) || name.starts_with("alloc::boxed::Box<");
    if is_pointer {
        return name.contains("dyn ").then_some(Container::RustObject);
    }
    if name == "alloc::string::String" {
        return Some(Container::RustString);
    }
    if MAPS.iter().any(|map| name.starts_with(map)) {
        return Some(Container::RustTable);
    }
    let rest = name.strip_prefix("alloc::")?;
    if rest.starts_with("vec::Vec<") {
        return Some(Container::RustVec);
    }
    let rest = rest.strip_prefix("collections::")?;
    if rest.starts_with("vec_deque::VecDeque<") {
        return Some(Container::RustDeque);
    }
    rest.starts_with("btree::map::BTreeMap<")
        .then_some(Container::RustTree)
}

impl Walker<'_, '_, '_> {
    /// Follows what a container of Rust's at `at` holds.
    pub fn rust_container(&mut self, kind: Container, at: u64, id: TypeId) -> Option<()> {
        match kind {
            Container::RustVec => self.rust_vec(at, id, What::Buffer(id)),
            Container::RustString => {
                let (offset, vec) = self.table.member(id, &["vec"])?;
                self.rust_vec(at.checked_add(offset)?, vec, What::Characters(id))
            }
            Container::RustDeque => self.rust_deque(at, id),
            Container::RustTable => self.rust_table(at, id),
            Container::RustTree => self.rust_tree(at, id),
            Container::RustObject => self.rust_object(at),
            _ => None,
        }
    }

    /// The buffer of a vector at `at`: pointer, capacity, type and size of an element. `None` where it has none of its own.
    fn rust_buffer(&mut self, at: u64, id: TypeId) -> Option<(u64, u64, TypeId, u64)> {
        let element = self.table.argument(id, 0)?;
        let size = self.table.get(element)?.size;
        let (buffer, raw) = self.table.member(id, &["buf"])?;
        let (pointer, _) = self.table.first_pointer(raw)?;
        let (capacity, _) = self
            .table
            .member(raw, &["inner", "cap"])
            .or_else(|| self.table.member(raw, &["cap"]))?;
        let start = self.field(at, buffer.checked_add(pointer)?)?;
        let capacity = self.field(at, buffer.checked_add(capacity)?)?;
        let (_, bytes) = self.block_at(start)?;
        let fits = capacity.checked_mul(size)? <= bytes;
        (size > 0 && capacity > 0 && fits).then_some((start, capacity, element, size))
    }

    fn rust_vec(&mut self, at: u64, id: TypeId, what: What) -> Option<()> {
        let (start, capacity, element, _) = self.rust_buffer(at, id)?;
        let (length, _) = self.table.member(id, &["len"])?;
        let length = self.field(at, length)?;
        if length > capacity {
            return None;
        }
        let work = Work {
            at: start,
            of: element,
            count: length,
        };
        self.own(start, what, Some(work));
        Some(())
    }

    fn rust_deque(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (start, capacity, element, size) = self.rust_buffer(at, id)?;
        let (head, _) = self.table.member(id, &["head"])?;
        let (length, _) = self.table.member(id, &["len"])?;
        let (head, length) = (self.field(at, head)?, self.field(at, length)?);
        if head >= capacity || length > capacity {
            return None;
        }
        let first = length.min(capacity - head);
        let work = |index: u64, count: u64| {
            let at = start.checked_add(index.checked_mul(size)?)?;
            Some(Work {
                at,
                of: element,
                count,
            })
        };
        if self.own(start, What::Buffer(id), work(head, first)) {
            let rest = length.saturating_sub(first);
            self.later(work(0, rest)?);
        }
        Some(())
    }

    fn rust_table(&mut self, at: u64, id: TypeId) -> Option<()> {
        let ways: [&[&str]; 4] = [
            &["base", "table"],
            &["base", "map", "table"],
            &["table"],
            &["map", "table"],
        ];
        let found = ways.iter().find_map(|way| self.table.member(id, way));
        let (offset, table) = found?;
        let at = at.checked_add(offset)?;
        let element = self.table.argument(table, 0)?;
        let size = self.table.get(element)?.size;
        let mut word = |names: &[&str]| {
            let (offset, _) = self.table.member(table, names)?;
            self.field(at, offset)
        };
        let mask = word(&["table", "bucket_mask"])?;
        let items = word(&["table", "items"])?;
        let control = word(&["table", "ctrl"])?;
        let buckets = mask.checked_add(1)?;
        if !buckets.is_power_of_two() || buckets > MAX_BUCKETS || size == 0 {
            return None;
        }
        let below = size.checked_mul(buckets)?.checked_next_multiple_of(GROUP)?;
        let start = control.checked_sub(below)?;
        let whole = below.checked_add(buckets)?.checked_add(GROUP)?;
        let (_, bytes) = self.block_at(start)?;
        if whole > bytes || items > buckets {
            return None;
        }
        if !self.own(start, What::Table(id), None) || self.table.is_inert(element) {
            return None;
        }
        let mut full = 0u64;
        for index in 0..buckets {
            if full >= items || !self.spend() {
                break;
            }
            let control = self.number(control.checked_add(index)?, 1)?;
            if control & 0x80 != 0 {
                continue;
            }
            full += 1;
            let back = index.checked_add(1)?.checked_mul(size)?;
            let at = start.checked_add(below)?.checked_sub(back)?;
            self.later(Work {
                at,
                of: element,
                count: 1,
            });
        }
        Some(())
    }

    /// What the variant of an `Option` that is not `None` holds.
    fn some_of(&mut self, id: TypeId) -> Option<(u64, TypeId)> {
        let known = self.table.get(id)?;
        let Form::Structure(structure) = &known.form else {
            return None;
        };
        let cases = &structure.variants.as_ref()?.cases;
        let mut members = cases.iter().flat_map(|(_, members)| members);
        let some = members.find(|member| member.name.as_deref() == Some("Some"))?;
        let (offset, of) = self.table.member(some.of, &["__0"])?;
        Some((some.offset.checked_add(offset)?, of))
    }

    fn rust_tree(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (root, option) = self.table.member(id, &["root"])?;
        let (length, _) = self.table.member(id, &["length"])?;
        let mut left = self.field(at, length)?;
        let (some, reference) = self.some_of(option)?;
        let root = root.checked_add(some)?;
        let (node, pointer) = self.table.member(reference, &["node"])?;
        let (inside, pointer) = self.table.first_pointer(pointer)?;
        let (height, _) = self.table.member(reference, &["height"])?;
        let Form::Pointer(Some(leaf)) = self.table.get(pointer)?.form else {
            return None;
        };
        let node = self.field(at, root.checked_add(node)?.checked_add(inside)?)?;
        let height = self.field(at, root.checked_add(height)?)?;
        if node == 0 || left == 0 || height > MAX_HEIGHT {
            return None;
        }
        let leaf_bytes = self.table.get(leaf)?.size;
        let (parent, parent_type) = self.table.member(leaf, &["parent"])?;
        let (_, inner) = self.some_of(parent_type)?;
        let (_, inner) = self.table.first_pointer(inner)?;
        let Form::Pointer(Some(inner)) = self.table.get(inner)?.form else {
            return None;
        };
        let inner_bytes = self.table.get(inner)?.size;
        let (edges, _) = self.table.member(inner, &["edges"])?;
        let (len, _) = self.table.member(leaf, &["len"])?;
        let (keys, _) = self.table.member(leaf, &["keys"])?;
        let values = self.table.member(leaf, &["vals"]);
        let key = self.table.argument(id, 0)?;
        let value = self.table.argument(id, 1);
        let mut waiting = vec![(node, height, 0u64)];
        while let Some((node, height, from)) = waiting.pop() {
            let count = self.number(node.checked_add(len)?, 2)?;
            let (_, bytes) = self.block_at(node)?;
            let whole = if height == 0 { leaf_bytes } else { inner_bytes };
            let is_child = self.field(node, parent)? == from;
            if count > MAX_ENTRIES || count > left || !fits(bytes, whole) || !is_child {
                return None;
            }
            left -= count;
            let works = [
                node.checked_add(keys).map(|at| (at, key)),
                values
                    .zip(value)
                    .and_then(|((offset, _), of)| Some((node.checked_add(offset)?, of))),
            ];
            if !self.spend() || !self.own(node, What::Node(id, 0), None) {
                return None;
            }
            for (at, of) in works.into_iter().flatten() {
                self.later(Work { at, of, count });
            }
            if let Some(height) = height.checked_sub(1) {
                for index in 0..=count {
                    let edge = edges.checked_add(index.checked_mul(8)?)?;
                    let child = self.field(node, edge)?;
                    if waiting.len() < MAX_WAITING {
                        waiting.push((child, height, node));
                    }
                }
            }
        }
        Some(())
    }

    /// A pointer to a trait object, with the table of its type behind it.
    fn rust_object(&mut self, at: u64) -> Option<()> {
        let (data, table) = (self.field(at, 0)?, self.field(at, 8)?);
        let (node, bytes) = self.block_at(data)?;
        let place = Place {
            address: Address::new(data),
            bytes,
            state: BlockState::InUse,
        };
        let types = &self.ground.types;
        let found = types.of_trait_object(place, table)?;
        let module = self
            .ground
            .session
            .modules()
            .module_at(Address::new(table))?;
        let definition = self.table.catalog().definition(module.id, &found.name);
        let of = definition.map(|definition| self.table.id(definition));
        let size = found.size.unwrap_or(0);
        let what = self.other(found)?;
        let label = Label {
            what,
            of,
            rank: Rank::Vtable,
        };
        let work = of.and_then(|of| {
            let counts = if is_tight(bytes, size) { 0 } else { FAT };
            Some(Work {
                at: data.checked_add(counts)?,
                of,
                count: 1,
            })
        });
        self.claim(node, label, work);
        Some(())
    }
}
