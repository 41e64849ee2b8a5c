//! What nobody points at any more: heads and what hangs on them, in groups of blocks that look alike.
//!
//! `definite`: in use and not reached, and no lost block leads to it, or it stands for a circle. `indirect`: reached from lost
//! blocks only. `possible`: reached with a weak word on the way. `reachable`: the rest.

pub mod signature;

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt};
use heaps::allocators::Tally;
use heaps::graph::encodings;
use heaps::graph::lookup::Node;
use heaps::graph::mark::{self, Marks};
use heaps::graph::subgraph::{self, Found, Role};
use heaps::map::BlockState;

use super::Ground;
use super::holders::Holder;
use super::propagation::Limits;
use crate::types::{Place, Type};
use postmortem::session::Limit;

/// Groups that a report shows; the sums count all.
pub const MAX_GROUPS: usize = 1000;
/// Blocks that are named of a group.
const MAX_EXAMPLES: usize = 2;
/// Groups whose former holders are looked for.
const MAX_HISTORY: usize = 64;

/// How a block that is in use is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Not at all, and it heads what is lost with it.
    Definite,
    /// From lost blocks only.
    Indirect,
    /// Perhaps.
    Possible,
}

impl Class {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Class::Definite => "definite",
            Class::Indirect => "indirect",
            Class::Possible => "possible",
        }
    }
}

/// A block that is not reached for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeakedBlock {
    /// Its address.
    pub address: Address,
    /// Its usable bytes.
    pub bytes: u64,
    /// How it is reached.
    pub class: Class,
    /// Index of its group; `None` if that was left out.
    pub group: Option<usize>,
}

/// Blocks that were lost in one way, as far as that can be told.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are.
    pub class: Class,
    /// How the pointers to them are stored, if in another form.
    pub encoding: Option<&'static str>,
    /// Several lost blocks lead to them: they hang on none alone.
    pub is_shared: bool,
    /// The blocks, without what hangs on them.
    pub own: Tally,
    /// What hangs on them alone.
    pub held: Tally,
    /// Usable bytes of each.
    pub block_bytes: u64,
    /// Index of their heap.
    pub heap: usize,
    /// What they hold.
    pub block_type: Option<Type>,
    /// What the first words are; of blocks with a type those of the first.
    pub signature: String,
    /// Where they were allocated, if that was recorded: innermost first.
    pub stack: Vec<Address>,
    /// Where they were allocated by a log of the run: the number of a site.
    pub site: Option<u32>,
    /// A word that led to one of them once.
    pub was_held_by: Option<Holder>,
    /// The lowest addresses.
    pub examples: Vec<Address>,
}

/// A mapping of the program's own that nobody points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMapping {
    /// The memory.
    pub range: std::ops::Range<Address>,
    /// How surely it is lost.
    pub class: Class,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    /// Heads.
    pub definite: Tally,
    /// What hangs on them.
    pub indirect: Tally,
    /// Perhaps lost.
    pub possible: Tally,
    /// In the program's hands.
    pub reachable: Tally,
    /// Groups, those with most bytes first.
    pub groups: Vec<Group>,
    /// Groups that were left out.
    pub groups_dropped: u64,
    /// Lost mappings, by address.
    pub mappings: Vec<LostMapping>,
    /// Every block that is not reached for certain, by address; empty if it was not asked for.
    pub blocks: Vec<LeakedBlock>,
    /// What could not be told.
    pub limits: Vec<Limit>,
}

/// What makes two blocks alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    class: Class,
    encoding: Option<&'static str>,
    is_shared: bool,
    stack: Vec<Address>,
    site: Option<u32>,
    heap: usize,
    bytes: u64,
    /// Blocks of one type are alike whatever their words are.
    what: What,
}

/// What a block holds, as far as groups go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// An object.
    Typed(Type),
    /// Words of these kinds.
    Signature(String),
}

struct Gatherer<'g, 'a> {
    ground: &'g Ground<'a>,
    groups: BTreeMap<Key, (Group, usize)>,
    /// Groups in the order in which they were met: what blocks refer to.
    met: usize,
    /// Further blocks share one key for each size once there are too many groups.
    is_full: bool,
}

/// What is asked for beside sums and groups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Each block.
    pub blocks: bool,
    /// Types by debug information, if anything is lost.
    pub types: bool,
}

/// Finds what leaks.
pub fn find(ground: &Ground<'_>, wanted: Wanted) -> Leaks {
    let universe = &ground.universe;
    let mut marks: Marks = mark::mark(universe);
    let mut survey = subgraph::survey(universe, &marks);
    let encoded = encodings::find(universe, &marks, &survey.lost);
    if !encoded.is_empty() {
        let nodes: Vec<Node> = encoded.iter().map(|(node, _)| *node).collect();
        marks = mark::extend(universe, marks, &nodes);
        survey = subgraph::survey(universe, &marks);
    }
    set_apart_own_objects(ground, &mut survey);
    if wanted.types && !(survey.lost.is_empty() && survey.weak.is_empty()) {
        ground.follow_types(Limits::WHOLE);
    }
    let mut leaks = Leaks {
        reachable: survey.strong,
        possible: survey.weak_tally,
        ..Leaks::default()
    };
    // What is not in the core may hold anything.
    let is_certain = ground.missing.is_none();
    leaks.limits.extend(ground.missing.clone());
    let mut gatherer = Gatherer {
        ground,
        groups: BTreeMap::new(),
        met: 0,
        is_full: false,
    };
    let mut all: Vec<LeakedBlock> = Vec::new();
    for found in &survey.weak {
        let index = encoded.binary_search_by_key(&found.node, |(node, _)| *node);
        let encoding = index.ok().and_then(|index| encoded.get(index));
        let encoding = encoding.map(|(_, form)| form.name());
        let group = gatherer.add((Class::Possible, encoding), found, None);
        all.push(leaked(found, Class::Possible, group));
    }
    let whole = survey.lost_tally.blocks == survey.lost.len() as u64;
    let roles = whole
        .then(|| subgraph::roles(universe, &survey.lost))
        .flatten();
    if roles.is_none() && !survey.lost.is_empty() {
        leaks.limits.push(Limit {
            what: "which lost blocks hang on which".into(),
            why: format!(
                "{} blocks are lost, too many to tell: all count as definitely lost",
                survey.lost_tally.blocks
            ),
            incomplete: false,
        });
    }
    if let Some(roles) = &roles {
        for (found, role) in survey.lost.iter().zip(roles) {
            let class = match role {
                _ if !is_certain => Class::Possible,
                Role::Head { .. } => Class::Definite,
                Role::Held(_) | Role::Shared => Class::Indirect,
            };
            let tally = match class {
                Class::Definite => &mut leaks.definite,
                Class::Indirect => &mut leaks.indirect,
                Class::Possible => &mut leaks.possible,
            };
            tally.add(1, found.bytes);
            let group = match (class, role) {
                (Class::Indirect, Role::Held(_)) => None,
                _ => gatherer.add((class, None), found, Some(*role)),
            };
            all.push(leaked(found, class, group));
        }
        if wanted.blocks && is_certain {
            name_groups_of_held(&mut all, &survey, roles);
        }
    } else {
        let class = if is_certain {
            Class::Definite
        } else {
            Class::Possible
        };
        let tally = if is_certain {
            &mut leaks.definite
        } else {
            &mut leaks.possible
        };
        tally.add(survey.lost_tally.blocks, survey.lost_tally.bytes);
        for found in &survey.lost {
            let group = gatherer.add((class, None), found, None);
            all.push(leaked(found, class, group));
        }
    }
    leaks.mappings = survey
        .lost_mappings
        .iter()
        .filter_map(|node| {
            let (start, bytes) = universe.lookup.extent(*node)?;
            Some(LostMapping {
                range: start..start.saturating_add(bytes),
                class: if is_certain {
                    Class::Definite
                } else {
                    Class::Possible
                },
            })
        })
        .collect();
    let order = gatherer.finish(&mut leaks);
    if wanted.blocks {
        for block in &mut all {
            block.group = block
                .group
                .and_then(|met| order.get(met).copied().flatten());
        }
        all.sort_by_key(|block| block.address);
        leaks.blocks = all;
    }
    find_history(ground, &mut leaks.groups);
    leaks
}

/// What an allocator's own library allocated for itself, told by a first word that points into that library (a virtual table): no leak of
/// the program's. gperftools drops its first `MallocExtension` when it registers a better one.
fn set_apart_own_objects(ground: &Ground<'_>, survey: &mut subgraph::Survey) {
    const MAX_BYTES: u64 = 256;
    let target = ground.session.target();
    let is_own = |found: &Found| {
        let node = ground.universe.lookup.heap(found.node);
        let heap = node.and_then(|heap| ground.analysis.heaps.get(heap as usize));
        let module = heap.and_then(|heap| ground.session.modules().module(heap.identity.module));
        let library =
            module.filter(|module| !module.is_executable && !module.name.starts_with("libc."));
        library.is_some_and(|module| {
            let word = target.memory.read_u64(found.at).map(Address::new);
            found.bytes <= MAX_BYTES && word.is_ok_and(|word| module.range.contains(&word))
        })
    };
    let mut own = Tally::default();
    for (list, tally) in [
        (&mut survey.lost, &mut survey.lost_tally),
        (&mut survey.weak, &mut survey.weak_tally),
    ] {
        list.retain(|found| {
            let is_own = is_own(found);
            if is_own {
                own.add(1, found.bytes);
                tally.blocks = tally.blocks.saturating_sub(1);
                tally.bytes = tally.bytes.saturating_sub(found.bytes);
            }
            !is_own
        });
    }
    survey.strong.add(own.blocks, own.bytes);
}

fn leaked(found: &Found, class: Class, group: Option<usize>) -> LeakedBlock {
    LeakedBlock {
        address: found.at,
        bytes: found.bytes,
        class,
        group,
    }
}

/// What hangs on one head alone belongs to that head's group.
fn name_groups_of_held(all: &mut [LeakedBlock], survey: &subgraph::Survey, roles: &[Role]) {
    let first = survey.weak.len();
    let groups: Vec<Option<usize>> = all
        .get(first..)
        .unwrap_or_default()
        .iter()
        .map(|block| block.group)
        .collect();
    let held = all
        .get_mut(first..)
        .unwrap_or_default()
        .iter_mut()
        .zip(roles);
    for (block, role) in held {
        if let Role::Held(head) = role {
            block.group = groups.get(*head as usize).copied().flatten();
        }
    }
}

impl Gatherer<'_, '_> {
    /// Adds a block to its group; says which that is.
    fn add(
        &mut self,
        (class, encoding): (Class, Option<&'static str>),
        found: &Found,
        role: Option<Role>,
    ) -> Option<usize> {
        const MAX_KEPT: usize = 1 << 16;
        let lookup = &self.ground.universe.lookup;
        let heap = lookup.heap(found.node)? as usize;
        let is_shared = role == Some(Role::Shared);
        let known = self.ground.analysis.heaps.get(heap);
        let stack = known.and_then(|heap| heap.heap.recorded_stack(found.at));
        let events = self.ground.events.as_ref();
        self.is_full |= self.groups.len() >= MAX_KEPT;
        let block = Place {
            address: found.at,
            bytes: found.bytes,
            state: BlockState::InUse,
        };
        let what = match self.is_full {
            true => What::Signature("more kinds than are told apart".into()),
            false => match self.ground.type_of_block(block) {
                Some(found) => What::Typed(found),
                None => What::Signature(signature::of(self.ground, found.at, found.bytes)),
            },
        };
        let key = Key {
            class,
            encoding,
            is_shared,
            stack: stack.unwrap_or_default(),
            site: events.and_then(|events| events.allocation(found.at)),
            heap,
            bytes: found.bytes,
            what,
        };
        let met = &mut self.met;
        let ground = self.ground;
        let (group, place) = self.groups.entry(key).or_insert_with_key(|key| {
            let place = *met;
            *met += 1;
            let group = Group {
                class,
                encoding,
                is_shared,
                own: Tally::default(),
                held: Tally::default(),
                block_bytes: key.bytes,
                heap,
                block_type: match &key.what {
                    What::Typed(known) => Some(known.clone()),
                    What::Signature(_) => None,
                },
                signature: match &key.what {
                    What::Typed(_) => signature::of(ground, found.at, found.bytes),
                    What::Signature(signature) => signature.clone(),
                },
                stack: key.stack.clone(),
                site: key.site,
                was_held_by: None,
                examples: Vec::new(),
            };
            (group, place)
        });
        group.own.add(1, found.bytes);
        if let (Class::Definite, Some(Role::Head { held })) = (class, role) {
            group.held.add(held.blocks, held.bytes);
        }
        if group.examples.len() < MAX_EXAMPLES {
            group.examples.push(found.at);
        }
        Some(*place)
    }

    /// Sorts the groups; says where each went, by the order in which they were met.
    fn finish(self, leaks: &mut Leaks) -> Vec<Option<usize>> {
        let mut rows: Vec<(Group, usize)> = self.groups.into_values().collect();
        rows.sort_by_key(|(group, _)| {
            let bytes = group.own.bytes.saturating_add(group.held.bytes);
            (
                group.class,
                std::cmp::Reverse(bytes),
                group.examples.first().copied(),
            )
        });
        let mut order = vec![None; self.met];
        for (place, (_, met)) in rows.iter().enumerate().take(MAX_GROUPS) {
            if let Some(entry) = order.get_mut(*met) {
                *entry = Some(place);
            }
        }
        leaks.groups_dropped = rows.len().saturating_sub(MAX_GROUPS) as u64;
        leaks.groups = rows
            .into_iter()
            .map(|(group, _)| group)
            .take(MAX_GROUPS)
            .collect();
        order
    }
}

/// Who named the first blocks of the largest groups before they were lost: words that hold nothing any more.
fn find_history(ground: &Ground<'_>, groups: &mut [Group]) {
    let lost = groups
        .iter_mut()
        .filter(|group| group.class == Class::Definite);
    let mut lost: Vec<&mut Group> = lost.take(MAX_HISTORY).collect();
    let examples: Vec<Address> = lost
        .iter()
        .filter_map(|group| group.examples.first().copied())
        .collect();
    if examples.is_empty() {
        return;
    }
    let found = ground.references(&examples, super::holders::MAX_SHOWN, 0);
    for (group, references) in lost.iter_mut().zip(found) {
        let history = references.from.into_iter();
        let history = history.filter(|holder| holder.kind == super::holders::HolderKind::History);
        // A block that was freed says most, an allocator's own memory least.
        group.was_held_by =
            history.min_by_key(|holder| (holder.block.is_none(), holder.thread.is_none()));
    }
}

/// The node of a leaked block.
pub fn node(ground: &Ground<'_>, at: Address) -> Option<Node> {
    super::holders::node_at(&ground.universe, at)
}
