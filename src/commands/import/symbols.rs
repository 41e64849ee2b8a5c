//! Names for the frames of logs, by the files of their modules: by build ID, and where the log has none by path, if the file is older than the log.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ground::target::{Address, LocateLimit, LocatedBy, ModuleId};
use postmortem::debuginfo::DebugInfo;
use postmortem::modules::{ModuleSet, SearchPaths};
use reports::Frame;
use reports::import::{Code, Symboliser};

use crate::report::compose;

/// Modules that are kept open.
const MAX_MODULES: usize = 256;
/// Places that are remembered.
const MAX_PLACES: usize = 1 << 18;
/// Where valgrind loads a position-independent program (coregrind/m_ume/elf.c).
const VALGRIND_BASE: u64 = 0x10_8000;

/// The modules that logs name.
#[derive(Debug)]
pub struct Symbols {
    search: Arc<SearchPaths>,
    /// A file that is newer than this is another build.
    written: Option<SystemTime>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    modules: HashMap<(String, Option<String>), Option<Arc<Opened>>>,
    places: HashMap<(usize, u64), Vec<Frame>>,
    refused: Vec<String>,
    unverified: Vec<String>,
}

#[derive(Debug)]
struct Opened {
    number: usize,
    names: DebugInfo,
    /// Link address of the first byte, for a module with fixed addresses.
    fixed: Option<u64>,
    start: u64,
    end: u64,
}

impl Symbols {
    /// For logs that were last written to at that time; `None`: not known, so nothing without a build ID is taken from a default place.
    pub fn new(search: SearchPaths, written: Option<SystemTime>) -> Self {
        Self {
            search: Arc::new(search),
            written,
            state: Mutex::default(),
        }
    }

    /// What was not used, and what was used unverified: sentences.
    pub fn notes(&self) -> Vec<String> {
        let Ok(state) = self.state.lock() else {
            return Vec::new();
        };
        let unverified = state.unverified.iter();
        let unverified = unverified
            .map(|path| format!("{path} is used unverified: the log has no build ID of it"));
        state.refused.iter().cloned().chain(unverified).collect()
    }

    fn open(&self, code: Code<'_>, state: &mut State) -> Option<Arc<Opened>> {
        let key = (code.path.to_owned(), code.build_id.map(str::to_owned));
        if let Some(known) = state.modules.get(&key) {
            return known.clone();
        }
        if state.modules.len() >= MAX_MODULES {
            return None;
        }
        let opened = self.open_new(code, state).map(Arc::new);
        state.modules.insert(key, opened.clone());
        opened
    }

    fn open_new(&self, code: Code<'_>, state: &mut State) -> Option<Opened> {
        let build_id = match code.build_id {
            Some(text) => Some(bytes(text)?),
            None => None,
        };
        let is_older = |path: &Path| {
            let changed = path.metadata().and_then(|it| it.modified()).ok();
            matches!((changed, self.written), (Some(changed), Some(written)) if changed <= written)
        };
        let set = ModuleSet::alone(code.path, build_id.as_deref(), &self.search, &is_older)?;
        let refused = set.refused().iter();
        let refused = refused.map(|it| format!("{} is not used: {}", it.path.display(), it.why));
        state.refused.extend(refused);
        let module = set.modules().first()?;
        if let Some(file) = set.file(module.id).filter(|file| !file.verified) {
            state.unverified.push(file.path.display().to_string());
        }
        let (start, end) = (module.range.start.get(), module.range.end.get());
        let fixed = module.is_executable.then_some(start);
        Some(Opened {
            number: state.modules.len(),
            names: DebugInfo::new(
                Arc::new(set),
                Arc::clone(&self.search),
                LocateLimit(LocatedBy::DebugInfo),
            ),
            fixed,
            start,
            end,
        })
    }
}

impl Opened {
    /// The link address that a log means.
    fn link_address(&self, code: Code<'_>) -> Option<u64> {
        let is_inside = |at: &u64| (self.start..=self.end).contains(at);
        let found = match (code.offset, code.address, self.fixed) {
            // Of a program with fixed addresses sanitizers print these, others the distance from its first byte.
            (Some(offset), _, Some(_)) if is_inside(&offset) => Some(offset),
            (Some(offset), _, Some(start)) => start.checked_add(offset),
            (Some(offset), _, None) => Some(offset),
            (None, Some(address), Some(_)) => Some(address),
            (None, Some(address), None) if code.tool == "valgrind" => {
                address.checked_sub(VALGRIND_BASE)
            }
            _ => None,
        };
        let call = found?.checked_sub(u64::from(code.is_return))?;
        is_inside(&call).then_some(call)
    }
}

impl Symboliser for Symbols {
    fn functions(&self, code: Code<'_>) -> Vec<Frame> {
        let Ok(mut state) = self.state.lock() else {
            return Vec::new();
        };
        let Some(opened) = self.open(code, &mut state) else {
            return Vec::new();
        };
        let Some(at) = opened.link_address(code) else {
            return Vec::new();
        };
        let key = (opened.number, at);
        if let Some(known) = state.places.get(&key) {
            return known.clone();
        }
        let found = compose::functions_at(&opened.names, ModuleId(0), Address::new(at));
        let frames: Vec<Frame> = found
            .into_iter()
            .map(|(function, file, line)| Frame {
                function,
                file,
                line: line.map(u64::from),
                ..Frame::default()
            })
            .collect();
        if state.places.len() < MAX_PLACES {
            state.places.insert(key, frames.clone());
        }
        frames
    }
}

/// The bytes of a build ID.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}
