//! A value as far as it could be told.

use ground::target::Address;

use super::Load;

/// Loads of one value that are kept.
pub const MAX_LOADS: usize = 32;

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
        self.returned = None;
        self.map(|number| number.wrapping_mul(factor))
    }
}

/// The sum of two values: what was loaded for either has made it.
pub fn sum(mut first: Value, second: Value, scale: u64) -> Value {
    let second = second.times(scale);
    let number = first.number.zip(second.number);
    let is_number = second.number.is_some() && second.loads.is_empty();
    first.loads.extend(second.loads);
    first.loads.truncate(MAX_LOADS);
    Value {
        number: number.map(|(a, b)| a.wrapping_add(b)),
        only: first.only && second.only,
        given: first.given.or(second.given),
        returned: first.returned.filter(|_| is_number),
        ..first
    }
}
