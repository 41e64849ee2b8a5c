//! Who is in the process and is not walked: allocators that are known by name, modules to which `malloc` leads and whose heap
//! nobody knows, memory that no heap claims. Silence about them would be taken for health.
//!
//! Four witnesses, from the surest to the weakest: what stands in the slots for `malloc` of the other modules
//! ([`Census`]), names of modules, functions that a module defines, text and structures in it.

mod known;
mod musl;
mod words;

use ground::scan::holds_text;
use ground::target::{Module, ModuleId, Target};
use heaps::allocators::Limit;

use super::Analysis;
use super::census::Census;
use known::{Known, Role};
use postmortem::session::Session;
pub use words::SanitizerReport;

/// How a stranger was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// By the name of its library.
    ModuleName,
    /// By a function that it defines.
    Symbols,
    /// By text in its memory.
    Text,
    /// By its structures.
    Structure,
    /// Only by the slots for `malloc` that lead to it.
    Slots,
}

impl KnownBy {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::ModuleName => "module-name",
            Self::Symbols => "symbols",
            Self::Text => "text",
            Self::Structure => "structure",
            Self::Slots => "slots",
        }
    }
}

/// An allocator that is there and is not walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its name; `None` where only its module is known.
    pub name: Option<&'static str>,
    /// The module that holds it.
    pub module: ModuleId,
    /// How that is known.
    pub known_by: KnownBy,
    /// Whether the program's `malloc` is its; `None` where the core does not tell.
    pub serves: Option<bool>,
    /// What to say of it: one sentence, without its end.
    pub message: String,
    /// The heap as a whole was therefore not wholly analysed.
    pub incomplete: bool,
}

/// Bytes that nobody claims are noise below this: the dynamic linker and dead threads leave some.
const MIN_NOBODYS_BYTES: u64 = 64 << 10;
/// A forwarder's blocks are in the heap that it forwards to: at least so many.
const MIN_FORWARDED_BLOCKS: u64 = 8;

/// Looks for them, and says in the analysis's limits what was not looked at because of them. Where one allocator alone was asked
/// for (`is_partial`), all others are strangers, and nothing is said.
pub fn survey(session: &Session, analysis: &mut Analysis<'_>, is_partial: bool) {
    let census = Census::take(session.memory(), session.modules());
    if is_partial {
        analysis.census = census;
        return;
    }
    let mut survey = Survey {
        target: session.target(),
        analysis,
        census: &census,
        found: Vec::new(),
    };
    survey.by_name();
    survey.by_slots();
    survey.in_program();
    let found = survey.found;
    // What is told by name needs no general word.
    if analysis.heaps.is_empty() && found.iter().any(|stranger| stranger.incomplete) {
        analysis
            .limits
            .retain(|limit| limit.what != super::WHOLE_HEAP);
    }
    let idle_memory = survey_memory(session.target(), analysis, &census, &found);
    analysis
        .limits
        .extend(found.iter().map(|stranger| limit(session, stranger)));
    analysis.limits.extend(idle_memory);
    let is_sanitizer = |stranger: &Stranger| {
        stranger
            .name
            .is_some_and(|name| name.ends_with("Sanitizer"))
    };
    if found.iter().any(is_sanitizer) {
        analysis.sanitizer_report = words::find(session.memory());
    }
    analysis.strangers = found;
    analysis.census = census;
}

fn limit(session: &Session, stranger: &Stranger) -> Limit {
    let module = session.modules().module(stranger.module);
    let module = module.map_or("a module", |module| &module.name);
    Limit {
        what: match stranger.name {
            Some(name) => format!("the heap of {name}, in {module}"),
            None => format!("the heap of {module}"),
        },
        why: stranger.message.clone(),
        incomplete: stranger.incomplete,
    }
}

struct Survey<'s, 't> {
    target: Target<'s>,
    analysis: &'s Analysis<'t>,
    census: &'s Census,
    found: Vec<Stranger>,
}

impl Survey<'_, '_> {
    fn program(&self) -> Option<&Module> {
        self.target
            .modules
            .iter()
            .find(|module| module.is_executable)
    }

    fn module(&self, id: ModuleId) -> Option<&Module> {
        self.target.modules.get(usize::try_from(id.0).ok()?)
    }

    fn is_walked(&self, module: ModuleId) -> bool {
        let mut heaps = self.analysis.heaps.iter();
        heaps.any(|heap| heap.identity.module == module)
    }

    fn is_found(&self, module: ModuleId) -> bool {
        self.found.iter().any(|stranger| stranger.module == module)
    }

    /// Libraries by the names of their files.
    fn by_name(&mut self) {
        for module in self.target.modules {
            let is_it = |known: &&Known| known.has_file(&module.name);
            let musl = known::is_musl(module).then_some(&known::MUSL);
            if let Some(known) = musl.or_else(|| known::ALL.iter().find(is_it)) {
                self.add(known, module, KnownBy::ModuleName);
            }
        }
    }

    /// Modules to which slots for `malloc` lead and that hold no heap that was walked.
    fn by_slots(&mut self) {
        let program = self.program().map(|module| module.id);
        for (server, user) in self.census.servers(program) {
            let Some(module) = self.module(server) else {
                continue;
            };
            // The dynamic linker's own was for the time before libc's.
            if self.is_walked(server) || self.is_found(server) || is_dynamic_linker(module) {
                continue;
            }
            let module = module.clone();
            match self.identify(&module, true) {
                Some((known, by)) => self.add(known, &module, by),
                None => self.add_unnamed(&module, user),
            }
        }
    }

    /// What the program itself has, linked into it, where the walked heaps leave memory that nobody accounts for.
    fn in_program(&mut self) {
        let memory = &self.analysis.memory;
        let is_doubtful = self.analysis.heaps.is_empty() || memory.is_much(memory.nobodys_bytes);
        let Some(module) = self.program().filter(|_| is_doubtful).cloned() else {
            return;
        };
        if self.is_found(module.id) {
            return;
        }
        if let Some((known, by)) = self.identify(&module, self.analysis.heaps.is_empty()) {
            self.add(known, &module, by);
        } else if self.analysis.heaps.is_empty() && musl::is_in(self.target.memory, &module) {
            self.add(&known::MUSL, &module, KnownBy::Structure);
        }
    }

    /// What a module holds, by the functions that it defines and by its text. Debuggers and compilers hold the names of
    /// sanitizers, too: `serves` says that the text of what always serves is good enough.
    fn identify(&self, module: &Module, serves: bool) -> Option<(&'static Known, KnownBy)> {
        let defines = |known: &&Known| {
            let mut names = known.symbols.iter();
            names.any(|name| self.target.symbols.symbol(module.id, name).is_some())
        };
        let says = |known: &&Known| {
            let mut texts = known.texts.iter();
            (serves || known.role != Role::Replaces)
                && texts.any(|text| holds_text(self.target.memory, module, text))
        };
        let mut all = known::ALL.iter().chain([&known::MUSL]);
        all.find(defines)
            .map(|known| (known, KnownBy::Symbols))
            .or_else(|| {
                let known = known::ALL.iter().find(says)?;
                Some((known, KnownBy::Text))
            })
    }

    fn add(&mut self, known: &'static Known, module: &Module, known_by: KnownBy) {
        if self
            .found
            .iter()
            .any(|other| other.name == Some(known.name))
        {
            return;
        }
        let memory = &self.analysis.memory;
        let serves = match known.role {
            Role::Replaces => Some(true),
            Role::Offers => self.is_served_by(module.id),
            Role::Runtime => Some(false),
        };
        let is_most = memory.nobodys_bytes > memory.walked_bytes;
        let (message, incomplete) = match (known.role, serves) {
            (Role::Runtime, _) => (
                format!(
                    "{} has a heap of its own beside malloc, which is not supported by this version",
                    known.name
                ),
                memory.is_much(memory.nobodys_bytes),
            ),
            (_, Some(true)) => (
                format!(
                    "{} serves the program and is not supported by this version",
                    known.name
                ),
                true,
            ),
            // CPython has it since 3.12 and uses it when it is told to.
            _ => (
                format!(
                    "{} is in the process and is not supported by this version; malloc leads elsewhere or was never called",
                    known.name
                ),
                is_most && !module.name.contains("python"),
            ),
        };
        self.found.push(Stranger {
            name: Some(known.name),
            module: module.id,
            known_by,
            serves,
            message,
            incomplete,
        });
    }

    /// Whether slots for `malloc` lead to the module; `None` if no slot was ever filled or could be read.
    fn is_served_by(&self, module: ModuleId) -> Option<bool> {
        let servers = self.census.servers(None);
        if servers.contains_key(&module) {
            return Some(true);
        }
        let walked = self.analysis.heaps.iter();
        let mut walked = walked.filter(|heap| heap.statistics.in_use.blocks > 0);
        if servers.is_empty() && walked.next().is_none() {
            return Some(true); // nobody else can
        }
        (!servers.is_empty()).then_some(false)
    }

    fn add_unnamed(&mut self, module: &Module, user: ModuleId) {
        // What is wrong with the module's heap has been said.
        let is_said = |limit: &Limit| {
            limit.incomplete
                && (limit.what.contains(&module.name) || limit.why.contains(&module.name))
        };
        if self.analysis.limits.iter().any(is_said) {
            return;
        }
        let memory = &self.analysis.memory;
        let in_use = self.analysis.heaps.iter();
        let in_use = in_use.map(|heap| heap.statistics.in_use.blocks);
        let forwards = in_use.fold(0, u64::saturating_add) >= MIN_FORWARDED_BLOCKS
            && memory.walked_bytes >= memory.nobodys_bytes;
        let user = self.module(user).map_or("the program", |user| &user.name);
        let message = match forwards {
            true => format!(
                "malloc of {user} leads to {}, which passes it on to a heap that was walked",
                module.name
            ),
            false => format!(
                "malloc of {user} leads to {}, in which no allocator that is known was found",
                module.name
            ),
        };
        self.found.push(Stranger {
            name: None,
            module: module.id,
            known_by: KnownBy::Slots,
            serves: Some(!forwards),
            message,
            incomplete: !forwards,
        });
    }
}

/// Memory that nobody claims in a process that no walked heap serves.
fn survey_memory(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    census: &Census,
    found: &[Stranger],
) -> Option<Limit> {
    let memory = &analysis.memory;
    let is_told = found.iter().any(|stranger| stranger.incomplete)
        || analysis.limits.iter().any(|limit| limit.incomplete);
    let is_much = memory.nobodys_bytes >= MIN_NOBODYS_BYTES && memory.is_much(memory.nobodys_bytes);
    let mut heaps = analysis.heaps.iter();
    let serves = heaps.any(|heap| {
        heap.statistics.in_use.blocks > 0 && serves(target, census, heap.identity.module)
    });
    (is_much && !is_told && !serves).then(|| Limit {
        what: format!(
            "{} bytes of writable anonymous memory",
            memory.nobodys_bytes
        ),
        why: "no heap that was walked serves the program, and nothing that is known claims them"
            .into(),
        incomplete: true,
    })
}

/// Whether the heap of a module serves more than the C library itself: somebody else's slots lead to it, or to what is built
/// upon it (`operator new`), or cannot be read.
fn serves(target: Target<'_>, census: &Census, holder: ModuleId) -> bool {
    const RUNTIME: [&str; 10] = [
        "libc.",
        "libc-",
        "ld-",
        "libstdc++",
        "libc++",
        "libgcc_s",
        "libm.",
        "libm-",
        "libpthread",
        "libdl",
    ];
    let is_runtime = |module: &Module| RUNTIME.iter().any(|name| module.name.starts_with(name));
    let is_server = |id: ModuleId| {
        id == holder
            || target
                .modules
                .iter()
                .any(|module| module.id == id && is_runtime(module))
    };
    target.modules.iter().any(|module| {
        let is_blind = module.is_executable && !census.knows(module.id);
        !is_runtime(module)
            && (module.id == holder || is_blind || census.servers_of(module.id).any(is_server))
    })
}

fn is_dynamic_linker(module: &Module) -> bool {
    module.name.starts_with("ld-linux")
        || module.name.starts_with("ld-2.")
        || module.name.starts_with("ld.so")
}
