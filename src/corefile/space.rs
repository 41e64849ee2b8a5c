//! The dead process's memory.

use std::ops::Range;

use heaps::target::{Abi, Address, Fault, Region, TargetMemory, Window};

use super::{CoreFile, FileView};

/// Pages that a verified file holds and the core does not.
#[derive(Clone, Debug)]
pub struct Backing {
    /// Where they were mapped.
    pub range: Range<Address>,
    /// The file.
    pub file: FileView,
    /// Offset in bytes in the file at which `range` starts.
    pub file_offset: u64,
    /// The pages cannot have been written: neither by the program nor by the dynamic linker.
    pub read_only: bool,
    /// The pages hold code.
    pub executable: bool,
}

/// The dead process's memory: segments of the core, and pages of verified files where the core has none.
#[derive(Debug)]
pub struct AddressSpace {
    abi: Abi,
    regions: Vec<Region>,
}

impl AddressSpace {
    /// The memory that the core itself holds.
    pub fn new(core: &CoreFile) -> Self {
        Self {
            abi: core.abi(),
            regions: Vec::new(),
        }
    }

    /// Adds pages of module files, where the core has none and they were never written.
    pub fn add_backing(&mut self, _backing: &[Backing]) {}
}

impl TargetMemory for AddressSpace {
    fn abi(&self) -> Abi {
        self.abi
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        Err(Fault::Unmapped(at))
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }
}
