//! A place in a value, by the names of members, as a person writes it: `entries[3].name`.

use ground::target::Address;
use heaps::graph::lookup::{Lookup, Node};

use super::Propagated;
use super::labels::What;
use super::table::{Form, Known, MAX_DEPTH, Structure, TypeId};

impl Propagated {
    /// The member that lies so many bytes into a block.
    pub fn member(&self, lookup: &Lookup<'_>, node: Node, offset: u64) -> Option<String> {
        let number = self.found.numbers.of(lookup, node)?;
        let label = self.found.column.get(number as usize)?;
        let label = self.found.labels.get(*label)?;
        let of = label.of?;
        let size = || self.get(of).map(|known| known.size);
        let (index, inside) = match label.what {
            What::Object | What::Other(_) => (None, offset),
            What::Node(_, value) => (None, offset.checked_sub(value.into())?),
            What::Array | What::Buffer(_) | What::Table(_) => {
                let size = size()?;
                (Some(offset.checked_div(size)?), offset.checked_rem(size)?)
            }
            What::Counted => {
                let behind = offset.checked_sub(8)?;
                let size = size()?;
                (Some(behind.checked_div(size)?), behind.checked_rem(size)?)
            }
            What::Characters(_) => return None,
        };
        let start = index.map_or(String::new(), |index| format!("[{index}]"));
        let path = start + &self.path(of, inside)?;
        let path = path.strip_prefix('.').unwrap_or(&path);
        (!path.is_empty()).then(|| path.to_owned())
    }

    /// The variable that an address lies in, and the member of it.
    pub fn variable(&self, at: Address) -> Option<String> {
        let after = self
            .statics
            .partition_point(|variable| variable.start <= at);
        let variable = self.statics.get(after.checked_sub(1)?)?;
        let offset = at.offset_from(variable.start)?;
        if offset >= variable.bytes {
            return None;
        }
        Some(format!(
            "{}{}",
            variable.name,
            self.path(variable.of, offset)?
        ))
    }

    /// Names of members from a value to what lies `offset` bytes into it; ends at a container, whose members are its own affair.
    fn path(&self, of: TypeId, offset: u64) -> Option<String> {
        let (mut id, mut offset) = (of, offset);
        let mut path = String::new();
        for _ in 0..MAX_DEPTH {
            let known = self.get(id)?;
            match &known.form {
                Form::Array { element, .. } => {
                    let size = self.get(*element)?.size;
                    path.push_str(&format!("[{}]", offset.checked_div(size)?));
                    (id, offset) = (*element, offset.checked_rem(size)?);
                }
                Form::Structure(structure) if structure.container.is_none() => {
                    let Some((name, inside, of)) = self.member_at(structure, offset) else {
                        break;
                    };
                    if let Some(name) = name {
                        path.push('.');
                        path.push_str(name);
                    }
                    (id, offset) = (of, inside);
                }
                _ => break,
            }
        }
        Some(path)
    }

    /// The member at an offset: its name, if it has one, the bytes from its start, its type.
    fn member_at<'s>(
        &'s self,
        structure: &'s Structure,
        offset: u64,
    ) -> Option<(Option<&'s str>, u64, TypeId)> {
        structure.members.iter().find_map(|member| {
            let inside = offset.checked_sub(member.offset)?;
            let size = self.get(member.of).map_or(8, |known: &Known| known.size);
            let name = member
                .name
                .as_deref()
                .filter(|name| !name.starts_with("_vptr"));
            (inside < size).then_some((name, inside, member.of))
        })
    }
}
