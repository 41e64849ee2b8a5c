//! `tcmalloc::SizeMap`: size classes, as this process computed them.
//!
//! Class sizes depend on the build and on the environment; they are read, never assumed.

use super::layout::SizeMapLayout;
use ground::target::{Address, MemoryExt, TargetMemory};

/// One size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Class {
    bytes: u32,
    pages: u32,
    batch: u32,
}

/// The size classes; class 0 stands for spans of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeMap {
    classes: Vec<Class>,
}

/// Largest size that has a class (`kMaxSize`).
const MAX_SIZE: u64 = 256 << 10;

impl SizeMap {
    /// Reads the tables and proves them against each other: sizes rise, `class_array_` maps nearly
    /// every size back to its class, spans hold at least one object, and `num_size_classes` agrees.
    pub fn read(memory: &dyn TargetMemory, base: Address, layout: &SizeMapLayout) -> Option<Self> {
        let count = layout.num_size_classes.read(memory, base).ok()?;
        if !(8..=u64::from(layout.max_classes)).contains(&count) {
            return None;
        }
        let table = |offset: u32, index: u64, stride: u64| {
            base.checked_add(u64::from(offset).saturating_add(index.saturating_mul(stride)))
        };
        let mut classes = Vec::new();
        let mut wrong = 0u64;
        for index in 0..count {
            let bytes = memory
                .read_u32(table(layout.class_to_size, index, 4)?)
                .ok()?;
            let pages = memory
                .read_u64(table(layout.class_to_pages, index, 8)?)
                .ok()?;
            let batch = memory
                .read_u32(table(layout.num_objects_to_move, index, 4)?)
                .ok()?;
            let last = classes.last().map_or(0, |class: &Class| class.bytes);
            let rises = index == 0 || bytes > last && u64::from(bytes) <= MAX_SIZE;
            let reverse = index == 0
                || memory
                    .read_u8(table(layout.class_array, class_index(bytes.into())?, 1)?)
                    .ok()? as u64
                    == index;
            let sane = index == 0 || (1..=1024).contains(&pages) && (1..=65536).contains(&batch);
            wrong = wrong.saturating_add(u64::from(!(rises && reverse && sane)));
            classes.push(Class {
                bytes,
                pages: u32::try_from(pages).unwrap_or(0),
                batch,
            });
        }
        // A stray write into the table must not hide the heap.
        (wrong <= 3).then_some(Self { classes })
    }

    /// Number of classes, class 0 included.
    pub fn classes(&self) -> u16 {
        u16::try_from(self.classes.len()).unwrap_or(u16::MAX)
    }

    /// Bytes of an object of the class; 0 for class 0 and unknown ones.
    pub fn bytes(&self, class: u16) -> u32 {
        self.classes
            .get(usize::from(class))
            .map_or(0, |class| class.bytes)
    }

    /// Pages of a span of the class.
    pub fn pages(&self, class: u16) -> u32 {
        self.classes
            .get(usize::from(class))
            .map_or(0, |class| class.pages)
    }

    /// Objects that move between a thread cache and the central list at a time.
    pub fn batch(&self, class: u16) -> u32 {
        self.classes
            .get(usize::from(class))
            .map_or(0, |class| class.batch)
    }

    /// Classes whose tables contradict each other.
    pub fn contradictions(
        &self,
        memory: &dyn TargetMemory,
        base: Address,
        layout: &SizeMapLayout,
    ) -> Vec<(Address, u16)> {
        (1..self.classes())
            .filter_map(|class| {
                let index = class_index(self.bytes(class).into())?;
                let at = base.checked_add(u64::from(layout.class_array).saturating_add(index))?;
                (memory.read_u8(at).ok()? as u16 != class).then_some((at, class))
            })
            .collect()
    }
}

/// `SizeMap::ClassIndex`: the place of a size in `class_array_`.
fn class_index(bytes: u64) -> Option<u64> {
    match bytes {
        0..=1024 => Some(bytes.saturating_add(7) >> 3),
        1025..=MAX_SIZE => Some(bytes.saturating_add(127).saturating_add(120 << 7) >> 7),
        _ => None,
    }
}
