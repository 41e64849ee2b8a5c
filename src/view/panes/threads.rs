//! Threads, the one that crashed first.

use super::{Act, Content, Row};
use crate::report::text::parts::{self, Role};
use crate::view::model::Model;

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(report) = &model.report else {
        return Content::sentence(Role::Faint, &model.waiting(), width);
    };
    let threads = report.threads.iter().enumerate();
    let rows = threads.map(|(index, thread)| {
        let crashed = report.crash_info.crashing_thread == Some(index);
        let mut runs = vec![(Role::Plain, parts::thread(thread))];
        if crashed {
            runs.push((Role::Critical, " crashed".into()));
        }
        Row::new(runs).with(Act::Thread(index))
    });
    let rows: Vec<Row> = rows.collect();
    if rows.is_empty() {
        return Content::sentence(Role::Warning, "the core has no notes about threads", width);
    }
    Content {
        note: rows.len().to_string(),
        rows,
        head: None,
    }
}
