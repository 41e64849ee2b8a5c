//! The shortest chain from a root to each of a few blocks: the pass again, with the holders of the last one as targets.

use std::collections::BTreeMap;

use super::Universe;
use super::lookup::Node;
use super::references::{self, Holders, Place, Reference, Target};
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

/// The shortest chain of strong references from a root to each target; of weak ones, too, if there is none. Empty where nothing holds it.
/// All of them are looked for in the same passes. `held`: who points at each target, as [`references::find`] says it.
pub fn find(universe: &Universe<'_>, targets: &[Target], held: &[Holders]) -> Vec<Path> {
    let is_known = |held: &Holders| held.list.len() >= KEEP || held.count == held.list.len() as u64;
    let looked_for;
    let held = match held.len() == targets.len() && held.iter().all(is_known) {
        true => held,
        false => {
            looked_for = references::find(universe, targets, KEEP);
            &looked_for
        }
    };
    let mut paths = search(universe, targets, held, Strength::Strong);
    let open: Vec<usize> = (0..paths.len())
        .filter(|at| {
            let path = paths.get(*at);
            path.is_some_and(|path| path.steps.is_empty() && !path.cut)
        })
        .collect();
    let of_open = |at: &usize| targets.get(*at).copied().zip(held.get(*at).cloned());
    let (targets, held): (Vec<_>, Vec<_>) = open.iter().filter_map(of_open).unzip();
    let weak = search(universe, &targets, &held, Strength::Weak);
    for (at, found) in open.into_iter().zip(weak) {
        if let Some(path) = paths.get_mut(at) {
            *path = found;
        }
    }
    paths
}

/// One chain while it is looked for.
struct Search {
    target: Target,
    /// How each block that was met leads on to the target.
    onward: BTreeMap<Node, (Reference, Option<Node>)>,
    /// Blocks whose holders come next.
    front: Vec<(Target, Option<Node>)>,
    /// The answer, once there is one.
    path: Option<Path>,
}

fn search(
    universe: &Universe<'_>,
    targets: &[Target],
    held: &[Holders],
    worst: Strength,
) -> Vec<Path> {
    let mut searches: Vec<Search> = targets
        .iter()
        .map(|target| Search {
            target: *target,
            onward: BTreeMap::new(),
            front: vec![(*target, target.node)],
            path: None,
        })
        .collect();
    for (search, holders) in searches.iter_mut().zip(held) {
        search.step(universe, std::slice::from_ref(holders), worst);
    }
    for _ in 1..MAX_DEPTH {
        let open = searches.iter_mut().filter(|search| search.path.is_none());
        let mut open: Vec<&mut Search> = open.collect();
        if open.is_empty() {
            break;
        }
        let fronts = open.iter().flat_map(|search| &search.front);
        let targets: Vec<Target> = fronts.map(|(target, _)| *target).collect();
        let found = references::find(universe, &targets, KEEP);
        let mut rest = found.as_slice();
        for search in &mut open {
            let count = search.front.len().min(rest.len());
            let (own, others) = rest.split_at(count);
            search.step(universe, own, worst);
            rest = others;
        }
    }
    let cut = Path {
        steps: Vec::new(),
        cut: true,
    };
    let paths = searches.into_iter().map(|search| search.path);
    paths
        .map(|path| path.unwrap_or_else(|| cut.clone()))
        .collect()
}

impl Search {
    /// Goes one step further back: `found` are the holders of the front.
    fn step(&mut self, universe: &Universe<'_>, found: &[Holders], worst: Strength) {
        let mut next: Vec<(Target, Option<Node>)> = Vec::new();
        let mut root: Option<(Reference, Option<Node>)> = None;
        for (holders, (_, node)) in found.iter().zip(&self.front) {
            let kept = holders.list.iter().take(KEEP);
            for holder in kept.filter(|holder| holder.strength <= worst) {
                match holder.place {
                    Place::Register(_) | Place::Root(_) => {
                        let key = |holder: &Reference| (holder.strength, holder.place, holder.at);
                        if root.is_none_or(|(best, _)| key(holder) < key(&best)) {
                            root = Some((*holder, *node));
                        }
                    }
                    Place::Node(from, _) => {
                        let is_known =
                            self.onward.contains_key(&from) || Some(from) == self.target.node;
                        if !is_known && let Some(target) = Target::of(universe, from) {
                            self.onward.insert(from, (*holder, *node));
                            next.push((target, Some(from)));
                        }
                    }
                    Place::Free(..) | Place::Silent => {}
                }
            }
        }
        if let Some((reference, node)) = root {
            self.path = Some(Path {
                steps: chain(&self.onward, reference, node, self.target.node),
                cut: false,
            });
        } else if next.is_empty() {
            self.path = Some(Path::default());
        }
        next.sort_by_key(|(target, _)| target.start);
        next.truncate(MAX_FRONT);
        self.front = next;
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
