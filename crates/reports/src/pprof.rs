//! A profile for pprof: gzipped protocol buffers, written by hand since the form has six messages.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::key::{Name, responsible, trimmed};
use crate::record::{Frame, Record};
use crate::text;

/// A profile of blocks and bytes (or of errors) by stack.
#[derive(Default)]
pub struct Profile {
    strings: Table,
    functions: BTreeMap<(u64, u64), u64>,
    locations: BTreeMap<(u64, u64, u64), u64>,
    samples: BTreeMap<Vec<u64>, (u64, u64)>,
}

/// Strings by their index; the first is empty.
#[derive(Default)]
struct Table {
    index: BTreeMap<String, u64>,
    list: Vec<String>,
}

impl Table {
    fn of(&mut self, text: &str) -> u64 {
        if let Some(&at) = self.index.get(text) {
            return at;
        }
        let at = self.list.len() as u64 + 1;
        self.list.push(text.to_owned());
        self.index.insert(text.to_owned(), at);
        at
    }
}

impl Profile {
    /// Takes one record: its blocks and bytes, or one error.
    pub fn add(&mut self, record: &Record) {
        let stack: Vec<Frame> = responsible(record)
            .into_iter()
            .next()
            .map(|stack| trimmed(stack).to_vec())
            .unwrap_or_default();
        let path: Vec<u64> = stack.iter().map(|frame| self.location(frame)).collect();
        let value = self.samples.entry(path).or_default();
        value.0 = value.0.saturating_add(record.blocks.unwrap_or(1));
        value.1 = value.1.saturating_add(record.bytes.unwrap_or(0));
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let raw =
            frame
                .function
                .clone()
                .unwrap_or_else(|| match (&frame.module, &frame.module_offset) {
                    (Some(module), Some(offset)) => format!("{module}+{offset}"),
                    _ => frame.address.clone().unwrap_or_else(|| "??".to_owned()),
                });
        let name = if frame.function.is_some() {
            Name::of(&raw).text()
        } else {
            raw
        };
        let name = self.strings.of(&name);
        let file = frame
            .file
            .as_deref()
            .map_or(0, |file| self.strings.of(file));
        let next = self.functions.len() as u64 + 1;
        let function = *self.functions.entry((name, file)).or_insert(next);
        let address = frame
            .address
            .as_deref()
            .and_then(text::hexadecimal_value)
            .unwrap_or(0);
        let next = self.locations.len() as u64 + 1;
        *self
            .locations
            .entry((function, frame.line.unwrap_or(0), address))
            .or_insert(next)
    }
}

/// Writes the profile.
///
/// # Errors
/// What writing gives.
pub fn pprof(mut profile: Profile, out: impl Write) -> io::Result<()> {
    let words = ["blocks", "count", "space", "bytes"].map(|word| profile.strings.of(word));
    let mut message = Vec::new();
    for (kind, unit) in [(words[0], words[1]), (words[2], words[3])] {
        let mut value = Vec::new();
        number(&mut value, 1, kind);
        number(&mut value, 2, unit);
        bytes(&mut message, 1, &value);
    }
    for (path, (blocks, space)) in &profile.samples {
        let mut sample = Vec::new();
        packed(&mut sample, 1, path);
        packed(&mut sample, 2, &[*blocks, *space]);
        bytes(&mut message, 2, &sample);
    }
    for (&(function, line, address), &id) in &profile.locations {
        let mut place = Vec::new();
        number(&mut place, 1, function);
        number(&mut place, 2, line);
        let mut location = Vec::new();
        number(&mut location, 1, id);
        number(&mut location, 3, address);
        bytes(&mut location, 4, &place);
        bytes(&mut message, 4, &location);
    }
    for (&(name, file), &id) in &profile.functions {
        let mut function = Vec::new();
        number(&mut function, 1, id);
        number(&mut function, 2, name);
        number(&mut function, 3, name);
        number(&mut function, 4, file);
        bytes(&mut message, 5, &function);
    }
    bytes(&mut message, 6, b"");
    for text in &profile.strings.list {
        bytes(&mut message, 6, text.as_bytes());
    }
    number(&mut message, 14, words[2]); // what is shown first
    let mut encoder = GzEncoder::new(out, Compression::default());
    encoder.write_all(&message)?;
    encoder.finish()?.flush()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of numbers; zero is the default and not written.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        varint(out, field << 3);
        varint(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn packed(out: &mut Vec<u8>, field: u64, values: &[u64]) {
    let mut body = Vec::new();
    values.iter().for_each(|&value| varint(&mut body, value));
    bytes(out, field, &body);
}
