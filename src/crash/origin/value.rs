//! A value as far as it could be told.

use ground::target::Address;

use super::Load;

/// Loads of one value that are kept.
pub const MAX_LOADS: usize = 32;
/// Below this a number is no pointer, and what is added to one the place of a member.
const MAX_MEMBER: u64 = 1 << 16;

/// A value, and how the program got it.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// It; `None` if it could not be told.
    pub number: Option<u64>,
    /// The loads that made it, the last one first.
    pub loads: Vec<Load>,
    /// A call returned it: the first argument of that call.
    pub given: Option<u64>,
    /// A call of this function returned it.
    pub returned: Option<Address>,
    /// The code itself may have set it instead of the call.
    pub or_constant: bool,
    /// What was added up to make it, if each is as large as a pointer, or unknown (0).
    pub parts: [u64; 2],
    /// No other way leads to it.
    pub only: bool,
}

impl Value {
    /// A value that is known, wherever it came from.
    pub fn known(number: u64) -> Self {
        Self {
            number: Some(number),
            only: true,
            ..Self::default()
        }
    }

    /// The same value, changed.
    pub fn map(mut self, change: impl FnOnce(u64) -> u64) -> Self {
        self.number = self.number.map(change);
        self
    }

    /// The value, so many times; what a call returned is not the value any more.
    pub fn times(mut self, factor: u64) -> Self {
        for load in &mut self.loads {
            load.factor = load.factor.wrapping_mul(factor);
        }
        (self.returned, self.parts) = (None, [0; 2]);
        self.map(|number| number.wrapping_mul(factor))
    }
}

/// The sum of two values: what was loaded for either has made it.
pub fn sum(mut first: Value, second: Value, scale: u64) -> Value {
    let second = second.times(scale);
    let number = first.number.zip(second.number);
    // What is added to a pointer that a call returned, and leaves it that pointer: a member's place.
    let is_member = second
        .number
        .is_some_and(|added| added.wrapping_add(MAX_MEMBER) < 2 * MAX_MEMBER);
    let is_number = is_member && second.loads.is_empty();
    let pointer = |value: &Value| {
        let number = value.number.filter(|_| value.only);
        number.filter(|number| *number >= MAX_MEMBER)
    };
    let parts = match is_number {
        true => first.parts,
        false => [&first, &second].map(|value| pointer(value).unwrap_or(0)),
    };
    first.loads.extend(second.loads);
    first.loads.truncate(MAX_LOADS);
    Value {
        number: number.map(|(a, b)| a.wrapping_add(b)),
        only: first.only && second.only,
        given: first.given.or(second.given),
        returned: first.returned.filter(|_| is_number),
        or_constant: first.or_constant,
        parts,
        ..first
    }
}
