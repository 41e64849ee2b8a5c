//! Local variables by the words and registers that they stand in.
//!
//! ```text
//! word of a stack ──┬─ a variable of the frame around it, or a parameter of the frame inside it       (debug information)
//!                   └─ where a frame keeps a register of its caller's ──> a variable of that caller, or of one further out
//! register ─────────── a variable of the innermost frame, or of the first one out that has changed it  (call-frame information)
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ground::target::{Address, FrameTrust};
use postmortem::debuginfo::{FrameFacts, Local, LocalPart, LocalPlace};
use postmortem::session::Session;

/// Frames whose variables are kept.
const MAX_KEPT: usize = 1 << 12;
/// Frames that are gone outwards in search of whom a register belongs to.
const MAX_OUTWARDS: usize = 64;
/// Bytes of a variable whose size is not known.
const WORD: u64 = 8;

/// The variable that a word is, or is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVariable {
    /// Its name.
    pub name: String,
    /// Bytes from its start.
    pub offset: u64,
    /// Index of its frame.
    pub frame: usize,
    /// The function that it belongs to, if that was inlined into the frame's.
    pub inlined: Option<String>,
    /// The register that it is in, by its DWARF number.
    pub register: Option<u16>,
    /// The frame that keeps that register on the stack; `None`: nobody, or it is in memory anyway.
    pub saved_by: Option<usize>,
}

/// What a word or a register turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// A variable.
    Variable(LocalVariable),
    /// A register of a frame that another one keeps on the stack; no variable is known to be in it.
    Saved {
        /// Its DWARF number.
        register: u16,
        /// The frame that keeps it.
        by: usize,
    },
}

/// Variables of frames, as far as they were asked for.
#[derive(Default)]
pub struct Variables {
    kept: Mutex<BTreeMap<(usize, usize), Arc<Vec<Local>>>>,
}

impl Variables {
    /// What the word at `at` is, in the frame with this index, which it lies in.
    pub fn at_word(
        &self,
        session: &Session,
        thread: usize,
        frame: usize,
        at: Address,
    ) -> Option<Belonging> {
        let inside = frame.checked_sub(1);
        for frame in [Some(frame), inside].into_iter().flatten() {
            let locals = self.of_frame(session, thread, frame);
            if let Some(found) = in_memory(&locals, at) {
                return Some(variable(found, frame, None));
            }
        }
        let saved = session.unwinder().saved_registers(thread, frame)?;
        let (register, _) = saved.iter().find(|(_, place)| *place == Some(at))?;
        let outer = frame.checked_add(1)?;
        Some(match self.owner(session, thread, outer, *register) {
            Some(found) => Belonging::Variable(LocalVariable {
                saved_by: Some(frame),
                ..found
            }),
            None => Belonging::Saved {
                register: *register,
                by: frame,
            },
        })
    }

    /// The variable that a thread's register holds.
    pub fn in_register(
        &self,
        session: &Session,
        thread: usize,
        register: u16,
    ) -> Option<LocalVariable> {
        self.owner(session, thread, 0, register)
    }

    /// The variable that stands in a register, as the frame with this index has it: its own, or one of a frame further out if no frame between has changed it.
    fn owner(
        &self,
        session: &Session,
        thread: usize,
        first: usize,
        register: u16,
    ) -> Option<LocalVariable> {
        for frame in first..first.saturating_add(MAX_OUTWARDS) {
            let locals = self.of_frame(session, thread, frame);
            let here = locals.iter().find_map(|local| {
                let mut parts = local.parts.iter();
                let part = parts.find(|part| part.at == LocalPlace::Register(register))?;
                Some((local, *part, part.offset))
            });
            if let Some(Belonging::Variable(found)) =
                here.map(|here| variable(here, frame, Some(register)))
            {
                return Some(found);
            }
            // What is not kept for the caller is the caller's still, if callers may rely on it at all.
            let saved = session.unwinder().saved_registers(thread, frame)?;
            let is_changed = saved.iter().any(|(number, _)| *number == register);
            let callee_saved = session.arch().callee_saved.contains(&register);
            if is_changed || !callee_saved {
                return None;
            }
        }
        None
    }

    /// The variables of a frame that was found by rules.
    pub fn of_frame(&self, session: &Session, thread: usize, index: usize) -> Arc<Vec<Local>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&(thread, index)) {
            return Arc::clone(known);
        }
        let found = Arc::new(read(session, thread, index).unwrap_or_default());
        if kept.len() < MAX_KEPT {
            kept.insert((thread, index), Arc::clone(&found));
        }
        found
    }
}

fn read(session: &Session, thread: usize, index: usize) -> Option<Vec<Local>> {
    let frame = session.threads().frames(thread).get(index)?;
    if !matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi) {
        return None;
    }
    let facts = FrameFacts {
        lookup: frame.lookup,
        registers: &frame.registers,
        cfa: session.unwinder().frame_address(thread, index),
        memory: session.target().memory,
    };
    Some(session.debug_info().locals_at(frame.module?, &facts))
}

fn variable(
    (local, _, offset): (&Local, LocalPart, u64),
    frame: usize,
    register: Option<u16>,
) -> Belonging {
    Belonging::Variable(LocalVariable {
        name: local.name.clone(),
        offset,
        frame,
        inlined: local.inlined.clone(),
        register,
        saved_by: None,
    })
}

/// The variable that holds the word at `at`: the smallest one, of these the outermost function's.
fn in_memory(locals: &[Local], at: Address) -> Option<(&Local, LocalPart, u64)> {
    let mut best: Option<(u64, (&Local, LocalPart, u64))> = None;
    for local in locals {
        for part in &local.parts {
            let LocalPlace::Memory(start) = part.at else {
                continue;
            };
            let bytes = part.bytes.unwrap_or(WORD);
            let Some(inside) = at.offset_from(start).filter(|inside| *inside < bytes) else {
                continue;
            };
            if best.as_ref().is_none_or(|(smallest, _)| bytes < *smallest) {
                let offset = part.offset.saturating_add(inside);
                best = Some((bytes, (local, *part, offset)));
            }
        }
    }
    best.map(|(_, found)| found)
}
