//! The shortest chain from a root to a block: the pass again, with the holders of the last one as targets.

use std::collections::BTreeMap;

use super::Universe;
use super::lookup::Node;
use super::references::{self, Place, Reference, Target};
use super::roots::Strength;

/// Passes that are made for a chain.
const MAX_DEPTH: usize = 24;
/// Holders of one step that are followed.
const MAX_FRONT: usize = 4096;
/// Holders of one block that are followed.
const KEEP: usize = 64;

/// A chain of references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// From the root to the block: the target of each is the block in which the next one stands.
    pub steps: Vec<Reference>,
    /// Whether the search was given up: there may be a root further away.
    pub cut: bool,
}

/// The shortest chain of strong references from a root to the target; of weak ones, too, if there is none. Empty where nothing holds it.
pub fn find(universe: &Universe<'_>, target: Target) -> Path {
    let strong = search(universe, target, Strength::Strong);
    if !strong.steps.is_empty() || strong.cut {
        return strong;
    }
    search(universe, target, Strength::Weak)
}

fn search(universe: &Universe<'_>, target: Target, worst: Strength) -> Path {
    // How each block that was met leads on to the target.
    let mut onward: BTreeMap<Node, (Reference, Option<Node>)> = BTreeMap::new();
    let mut front: Vec<(Target, Option<Node>)> = vec![(target, target.node)];
    for _ in 0..MAX_DEPTH {
        let targets: Vec<Target> = front.iter().map(|(target, _)| *target).collect();
        let found = references::find(universe, &targets, KEEP);
        let mut next: Vec<(Target, Option<Node>)> = Vec::new();
        let mut root: Option<(Strength, Reference, Option<Node>)> = None;
        for (holders, (_, node)) in found.iter().zip(&front) {
            let fit = holders
                .list
                .iter()
                .filter(|holder| holder.strength <= worst);
            for holder in fit {
                match holder.place {
                    Place::Register(_) | Place::Root(_) => {
                        let key = |holder: &Reference| (holder.strength, holder.place, holder.at);
                        let better = root.is_none_or(|(_, best, _)| key(holder) < key(&best));
                        if better {
                            root = Some((holder.strength, *holder, *node));
                        }
                    }
                    Place::Node(from, _) => {
                        let is_known = onward.contains_key(&from) || Some(from) == target.node;
                        if !is_known && let Some(target) = Target::of(universe, from) {
                            onward.insert(from, (*holder, *node));
                            next.push((target, Some(from)));
                        }
                    }
                    Place::Free(..) | Place::Silent => {}
                }
            }
        }
        if let Some((_, reference, node)) = root {
            return Path {
                steps: chain(&onward, reference, node, target.node),
                cut: false,
            };
        }
        if next.is_empty() {
            return Path::default();
        }
        next.sort_by_key(|(target, _)| target.start);
        next.truncate(MAX_FRONT);
        front = next;
    }
    Path {
        steps: Vec::new(),
        cut: true,
    }
}

/// The steps from a root's reference to the target.
fn chain(
    onward: &BTreeMap<Node, (Reference, Option<Node>)>,
    first: Reference,
    mut node: Option<Node>,
    target: Option<Node>,
) -> Vec<Reference> {
    let mut steps = vec![first];
    while let Some(at) = node.filter(|at| Some(*at) != target)
        && let Some((reference, next)) = onward.get(&at)
        && steps.len() <= MAX_DEPTH
    {
        steps.push(*reference);
        node = *next;
    }
    steps
}
