//! What is opened of a module, and when: files, symbols and DWARF, each once and only where something is asked.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ground::target::{LocatedBy, Module, ModuleId};

use super::dies::Units;
use super::dwarf::{Dwarf, DwarfFile, ModuleDwarf};
use super::files::{self, FileBytes, Files};
use super::symbols::SymbolIndex;
use super::types::Types;
use super::{DebugInfo, State};

impl DebugInfo {
    pub(super) fn module(&self, id: ModuleId) -> Option<(&Module, &State)> {
        let state = self.states.get(usize::try_from(id.0).ok()?)?;
        Some((self.modules.module(id)?, state))
    }

    pub(super) fn files<'s>(&self, module: &Module, state: &'s State) -> &'s Files {
        state
            .files
            .get_or_init(|| Files::find(&self.modules, &self.search, module))
    }

    pub(super) fn symbols(&self, module: ModuleId) -> Option<(&Module, &SymbolIndex)> {
        let (module, state) = self.module(module)?;
        let symbols = state.symbols.get_or_init(|| {
            let files = self.files(module, state);
            let debug = files.debug.as_ref().map(|(file, _)| file);
            let all: Vec<_> = debug.into_iter().chain(&files.image).cloned().collect();
            let symbols = SymbolIndex::read(&all);
            let packed = files.image.as_ref().filter(|_| !symbols.has_symtab());
            match packed.and_then(files::packed_symbols) {
                Some(packed) => symbols.with_partial(&packed),
                None => symbols,
            }
        });
        Some((module, symbols))
    }

    pub(super) fn dwarf(&self, module: ModuleId) -> Option<Opened<'_>> {
        let (module, state) = self.module(module)?;
        let dwarf = once(&state.dwarf, || self.read_dwarf(module, state));
        let dwarf = dwarf.as_ref()?.borrow();
        let units = state.units.get_or_init(|| {
            let units = Units::read(&dwarf);
            if units.split > 0 {
                state.note(format!(
                    "{}: debug information of {} units is in .dwo files, which are not read",
                    module.name, units.split
                ));
            }
            units
        });
        Some(Opened {
            module,
            state,
            dwarf,
            units,
        })
    }

    fn read_dwarf(&self, module: &Module, state: &State) -> Option<ModuleDwarf> {
        let files = self.files(module, state);
        let image_path = self.modules.file(module.id).map(|file| file.path.clone());
        let image = files.image.clone().zip(image_path);
        for (file, path) in image.into_iter().chain(files.debug.clone()) {
            match DwarfFile::load(&file) {
                Ok(Some(main)) => {
                    return Some(ModuleDwarf {
                        main,
                        supplementary: self.supplementary(&file, &path, state),
                    });
                }
                Ok(None) => {}
                Err(error) => state.note(format!(
                    "{}: debug information cannot be used: {error}",
                    path.display()
                )),
            }
        }
        None
    }

    fn supplementary(
        &self,
        file: &FileBytes,
        path: &Path,
        state: &State,
    ) -> Option<Arc<DwarfFile>> {
        let (name, id) = files::alternate_link(file)?;
        let Some(found) = self.search.find_supplementary(&name, &id, path) else {
            state.note(format!(
                "{}: types that dwz moved to {} are missing: that file was not found",
                path.display(),
                String::from_utf8_lossy(&name)
            ));
            return None;
        };
        let known = self.supplementary.lock().ok()?.get(&found.path).cloned();
        if let Some(known) = known {
            return known;
        }
        let file = FileBytes::Mapped(found.mapping);
        let loaded = DwarfFile::load(&file).ok().flatten().map(Arc::new);
        let mut known = self.supplementary.lock().ok()?;
        known.entry(found.path).or_insert(loaded).clone()
    }

    pub(super) fn with_types<T>(
        &self,
        module: ModuleId,
        ask: impl FnOnce(&Module, &Types<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.limit.permits(LocatedBy::DebugInfo) {
            return None;
        }
        let opened = self.dwarf(module)?;
        let index = &opened.state.index;
        ask(
            opened.module,
            &Types::new(&opened.dwarf, opened.units, index),
        )
    }
}

/// What `cell` holds, built if need be without a lock: `build` waits for other threads of rayon's pool, which lets the waiting
/// thread begin other work meanwhile, and that may ask for the same.
pub(super) fn once<T>(cell: &OnceLock<T>, build: impl FnOnce() -> T) -> &T {
    if let Some(there) = cell.get() {
        return there;
    }
    let built = build();
    cell.get_or_init(|| built)
}

/// A module's debug information, borrowed for a question.
pub(super) struct Opened<'d> {
    pub(super) module: &'d Module,
    pub(super) state: &'d State,
    pub(super) dwarf: Dwarf<'d>,
    pub(super) units: &'d Units,
}
