//! A core's memory with a few bytes changed, without a copy of the core.

use std::collections::BTreeMap;

use ground::target::{Abi, Address, Fault, MemoryExt, Region, TargetMemory, Window};

const PAGE: u64 = 4096;

/// Pages that were written to, over the memory of the core.
pub struct Overlay<'m> {
    base: &'m dyn TargetMemory,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl<'m> Overlay<'m> {
    /// Nothing is changed yet.
    pub fn new(base: &'m dyn TargetMemory) -> Self {
        Self {
            base,
            pages: BTreeMap::new(),
        }
    }

    /// Writes bytes. Says whether all of them lie in memory that the core holds.
    #[must_use]
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
        for (at, byte) in (at..).zip(bytes) {
            let page = at & !(PAGE - 1);
            if !self.pages.contains_key(&page) {
                let mut copy = Box::new([0; PAGE as usize]);
                if self.base.read_into(Address::new(page), &mut *copy).is_err() {
                    return false;
                }
                self.pages.insert(page, copy);
            }
            if let Some(copy) = self.pages.get_mut(&page) {
                copy[(at - page) as usize] = *byte;
            }
        }
        true
    }
}

impl TargetMemory for Overlay<'_> {
    fn abi(&self) -> Abi {
        self.base.abi()
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        let page = at.get() & !(PAGE - 1);
        let mut window = self.base.window(at)?;
        if let Some(copy) = self.pages.get(&page) {
            window.bytes = &copy[(at.get() - page) as usize..];
        } else if let Some((next, _)) = self.pages.range(page..).next() {
            let length = (window.bytes.len() as u64).min(next - at.get());
            window.bytes = &window.bytes[..length as usize];
        }
        Ok(window)
    }

    fn regions(&self) -> &[Region] {
        self.base.regions()
    }
}
