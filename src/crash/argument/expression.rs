//! A value in terms of registers and memory, as it stood before an instruction, and numbers where they are known.

use std::collections::BTreeSet;
use std::sync::Arc;

use ground::target::{Address, MemoryExt, TargetMemory};

use super::facts::{Facts, Origin};

/// Parts of one expression: real ones have three or four.
const MAX_PARTS: usize = 48;

/// Memory that was written on the way from a place to the end of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Stores {
    /// First byte and length.
    known: BTreeSet<(u64, u64)>,
    /// First byte in terms of registers that are not known yet, and length.
    open: Vec<(Expression, u64)>,
    /// Words of the stack from which a register was loaded whose value is known, and the same.
    pub loaded: BTreeSet<u64>,
    /// Somewhere.
    pub anywhere: bool,
    /// A function was called, which may have written anywhere but to words that only this one knows.
    pub called: bool,
}

impl Stores {
    /// Writes that are kept by their places.
    const MOST: usize = 32;
    /// Writes that are kept until their places are known.
    const MOST_OPEN: usize = 6;

    /// Notes a write to an address in terms of the registers before it.
    pub fn add(&mut self, at: Option<Expression>, bytes: u64) {
        match at {
            Some(Expression::Number(at, _)) if self.known.len() < Self::MOST => {
                self.known.insert((at, bytes));
            }
            Some(at) if self.open.len() < Self::MOST_OPEN => {
                let write = (at, bytes);
                if !self.open.contains(&write) {
                    self.open.push(write);
                }
            }
            _ => self.anywhere = true,
        }
    }

    /// Puts what `known` gives in the place of registers.
    fn with(&self, known: &dyn Fn(u8) -> Option<Expression>) -> Stores {
        let mut changed = Stores {
            open: Vec::new(),
            ..self.clone()
        };
        for (at, bytes) in &self.open {
            let at = at.with(known).filter(|at| !at.loads());
            changed.add(at, *bytes);
        }
        changed
    }

    /// The same before an instruction that changed registers.
    pub fn before(
        self: &Arc<Self>,
        changed: &dyn Fn(u8) -> bool,
        known: &dyn Fn(u8) -> Option<Expression>,
    ) -> Arc<Self> {
        let is_changed =
            |(at, _): &(Expression, u64)| (0..16).any(|one| changed(one) && at.names(one));
        if !self.open.iter().any(is_changed) {
            return Arc::clone(self);
        }
        let mut before = Stores {
            open: Vec::new(),
            ..Stores::clone(self)
        };
        for write in &self.open {
            let (at, bytes) = write;
            let lost = (0..16).any(|one| changed(one) && at.names(one) && known(one).is_none());
            let at = at.with(known).filter(|at| !lost && !at.loads());
            before.add(at, *bytes);
        }
        before.into()
    }

    /// Takes in what was written on another way.
    pub fn join(&mut self, other: &Stores) {
        self.anywhere |= other.anywhere;
        self.called |= other.called;
        for &(at, bytes) in &other.known {
            self.add(Some(Expression::Number(at, None)), bytes);
        }
        for (at, bytes) in &other.open {
            self.add(Some(at.clone()), *bytes);
        }
    }

    /// Whether a write met any of these bytes, as far as is known, and whether all is known.
    pub fn met(&self, at: u64, bytes: u64, facts: &Facts) -> (bool, bool) {
        let open = self.open.iter().map(|(at, length)| {
            let known = at.is_known(facts).then(|| at.plain(facts)).flatten();
            (known, *length)
        });
        let known = self.known.iter().map(|&(at, length)| (Some(at), length));
        let (mut met, mut all) = (false, !self.anywhere);
        for (start, length) in known.chain(open) {
            match start {
                Some(start) => {
                    met |= start < at.saturating_add(bytes) && at < start.saturating_add(length);
                }
                None => all = false,
            }
        }
        (met, all)
    }
}

/// What is asked of memory while an expression is worked out.
pub(super) struct Words<'a> {
    /// The process's memory.
    pub memory: &'a dyn TargetMemory,
    /// Stack below this has been used by others since.
    pub live_stack: u64,
    /// End of the stack's mapping.
    pub stack_end: u64,
    /// Writes are only noted if they went to the stack.
    pub stack_only: bool,
}

impl Words<'_> {
    /// Whether a word is on the part of the stack that the frame at the walk's end, or one further out, owns.
    pub fn is_live(&self, at: u64) -> bool {
        at >= self.live_stack && at < self.stack_end
    }

    /// Whether a word is on the part of the stack that functions called since have used.
    pub fn is_gone(&self, at: u64) -> bool {
        /// The stack that is looked at below the frame's end.
        const BELOW: u64 = 1 << 20;
        at < self.live_stack && at >= self.live_stack.saturating_sub(BELOW)
    }

    /// So many bytes, at most eight, as a number.
    pub fn read(&self, at: u64, bytes: u64) -> Option<u64> {
        let mut word = [0; 8];
        let part = word.get_mut(..usize::try_from(bytes).ok()?)?;
        self.memory.read_into(Address::new(at), part).ok()?;
        Some(u64::from_le_bytes(word))
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Expression {
    /// A number, and the register or word that it was found in.
    Number(u64, Option<Origin>),
    /// What a general register held, by the processor's number.
    Register(u8),
    /// Of two.
    Sum(Box<Expression>, Box<Expression>),
    /// Times a number.
    Product(Box<Expression>, u64),
    /// The bits of a mask.
    Masked(Box<Expression>, u64),
    /// Shifted right.
    Right(Box<Expression>, u32),
    /// The low 8, 16 or 32 bits with their sign.
    Signed(Box<Expression>, u32),
    /// Bytes in memory, and what was written since.
    Load(Box<Expression>, u64, Arc<Stores>),
}

/// A value that was worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worked {
    /// The value.
    pub value: u64,
    /// The word that it was loaded from.
    pub loaded_from: Option<u64>,
    /// The register or word that it was taken from.
    pub origin: Option<Origin>,
    /// A word that it was loaded from may have been written since.
    pub unsure: bool,
}

impl Expression {
    pub fn sum(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Number(one, _), Self::Number(another, _)) => {
                Self::Number(one.wrapping_add(*another), None)
            }
            _ => Self::Sum(Box::new(self), Box::new(other)),
        }
    }

    pub fn plus(self, number: u64) -> Self {
        match number {
            0 => self,
            number => self.sum(Self::Number(number, None)),
        }
    }

    pub fn low(self, bits: u32) -> Self {
        match bits {
            64 => self,
            bits => Self::Masked(Box::new(self), (1 << bits) - 1),
        }
    }

    /// Whether the register is part of it.
    pub fn names(&self, register: u8) -> bool {
        match self {
            Self::Number(..) => false,
            Self::Register(found) => *found == register,
            Self::Sum(one, another) => one.names(register) || another.names(register),
            Self::Product(of, _)
            | Self::Masked(of, _)
            | Self::Right(of, _)
            | Self::Signed(of, _)
            | Self::Load(of, ..) => of.names(register),
        }
    }

    /// Whether memory is part of it.
    fn loads(&self) -> bool {
        match self {
            Self::Number(..) | Self::Register(_) => false,
            Self::Sum(one, another) => one.loads() || another.loads(),
            Self::Product(of, _)
            | Self::Masked(of, _)
            | Self::Right(of, _)
            | Self::Signed(of, _) => of.loads(),
            Self::Load(..) => true,
        }
    }

    /// Its value, if it is one of registers alone.
    fn plain(&self, facts: &Facts) -> Option<u64> {
        match self {
            Self::Number(value, _) => Some(*value),
            Self::Register(register) => facts.get(*register).map(|fact| fact.value),
            Self::Sum(one, another) => Some(one.plain(facts)?.wrapping_add(another.plain(facts)?)),
            Self::Product(of, by) => Some(of.plain(facts)?.wrapping_mul(*by)),
            _ => None,
        }
    }

    fn parts(&self) -> usize {
        1 + match self {
            Self::Number(..) | Self::Register(_) => 0,
            Self::Sum(one, another) => one.parts() + another.parts(),
            Self::Product(of, _)
            | Self::Masked(of, _)
            | Self::Right(of, _)
            | Self::Signed(of, _)
            | Self::Load(of, ..) => of.parts(),
        }
    }

    /// Puts what `known` gives in the place of registers; `None` if the expression grows too large.
    pub fn with(&self, known: &dyn Fn(u8) -> Option<Expression>) -> Option<Expression> {
        let whole = self.replaced(known);
        (whole.parts() <= MAX_PARTS).then_some(whole)
    }

    fn replaced(&self, known: &dyn Fn(u8) -> Option<Expression>) -> Expression {
        let inner = |of: &Expression| Box::new(of.replaced(known));
        match self {
            Self::Number(..) => self.clone(),
            Self::Register(register) => known(*register).unwrap_or_else(|| self.clone()),
            Self::Sum(one, another) => one.replaced(known).sum(another.replaced(known)),
            Self::Product(of, by) => Self::Product(inner(of), *by),
            Self::Masked(of, mask) => Self::Masked(inner(of), *mask),
            Self::Right(of, bits) => Self::Right(inner(of), *bits),
            Self::Signed(of, bits) => Self::Signed(inner(of), *bits),
            Self::Load(of, bytes, since) => {
                let since = match since.open.is_empty() {
                    true => Arc::clone(since),
                    false => since.with(known).into(),
                };
                Self::Load(inner(of), *bytes, since)
            }
        }
    }

    /// Whether all that it needs is known.
    pub fn is_known(&self, facts: &Facts) -> bool {
        (0..16).all(|register| !self.names(register) || facts.get(register).is_some())
    }

    /// Its value; `None` if a register is not known, or memory is not there or was written since.
    pub fn work_out(&self, facts: &Facts, words: &Words<'_>) -> Option<Worked> {
        let plain = |value| Worked {
            value,
            loaded_from: None,
            origin: None,
            unsure: false,
        };
        let inner = |of: &Expression, change: &dyn Fn(u64) -> u64| {
            let of = of.work_out(facts, words)?;
            Some(Worked {
                value: change(of.value),
                loaded_from: None,
                ..of
            })
        };
        Some(match self {
            Self::Number(value, origin) => Worked {
                origin: *origin,
                ..plain(*value)
            },
            Self::Register(register) => {
                let fact = facts.get(*register)?;
                Worked {
                    origin: Some(fact.origin),
                    ..plain(fact.value)
                }
            }
            Self::Sum(one, another) => {
                let one = one.work_out(facts, words)?;
                let another = another.work_out(facts, words)?;
                Worked {
                    value: one.value.wrapping_add(another.value),
                    loaded_from: None,
                    origin: one.origin.or(another.origin),
                    unsure: one.unsure || another.unsure,
                }
            }
            Self::Product(of, by) => inner(of, &|value| value.wrapping_mul(*by))?,
            Self::Masked(of, mask) => inner(of, &|value| value & mask)?,
            Self::Right(of, bits) => inner(of, &|value| value >> (bits & 63))?,
            Self::Signed(of, bits) => inner(of, &|value| {
                let unused = 64u32.saturating_sub(*bits).min(63);
                ((value << unused).cast_signed() >> unused).cast_unsigned()
            })?,
            Self::Load(at, bytes, since) => {
                let at = at.work_out(facts, words)?;
                let (met, all) = since.met(at.value, *bytes, facts);
                if met || words.is_gone(at.value) {
                    return None;
                }
                Worked {
                    value: words.read(at.value, *bytes)?,
                    loaded_from: Some(at.value),
                    origin: None,
                    unsure: at.unsure || !all || since.called,
                }
            }
        })
    }
}
