//! The JSON view: one document, indented, with a newline at its end.

use std::io;

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::escape::is_active;
use super::schema::Document;
use super::{Format, Screen};

/// Documents for pipelines.
pub struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn about(&self) -> &'static str {
        "For pipelines"
    }

    fn writes_errors(&self) -> bool {
        true
    }

    fn render(&self, document: &Document, _: Screen) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        write(document, &mut bytes)?;
        Ok(bytes)
    }
}

/// Writes a document.
///
/// # Errors
/// If `out` cannot be written.
fn write(document: &Document, out: &mut dyn io::Write) -> io::Result<()> {
    pretty(document, out)
}

/// Writes a value, indented.
///
/// # Errors
/// If `out` cannot be written.
pub(super) fn pretty(document: &impl Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Terminal::default());
    document.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// Writes one value in one line.
///
/// # Errors
/// If `out` cannot be written.
pub(super) fn compact(value: &impl Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Line);
    value.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// JSON in one line, escaped as [`Terminal`]'s is.
struct Line;

impl Formatter for Line {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_escaped(writer, fragment)
    }
}

/// The JSON schema of [`Document`], as `heapcheck schema` prints it: what is written, so every field is required.
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Document>()
        .to_value()
}

/// Pretty JSON in which everything that a terminal would act upon is written as `\u....`. JSON itself escapes only the
/// controls below 0x20.
#[derive(Default)]
struct Terminal(PrettyFormatter<'static>);

impl Formatter for Terminal {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_escaped(writer, fragment)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Writes a part of a string with everything that a terminal would act upon as `\u....`.
fn write_escaped<W: ?Sized + io::Write>(writer: &mut W, fragment: &str) -> io::Result<()> {
    let mut rest = fragment;
    while let Some(at) = rest.find(is_active) {
        let (before, from) = rest.split_at(at);
        writer.write_all(before.as_bytes())?;
        let mut characters = from.chars();
        if let Some(active) = characters.next() {
            for unit in active.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        rest = characters.as_str();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::report::schema::{Document, ErrorDocument, Report};

    fn written(document: &Document) -> String {
        let mut bytes = Vec::new();
        write(document, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_document_follows_the_schema() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        for document in [
            Document::Report(Box::new(sample::overrun())),
            Document::Report(Box::default()),
            Document::Error(ErrorDocument::new("no such file")),
        ] {
            let value: serde_json::Value = serde_json::from_str(&written(&document)).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
    }

    #[test]
    fn the_schema_refuses_what_is_no_report() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        for wrong in [
            serde_json::json!({}),
            serde_json::json!({"schema_version": 1, "status": "OK"}),
            serde_json::json!({"schema_version": 1, "status": "ERROR"}),
        ] {
            assert!(!validator.is_valid(&wrong), "{wrong}");
        }
        let report = Document::Report(Box::new(sample::overrun()));
        let mut value: serde_json::Value = serde_json::from_str(&written(&report)).unwrap();
        let mut without_field = value.clone();
        let finding = without_field["findings"][0].as_object_mut().unwrap();
        finding.remove("stacks");
        assert!(!validator.is_valid(&without_field));
        value["findings"][0]["address"] = "0x00F0".into();
        assert!(!validator.is_valid(&value));
    }

    #[test]
    fn nothing_in_a_document_makes_a_terminal_act() {
        let mut report = Report::default();
        report.core.path = "a\x1b[2J\u{9b}2J\u{202e}b\u{e0041}\"ü".into();
        let text = written(&Document::Report(Box::new(report)));
        assert!(
            text.contains(r#""a\u001b[2J\u009b2J\u202eb\udb40\udc41\"ü""#),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["core"]["path"],
            "a\x1b[2J\u{9b}2J\u{202e}b\u{e0041}\"ü"
        );
    }
}
