//! Where pointers stand that nobody has to point at: types only. Which memory is a root is known above this crate.

use std::ops::Range;

use ground::target::Address;

/// What a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootKind {
    /// The live part of a thread's stack.
    Stack,
    /// Thread-local variables, and what libc keeps of a thread beside them.
    Tls,
    /// Variables of a module.
    Global,
    /// Memory that the program mapped itself, or shares with others.
    Mapping,
}

/// How much a source is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// The program can follow it.
    Strong,
    /// It may be a pointer that the program can follow.
    Weak,
}

impl Strength {
    /// The name in the report: `strong`, `weak`.
    pub fn name(self) -> &'static str {
        match self {
            Strength::Strong => "strong",
            Strength::Weak => "weak",
        }
    }
}

/// A run of memory whose words are sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The memory.
    pub range: Range<Address>,
    /// What it is.
    pub kind: RootKind,
    /// What its words are worth.
    pub strength: Strength,
    /// Index of the thread or the module that it belongs to; 0 where it belongs to neither.
    pub owner: u32,
    /// Pointers may stand at any byte: code that was made at run time.
    pub any_byte: bool,
}

/// A register of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    /// Index of the thread.
    pub thread: u32,
    /// Which: a DWARF number, or one that the caller gave to a vector register's half.
    pub number: u16,
    /// What it holds.
    pub value: u64,
    /// What it is worth: weak if the code that follows does not read it.
    pub strength: Strength,
}

/// Ranges of addresses, sorted and without overlap.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    ranges: Vec<Range<Address>>,
}

impl Ranges {
    /// Sorts and joins.
    pub fn new(mut ranges: Vec<Range<Address>>) -> Self {
        ranges.retain(|range| range.start < range.end);
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut joined: Vec<Range<Address>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Self { ranges: joined }
    }

    /// All, by address.
    pub fn list(&self) -> &[Range<Address>] {
        &self.ranges
    }

    /// Whether one holds `at`.
    pub fn contains(&self, at: Address) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= at);
        let last = after
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index));
        last.is_some_and(|range| at < range.end)
    }

    /// Those that overlap `range`.
    pub fn within(
        &self,
        range: &Range<Address>,
    ) -> impl Iterator<Item = &Range<Address>> + use<'_> {
        let first = self
            .ranges
            .partition_point(|other| other.end <= range.start);
        let end = range.end;
        let rest = self.ranges.get(first..).unwrap_or_default().iter();
        rest.take_while(move |other| other.start < end)
    }

    /// Whether one overlaps `range`.
    pub fn overlap(&self, range: &Range<Address>) -> bool {
        self.within(range).next().is_some()
    }

    /// What of `range` none of them covers.
    pub fn without(&self, range: Range<Address>) -> Vec<Range<Address>> {
        let mut left = Vec::new();
        let mut at = range.start;
        for other in self.within(&range) {
            if at < other.start {
                left.push(at..other.start);
            }
            at = at.max(other.end);
        }
        if at < range.end {
            left.push(at..range.end);
        }
        left
    }
}

/// Sorts roots, the stronger first where two overlap, and cuts out what is silent. Each byte belongs to one root at most.
pub(super) fn cut(mut roots: Vec<Root>, silent: &Ranges) -> Vec<Root> {
    roots.sort_by_key(|root| {
        (
            root.strength,
            root.kind,
            root.range.start,
            root.range.end,
            root.owner,
        )
    });
    let mut taken = silent.clone();
    let mut out: Vec<Root> = Vec::new();
    let mut level: Vec<Root> = Vec::new();
    let mut last = None;
    for root in roots {
        // What a level has taken is known to the next one; within a level the roots lie by address.
        if last.replace((root.strength, root.kind)) != Some((root.strength, root.kind)) {
            let new = level.iter().map(|root: &Root| root.range.clone());
            taken = Ranges::new(taken.ranges.iter().cloned().chain(new).collect());
            out.append(&mut level);
        }
        let floor = level
            .last()
            .map_or(Address::new(0), |root: &Root| root.range.end);
        let range = root.range.start.max(floor)..root.range.end;
        if range.start < range.end {
            let parts = taken.without(range);
            level.extend(parts.into_iter().map(|range| Root {
                range,
                ..root.clone()
            }));
        }
    }
    out.append(&mut level);
    out.sort_by_key(|root| root.range.start);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range<Address> {
        Address::new(start)..Address::new(end)
    }

    #[test]
    fn ranges_join_and_are_cut() {
        let ranges = Ranges::new(vec![
            range(50, 60),
            range(10, 20),
            range(15, 30),
            range(5, 5),
        ]);
        assert_eq!(ranges.list(), [range(10, 30), range(50, 60)]);
        assert!(ranges.contains(Address::new(29)) && !ranges.contains(Address::new(30)));
        assert_eq!(
            ranges.without(range(0, 100)),
            [range(0, 10), range(30, 50), range(60, 100)]
        );
        assert_eq!(ranges.without(range(12, 28)), []);
    }

    #[test]
    fn a_byte_belongs_to_the_strongest_root() {
        let root = |start, end, kind, strength| Root {
            range: range(start, end),
            kind,
            strength,
            owner: 0,
            any_byte: false,
        };
        let roots = vec![
            root(0, 100, RootKind::Mapping, Strength::Weak),
            root(40, 60, RootKind::Global, Strength::Strong),
            root(55, 70, RootKind::Stack, Strength::Strong),
        ];
        let cut = cut(roots, &Ranges::new(vec![range(45, 50)]));
        let rows: Vec<_> = cut
            .iter()
            .map(|root| (root.range.start.get(), root.range.end.get(), root.kind))
            .collect();
        assert_eq!(
            rows,
            [
                (0, 40, RootKind::Mapping),
                (40, 45, RootKind::Global),
                (50, 55, RootKind::Global),
                (55, 70, RootKind::Stack),
                (70, 100, RootKind::Mapping),
            ]
        );
    }
}
