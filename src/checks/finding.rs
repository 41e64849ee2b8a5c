//! What a check says: findings, with their evidence.

use std::fmt;

use ground::target::Address;
use heaps::anomaly::ListRef;
use heaps::map::{Block, BlockState};

/// Kind of a finding; the contract's table of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// One block is in the free lists more than once, or is free and was freed again.
    DoubleFree,
    /// A free list runs in a circle that no double free explains.
    CyclicFreeList,
    /// A free-list entry is inside a block: an inner pointer was freed.
    MisalignedFreeEntry,
    /// A free-list entry is no block of that list at all.
    InvalidFreeEntry,
    /// Bytes past the end of a block were written.
    HeapOverrun,
    /// Bytes before the start of a block were written.
    HeapUnderrun,
    /// A free block's contents changed after it was freed.
    UseAfterFreeWrite,
    /// The program died of what it read in a free block.
    DanglingReference,
    /// Allocator state is inconsistent in a way that none of the above explains.
    CorruptMetadata,
    /// A list's recorded length differs from what the list holds.
    CountMismatch,
    /// The program died of what it read in a block in use before anything was written there.
    UninitialisedUse,
    /// A thread used up its stack.
    StackOverflow,
    /// A block was given back to an allocator that is not its own.
    AllocatorMismatch,
    /// One block has two holders of types that cannot be one.
    AliasedBlock,
    /// A block is too small for another definition of its type's name.
    TypeConflict,
}

impl FindingKind {
    /// All kinds, in the order of the contract.
    pub const ALL: [FindingKind; 15] = [
        FindingKind::DoubleFree,
        FindingKind::CyclicFreeList,
        FindingKind::MisalignedFreeEntry,
        FindingKind::InvalidFreeEntry,
        FindingKind::HeapOverrun,
        FindingKind::HeapUnderrun,
        FindingKind::UseAfterFreeWrite,
        FindingKind::DanglingReference,
        FindingKind::CorruptMetadata,
        FindingKind::CountMismatch,
        FindingKind::UninitialisedUse,
        FindingKind::StackOverflow,
        FindingKind::AllocatorMismatch,
        FindingKind::AliasedBlock,
        FindingKind::TypeConflict,
    ];

    /// Stable code in reports: `double-free`.
    pub fn code(self) -> &'static str {
        match self {
            FindingKind::DoubleFree => "double-free",
            FindingKind::CyclicFreeList => "cyclic-free-list",
            FindingKind::MisalignedFreeEntry => "misaligned-free-entry",
            FindingKind::InvalidFreeEntry => "invalid-free-entry",
            FindingKind::HeapOverrun => "heap-overrun",
            FindingKind::HeapUnderrun => "heap-underrun",
            FindingKind::UseAfterFreeWrite => "use-after-free-write",
            FindingKind::DanglingReference => "dangling-reference",
            FindingKind::CorruptMetadata => "corrupt-metadata",
            FindingKind::CountMismatch => "count-mismatch",
            FindingKind::UninitialisedUse => "uninitialised-use",
            FindingKind::StackOverflow => "stack-overflow",
            FindingKind::AllocatorMismatch => "allocator-mismatch",
            FindingKind::AliasedBlock => "aliased-block",
            FindingKind::TypeConflict => "type-conflict",
        }
    }

    /// CWE number.
    pub fn cwe(self) -> u32 {
        match self {
            FindingKind::DoubleFree | FindingKind::CyclicFreeList | FindingKind::AliasedBlock => {
                415
            }
            FindingKind::TypeConflict => 843,
            FindingKind::MisalignedFreeEntry => 761,
            FindingKind::InvalidFreeEntry => 590,
            FindingKind::HeapOverrun => 122,
            FindingKind::HeapUnderrun => 124,
            FindingKind::UseAfterFreeWrite | FindingKind::DanglingReference => 416,
            FindingKind::CorruptMetadata | FindingKind::CountMismatch => 787,
            FindingKind::UninitialisedUse => 457,
            FindingKind::StackOverflow => 674,
            FindingKind::AllocatorMismatch => 762,
        }
    }
}

/// Why what a damaged link had been is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrestored {
    /// A value fits, and another one may, or another story is open.
    Ambiguous,
    /// No value fits.
    NothingFits,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The evidence fits, and so does something else.
    Suspected,
    /// No other explanation fits as well.
    Likely,
    /// No state that this release of the allocator passes through shows this evidence.
    Certain,
}

impl Confidence {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Suspected => "suspected",
            Confidence::Likely => "likely",
            Confidence::Certain => "certain",
        }
    }
}

/// How much a finding matters; follows from kind, confidence and transience alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A state that the allocator passes through while it works.
    Note,
    /// Worth a look.
    Warning,
    /// The heap is damaged.
    Critical,
}

impl Severity {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// A block as a finding shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// The block.
    pub block: Block,
    /// Its state.
    pub state: BlockState,
    /// Bytes from its start to the finding's address.
    pub offset: u64,
}

/// A word in memory that proves a finding. A person can look at the same address in gdb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Its address.
    pub at: Address,
    /// Its length in bytes, for the hex dump; 1 to 32.
    pub bytes: u32,
    /// What it is: `next link`.
    pub what: String,
    /// What it should hold.
    pub expected: String,
    /// What it holds.
    pub found: Found,
}

/// What a word of evidence holds, in words that begin with its value where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    value: Option<u64>,
    text: String,
}

impl Found {
    /// A word whose bits matter: `0x10`.
    pub fn word(value: u64) -> Self {
        Self::told(value, format!("{value:#x}"))
    }

    /// A count.
    pub fn number(value: u64) -> Self {
        Self::told(value, value.to_string())
    }

    /// A value in words that begin with it.
    pub(super) fn told(value: u64, text: String) -> Self {
        Self {
            value: Some(value),
            text,
        }
    }

    /// Words that do not begin with a value.
    pub fn said(text: impl Into<String>) -> Self {
        Self {
            value: None,
            text: text.into(),
        }
    }

    /// The same, and what follows it.
    pub fn and(mut self, words: &str) -> Self {
        self.text.push_str(words);
        self
    }

    /// The value that the words begin with.
    pub fn value(&self) -> Option<u64> {
        self.value
    }

    /// The words.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<Address> for Found {
    fn from(address: Address) -> Self {
        Self::word(address.get())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A place in a free list where the finding's block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The list.
    pub list: ListRef,
    /// Entries before it.
    pub position: u64,
}

/// What overwriting bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwriterClass {
    /// Printable text.
    Ascii,
    /// Two-byte text.
    Utf16,
    /// A pointer into mapped memory.
    Pointer,
    /// Zero bytes.
    Zero,
    /// A small number.
    SmallInteger,
    /// A floating-point number of everyday size.
    Float,
    /// One bit, and no software explanation fits.
    BitFlip,
}

impl OverwriterClass {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            OverwriterClass::Ascii => "ascii",
            OverwriterClass::Utf16 => "utf16",
            OverwriterClass::Pointer => "pointer",
            OverwriterClass::Zero => "zero",
            OverwriterClass::SmallInteger => "small-integer",
            OverwriterClass::Float => "float",
            OverwriterClass::BitFlip => "bit-flip",
        }
    }
}

/// The overwriting bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwriter {
    /// What they look like.
    pub class: OverwriterClass,
    /// The text, the pointer's target or the number, for people.
    pub text: Option<String>,
}

/// The block that most likely wrote past its end (or before its start).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The block.
    pub block: Block,
    /// Its state.
    pub state: BlockState,
    /// What its last bytes hold, in a few words, if that says something.
    pub contents: Option<String>,
}

/// Call stacks that the allocator itself recorded: program counters, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedStacks {
    /// Where the block was allocated.
    pub allocation: Vec<Address>,
    /// Where it was freed.
    pub deallocation: Vec<Address>,
}

/// Whether an error is what the process died of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExplainsCrash {
    /// It is: proved by words in memory.
    Yes,
    /// It is not: the process is shown to have died of something else.
    No,
    /// Neither can be shown.
    #[default]
    Unknown,
}

impl ExplainsCrash {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ExplainsCrash::Yes => "yes",
            ExplainsCrash::No => "no",
            ExplainsCrash::Unknown => "unknown",
        }
    }
}

/// What a step of the way back from the crash is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseKind {
    /// The instruction at fault and its memory.
    Operand,
    /// A register that made the address at fault, or was called.
    Register,
    /// A word that the program loaded.
    Load,
    /// A word that was written over.
    Overwritten,
    /// A block that had been freed.
    Freed,
    /// A word that still points at it.
    HeldBy,
    /// The block whose end was written past.
    WrittenBy,
    /// The allocator's last message.
    Message,
    /// The call of the allocator.
    Call,
    /// A signal that somebody sent.
    Signal,
    /// Another error, of which the process died.
    OtherError,
    /// A word that the program never wrote.
    NeverWritten,
}

impl CauseKind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            CauseKind::Operand => "operand",
            CauseKind::Register => "register",
            CauseKind::Load => "load",
            CauseKind::Overwritten => "overwritten",
            CauseKind::Freed => "freed",
            CauseKind::HeldBy => "held-by",
            CauseKind::WrittenBy => "written-by",
            CauseKind::Message => "message",
            CauseKind::Call => "call",
            CauseKind::Signal => "signal",
            CauseKind::OtherError => "other-error",
            CauseKind::NeverWritten => "never-written",
        }
    }
}

/// What a word held before it was written over, where nothing else fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The word.
    pub at: Address,
    /// What it holds.
    pub found: u64,
    /// What it held.
    pub original: u64,
    /// Why it can have been nothing else.
    pub proof: String,
}

/// A step of the way back from the crash: a fact that can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What it is about.
    pub kind: CauseKind,
    /// Where: of an instruction, a word, a block.
    pub at: Option<Address>,
    /// In words.
    pub text: String,
}

/// What a check says about one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Kind of error.
    pub kind: FindingKind,
    /// How sure.
    pub confidence: Confidence,
    /// The allocator may have been passing through this state.
    pub transient: bool,
    /// Index of the heap in the analysis; `None` for an allocator that is not walked.
    pub heap: Option<usize>,
    /// The allocator's name; `None` for what is no error of the heap.
    pub allocator: Option<&'static str>,
    /// The address, as the contract defines it for the kind; `None` for a refused call whose pointer cannot be had.
    pub at: Option<Address>,
    /// The block that contains `at`.
    pub block: Option<BlockView>,
    /// One sentence.
    pub message: String,
    /// Further blocks of which the same is true: one loop over them is one error.
    pub alike: u64,
    /// The words that prove it.
    pub evidence: Vec<Evidence>,
    /// Where the block stands in free lists.
    pub locations: Vec<Location>,
    /// Free blocks that the damage cut off from every list.
    pub lost_blocks: u64,
    /// Who wrote.
    pub culprit: Option<Culprit>,
    /// What was written.
    pub overwriter: Option<Overwriter>,
    /// Stacks that the allocator recorded for the block (or the culprit).
    pub stacks: Option<RecordedStacks>,
    /// Whether it is what the process died of.
    pub explains_crash: ExplainsCrash,
    /// How that is known: from the crash back to the error, or to what it was instead.
    pub causes: Vec<Cause>,
    /// What damaged words held before. Nothing is applied to the core.
    pub repairs: Vec<Repair>,
    /// Why a damaged link is not among them; `None` where it is, and for what is never restored.
    pub unrestored: Option<Unrestored>,
    /// One to three things that a person can do now.
    pub next_steps: Vec<String>,
    /// Fingerprint, recipe 1: hex.
    pub fingerprint: String,
}

impl Finding {
    /// Severity by the contract's rule.
    pub fn severity(&self) -> Severity {
        if self.transient {
            Severity::Note
        } else if self.kind == FindingKind::CountMismatch
            || self.confidence == Confidence::Suspected
        {
            Severity::Warning
        } else {
            Severity::Critical
        }
    }
}

/// All findings, most severe first, bounded per kind.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    dropped: u64,
}

impl Findings {
    /// Findings kept of each kind and severity: a shattered heap must not become a gigabyte of report.
    pub const MAX_PER_KIND: usize = 100;

    /// Adds a finding, or counts it when there are enough of its kind.
    pub fn push(&mut self, finding: Finding) {
        // Notes are counted apart, so that they never push out a critical one.
        let alike =
            |kept: &&Finding| (kept.kind, kept.severity()) == (finding.kind, finding.severity());
        if self.kept.iter().filter(alike).count() < Self::MAX_PER_KIND {
            self.kept.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    /// What is kept so far.
    pub fn kept_mut(&mut self) -> &mut [Finding] {
        &mut self.kept
    }

    /// The findings, sorted: severity, confidence, then address.
    pub fn into_sorted(mut self) -> (Vec<Finding>, u64) {
        self.kept.sort_by(|a, b| {
            (b.severity(), b.confidence, a.kind, a.at).cmp(&(
                a.severity(),
                a.confidence,
                b.kind,
                b.at,
            ))
        });
        (self.kept, self.dropped)
    }
}
