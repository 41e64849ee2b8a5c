//! What is said of a block, by a small number: many blocks hold the same.

use std::collections::HashMap;

use super::table::{Table, TypeId};

/// How well a claim is founded, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// The block begins with such a value, and is larger: nothing is said of it.
    Prefix,
    /// A local variable leads there: it may not have its value yet.
    Local,
    /// A variable that has its value for the whole run leads there.
    Variable,
    /// A container holds it, and its own words agree.
    Container,
    /// Its virtual table.
    Vtable,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// One value of the type.
    Object,
    /// Several, one behind the other.
    Array,
    /// Several, behind their count.
    Counted,
    /// The elements of a container.
    Buffer(TypeId),
    /// The text of a string.
    Characters(TypeId),
    /// A node of a container; its value begins so many bytes into it.
    Node(TypeId, u32),
    /// A container's table of pointers.
    Table(TypeId),
    /// What was told in another way: its number in the list of such types.
    Other(u32),
}

/// What is said of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// What it holds.
    pub what: What,
    /// The type of the value, or of each.
    pub of: Option<TypeId>,
    /// How that is known.
    pub rank: Rank,
}

/// Labels by number: 0 is none.
#[derive(Default)]
pub struct Labels {
    list: Vec<Label>,
    numbers: HashMap<Label, u16>,
    last: Option<(Label, u16)>,
}

impl Labels {
    /// The number of a label; `None` if there are too many.
    pub fn number(&mut self, label: Label) -> Option<u16> {
        if let Some((last, number)) = self.last
            && last == label
        {
            return Some(number);
        }
        if let Some(known) = self.numbers.get(&label) {
            self.last = Some((label, *known));
            return Some(*known);
        }
        self.list.push(label);
        let Ok(number) = u16::try_from(self.list.len()) else {
            self.list.pop();
            return None;
        };
        self.numbers.insert(label, number);
        Some(number)
    }

    /// The label with this number.
    pub fn get(&self, number: u16) -> Option<&Label> {
        self.list.get(usize::from(number).checked_sub(1)?)
    }

    /// All of them, in the order of their numbers.
    pub fn list(&self) -> &[Label] {
        &self.list
    }
}

/// A label in words; `None` where the type has no name.
pub fn named(label: &Label, table: &mut Table<'_>) -> Option<String> {
    let mut of = |id: TypeId| table.name(id);
    Some(match label.what {
        What::Object => of(label.of?)?,
        What::Array | What::Counted => format!("{}[]", of(label.of?)?),
        What::Buffer(container) => format!("buffer of {}", of(container)?),
        What::Characters(container) => format!("characters of {}", of(container)?),
        What::Node(container, _) => format!("node of {}", of(container)?),
        What::Table(container) => format!("table of {}", of(container)?),
        What::Other(_) => return None,
    })
}
