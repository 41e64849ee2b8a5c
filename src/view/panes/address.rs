//! The chosen address: what it is, and each word around it with its value and its meaning.

use super::{Content, missing};
use crate::report::text::parts::{self, Role};
use crate::view::model::{Model, Slot};

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(at) = model.place.address else {
        let text = "no address is chosen: g and an address, or Enter on one in any pane";
        return Content::sentence(Role::Faint, text, width);
    };
    let slot = model.addresses.get(&at).unwrap_or(&Slot::Empty);
    let mut content = match slot {
        Slot::Here(found) => Content::of(parts::address(found, width)),
        other => missing(other, model, width),
    };
    content.note = format!("{at:#x}");
    content
}
