//! Symbols and type layouts.
pub mod demangle;
pub mod image;
pub mod symbols;

use std::sync::Arc;

use heaps::target::ModuleId;

use crate::corefile::Mapping;
use crate::modules::ModuleSet;

/// The bytes of a file, shared. Cheap to clone.
#[derive(Clone)]
pub enum FileBytes {
    /// A module's image, as found by the module set.
    Module(Arc<ModuleSet>, ModuleId),
    /// A separate debug file.
    Mapped(Arc<Mapping>),
    /// Bytes in memory: inflated, or made by a test.
    Memory(Arc<[u8]>),
}

impl FileBytes {
    /// All of its bytes; empty if the module has no file.
    pub fn bytes(&self) -> &[u8] {
        match self {
            FileBytes::Module(modules, id) => modules.file(*id).map_or(&[], |file| file.data()),
            FileBytes::Mapped(mapping) => mapping.bytes(),
            FileBytes::Memory(bytes) => bytes,
        }
    }
}

/// Stub.
pub struct DebugInfo {}
impl DebugInfo {
    /// Stub.
    pub fn debug_file(&self, _module: ModuleId) -> Option<FileBytes> {
        None
    }
}
