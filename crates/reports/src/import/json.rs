//! JSON documents in a stream: lines of NDJSON, or a document over many lines. What kind it is, its members say.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Format, Line, Out, casr, heapcheck};
use crate::record::Record;

/// Longest document that is read, in bytes.
const MAX_DOCUMENT: usize = 64 << 20;
/// Most nesting that is followed.
const MAX_DEPTH: u32 = 120;

/// Gathers documents.
#[derive(Default)]
pub(super) struct Json {
    document: Vec<u8>,
    began: u64,
    depth: u32,
    string: bool,
    escaped: bool,
    open: bool,
}

/// What a scan of a piece came to.
enum Scan {
    Open,
    /// The document ends here; the rest of the piece is ignored.
    Ends,
    Broken,
}

impl Format for Json {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        if !self.open {
            let start = line.bytes.trim_ascii_start();
            let next = start
                .get(1..)
                .unwrap_or_default()
                .trim_ascii_start()
                .first();
            if !line.piece.first
                || start.first() != Some(&b'{')
                || !matches!(next, None | Some(b'"' | b'}'))
            {
                return false;
            }
            *self = Self {
                open: true,
                began: line.piece.number,
                document: std::mem::take(&mut self.document),
                ..Self::default()
            };
            self.document.clear();
        }
        match self.scan(line.bytes, line.piece.last) {
            Scan::Open => {
                self.document.extend_from_slice(line.bytes);
                if line.piece.last {
                    self.document.push(b'\n');
                }
                if self.document.len() > MAX_DOCUMENT {
                    out.failure(self.began, "a JSON document is too long");
                    self.open = false;
                }
                true
            }
            Scan::Ends => {
                self.document.extend_from_slice(line.bytes);
                self.open = false;
                take(&self.document, self.began, out)
            }
            Scan::Broken => {
                self.open = false;
                let known = self.give_up(out);
                // The line that broke it may begin something else.
                known && self.began == line.piece.number
            }
        }
    }

    fn end(&mut self, out: &mut Out<'_>) {
        if self.open {
            self.open = false;
            self.give_up(out);
        }
    }

    fn wants_pieces(&self) -> bool {
        self.open
    }
}

impl Json {
    /// Follows strings and brackets; what can stand in no JSON breaks the document.
    fn scan(&mut self, bytes: &[u8], line_ends: bool) -> Scan {
        for &byte in bytes {
            if self.string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Scan::Broken;
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Scan::Ends;
                    }
                }
                b',' | b':' | b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z' | b'E' => {}
                byte if byte.is_ascii_whitespace() => {}
                _ => return Scan::Broken,
            }
        }
        // A line cannot end inside a string, a piece of it can.
        if self.string && line_ends {
            Scan::Broken
        } else {
            Scan::Open
        }
    }

    /// A document that does not end is a failure if it looks like one of ours.
    fn give_up(&mut self, out: &mut Out<'_>) -> bool {
        let known = ["\"schema_version\"", "\"CrashSeverity\"", "\"Stacktrace\""]
            .iter()
            .any(|name| {
                self.document
                    .windows(name.len())
                    .take(1 << 20)
                    .any(|part| part == name.as_bytes())
            });
        if known {
            out.failure(self.began, "a JSON document is broken off");
        }
        known
    }
}

/// Members that tell documents apart.
#[derive(Deserialize)]
struct Members {
    record: Option<String>,
    schema_version: Option<u64>,
    status: Option<IgnoredAny>,
    #[serde(rename = "CrashSeverity")]
    severity: Option<IgnoredAny>,
    #[serde(rename = "Stacktrace")]
    stack: Option<IgnoredAny>,
    #[serde(rename = "AsanReport")]
    asan: Option<IgnoredAny>,
}

/// Reads a whole document; false if it is nobody's.
fn take(document: &[u8], line: u64, out: &mut Out<'_>) -> bool {
    let text = String::from_utf8_lossy(document);
    let Ok(members) = serde_json::from_str::<Members>(&text) else {
        return false;
    };
    let read = if members.record.as_deref() == Some("error") {
        serde_json::from_str::<Record>(&text).map(|record| out.record(record))
    } else if members.schema_version.is_some() && members.status.is_some() {
        heapcheck::read(&text, line, out)
    } else if members.severity.is_some() || members.stack.is_some() || members.asan.is_some() {
        casr::read(&text, line, out)
    } else {
        return false;
    };
    if let Err(error) = read {
        out.failure(line, &error.to_string());
    }
    true
}
