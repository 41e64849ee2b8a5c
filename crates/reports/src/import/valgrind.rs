//! Valgrind's tools (memcheck, helgrind, drd), as XML of protocols 4 to 6 and as text.

pub(super) mod text;
pub(super) mod xml;

use super::MAX_FRAMES;
use crate::kind::Kind;
use crate::record::{Access, Frame, Record, Role, Source, Stack};
use crate::text as scan;

/// An error as valgrind tells it, in either form.
#[derive(Default)]
struct Told {
    /// The XML's kind, or what the text's first line would be in XML.
    kind: String,
    /// The first sentence.
    what: String,
    /// Further sentences, each with the index of the stack behind it.
    notes: Vec<(String, usize)>,
    stacks: Vec<Vec<Frame>>,
    thread: Option<String>,
    leaked_bytes: Option<u64>,
    leaked_blocks: Option<u64>,
    line: u64,
}

impl Told {
    fn push(&mut self, frame: Frame) {
        if let Some(stack) = self.stacks.last_mut()
            && stack.len() < MAX_FRAMES
        {
            stack.push(frame);
        }
    }

    /// The sentence before a stack; the first stack's is `what`.
    fn note_of(&self, stack: usize) -> Option<&str> {
        self.notes
            .iter()
            .rev()
            .find(|(_, at)| *at == stack)
            .map(|(note, _)| note.as_str())
    }

    /// The record; none for a leak whose bytes are in the record of the block that holds it.
    fn record(&self) -> Option<Record> {
        if self.kind == "Leak_IndirectlyLost" {
            return None;
        }
        let kind = self.error_kind();
        let mut record = Record::new("valgrind", kind, &self.kind);
        record.source = Source::at(self.line);
        scan::cut(&self.what, 500).clone_into(&mut record.message);
        for (note, _) in self
            .notes
            .iter()
            .filter(|(note, _)| note.starts_with("Address ") || note.starts_with(" Address "))
            .take(1)
        {
            record.message.push_str("; ");
            record.message.push_str(scan::cut(note.trim(), 500));
        }
        if kind == Kind::MemoryLeak || kind == Kind::LiveMemory {
            self.leak(&mut record);
        }
        self.access(&mut record);
        for (at, frames) in self.stacks.iter().enumerate() {
            let role = if at == 0 {
                first_role(kind)
            } else {
                self.note_of(at).map_or(Role::Unknown, role)
            };
            let thread = if at == 0 { self.thread.clone() } else { None };
            if !frames.is_empty() {
                record.stacks.push(Stack {
                    role,
                    thread,
                    frames: frames.clone(),
                });
            }
        }
        if kind == Kind::DataRace {
            let name = self
                .notes
                .iter()
                .find_map(|(note, _)| scan::between(note, "data symbol \"", "\""));
            record.subject = name.map(str::to_owned);
        }
        Some(record)
    }

    /// `16 (8 direct, 8 indirect) bytes in 1 blocks are definitely lost`: the XML's number is of both together.
    fn leak(&self, record: &mut Record) {
        let number = |before: &str| {
            let at = self.what.find(before)?;
            let digits = self.what[..at].rsplit(['(', ' ']).next()?;
            scan::number(digits)
        };
        record.bytes = number(" direct, ")
            .or_else(|| scan::leading_number(&self.what).map(|(bytes, _)| bytes))
            .or(self.leaked_bytes);
        record.indirect_bytes = number(" indirect) ").filter(|&bytes| bytes > 0);
        record.blocks = self
            .leaked_blocks
            .or_else(|| scan::number_after(&self.what, " bytes in "));
    }

    fn access(&self, record: &mut Record) {
        let lower = self.what.to_ascii_lowercase();
        let kind = if lower.contains("read of size") {
            "read"
        } else if lower.contains("write of size") {
            "write"
        } else {
            return;
        };
        let address = self
            .notes
            .iter()
            .find_map(|(note, _)| {
                note.trim()
                    .strip_prefix("Address ")
                    .and_then(scan::first_address)
            })
            .or_else(|| scan::first_address(&self.what));
        record.access = Some(Access {
            kind: kind.to_owned(),
            size: scan::number_after(&self.what, "of size "),
            address,
        });
    }

    /// The kind by valgrind's kind and by what it says of the address.
    fn error_kind(&self) -> Kind {
        let place = self
            .notes
            .iter()
            .map(|(note, _)| note.trim())
            .find(|note| note.starts_with("Address "))
            .unwrap_or("");
        match self.kind.as_str() {
            "InvalidRead" | "InvalidWrite" | "InvalidJump" => match place {
                p if p.contains("is not stack'd") => Kind::Crash,
                p if p.contains("free'd") => Kind::UseAfterFree,
                p if p.contains(" bytes after a block") || p.contains(" bytes after an ") => {
                    Kind::HeapOverrun
                }
                p if p.contains(" bytes before a block") || p.contains(" bytes before an ") => {
                    Kind::HeapUnderrun
                }
                p if p.contains("alloc'd") => Kind::HeapOverrun, // begins inside a block and ends behind it
                p if p.contains("'s stack") => Kind::StackOverrun,
                _ if self.kind == "InvalidJump" => Kind::Crash,
                _ => Kind::Other,
            },
            "InvalidFree" => match place {
                p if p.contains(" 0 bytes inside a block") && p.contains("free'd") => {
                    Kind::DoubleFree
                }
                _ => Kind::InvalidFree,
            },
            "MismatchedFree" => Kind::MismatchedFree,
            k if k.starts_with("MismatchedAllocateDeallocate") => Kind::MismatchedFree,
            "UninitCondition" | "UninitValue" => Kind::UninitialisedUse,
            "SyscallParam" | "ClientCheck" if self.what.contains("ninitialised") => {
                Kind::UninitialisedUse
            }
            "SyscallParam" => match place {
                p if p.contains("free'd") => Kind::UseAfterFree,
                p if p.contains(" bytes after a block") => Kind::HeapOverrun,
                _ => Kind::Other,
            },
            "Leak_DefinitelyLost" | "Leak_PossiblyLost" | "Leak_IndirectlyLost" => Kind::MemoryLeak,
            "Leak_StillReachable" => Kind::LiveMemory,
            "Race" | "ConflictingAccess" => Kind::DataRace,
            "FatalSignal" => Kind::Crash,
            _ => Kind::Other,
        }
    }
}

/// What the first stack of an error tells.
fn first_role(kind: Kind) -> Role {
    match kind {
        Kind::DoubleFree | Kind::InvalidFree | Kind::MismatchedFree => Role::Free,
        Kind::MemoryLeak | Kind::LiveMemory => Role::Allocation,
        _ => Role::Access,
    }
}

/// What a later stack tells, by the sentence before it.
fn role(note: &str) -> Role {
    let note = note.trim();
    match note {
        n if n.starts_with("Uninitialised value was created") => Role::Origin,
        n if n.starts_with("This conflicts with") || n.starts_with("Other segment") => {
            Role::OtherAccess
        }
        n if n.starts_with("Thread #")
            || n.contains("was created")
            || n.contains("first observed") =>
        {
            Role::Creation
        }
        n if n.contains("free'd") => Role::Free,
        n if n.contains("alloc'd") => Role::Allocation,
        n if n.contains("on thread ") => Role::Origin,
        _ => Role::Unknown,
    }
}

/// The XML's kind for the first line of an error in text form.
fn kind_of_text(what: &str) -> Option<&'static str> {
    Some(match what {
        w if w.starts_with("Invalid read of size") => "InvalidRead",
        w if w.starts_with("Invalid write of size") => "InvalidWrite",
        w if w.starts_with("Invalid free()") => "InvalidFree",
        w if w.starts_with("Mismatched free()") => "MismatchedFree",
        w if w.starts_with("Mismatched ") => "MismatchedAllocateDeallocateSize",
        w if w.starts_with("Jump to the invalid address") => "InvalidJump",
        w if w.starts_with("Conditional jump or move depends") => "UninitCondition",
        w if w.starts_with("Use of uninitialised value") => "UninitValue",
        w if w.starts_with("Syscall param") => "SyscallParam",
        w if w.starts_with("Source and destination overlap") => "Overlap",
        w if w.starts_with("Argument ") && w.contains("fishy") => "FishyValue",
        w if w.starts_with("realloc() with size 0") => "ReallocSizeZero",
        w if w.starts_with("Invalid alignment") || w.starts_with("Unsafe allocation") => {
            "InvalidAlignment"
        }
        w if w.contains(" definitely lost in loss record") => "Leak_DefinitelyLost",
        w if w.contains(" possibly lost in loss record") => "Leak_PossiblyLost",
        w if w.contains(" indirectly lost in loss record") => "Leak_IndirectlyLost",
        w if w.contains(" still reachable in loss record") => "Leak_StillReachable",
        w if w.starts_with("Possible data race") => "Race",
        w if w.starts_with("Conflicting load") || w.starts_with("Conflicting store") => {
            "ConflictingAccess"
        }
        w if w.starts_with("Process terminating with default action of signal") => "FatalSignal",
        w if w.starts_with("Uninitialised byte(s) found")
            || w.starts_with("Unaddressable byte(s) found") =>
        {
            "ClientCheck"
        }
        w if w.starts_with("Thread #") && w.contains("lock order") => "LockOrder",
        w if w.starts_with("Illegal memory pool") => "InvalidMemPool",
        w if w.starts_with("File descriptor ") => "FdBadClose",
        _ => return None,
    })
}
