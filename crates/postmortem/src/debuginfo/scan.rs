//! One pass over a unit's named types, namespaces and variables, without function bodies.
//!
//! Function bodies are most of a unit. They are stepped over by `DW_AT_sibling` where the compiler wrote it (gcc), else read
//! without looking (clang). Nesting is held on a stack of [`MAX_DEPTH`] scopes; deeper ones are not looked into.

use gimli::{AttributeValue, DwTag, UnitOffset, constants as dw};

use super::dwarf::{self, Bytes, Dwarf, Unit};

/// Scopes within scopes.
const MAX_DEPTH: usize = 64;

/// What the pass saw.
pub(super) struct Item<'a> {
    pub offset: UnitOffset,
    pub tag: DwTag,
    /// `DW_AT_name`.
    pub name: Option<&'a [u8]>,
    /// `DW_AT_declaration`: the definition is elsewhere.
    pub declaration: bool,
    /// Has an address or, for a type, a size.
    pub defined: bool,
    /// `DW_AT_specification`: this completes the declaration there.
    pub specification: Option<AttributeValue<Bytes<'a>>>,
}

/// Tells a pass what happens. `S` is what the visitor remembers of a scope.
pub(super) trait Visitor<'a, S: Copy> {
    /// Whether functions are items too, without what is in them.
    const FUNCTIONS: bool = false;

    /// An item in `scope`; returns what its own members are in.
    fn item(&mut self, item: &Item<'a>, scope: S) -> S;
}

/// Runs the pass over `unit`. Damage ends it early.
pub(super) fn scan<'a, S: Copy, V: Visitor<'a, S>>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    root: S,
    visitor: &mut V,
) -> Option<()> {
    let mut scopes: Vec<(isize, S)> = Vec::new();
    let mut entries = unit.entries_raw(None).ok()?;
    let mut base: isize = 0;
    // Entries deeper than this belong to something that is not looked into.
    let mut skip_below: Option<isize> = None;
    while !entries.is_empty() {
        let offset = entries.next_offset();
        let depth = base.checked_add(entries.next_depth())?;
        let Some(abbreviation) = entries.read_abbreviation().ok()? else {
            continue;
        };
        if skip_below.is_some_and(|limit| depth > limit) {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        skip_below = None;
        while scopes.last().is_some_and(|(above, _)| *above >= depth) {
            scopes.pop();
        }
        let scope = scopes.last().map_or(root, |(_, scope)| *scope);

        let tag = abbreviation.tag();
        let kind = match tag {
            dw::DW_TAG_subprogram if V::FUNCTIONS => Interest::Leaf,
            _ => kind_of(tag),
        };
        if kind == Interest::Root {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        let mut item = Item {
            offset,
            tag,
            name: None,
            declaration: false,
            defined: false,
            specification: None,
        };
        let mut sibling = None;
        for specification in abbreviation.attributes() {
            let attribute = specification.name();
            let wanted = attribute == dw::DW_AT_sibling
                || (kind != Interest::None
                    && matches!(
                        attribute,
                        dw::DW_AT_name
                            | dw::DW_AT_declaration
                            | dw::DW_AT_specification
                            | dw::DW_AT_byte_size
                            | dw::DW_AT_location
                    ));
            if !wanted {
                entries
                    .skip_attributes(std::slice::from_ref(specification))
                    .ok()?;
                continue;
            }
            let value = entries.read_attribute_inline(*specification).ok()?.value();
            match attribute {
                dw::DW_AT_sibling => {
                    if let AttributeValue::UnitRef(to) = value {
                        sibling = Some(to);
                    }
                }
                dw::DW_AT_name => {
                    item.name = dwarf::name(dwarf, unit, value);
                }
                dw::DW_AT_declaration => {
                    item.declaration = matches!(value, AttributeValue::Flag(true));
                }
                dw::DW_AT_specification => item.specification = Some(value),
                _ => item.defined = true,
            }
        }
        let inside = if kind == Interest::None {
            None
        } else {
            Some(visitor.item(&item, scope))
        };
        if !abbreviation.has_children() {
            continue;
        }
        match inside {
            Some(inside) if kind == Interest::Scope && scopes.len() < MAX_DEPTH => {
                scopes.push((depth, inside));
            }
            _ => match sibling.filter(|to| *to > entries.next_offset()) {
                Some(to) => {
                    entries = unit.entries_raw(Some(to)).ok()?;
                    base = depth;
                }
                None => skip_below = Some(depth),
            },
        }
    }
    Some(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// The unit itself.
    Root,
    /// Has members worth a look.
    Scope,
    /// Has a name worth knowing.
    Leaf,
    None,
}

fn kind_of(tag: DwTag) -> Interest {
    match tag {
        dw::DW_TAG_compile_unit
        | dw::DW_TAG_partial_unit
        | dw::DW_TAG_type_unit
        | dw::DW_TAG_skeleton_unit => Interest::Root,
        dw::DW_TAG_namespace
        | dw::DW_TAG_module
        | dw::DW_TAG_structure_type
        | dw::DW_TAG_class_type
        | dw::DW_TAG_union_type => Interest::Scope,
        dw::DW_TAG_typedef
        | dw::DW_TAG_base_type
        | dw::DW_TAG_enumeration_type
        | dw::DW_TAG_variable
        | dw::DW_TAG_member => Interest::Leaf,
        _ => Interest::None,
    }
}
