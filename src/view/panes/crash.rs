//! The first screen of a report: what crashed, whether the heap is damaged, what was not checked.

use super::Content;
use crate::report::text::parts::{self, Role};
use crate::view::model::Model;

pub(super) fn content(model: &Model, width: usize) -> Content {
    match model.checked() {
        Some(report) => Content::of(parts::first_screen(report, width)),
        None => Content::sentence(Role::Faint, &model.waiting(), width),
    }
}
