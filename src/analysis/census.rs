//! Whose allocator each module uses: what stands in its slots for `malloc`, `free`, `operator new` and their like.

use std::collections::BTreeSet;

use heaps::target::{Module, ModuleId, TargetMemory};

use crate::modules::ModuleSet;

/// The functions whose slots are asked. The last ones are those that libc_malloc_debug passes calls on to.
const FUNCTIONS: [&str; 17] = [
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
    "__libc_malloc",
    "__libc_realloc",
    "__libc_free",
    "__libc_memalign",
];

/// Which module uses which module's functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// User and server, in the users' order.
    uses: BTreeSet<(ModuleId, ModuleId)>,
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
        let mut uses = BTreeSet::new();
        for module in modules.modules() {
            let imports = modules.imports(memory, module.id, &FUNCTIONS);
            for target in imports.iter().flatten().filter_map(|import| import.target) {
                if let Some(server) = modules.module_at(target) {
                    uses.insert((module.id, server.id));
                }
            }
        }
        Self { uses }
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
