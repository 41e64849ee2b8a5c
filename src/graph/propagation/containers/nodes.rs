//! Containers that are made of nodes: lists, trees, hash tables.

use super::super::labels::What;
use super::super::table::{Form, MAX_DEPTH, TypeId};
use super::super::walker::{Walker, Work};
use super::MAX_NODES;
use crate::types::fits;

/// Which argument of `_Hashtable` says whether hashes are kept.
const TRAITS: usize = 9;
/// Depth of a tree; one of 2^48 nodes has less than twice that of a balanced one.
const MAX_TREE_DEPTH: usize = 128;

impl Walker<'_, '_, '_> {
    /// A list: its anchor `{one, other, n}` is a node without a value. `forward`: where the link to the next node is.
    pub(super) fn list(&mut self, at: u64, id: TypeId, forward: u64) -> Option<()> {
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
    pub(super) fn chain(
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
            .is_some_and(|(_, bytes)| fits(bytes, whole));
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

    pub(super) fn tree(&mut self, at: u64, id: TypeId) -> Option<()> {
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

    pub(super) fn leaf_tree(&mut self, at: u64, id: TypeId) -> Option<()> {
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
        for _ in 0..MAX_DEPTH {
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

    pub(super) fn hash(&mut self, at: u64, id: TypeId) -> Option<()> {
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

    pub(super) fn hash_of_all(&mut self, at: u64, id: TypeId) -> Option<()> {
        let (buckets, count) = (self.field(at, 0)?, self.field(at, 8)?);
        let (first, elements) = (self.field(at, 16)?, self.field(at, 24)?);
        let element = self.leaf_value(id)?;
        self.table_of(id, buckets, count);
        let align = self.alignment(element);
        let value = 16u64.next_multiple_of(align);
        self.chain(first, id, element, value, 0, elements.min(MAX_NODES))
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
