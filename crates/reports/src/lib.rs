//! Reports of many memory-error tools: read into one form, grouped by bug, compared with a baseline, watched as they grow.
//!
//! The crate reads text and writes text; it knows nothing of cores and heaps. `import` turns the logs of a tool into [`Record`]s,
//! `key` says which of them are the same bug, `triage` answers questions about many of them, `growth` about one process in time.
//!
//! Logs are hostile input: every line, record, stack and name is bounded, nothing recurses on data, a bad record costs itself.

mod answers;
pub mod events;
pub mod growth;
pub mod import;
mod key;
mod kind;
mod pprof;
mod record;
mod sarif;
mod text;
mod ticket;
pub mod triage;

pub use answers::{
    ByFrame, FirstSeen, FrameBytes, Shown, Sides, VERBS, any_schema, record_schema, schema,
};
pub use key::{Frames, Key, MAX_FRAMES, responsible};
pub use kind::Kind;
pub use pprof::{Profile, pprof};
pub use record::{Access, Frame, Record, Role, Source, Stack, Strength};
pub use sarif::sarif;
pub use ticket::ticket;
