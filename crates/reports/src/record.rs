//! One error of one process: the line of the exchange format.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kind::Kind;

/// One error as a tool reported it, in the words of the contract. A line of NDJSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Version of the form; 1.
    pub schema_version: u32,
    /// Always `error`: what tells these lines from others.
    pub record: String,
    /// Hash of the content: the same error of the same log has the same id wherever the log lies.
    #[serde(default)]
    pub id: String,
    /// The tool that wrote the report: `asan`, `valgrind` ….
    pub tool: String,
    /// The kind in heapcheck's words.
    pub kind: String,
    /// The kind in the tool's own words.
    #[serde(default)]
    pub tool_kind: String,
    /// Number in the Common Weakness Enumeration.
    #[serde(default)]
    pub cwe: Option<u32>,
    /// The tool's sentence.
    #[serde(default)]
    pub message: String,
    /// The access at fault.
    #[serde(default)]
    pub access: Option<Access>,
    /// Leaks and sites: bytes held directly.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Leaks and sites: blocks.
    #[serde(default)]
    pub blocks: Option<u64>,
    /// Leaks: bytes that only these blocks point to.
    #[serde(default)]
    pub indirect_bytes: Option<u64>,
    /// How often the tool saw it in this process, where it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrences: Option<u64>,
    /// Process number.
    #[serde(default)]
    pub pid: Option<u64>,
    /// Name of the program.
    #[serde(default)]
    pub process: Option<String>,
    /// Seconds since the epoch, or the time as the tool wrote it.
    #[serde(default)]
    pub time: Option<serde_json::Value>,
    /// The stacks, the responsible tool's order.
    #[serde(default)]
    pub stacks: Vec<Stack>,
    /// The versioned grouping key.
    #[serde(default)]
    pub key: String,
    /// What the key is the hash of, readable.
    #[serde(default)]
    pub key_text: String,
    /// How much the key rests on.
    #[serde(default)]
    pub key_strength: Strength,
    /// Where the record was read.
    #[serde(default)]
    pub source: Source,
    /// Labels given at import.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What the key has beside frames: a variable, a class of undefined behaviour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// The access at fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Access {
    /// `read` or `write`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: Option<u64>,
    /// The address, in hexadecimal with `0x`.
    pub address: Option<String>,
}

/// What a stack tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Where memory was used wrongly.
    Access,
    /// The other side of a race.
    OtherAccess,
    /// Where the block was freed; of a wrong free, the wrong one first.
    Free,
    /// Where the block came from.
    Allocation,
    /// Where a value that was never set came from, or the frame that a variable is in.
    Origin,
    /// Where a thread or lock was made.
    Creation,
    /// A role of a later version.
    #[serde(other)]
    Unknown,
}

/// One stack of a record, innermost frame first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// What it tells.
    pub role: Role,
    /// The thread, as the tool names it.
    #[serde(default)]
    pub thread: Option<String>,
    /// Frames, innermost first.
    #[serde(default)]
    pub frames: Vec<Frame>,
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Function as the tool printed it.
    #[serde(default)]
    pub function: Option<String>,
    /// Source file as the tool printed it.
    #[serde(default)]
    pub file: Option<String>,
    /// Line in the file.
    #[serde(default)]
    pub line: Option<u64>,
    /// Column in the line.
    #[serde(default)]
    pub column: Option<u64>,
    /// Name of the module, without folders.
    #[serde(default)]
    pub module: Option<String>,
    /// Offset in the module, in hexadecimal with `0x`.
    #[serde(default)]
    pub module_offset: Option<String>,
    /// Address, in hexadecimal with `0x`.
    #[serde(default)]
    pub address: Option<String>,
    /// Build ID of the module.
    #[serde(default)]
    pub build_id: Option<String>,
    /// The module with its folders, as the tool printed it: where its file is looked for; not written.
    #[serde(skip)]
    pub path: Option<String>,
}

/// How much a key rests on.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// Nothing of the program's own has a name: a module, a file, an address.
    #[default]
    Weak,
    /// One function only, of a stack that is cut.
    Short,
    /// Two functions or more, or the whole stack.
    Full,
}

/// Where a record was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The file as it was named.
    pub file: String,
    /// Line of the record's heading, from 1.
    pub line: u64,
}

impl Record {
    /// An empty record of a tool and kind.
    pub fn new(tool: &str, kind: Kind, tool_kind: &str) -> Self {
        Self {
            schema_version: 1,
            record: "error".to_owned(),
            id: String::new(),
            tool: tool.to_owned(),
            kind: kind.name().to_owned(),
            tool_kind: tool_kind.to_owned(),
            cwe: kind.cwe(),
            message: String::new(),
            access: None,
            bytes: None,
            blocks: None,
            indirect_bytes: None,
            occurrences: None,
            pid: None,
            process: None,
            time: None,
            stacks: Vec::new(),
            key: String::new(),
            key_text: String::new(),
            key_strength: Strength::Weak,
            source: Source::default(),
            attributes: BTreeMap::new(),
            subject: None,
        }
    }

    /// Changes the kind, and what follows from it.
    pub(crate) fn set_kind(&mut self, kind: Kind) {
        self.kind = kind.name().to_owned();
        self.cwe = kind.cwe();
    }

    /// True of a record that is of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind.name()
    }

    /// The first stack of a role that has frames.
    pub fn stack(&self, role: Role) -> Option<&Stack> {
        self.stacks
            .iter()
            .find(|stack| stack.role == role && !stack.frames.is_empty())
    }

    /// Sets a frame's module from a path.
    pub(crate) fn set_module(frame: &mut Frame, path: &str) {
        frame.module = Some(crate::text::base_name(path).to_owned());
        frame.path = Some(path.to_owned());
    }

    /// Sets `id` from all that was read; the file's name and the labels do not count.
    pub(crate) fn set_id(&mut self) {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        part(&self.tool);
        part(&self.tool_kind);
        part(&self.message);
        part(&format!(
            "{:?} {:?} {:?} {:?} {:?} {} {:?}",
            self.access,
            self.bytes,
            self.blocks,
            self.indirect_bytes,
            self.pid,
            self.source.line,
            self.time
        ));
        for stack in &self.stacks {
            part(&format!("{:?} {:?}", stack.role, stack.thread));
            for frame in &stack.frames {
                for text in [
                    &frame.function,
                    &frame.file,
                    &frame.module,
                    &frame.module_offset,
                    &frame.address,
                ] {
                    part(text.as_deref().unwrap_or("\u{0}"));
                }
                part(&format!("{:?}", frame.line));
            }
        }
        self.id = hexadecimal(&hash.finalize()[..16]);
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes all
        text
    })
}
