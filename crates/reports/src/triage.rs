//! Questions about many reports. Input is NDJSON of `import`, heapcheck's own reports, or the tools' logs themselves.

mod alias;
mod diff;
mod file;
mod flame;
mod gate;
mod groups;
mod introduced;
mod read;
mod similar;

pub use diff::{diff, show};
pub(crate) use diff::{line, role};
pub use file::{Rule, State, TriageFile, today};
pub use flame::{Stacks, Weight, by_frame, folded, svg};
pub use gate::{BASELINE, Gate, gate};
pub use groups::{Gather, Group, Groups, Recurrence};
pub use introduced::{Introduced, Versions, introduced};
pub use read::{Input, Item, each, each_record};
pub use similar::Proposal;
