//! What the allocator was entered with, by its own code: from where it died back to its entry.

use iced_x86::Instruction;

use super::{Entered, MAX_INNER, Stack, Value, Way};
use crate::crash::argument::Entry;
use crate::crash::argument::expression::Worked;
use crate::crash::argument::facts::{Fact, Facts, RDI, RSP};
use crate::crash::argument::functions::MAX_DEPTH;
use crate::crash::argument::trace::{Place, entry_facts};

/// The registers of arguments at a function's start, and whether no way there was lost.
type Arguments = Vec<(u8, Fact, bool)>;

impl Stack<'_> {
    /// The pointer that the allocator was entered with, by its own code from where it died, and whether its outermost frame is
    /// that of the function which was called.
    pub fn received(&self, entered: &Entered) -> Option<(Value, bool)> {
        let outermost = entered.caller.checked_sub(1)?;
        let first = self.from.max(entered.caller.saturating_sub(MAX_INNER));
        let mut carried = Arguments::new();
        let mut start = 0;
        for index in first..=outermost {
            let Some(mut site) = (match index == self.from {
                true => self.died(index),
                false => self.site(index),
            }) else {
                carried.clear();
                continue;
            };
            let mut sure = true;
            if index != first
                && self
                    .callee(index)
                    .is_some_and(|callee| callee.address == start)
            {
                for (register, fact, known) in &carried {
                    site.facts.set(*register, Some(*fact));
                    sure &= known;
                }
            }
            start = site.function.start;
            let changed = |call: &Instruction| self.functions.changed(call);
            let around = self.around(self.frames.get(index)?.sp.get(), true, &changed);
            let place = Place {
                index: site.index,
                facts: site.facts,
                stores: Default::default(),
                goal: None,
            };
            carried = entry_facts(&site.function, place, &around);
            for (_, _, known) in &mut carried {
                *known &= sure;
            }
        }
        let name = self.functions.names.starting_at(start);
        let mut is_entry = name.as_deref().and_then(Entry::of_name).is_some();
        if !is_entry && let Some(through) = self.through_jumps(entered, start, &carried) {
            carried = through;
            is_entry = true;
        }
        let (_, fact, certain) = carried
            .into_iter()
            .find(|(register, ..)| *register == RDI)?;
        let worked = Worked {
            value: fact.value,
            loaded_from: None,
            origin: Some(fact.origin),
            unsure: !certain,
        };
        Some((Value { worked, certain }, is_entry))
    }

    /// What the entry was given, if it left by jumps for the function at `inner`, which was given `arguments`.
    fn through_jumps(
        &self,
        entered: &Entered,
        inner: u64,
        arguments: &Arguments,
    ) -> Option<Arguments> {
        let entry = match &entered.way {
            Way::Call => self.callee(entered.caller)?.address,
            Way::Jumps(functions) => {
                let last = self.functions.function_at(*functions.last()?)?;
                self.functions.way_out(&last)?.1.address
            }
            Way::Unknown => return None,
        };
        let facts = self.at_jump(entered.caller)?;
        self.before_jumps(entry, inner, arguments, &facts, MAX_DEPTH)
    }

    fn before_jumps(
        &self,
        function: u64,
        inner: u64,
        arguments: &Arguments,
        facts: &Facts,
        depth: usize,
    ) -> Option<Arguments> {
        if function == inner {
            return Some(arguments.clone());
        }
        let depth = depth.checked_sub(1)?;
        let code = self.functions.function_at(function)?;
        let changed = |call: &Instruction| self.functions.changed(call);
        let around = self.around(facts.get(RSP)?.value.checked_add(8)?, true, &changed);
        let mut agreed: Option<Arguments> = None;
        for (index, target) in self.functions.ways_out(&code) {
            let Some(given) = self.before_jumps(target, inner, arguments, facts, depth) else {
                continue;
            };
            let mut facts = facts.clone();
            let mut sure = true;
            for (register, fact, known) in &given {
                facts.set(*register, Some(*fact));
                sure &= known;
            }
            let place = Place {
                index,
                facts,
                stores: Default::default(),
                goal: None,
            };
            let mut entry = entry_facts(&code, place, &around);
            for (_, _, known) in &mut entry {
                *known &= sure;
            }
            // Where several jumps may have led there, what they all tell.
            agreed = Some(match agreed {
                None => entry,
                Some(agreed) => agreed
                    .into_iter()
                    .filter(|(register, fact, _)| {
                        entry
                            .iter()
                            .any(|(other, same, _)| other == register && same.value == fact.value)
                    })
                    .collect(),
            });
        }
        agreed
    }
}
