//! The process, its modules and threads.

use std::collections::HashMap;

use heaps::target::{Address, Fault, Frame, MemoryExt, ModuleId, Target, Thread};

use super::Context;
use crate::arch::ArchInfo;
use crate::debuginfo::FunctionName;
use crate::report::schema::{self, CrashingThread, Hex, Limit, hex_digits};
use crate::session::Session;

/// The dead process.
pub fn process(session: &Session) -> schema::Process {
    let process = session.process();
    schema::Process {
        executable: session
            .modules()
            .executable()
            .map(|module| module.name.clone())
            .or_else(|| process.name.clone()),
        arguments: process.arguments.clone(),
        uid: process.uid,
    }
}

/// Registers of the thread that crashed.
pub fn crashing_thread(
    index: usize,
    threads: &[Thread],
    arch: &ArchInfo,
) -> Option<CrashingThread> {
    let registers = threads.get(index)?.registers;
    Some(CrashingThread {
        threads_index: index,
        registers: registers
            .iter()
            .filter_map(|(number, value)| {
                Some((arch.register_name(number)?.to_owned(), Hex(value)))
            })
            .collect(),
    })
}

/// All modules.
pub fn modules(session: &Session) -> Vec<schema::Module> {
    let modules = session.modules();
    modules
        .modules()
        .iter()
        .map(|module| {
            let file = modules.file(module.id);
            schema::Module {
                base_addr: module.range.start.into(),
                end_addr: module.range.end.into(),
                filename: module.name.clone(),
                path: module.path.clone(),
                code_id: module.build_id.as_deref().map(hex_digits),
                debug_id: None,
                loaded_symbols: file.is_some(),
                missing_symbols: file.is_none(),
                verified: file.is_some_and(|file| file.verified),
            }
        })
        .collect()
}

/// All threads with their frames.
pub fn threads(context: &Context<'_>) -> Vec<schema::Thread> {
    let mut names = Names::default();
    let threads = context.target.threads;
    threads
        .list()
        .iter()
        .enumerate()
        .map(|(index, thread)| {
            let frames: Vec<_> = threads
                .frames(index)
                .iter()
                .enumerate()
                .map(|(number, frame)| stack_frame(number, frame, context, &mut names))
                .collect();
            schema::Thread {
                thread_id: thread.tid,
                thread_name: thread.name.clone(),
                frame_count: frames.len(),
                frames,
            }
        })
        .collect()
}

fn stack_frame(
    number: usize,
    frame: &Frame,
    context: &Context<'_>,
    names: &mut Names,
) -> schema::Frame {
    named_frame(number, frame.pc, frame.lookup, frame.module, context, names)
        .with_trust(frame.trust.name())
}

/// Frames of a stack that the allocator recorded: return addresses, so each is looked up one byte earlier.
pub fn recorded_frames(pcs: &[Address], context: &Context<'_>) -> Vec<schema::Frame> {
    let mut names = Names::default();
    pcs.iter()
        .enumerate()
        .map(|(number, &pc)| {
            let lookup = pc.checked_sub(1).unwrap_or(pc);
            let module = context.module_at(lookup).map(|module| module.id);
            named_frame(number, pc, lookup, module, context, &mut names).with_trust("prewalked")
        })
        .collect()
}

fn named_frame(
    number: usize,
    pc: Address,
    lookup: Address,
    module: Option<ModuleId>,
    context: &Context<'_>,
    names: &mut Names,
) -> schema::Frame {
    let found = module.and_then(|id| context.module(id));
    let function = module.and_then(|id| names.get(id, lookup, context));
    schema::Frame {
        frame: number,
        module: found.map(|module| module.name.clone()),
        offset: pc.into(),
        module_offset: found
            .and_then(|module| pc.offset_from(module.range.start))
            .map(Hex),
        function: function.as_ref().map(|function| function.name.clone()),
        function_offset: function
            .and_then(|function| pc.offset_from(function.start))
            .map(Hex),
        ..schema::Frame::default()
    }
}

impl schema::Frame {
    fn with_trust(mut self, trust: &str) -> Self {
        trust.clone_into(&mut self.trust);
        self
    }
}

/// Names already looked up: a thousand threads wait in the same place.
#[derive(Default)]
struct Names(HashMap<Address, Option<FunctionName>>);

impl Names {
    fn get(
        &mut self,
        module: ModuleId,
        lookup: Address,
        context: &Context<'_>,
    ) -> Option<FunctionName> {
        self.0
            .entry(lookup)
            .or_insert_with(|| context.names.function_at(module, lookup))
            .clone()
    }
}

/// The threads whose stack cannot be read to its end: what would come after the outermost frame is not in the core.
pub fn incomplete_stacks(target: Target<'_>) -> Option<Limit> {
    let threads = target.threads.list();
    let incomplete = (0..threads.len())
        .filter(|&index| {
            target.threads.frames(index).last().is_none_or(|frame| {
                matches!(
                    target.memory.read_u8(frame.sp),
                    Err(Fault::NotDumped(_) | Fault::Truncated(_))
                )
            })
        })
        .count();
    (incomplete > 0 || threads.is_empty()).then(|| Limit {
        what: if threads.is_empty() {
            "the threads".into()
        } else {
            format!(
                "the stacks of {incomplete} of {} threads to their ends",
                threads.len()
            )
        },
        why: if threads.is_empty() {
            "the core has no notes about them".into()
        } else {
            "their memory is not in the core".into()
        },
        incomplete: true,
    })
}
