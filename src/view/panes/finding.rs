//! The chosen finding: its sentence, the words that prove it, the way back from the crash, what to do next.

use super::Content;
use crate::report::text::parts::{self, Role};
use crate::view::model::Model;

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(report) = model.checked() else {
        return Content::sentence(Role::Faint, &model.waiting(), width);
    };
    match report.findings.get(model.place.finding) {
        Some(found) => Content::of(parts::finding(found, width)),
        None => {
            let (role, text) = parts::verdict(report);
            Content::sentence(role, &text, width)
        }
    }
}
