//! The frames of the chosen thread, innermost first.

use super::{Act, Content, Row};
use crate::report::text::parts::{self, Role};
use crate::view::model::Model;

/// Below so many columns modules are left out.
const WIDE: usize = 60;

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(thread) = model.chosen_thread() else {
        return Content::default();
    };
    let mut rows = Vec::new();
    for (index, frame) in thread.frames.iter().enumerate() {
        let omitted = thread.omitted_frames;
        if let Some(omitted) = omitted.filter(|omitted| omitted.before == index) {
            let text = format!(
                "... {} frames that are not kept",
                parts::thousands(omitted.count)
            );
            rows.push(Row::of(Role::Faint, text).with(Act::Frame(index)));
        }
        let lines = match width < WIDE {
            true => parts::narrow_frame(frame),
            false => parts::frame(frame, width),
        };
        rows.extend(
            lines
                .into_iter()
                .map(|line| Row::new(line).with(Act::Frame(index))),
        );
    }
    if let Some(end) = parts::stack_end(thread) {
        rows.push(Row::of(Role::Warning, format!("({end})")));
    }
    Content {
        note: format!("of {}", thread.thread_id),
        rows,
        head: None,
    }
}
