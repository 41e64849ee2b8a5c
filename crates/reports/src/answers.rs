//! The answers of `triage` that are more than one value, and the schemas of all.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Value, json};

use crate::growth::Growth;
use crate::record::Record;
use crate::triage::{Gate, Group, Groups, Introduced};

/// `triage show`: a group and an example.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// The group.
    pub group: Group,
    /// Its first record.
    pub example: Record,
}

/// `triage diff`: two groups and an example of each.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sides {
    /// The groups.
    pub groups: [Group; 2],
    /// Their first records.
    pub examples: [Record; 2],
}

/// `triage introduced`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FirstSeen {
    /// Each group, with the version in which it was first seen.
    pub groups: Vec<Introduced>,
}

/// `triage flame --by frame`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ByFrame {
    /// Frames, most bytes first.
    pub frames: Vec<FrameBytes>,
}

/// A frame and the bytes that come from it or from what it calls.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FrameBytes {
    /// Its function.
    pub frame: String,
    /// Bytes.
    pub bytes: u64,
}

/// Questions whose answers have a schema.
pub const VERBS: &[&str] = &[
    "groups",
    "show",
    "diff",
    "new",
    "introduced",
    "flame",
    "bytes",
    "growth",
];

/// The schema of a line of `import`.
pub fn record_schema() -> Value {
    of::<Record>("A record of heapcheck import")
}

/// The schema of the answer of a verb; `None` if there is no such verb, or its answer is no JSON.
pub fn schema(verb: &str) -> Option<Value> {
    Some(match verb {
        "groups" | "bytes" => of::<Groups>("The answer of heapcheck triage groups and bytes"),
        "show" => of::<Shown>("The answer of heapcheck triage show"),
        "diff" => of::<Sides>("The answer of heapcheck triage diff"),
        "new" => of::<Gate>("The answer of heapcheck triage new"),
        "introduced" => of::<FirstSeen>("The answer of heapcheck triage introduced"),
        "flame" => of::<ByFrame>("The answer of heapcheck triage flame --by frame"),
        "growth" => of::<Growth>("The answer of heapcheck triage growth"),
        _ => return None,
    })
}

/// The schema of any of these answers.
pub fn any_schema() -> Value {
    let mut generator = generator();
    let answers = [
        generator.subschema_for::<Groups>(),
        generator.subschema_for::<Shown>(),
        generator.subschema_for::<Sides>(),
        generator.subschema_for::<Gate>(),
        generator.subschema_for::<FirstSeen>(),
        generator.subschema_for::<ByFrame>(),
        generator.subschema_for::<Growth>(),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The answers of heapcheck triage",
        "anyOf": answers,
        "$defs": generator.take_definitions(true),
    })
}

fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = generator().into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema.to_value()
}

/// What is written, not what is read: what is left out sometimes is optional, all else is always there.
fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
}
