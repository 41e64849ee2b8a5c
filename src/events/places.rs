//! Callers as a log names them, as addresses of the dead process.

use ground::target::{Address, Module};
use reports::Frame;

use postmortem::session::Session;

/// The modules of the process.
pub struct Places<'s> {
    modules: &'s [Module],
    /// The name that the program was started by.
    called: Option<String>,
}

/// Where a frame of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// In code of the process.
    At(Address),
    /// The log does not say where, or names a module that is not there (any more).
    Unknown,
    /// It cannot be in this process.
    Impossible,
}

impl<'s> Places<'s> {
    pub fn new(session: &'s Session) -> Self {
        let called = session.process().arguments.as_deref();
        let called = called.and_then(|line| line.split_whitespace().next());
        Self {
            modules: session.modules().modules(),
            called: called.map(|path| base_name(path).to_owned()),
        }
    }

    /// The frames that are in this process.
    pub fn stack(&self, frames: &[Frame]) -> Vec<Address> {
        let placed = frames.iter().filter_map(|frame| match self.place(frame) {
            Placed::At(at) => Some(at),
            _ => None,
        });
        placed.collect()
    }

    /// The return address of a frame.
    pub fn place(&self, frame: &Frame) -> Placed {
        let number = |text: &Option<String>| {
            let digits = text.as_deref()?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let named = frame.module.as_deref().map(|name| self.named(name));
        let address = number(&frame.address).filter(|address| *address != 0);
        match (named, address, number(&frame.module_offset)) {
            // Relative to the module's first byte, or from an older libc a run-time address.
            (Some(Some(module)), None, Some(offset)) => {
                let relative = module.range.start.checked_add(offset);
                let all = [relative, Some(Address::new(offset))];
                let mut all = all.into_iter().flatten();
                let found = all.find(|at| is_code(module, *at));
                found.map_or(Placed::Impossible, Placed::At)
            }
            (named, Some(address), offset) => {
                let at = Address::new(address);
                let Some(module) = self.at(at).filter(|module| is_code(module, at)) else {
                    // What was unloaded since is in no module; one that is there has code where it says.
                    return match named {
                        Some(Some(_)) => Placed::Impossible,
                        _ => Placed::Unknown,
                    };
                };
                let start = offset.and_then(|offset| address.checked_sub(offset));
                match start {
                    Some(start) if start != module.range.start.get() => Placed::Impossible,
                    _ => Placed::At(at),
                }
            }
            _ => Placed::Unknown,
        }
    }

    fn at(&self, at: Address) -> Option<&Module> {
        let after = self
            .modules
            .partition_point(|module| module.range.start <= at);
        let module = self.modules.get(after.checked_sub(1)?)?;
        (at <= module.range.end).then_some(module)
    }

    fn named(&self, name: &str) -> Option<&Module> {
        let mut modules = self.modules.iter();
        modules
            .find(|module| module.name == name || base_name(&module.path) == name)
            .or_else(|| {
                let is_program = self.called.as_deref() == Some(name);
                let mut modules = self.modules.iter();
                modules.find(|module| is_program && module.is_executable)
            })
    }
}

/// Whether a return address is in a module's code, or just behind it.
fn is_code(module: &Module, at: Address) -> bool {
    let call = at.checked_sub(1).unwrap_or(at);
    module.has_code_at(call) || (module.segments.is_empty() && module.range.contains(&call))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
