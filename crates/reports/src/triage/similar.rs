//! Groups whose stacks are much alike: proposals to merge, never done without a person.

use schemars::JsonSchema;
use serde::Serialize;

use super::groups::Group;
use crate::key::Name;
use crate::record::{Role, Stack};

/// How fast frames lose weight from the innermost outwards (as in casr).
const DEPTH: f64 = 0.04;
/// How fast a pair of frames at different depths loses weight (as in casr).
const SHIFT: f64 = 0.13;
/// Distance below which a merge is proposed.
const NEAR: f64 = 0.3;
/// Most groups of one kind that are compared.
const MAX_GROUPS: usize = 400;
/// Most proposals.
const MAX_PROPOSALS: usize = 100;
/// Functions of a stack that are compared.
const MAX_FUNCTIONS: usize = 24;

/// Two groups that may be one bug.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Proposal {
    /// A group's key.
    pub key: String,
    /// The key of the group that it may belong to.
    pub into: String,
    /// 0 for stacks that are the same, below 0.3 for a proposal.
    pub distance: f64,
}

/// Functions of the responsible stack.
pub(super) fn functions(stacks: &[Stack], kind: &str) -> Vec<String> {
    let role = match kind {
        "memory-leak" | "live-memory" => Role::Allocation,
        "use-after-free" | "double-free" | "invalid-free" | "mismatched-free" => Role::Free,
        _ => Role::Access,
    };
    let stack = stacks
        .iter()
        .find(|stack| stack.role == role)
        .or(stacks.first());
    let frames = stack.iter().flat_map(|stack| &stack.frames);
    frames
        .filter_map(|frame| frame.function.as_deref())
        .map(|function| Name::of(function).text())
        .take(MAX_FUNCTIONS)
        .collect()
}

/// Pairs of groups of one kind whose stacks are near, nearest first.
pub fn proposals(groups: &[Group]) -> Vec<Proposal> {
    let mut found: Vec<(f64, &Group, &Group)> = Vec::new();
    let keep_nearest = |found: &mut Vec<(f64, &Group, &Group)>| {
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found.truncate(MAX_PROPOSALS);
    };
    let mut compared = std::collections::BTreeMap::<&str, Vec<&Group>>::new();
    for group in groups.iter().filter(|group| group.stack.len() > 1) {
        let same = compared.entry(&group.kind).or_default();
        for other in same.iter() {
            let distance = distance(&group.stack, &other.stack);
            if distance < NEAR {
                found.push((distance, group, other));
            }
        }
        if found.len() > 16 * MAX_PROPOSALS {
            keep_nearest(&mut found);
        }
        if same.len() < MAX_GROUPS {
            same.push(group);
        }
    }
    keep_nearest(&mut found);
    let proposals = found.into_iter().map(|(distance, group, other)| Proposal {
        key: group.key.clone(),
        into: other.key.clone(),
        distance,
    });
    proposals.collect()
}

/// Position-dependent distance of two stacks: 0 for the same, 1 for nothing in common.
#[expect(clippy::cast_precision_loss)]
pub(super) fn distance(a: &[String], b: &[String]) -> f64 {
    let mut row = vec![0.0_f64; b.len() + 1];
    for (i, left) in a.iter().enumerate() {
        let mut corner = 0.0;
        for (j, right) in b.iter().enumerate() {
            let pair = if left == right {
                (-DEPTH * i.min(j) as f64 - SHIFT * i.abs_diff(j) as f64).exp()
            } else {
                0.0
            };
            let best = (corner + pair).max(row[j]).max(row[j + 1]);
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    let most: f64 = (0..a.len().min(b.len()))
        .map(|at| (-DEPTH * at as f64).exp())
        .sum();
    if most == 0.0 {
        1.0
    } else {
        1.0 - row[b.len()] / most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let stack = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(distance(&stack("a b c d"), &stack("a b c d")) < 1e-9);
        assert!(distance(&stack("a b c d"), &stack("x a b c d")) < 0.3);
        assert!(distance(&stack("a b c d"), &stack("p q r d")) > 0.3);
        assert!(distance(&stack("a b"), &stack("c d")) > 0.99);
    }
}
