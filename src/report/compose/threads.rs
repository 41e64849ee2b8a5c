//! Threads and their stacks, with names and source lines.
//!
//! Places are looked up once each and in parallel: a thousand threads wait at a dozen addresses, and a module's tables are
//! read by whoever asks first.

use std::collections::{HashMap, HashSet};

use ground::target::{Address, Frame, ModuleId, Thread};
use rayon::prelude::*;

use super::Context;
use crate::report::schema::{self, Hex, Limit, OmittedFrames};
use postmortem::debuginfo::{DebugInfo, FunctionName, SourceFrame};
use postmortem::session::{Session, ThreadState};

/// The function of a frame that the kernel made to run a signal's handler, as gdb calls it.
const SIGNAL_FRAME: &str = "<signal handler called>";

/// All threads with their frames.
pub fn threads(session: &Session, context: &Context<'_>) -> Vec<schema::Thread> {
    let unwinder = session.unwinder();
    unwinder.unwind_all();
    let threads = context.target.threads;
    let list = threads.list();
    let frames = (0..list.len()).flat_map(|index| threads.frames(index));
    let places = Places::look_up(
        frames.filter_map(|frame| Some((frame.module?, frame.lookup))),
        context,
    );
    list.iter()
        .enumerate()
        .map(|(index, thread)| {
            let omitted = unwinder.omitted(index);
            // The number of the frame at a place: frames that were not kept count too.
            let number = |place: usize| match omitted {
                Some(omitted) if place >= omitted.before => {
                    place.saturating_add(usize::try_from(omitted.count).unwrap_or(usize::MAX))
                }
                _ => place,
            };
            let found = threads.frames(index);
            let frames: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(place, frame)| {
                    let mut shown = stack_frame(number(place), frame, context, &places);
                    // What a signal interrupted called nobody: the kernel put the frame inside it there.
                    let outer = found.get(place.saturating_add(1));
                    if outer.is_some_and(|outer| outer.interrupted) {
                        shown.function = Some(SIGNAL_FRAME.into());
                        shown.function_offset = None;
                    }
                    shown
                })
                .collect();
            schema::Thread {
                thread_id: thread.tid,
                thread_name: thread.name.clone(),
                state: state(session, thread),
                frame_count: frames.len(),
                omitted_frames: omitted.map(|omitted| OmittedFrames {
                    before: omitted.before,
                    count: omitted.count,
                }),
                stack_end: unwinder.end(index).map(|end| end.name().to_owned()),
                frames,
            }
        })
        .collect()
}

/// What a thread was doing, where the core tells.
fn state(session: &Session, thread: &Thread) -> Option<String> {
    let name = session.arch().system_call_name;
    Some(match session.thread_state(thread)? {
        ThreadState::Running => "running".into(),
        ThreadState::InSystemCall(number) => match name(number) {
            Some(name) => format!("in {name}"),
            None => format!("in system call {number}"),
        },
    })
}

fn stack_frame(
    number: usize,
    frame: &Frame,
    context: &Context<'_>,
    places: &Places,
) -> schema::Frame {
    let mut shown = named_frame(
        number,
        frame.pc,
        frame.lookup,
        frame.module,
        context,
        places,
    );
    frame.trust.name().clone_into(&mut shown.trust);
    shown
}

/// Frames of a stack that the allocator recorded: return addresses, so each is looked up one byte earlier.
pub fn recorded_frames(pcs: &[Address], context: &Context<'_>) -> Vec<schema::Frame> {
    let calls = || {
        pcs.iter().map(|&pc| {
            let lookup = pc.checked_sub(1).unwrap_or(pc);
            (pc, lookup, context.module_at(lookup).map(|found| found.id))
        })
    };
    let places = Places::look_up(
        calls().filter_map(|(_, lookup, module)| Some((module?, lookup))),
        context,
    );
    calls()
        .enumerate()
        .map(|(number, (pc, lookup, module))| {
            let mut shown = named_frame(number, pc, lookup, module, context, &places);
            "prewalked".clone_into(&mut shown.trust);
            shown
        })
        .collect()
}

fn named_frame(
    number: usize,
    pc: Address,
    lookup: Address,
    module: Option<ModuleId>,
    context: &Context<'_>,
    places: &Places,
) -> schema::Frame {
    let found = module.and_then(|id| context.module(id));
    let place = places.0.get(&lookup).cloned().unwrap_or_default();
    schema::Frame {
        frame: number,
        module: found.map(|module| module.name.clone()),
        offset: lookup.into(),
        resume_address: pc.into(),
        module_offset: found
            .and_then(|module| lookup.offset_from(module.range.start))
            .map(Hex),
        function: place.function,
        function_offset: place
            .start
            .and_then(|start| lookup.offset_from(start))
            .map(Hex),
        file: place.file,
        line: place.line,
        inlines: place.inlines,
        ..schema::Frame::default()
    }
}

/// What is known of addresses, by the address that is looked up.
struct Places(HashMap<Address, Place>);

/// The function at an address, and where in the source.
#[derive(Clone, Default)]
struct Place {
    function: Option<String>,
    start: Option<Address>,
    file: Option<String>,
    line: Option<u32>,
    inlines: Vec<schema::Inline>,
}

impl Places {
    fn look_up(
        addresses: impl Iterator<Item = (ModuleId, Address)>,
        context: &Context<'_>,
    ) -> Self {
        let distinct: Vec<_> = addresses.collect::<HashSet<_>>().into_iter().collect();
        let modules: HashSet<_> = distinct.iter().map(|&(module, _)| module).collect();
        for module in modules {
            context.names.prepare_sources(module);
        }
        let look_up = |&(module, lookup): &(ModuleId, Address)| {
            let function = context.names.function_at(module, lookup);
            let source = context.names.source_at(module, lookup);
            (lookup, place(function, &source.frames))
        };
        Self(distinct.par_iter().map(look_up).collect())
    }
}

/// The functions at a place, innermost inlined one first: name, file, line.
pub fn functions_at(
    names: &DebugInfo,
    module: ModuleId,
    lookup: Address,
) -> Vec<(Option<String>, Option<String>, Option<u32>)> {
    let source = names.source_at(module, lookup);
    let found = place(names.function_at(module, lookup), &source.frames);
    let inlines = found.inlines.into_iter();
    let inlines = inlines.map(|inline| (inline.function, inline.file, inline.line));
    let own = (found.function, found.file, found.line);
    let own = Some(own).filter(|(function, ..)| function.is_some());
    inlines.chain(own).collect()
}

fn place(symbol: Option<FunctionName>, source: &[SourceFrame]) -> Place {
    let start = symbol.as_ref().map(|symbol| symbol.start);
    let symbol = symbol.map(|symbol| symbol.name);
    let Some((own, inlined)) = source.split_last() else {
        return Place {
            function: symbol,
            start,
            ..Place::default()
        };
    };
    let inline = |frame: &SourceFrame| schema::Inline {
        function: frame.function.clone(),
        file: path(frame),
        line: frame.line,
    };
    Place {
        function: match own.function.clone() {
            Some(known) => Some(better_name(known, symbol.as_deref())),
            None => symbol,
        },
        start,
        file: path(own),
        line: own.line,
        inlines: inlined.iter().map(inline).collect(),
    }
}

/// The function's name by debug information, unless its symbol says the same and more: which clone it is, or what a local
/// class does not have there, its parameters. A symbol that says something else is another name for the same code.
fn better_name(known: String, symbol: Option<&str>) -> String {
    let Some(symbol) = symbol else { return known };
    let clone = |rest: &str| rest.starts_with(" [clone ") || rest.starts_with('.');
    let with_parameters = || {
        let (before, _) = symbol.split_once('(')?;
        let name = known.rsplit("::").next()?;
        Some(!known.contains('(') && symbol.contains("::") && before.ends_with(name))
    };
    let says_more = symbol.strip_prefix(known.as_str()).is_some_and(clone)
        || with_parameters().unwrap_or(false);
    if says_more { symbol.to_owned() } else { known }
}

/// The whole path of a frame's file, `.` left out.
fn path(frame: &SourceFrame) -> Option<String> {
    let file = frame.file.as_deref()?;
    let directory = frame
        .directory
        .as_deref()
        .filter(|directory| !file.starts_with('/') && !directory.is_empty());
    let whole = match directory {
        Some(directory) => format!("{directory}/{file}"),
        None => file.to_owned(),
    };
    let parts = whole.split('/');
    let parts: Vec<&str> = parts
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let root = if whole.starts_with('/') { "/" } else { "" };
    Some(format!("{root}{}", parts.join("/")))
}

/// The threads whose stack is not known to its outermost function, by what stopped it.
pub fn incomplete_stacks(session: &Session) -> Vec<Limit> {
    let unwinder = session.unwinder();
    let count = session.threads().list().len();
    if count == 0 {
        return vec![Limit {
            what: "the threads".into(),
            why: "the core has no notes about them".into(),
            incomplete: true,
        }];
    }
    let ends: Vec<_> = (0..count)
        .filter_map(|index| Some((index, unwinder.end(index)?)))
        .collect();
    let mut limits = Vec::new();
    for (name, why) in [
        ("not-in-core", "their memory is not in the core"),
        (
            "not-rising",
            "the next frame would not lie above the last one shown: the stack is overwritten, or runs in a circle",
        ),
        (
            "lost",
            "no rule, frame pointer or return address leads beyond the last frame shown: the stack is overwritten, or that code has no call-frame information here",
        ),
        (
            "overwritten",
            "a return address on the way is in no code: the stack is overwritten",
        ),
        (
            "no-file",
            "a module on the way has no file here, or none with call-frame information: what follows is a guess, and why it ends is not known",
        ),
        ("too-long", "they are too deep to be followed"),
    ] {
        let ended: Vec<usize> = ends
            .iter()
            .filter(|(_, end)| end.name() == name)
            .map(|(index, _)| *index)
            .collect();
        if !ended.is_empty() {
            limits.push(Limit {
                what: format!(
                    "the stacks of {} of {count} threads to their ends",
                    ended.len()
                ),
                why: why.into(),
                incomplete: true,
            });
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_says_more_is_taken() {
        for (known, symbol, expected) in [
            (
                "f(int)",
                Some("f(int) [clone .cold]"),
                "f(int) [clone .cold]",
            ),
            ("f", Some("f.part.0"), "f.part.0"),
            ("f", Some("f_alias"), "f"),
            ("malloc", Some("__libc_malloc"), "malloc"),
            ("f(int)", None, "f(int)"),
            (
                "run::<lambda>::operator()",
                Some("run()::{lambda()#1}::operator()() const"),
                "run::<lambda>::operator()",
            ),
            ("ns::f", Some("ns::f(int)"), "ns::f(int)"),
        ] {
            assert_eq!(better_name(known.into(), symbol), expected);
        }
    }

    #[test]
    fn paths_are_whole_and_without_detours() {
        let path = |directory: Option<&str>, file: &str| {
            path(&SourceFrame {
                file: Some(file.into()),
                directory: directory.map(Into::into),
                ..SourceFrame::default()
            })
            .unwrap()
        };
        assert_eq!(path(Some("/build/x"), "src/a.c"), "/build/x/src/a.c");
        assert_eq!(path(Some("/build/x"), "./src//a.c"), "/build/x/src/a.c");
        assert_eq!(path(Some("/build/x"), "/usr/b.h"), "/usr/b.h");
        assert_eq!(path(None, "./a.c"), "a.c");
        assert_eq!(path(None, "src/../a.c"), "src/../a.c");
    }
}
