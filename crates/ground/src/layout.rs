//! Where members lie in the allocator's structures: names resolved once, offsets read often.

use crate::target::{Address, Fault, Field, MemoryExt, StructLayout, TargetMemory};

/// Where a layout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutSource {
    /// The type's debug information.
    DebugInfo,
    /// A table in this crate, checked against builds of these releases.
    BuiltIn {
        /// The releases, as `2.8-2.10`.
        releases: &'static str,
    },
}

/// An unsigned member of at most 8 bytes, or some bits of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldAt {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Bytes that are read: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Bits to drop below the value.
    pub shift: u8,
    /// Bits of the value; 0 for all.
    pub bits: u8,
}

impl FieldAt {
    /// A 64-bit word.
    pub const fn word(offset: u32) -> Self {
        Self {
            offset,
            bytes: 8,
            shift: 0,
            bits: 0,
        }
    }

    /// A 32-bit word.
    pub const fn int(offset: u32) -> Self {
        Self {
            offset,
            bytes: 4,
            shift: 0,
            bits: 0,
        }
    }

    /// Some bits of a 32-bit word.
    pub const fn bits(offset: u32, shift: u8, bits: u8) -> Self {
        Self {
            offset,
            bytes: 4,
            shift,
            bits,
        }
    }

    /// The same member, as debug information describes it. `None` if it is missing or too wide.
    pub fn resolve(layout: &StructLayout, name: &str) -> Option<Self> {
        Self::of(layout.field(name)?)
    }

    /// A member of debug information. `None` if it is wider than a word.
    pub fn of(field: &Field) -> Option<Self> {
        if let Some((first, width)) = field.bits {
            let offset = u32::try_from((first / 32).saturating_mul(4)).ok()?;
            let shift = u8::try_from(first % 32).ok()?;
            let bits = u8::try_from(width).ok()?;
            return (u16::from(shift).saturating_add(bits.into()) <= 32).then_some(Self {
                offset,
                bytes: 4,
                shift,
                bits,
            });
        }
        let bytes = u8::try_from(field.size)
            .ok()
            .filter(|bytes| matches!(bytes, 1 | 2 | 4 | 8))?;
        Some(Self {
            offset: u32::try_from(field.offset).ok()?,
            bytes,
            shift: 0,
            bits: 0,
        })
    }

    /// Address of the member in a structure at `base`.
    pub fn at(self, base: Address) -> Address {
        base.saturating_add(self.offset.into())
    }

    /// The member's value in a structure at `base`.
    ///
    /// # Errors
    /// The first byte that is absent.
    pub fn read<M: TargetMemory + ?Sized>(self, memory: &M, base: Address) -> Result<u64, Fault> {
        let at = self.at(base);
        let raw = match self.bytes {
            1 => memory.read_u8(at)?.into(),
            2 => memory.read_u16(at)?.into(),
            4 => memory.read_u32(at)?.into(),
            _ => memory.read_u64(at)?,
        };
        Ok(self.cut(raw))
    }

    /// The member's value in a copy of the structure (little-endian). Zero past its end.
    #[inline]
    pub fn of_bytes(self, structure: &[u8]) -> u64 {
        let start = self.offset as usize;
        let mut word = [0u8; 8];
        let Some(from) = structure.get(start..start.saturating_add(self.bytes.into())) else {
            return 0;
        };
        if let Some(to) = word.get_mut(..from.len()) {
            to.copy_from_slice(from);
        }
        self.cut(u64::from_le_bytes(word))
    }

    #[inline]
    fn cut(self, raw: u64) -> u64 {
        let value = raw >> self.shift;
        if self.bits == 0 {
            value
        } else {
            value & !(u64::MAX << (self.bits & 63))
        }
    }
}
