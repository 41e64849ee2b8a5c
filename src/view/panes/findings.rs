//! What is wrong, most severe first.

use super::{Act, Content, Row};
use crate::report::escape::escaped;
use crate::report::schema::Finding;
use crate::report::text::parts::{self, Role};
use crate::view::model::Model;

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(report) = model.checked() else {
        return Content::sentence(Role::Faint, &model.waiting(), width);
    };
    if report.findings.is_empty() {
        let (role, text) = parts::verdict(report);
        return Content::sentence(role, &text, width);
    }
    let findings = report.findings.iter().enumerate();
    Content {
        rows: findings
            .map(|(index, found)| row(found).with(Act::Finding(index)))
            .collect(),
        note: report.findings.len().to_string(),
        head: None,
    }
}

fn row(found: &Finding) -> Row {
    let (role, word) = parts::severity(found);
    let address = found.address.map_or(String::new(), |at| format!("  {at}"));
    Row::new(vec![
        (role, format!("{word} {}", escaped(&found.kind))),
        (Role::Plain, address),
        (Role::Plain, format!("  {}", escaped(&found.message))),
    ])
}
