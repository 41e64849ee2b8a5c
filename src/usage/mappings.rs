//! Every mapping of the process, cut where one kind of memory ends and another begins: each byte has one row.
//!
//! ```text
//! kernel's | module's segment | file | shared | no access | what walked heaps claim | what threads have | code | the rest
//! ```
//!
//! The first of these that fits a byte has it. Rows of one mapping that are alike are one row.

mod cut;

use std::ops::Range;

use ground::target::{Address, TargetMemory};

use crate::analysis::Analysis;
use crate::graph::roots::Land;
use cut::Cutter;
use postmortem::session::Session;

/// What a run of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A walked heap's, its own structures included.
    Heap,
    /// A thread's stack.
    Stack,
    /// Thread-local storage, and what libc keeps of a thread beside it.
    Tls,
    /// Code of a module.
    Text,
    /// Constants of a module.
    ReadOnly,
    /// Variables of a module that its file has values for.
    Data,
    /// Variables of a module that begin as zeros.
    Bss,
    /// A file that is no module.
    File,
    /// Memory that is shared with other processes, or has no file but a name.
    Shared,
    /// The kernel's own pages.
    Vdso,
    /// Anonymous memory that can be executed: code made at run time.
    Jit,
    /// Anonymous memory of the program's own.
    Anonymous,
    /// No access, in front of a stack.
    Guard,
    /// No access: addresses that are kept for later.
    Reserved,
}

impl Kind {
    /// All, in the order of a summary.
    pub const ALL: [Self; 14] = [
        Self::Heap,
        Self::Anonymous,
        Self::Jit,
        Self::Stack,
        Self::Tls,
        Self::Data,
        Self::Bss,
        Self::ReadOnly,
        Self::Text,
        Self::File,
        Self::Shared,
        Self::Vdso,
        Self::Guard,
        Self::Reserved,
    ];

    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::Tls => "tls",
            Self::Text => "text",
            Self::ReadOnly => "read-only",
            Self::Data => "data",
            Self::Bss => "bss",
            Self::File => "file",
            Self::Shared => "shared",
            Self::Vdso => "vdso",
            Self::Jit => "jit",
            Self::Anonymous => "anonymous",
            Self::Guard => "guard",
            Self::Reserved => "reserved",
        }
    }
}

/// Read, write and execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(pub bool, pub bool, pub bool);

/// A run of memory of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The memory.
    pub range: Range<Address>,
    /// What it is.
    pub kind: Kind,
    /// Whose, in words: a module's path, an allocator and its arenas, a file, a thread.
    pub name: Option<String>,
    /// Name of the allocator, for a heap.
    pub allocator: Option<&'static str>,
    /// The thread that it belongs to.
    pub thread: Option<u32>,
    /// What the process may do there; `None` where the core does not say: no segment of the core is about it.
    pub permissions: Option<Permissions>,
    /// Bytes of it that the core holds.
    pub present_bytes: u64,
}

impl Mapping {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.range.end.offset_from(self.range.start).unwrap_or(0)
    }
}

/// Bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The kind.
    pub kind: Kind,
    /// The allocator, of a heap.
    pub allocator: Option<&'static str>,
    /// Rows.
    pub mappings: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// Bytes of it that the core holds.
    pub present_bytes: u64,
}

/// All mappings, by address.
pub fn all(session: &Session, analysis: &Analysis<'_>, lands: &[Land]) -> Vec<Mapping> {
    let memory = session.memory();
    let cutter = Cutter::new(session, analysis, lands);
    let mut rows = Vec::new();
    for (index, region) in memory.regions().iter().enumerate() {
        let permissions = memory.has_permissions(index).then_some(Permissions(
            region.readable,
            region.writable,
            region.executable,
        ));
        let from = rows.len();
        cutter.cut(region, &mut rows);
        let end = region.range.start.saturating_add(region.present_bytes);
        for row in rows.iter_mut().skip(from) {
            row.permissions = permissions;
            row.present_bytes = end
                .min(row.range.end)
                .offset_from(row.range.start)
                .unwrap_or(0);
        }
    }
    name_closed(&mut rows);
    rows
}

/// Sums by kind, and of heaps by allocator, in the order of [`Kind::ALL`]. Kinds that are not there are left out.
pub fn sums(rows: &[Mapping]) -> Vec<Sum> {
    let mut sums: Vec<Sum> = Vec::new();
    for row in rows {
        let known = sums
            .iter_mut()
            .find(|sum| sum.kind == row.kind && sum.allocator == row.allocator);
        let bytes = row.bytes();
        match known {
            Some(sum) => {
                sum.mappings = sum.mappings.saturating_add(1);
                sum.bytes = sum.bytes.saturating_add(bytes);
                sum.present_bytes = sum.present_bytes.saturating_add(row.present_bytes);
            }
            None => sums.push(Sum {
                kind: row.kind,
                allocator: row.allocator,
                mappings: 1,
                bytes,
                present_bytes: row.present_bytes,
            }),
        }
    }
    let place = |kind| Kind::ALL.iter().position(|known| *known == kind);
    sums.sort_by_key(|sum| (place(sum.kind), sum.allocator));
    sums
}

/// Says of memory without access which stack it guards: the one right above it.
fn name_closed(rows: &mut [Mapping]) {
    for index in 1..rows.len() {
        let Some((below, above)) = rows.split_at_mut_checked(index) else {
            continue;
        };
        let (Some(closed), Some(stack)) = (below.last_mut(), above.first()) else {
            continue;
        };
        let is_guard = closed.kind == Kind::Reserved
            && closed.allocator.is_none()
            && stack.kind == Kind::Stack
            && stack.range.start == closed.range.end;
        if is_guard {
            closed.kind = Kind::Guard;
            closed.name = stack.name.clone();
            closed.thread = stack.thread;
        }
    }
}
