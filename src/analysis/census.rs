//! Whose allocator each module uses: what stands in its slots for `malloc`, `free`, `operator new` and their like.

use std::collections::{BTreeMap, BTreeSet};

use ground::target::{Address, Module, ModuleId, TargetMemory};

use postmortem::modules::ModuleSet;

/// The functions whose slots are asked. The last ones are those that libc_malloc_debug passes calls on to.
const FUNCTIONS: [&str; 18] = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "_Znwm",
    "_Znam",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    // What glibc's debugging library hands calls on to.
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_free",
    "__libc_memalign",
];

/// Of these, those that every allocator has and that no library builds upon another's.
const CORE_FUNCTIONS: [&str; 4] = ["malloc", "calloc", "realloc", "free"];

/// Which module uses which module's functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// User and server, in the users' order.
    uses: BTreeSet<(ModuleId, ModuleId)>,
    /// The same for `malloc`, `calloc`, `realloc` and `free` alone.
    core_uses: BTreeSet<(ModuleId, ModuleId)>,
    /// Modules whose slots could be read.
    asked: BTreeSet<ModuleId>,
}

/// What the census says of one heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The modules whose allocations it serves.
    pub serves: Vec<ModuleId>,
    /// It serves nobody, though others do; `None` where no module's slots could be read.
    pub idle: Option<bool>,
}

impl Census {
    /// Asks all modules.
    pub fn take(memory: &dyn TargetMemory, modules: &ModuleSet) -> Self {
        let mut census = Self::default();
        let mut imports = Vec::new();
        for module in modules.modules() {
            if let Some(found) = modules.imports(memory, module.id, &FUNCTIONS) {
                census.asked.insert(module.id);
                imports.extend(found.into_iter().map(|import| (module.id, import)));
            }
        }
        let mut stand_ins: BTreeMap<Address, Option<Address>> = BTreeMap::new();
        for (_, import) in &imports {
            if let Some(entry) = import.stands_for {
                let leads_to = stand_ins.entry(entry).or_default();
                *leads_to = leads_to.or(import.target.filter(|target| *target != entry));
            }
        }
        for (user, import) in imports {
            let target = import.target;
            let target = target.and_then(|at| stand_ins.get(&at).copied().unwrap_or(Some(at)));
            let Some(server) = target.and_then(|target| modules.module_at(target)) else {
                continue;
            };
            census.uses.insert((user, server.id));
            if CORE_FUNCTIONS.contains(&import.name.as_str()) {
                census.core_uses.insert((user, server.id));
            }
        }
        census
    }

    /// The modules to which slots for `malloc`, `calloc`, `realloc` or `free` lead, with one user each: the program where it is one.
    pub fn servers(&self, program: Option<ModuleId>) -> BTreeMap<ModuleId, ModuleId> {
        let mut servers = BTreeMap::new();
        for (user, server) in &self.core_uses {
            let first = servers.entry(*server).or_insert(*user);
            if Some(*user) == program {
                *first = *user;
            }
        }
        servers
    }

    /// Whether the module's slots could be read.
    pub fn knows(&self, module: ModuleId) -> bool {
        self.asked.contains(&module)
    }

    /// The modules to which slots of `user` lead, for any function that allocates or frees.
    pub fn servers_of(&self, user: ModuleId) -> impl Iterator<Item = ModuleId> {
        let of_user = self.uses.iter().filter(move |(found, _)| *found == user);
        of_user.map(|(_, server)| *server)
    }

    /// What it says of the heap whose state `module` holds; `others` are the modules that hold the process's other heaps.
    pub fn service(&self, module: &Module, others: &[ModuleId]) -> Service {
        let mut serves: BTreeSet<ModuleId> = self
            .uses
            .iter()
            .filter(|(user, server)| *server == module.id && *user != module.id)
            .map(|(user, _)| *user)
            .collect();
        // Linked into the program, it is called without any slot.
        if module.is_executable {
            serves.insert(module.id);
        }
        let is_own = self.uses.contains(&(module.id, module.id));
        let others_serve = self
            .uses
            .iter()
            .any(|(_, server)| *server != module.id && others.contains(server))
            || others.iter().any(|other| self.is_own(*other));
        let idle = (!self.uses.is_empty() || !serves.is_empty())
            .then_some(serves.is_empty() && !is_own && others_serve);
        Service {
            serves: serves.into_iter().collect(),
            idle,
        }
    }

    fn is_own(&self, module: ModuleId) -> bool {
        self.uses.contains(&(module, module))
    }
}
