//! Questions about types: what is in a value, what it is called, what it begins with.

use std::sync::Arc;

use super::{Form, MAX_DEPTH, Table, TypeId};
use crate::types::shorten::shortened;

/// Offsets of a structure's pointers that are looked at.
const MAX_POINTERS: usize = 64;
/// Elements of an array within a structure whose pointers are looked at.
const MAX_ELEMENTS: u64 = 8;
/// Stars of a pointer's name.
const MAX_STARS: usize = 8;

/// What stands at a place within a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    Pointer,
    Number,
    /// Padding, a union, an enum of Rust's: nobody knows.
    Other,
}

impl Table<'_> {
    /// What stands so many bytes into a value of the type; a pointer only where it begins there.
    pub fn leaf(&mut self, of: TypeId, offset: u64) -> Leaf {
        let (mut id, mut offset) = (of, offset);
        for _ in 0..MAX_DEPTH {
            let Some(known) = self.get(id) else {
                return Leaf::Other;
            };
            match &known.form {
                Form::Pointer(_) if offset == 0 => return Leaf::Pointer,
                Form::Scalar => return Leaf::Number,
                Form::Array { element, .. } => {
                    let stride = self.get(*element).map_or(0, |element| element.size);
                    let Some(inside) = offset.checked_rem(stride) else {
                        return Leaf::Other;
                    };
                    (offset, id) = (inside, *element);
                }
                Form::Structure(structure) if structure.variants.is_none() => {
                    let mut members = structure.members.iter();
                    let found = members.find_map(|member| {
                        let inside = offset.checked_sub(member.offset)?;
                        let size = self.get(member.of)?.size;
                        (inside < size).then_some((inside, member.of))
                    });
                    match found {
                        Some(found) => (offset, id) = found,
                        None => return Leaf::Other,
                    }
                }
                _ => return Leaf::Other,
            }
        }
        Leaf::Other
    }

    /// Whether nothing in a value of the type leads to a block.
    pub fn is_inert(&mut self, id: TypeId) -> bool {
        self.inert_within(id, MAX_DEPTH)
    }

    fn inert_within(&mut self, id: TypeId, depth: usize) -> bool {
        let id = self.canonical(id);
        if let Some(Some(known)) = self.inert.get(id.0 as usize) {
            return *known;
        }
        let Some(depth) = depth.checked_sub(1) else {
            return true;
        };
        let Some(known) = self.get(id) else {
            return true;
        };
        // A type that holds itself is none.
        self.note_inert(id, true);
        let is_inert = match &known.form {
            Form::Scalar | Form::Union | Form::Opaque => true,
            Form::Pointer(None) => true,
            Form::Pointer(Some(target)) => !self.is_followed(*target),
            Form::Array { element, .. } => self.inert_within(*element, depth),
            Form::Structure(structure) => {
                let cases = structure.variants.iter().flat_map(|all| &all.cases);
                let mut members = structure
                    .members
                    .iter()
                    .chain(cases.flat_map(|(_, members)| members));
                structure.container.is_none()
                    && members.all(|member| self.inert_within(member.of, depth))
            }
        };
        self.note_inert(id, is_inert);
        is_inert
    }

    fn note_inert(&mut self, id: TypeId, is_inert: bool) {
        if let Some(slot) = self.inert.get_mut(id.0 as usize) {
            *slot = Some(is_inert);
        }
    }

    /// Whether a pointer to the type says what it points at: not `void*`, not a pointer to bytes, which is one to anything.
    pub fn is_followed(&mut self, target: TypeId) -> bool {
        let Some(known) = self.get(target) else {
            return false;
        };
        match &known.form {
            Form::Scalar => known.size > 1,
            Form::Opaque | Form::Union => false,
            Form::Pointer(_) => true,
            Form::Array { element, .. } => {
                let element = *element;
                self.get(element).is_some_and(|element| element.size > 1)
            }
            Form::Structure(_) => known.size > 0,
        }
    }

    /// Whether objects of the type begin with the address of a virtual table.
    pub fn has_table(&mut self, id: TypeId) -> bool {
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            let Some(known) = self.get(id) else {
                return false;
            };
            let Form::Structure(structure) = &known.form else {
                return false;
            };
            if structure.has_table {
                return true;
            }
            let mut bases = structure.members.iter();
            match bases.find(|member| member.is_base && member.offset == 0) {
                Some(base) => id = base.of,
                None => return false,
            }
        }
        false
    }

    /// Whether a structure ends in an array without a length: its block is as large as the program wished.
    pub fn is_open(&mut self, id: TypeId) -> bool {
        let Some(known) = self.get(id) else {
            return false;
        };
        let Form::Structure(structure) = &known.form else {
            return false;
        };
        let last = structure.members.iter().max_by_key(|member| member.offset);
        let Some(last) = last.map(|member| member.of) else {
            return false;
        };
        self.get(last).is_some_and(|last| match &last.form {
            Form::Array { count, .. } => count.is_none_or(|count| count == 0),
            _ => false,
        })
    }

    /// Whether `whole` begins with a value of `part`: as its base, or as its first member.
    pub fn begins_with(&mut self, whole: TypeId, part: TypeId) -> bool {
        let part = self.canonical(part);
        let mut id = self.canonical(whole);
        for _ in 0..MAX_DEPTH {
            if id == part || self.is_same(id, part) {
                return true;
            }
            let Some(known) = self.get(id) else {
                return false;
            };
            let Form::Structure(structure) = &known.form else {
                return false;
            };
            let mut members = structure.members.iter();
            match members.find(|member| member.offset == 0) {
                Some(first) => id = self.canonical(first.of),
                None => return false,
            }
        }
        false
    }

    /// Whether two descriptions, of two modules perhaps, are of one type.
    pub fn is_same(&mut self, one: TypeId, other: TypeId) -> bool {
        if self.canonical(one) == self.canonical(other) {
            return true;
        }
        let Some((one, other)) = self.get(one).zip(self.get(other)) else {
            return false;
        };
        match (&one.form, &other.form) {
            (Form::Pointer(Some(one)), Form::Pointer(Some(other))) => {
                let both = self.get(*one).zip(self.get(*other));
                both.is_some_and(|(one, other)| one.name.is_some() && one.name == other.name)
            }
            (Form::Pointer(None), Form::Pointer(None)) => true,
            _ => one.name.is_some() && one.name == other.name && one.size == other.size,
        }
    }

    /// Offsets of words in a value of the type that are pointers, as far as that is certain. Bounded.
    pub fn pointers(&mut self, id: TypeId) -> Arc<[u64]> {
        let id = self.canonical(id);
        if let Some(known) = self.pointers.get(&id) {
            return Arc::clone(known);
        }
        let mut found = Vec::new();
        let mut left = vec![(id, 0u64, 0usize)];
        let mut steps = 0;
        while let Some((id, offset, depth)) = left.pop() {
            steps += 1;
            if depth > MAX_DEPTH || steps > 4096 || found.len() >= MAX_POINTERS {
                break;
            }
            let Some(known) = self.get(id) else {
                continue;
            };
            match &known.form {
                Form::Pointer(_) => found.push(offset),
                Form::Array { element, count } => {
                    let stride = self.get(*element).map_or(0, |element| element.size);
                    let count = count.unwrap_or(0).min(MAX_ELEMENTS);
                    left.extend((0..count).map(|index| {
                        let inside = stride.saturating_mul(index);
                        (*element, offset.saturating_add(inside), depth + 1)
                    }));
                }
                Form::Structure(structure) if structure.variants.is_none() => {
                    left.extend(structure.members.iter().map(|member| {
                        (member.of, offset.saturating_add(member.offset), depth + 1)
                    }));
                }
                _ => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        let found: Arc<[u64]> = found.into();
        self.pointers.insert(id, Arc::clone(&found));
        found
    }

    /// A member of a structure that lies `names` deep, or that is reached through bases: its place and its type.
    pub fn member(&mut self, id: TypeId, names: &[&str]) -> Option<(u64, TypeId)> {
        let (mut id, mut offset) = (id, 0u64);
        for name in names {
            let (inside, of) = self.member_called(id, name)?;
            offset = offset.checked_add(inside)?;
            id = of;
        }
        Some((offset, id))
    }

    fn member_called(&mut self, id: TypeId, name: &str) -> Option<(u64, TypeId)> {
        let mut left = vec![(id, 0u64, 0usize)];
        while let Some((id, offset, depth)) = left.pop() {
            let known = self.get(id)?;
            let Form::Structure(structure) = &known.form else {
                continue;
            };
            for member in &structure.members {
                let inside = offset.checked_add(member.offset)?;
                if member.name.as_deref() == Some(name) {
                    return Some((inside, member.of));
                }
                if member.is_base && depth < MAX_DEPTH && left.len() < MAX_POINTERS {
                    left.push((member.of, inside, depth + 1));
                }
            }
        }
        None
    }

    /// The first pointer within a value of the type: its place and its type.
    pub fn first_pointer(&mut self, id: TypeId) -> Option<(u64, TypeId)> {
        let mut left = vec![(id, 0u64, 0usize)];
        let mut steps = 0;
        while let Some((id, offset, depth)) = left.pop() {
            steps += 1;
            if depth > MAX_DEPTH || steps > 256 {
                return None;
            }
            let known = self.get(id)?;
            match &known.form {
                Form::Pointer(_) => return Some((offset, id)),
                Form::Structure(structure) => {
                    for member in structure.members.iter().rev() {
                        let inside = offset.checked_add(member.offset)?;
                        left.push((member.of, inside, depth + 1));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// A type argument of a template.
    pub fn argument(&mut self, id: TypeId, index: usize) -> Option<TypeId> {
        let known = self.get(id)?;
        let Form::Structure(structure) = &known.form else {
            return None;
        };
        *structure.arguments.get(index)?
    }

    /// A type's name as a person writes it, stars included.
    pub fn name(&mut self, id: TypeId) -> Option<String> {
        let mut id = id;
        let mut stars = 0;
        loop {
            let known = self.get(id)?;
            match &known.form {
                Form::Pointer(target) => {
                    stars += 1;
                    if stars > MAX_STARS {
                        return None;
                    }
                    match target {
                        Some(target) => id = *target,
                        None => return Some(format!("void{}", "*".repeat(stars))),
                    }
                }
                Form::Array { .. } => return None,
                _ => {
                    let name = shortened(known.name.as_deref()?);
                    return Some(name + &"*".repeat(stars));
                }
            }
        }
    }
}
