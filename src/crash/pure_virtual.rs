//! A call of a virtual function that has no body: the object was destroyed before, or is not made yet.
//!
//! The table of an abstract class has `__cxa_pure_virtual` in the place of each function that it leaves to others (Itanium C++ ABI,
//! 3.2.6). Objects have that table while their base is made, and after their destructor.

use ground::target::Address;
use postmortem::session::Session;

use super::origin::{self, Load};

/// Frames in which the runtime's function is looked for.
const MAX_FRAMES: usize = 32;
/// The functions that stand in place of one without a body.
const NAMES: [&str; 2] = ["__cxa_pure_virtual", "__cxa_deleted_virtual"];

/// The call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PureVirtual {
    /// Index of the frame that made it.
    pub frame: usize,
    /// The function of that frame, where its name is known.
    pub function: Option<String>,
    /// The object, where the code tells it.
    pub object: Option<Address>,
    /// The loads by which the program got there: the function in the table, the table in the object, the object.
    pub loads: Vec<Load>,
}

/// The call that the thread died of.
pub(super) fn read(session: &Session, thread: usize) -> Option<PureVirtual> {
    let frames = session.threads().frames(thread);
    let name = |index: usize| {
        let frame = frames.get(index)?;
        let found = session
            .debug_info()
            .function_at(frame.module?, frame.lookup)?;
        Some(found.name)
    };
    let called = (0..frames.len().min(MAX_FRAMES))
        .find(|index| name(*index).is_some_and(|name| NAMES.contains(&name.as_str())))?;
    let frame = called.checked_add(1)?;
    frames.get(frame)?;
    let loads = origin::of_call_into(session, thread, called).unwrap_or_default();
    let object = match loads.as_slice() {
        [function, table, ..] if !function.is_slot && !table.is_slot => table.at,
        _ => None,
    };
    Some(PureVirtual {
        frame,
        function: name(frame),
        object,
        loads,
    })
}
