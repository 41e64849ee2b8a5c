//! A block that was given back to an allocator that is not its own: whose it is, and who took it.

use ground::target::{Address, Module, ModuleId, Target};
use heaps::allocators::Family;
use heaps::map::{Block, BlockState};

use super::finding::{BlockView, Finding, FindingKind};
use crate::analysis::HeapAnalysis;

/// A block of another heap.
#[derive(Clone, Copy)]
pub struct Foreign<'a> {
    index: usize,
    heap: &'a HeapAnalysis<'a>,
    block: Block,
    state: BlockState,
}

impl<'a> Foreign<'a> {
    /// The block that begins at `at` in a heap that is not the one at `taker`.
    pub fn at(heaps: &'a [HeapAnalysis<'a>], taker: Option<usize>, at: Address) -> Option<Self> {
        let others = heaps.iter().enumerate();
        let mut others = others.filter(|(index, _)| Some(*index) != taker);
        others.find_map(|(index, heap)| {
            let (block, offset) = heap.map.block_at(at)?;
            (offset == 0).then_some(Self {
                index,
                heap,
                block,
                state: heap.map.state(block.id),
            })
        })
    }

    /// The block and whose it is, after the pointer: `which is a block of 208 bytes of jemalloc (libjemalloc.so.2)`.
    pub fn words(&self, target: Target<'_>) -> String {
        let state = match self.state {
            BlockState::InUse => "",
            _ => ", and free already",
        };
        format!(
            "which is a block of {} bytes of {}{state}",
            self.block.bytes,
            owner(
                target,
                self.heap.identity.family,
                Some(self.heap.identity.module)
            )
        )
    }

    /// Makes a finding one about this block.
    pub fn name_in(&self, finding: &mut Finding) {
        finding.kind = FindingKind::AllocatorMismatch;
        finding.heap = Some(self.index);
        finding.allocator = Some(self.heap.identity.name());
        finding.block = Some(BlockView {
            block: self.block,
            state: self.state,
            offset: 0,
        });
    }
}

/// An allocator with its module: `glibc's malloc (libc.so.6)`.
pub fn owner(target: Target<'_>, allocator: Family, module: Option<ModuleId>) -> String {
    let name = match allocator {
        Family::Ptmalloc => "glibc's malloc",
        other => other.name(),
    };
    match module.and_then(|id| module_of(target, id)) {
        Some(module) => format!("{name} ({})", module.name),
        None => name.to_owned(),
    }
}

/// The module with this number.
pub fn module_of(target: Target<'_>, id: ModuleId) -> Option<&Module> {
    target.modules.get(usize::try_from(id.0).ok()?)
}

/// What to do.
pub fn next_steps() -> Vec<String> {
    vec![
        "give a block back by a function of the module that made it, or let all modules use one allocator".to_owned(),
        "look for a library that brings its own malloc (RTLD_DEEPBIND, dlmopen, a static or a hidden copy), or one function of the family that is not replaced".to_owned(),
    ]
}
