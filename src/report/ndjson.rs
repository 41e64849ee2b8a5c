//! The NDJSON view: the document in one line, and behind it a line for each of the blocks that `leaks --blocks` lists.

use std::io;

use serde::Serialize;

use super::json::compact;
use super::schema::{Document, LeakedBlock};
use super::{Format, Screen};

/// Documents for pipelines that read line by line.
pub struct Ndjson;

impl Format for Ndjson {
    fn name(&self) -> &'static str {
        "ndjson"
    }

    fn about(&self) -> &'static str {
        "For pipelines that read lines: the report in one, and one for each block of `leaks --blocks`"
    }

    fn writes_errors(&self) -> bool {
        true
    }

    fn render(&self, document: &Document, _: Screen) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Document::Report(report) = document else {
            compact(document, &mut bytes)?;
            return Ok(bytes);
        };
        let mut report = report.clone();
        let blocks = report.leaks.as_mut().and_then(|leaks| leaks.blocks.take());
        compact(&Document::Report(report), &mut bytes)?;
        for block in blocks.iter().flatten() {
            compact(
                &Line {
                    record: "leaked-block",
                    block,
                },
                &mut bytes,
            )?;
        }
        Ok(bytes)
    }
}

/// A block in a line of its own.
#[derive(Serialize)]
struct Line<'b> {
    record: &'static str,
    #[serde(flatten)]
    block: &'b LeakedBlock,
}
