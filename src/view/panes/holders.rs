//! Who points at the chosen block and what its words point at, as a tree whose branches are looked for when they are opened.

use super::{Act, Content, Row, missing};
use crate::report::schema::{Tree, TreeRow};
use crate::report::text::parts::{self, Role};
use crate::view::jobs::Direction;
use crate::view::model::{Model, Slot};

/// Steps that a branch can be opened to.
const MAX_DEPTH: usize = 64;
/// Rows of all that is open.
const MAX_ROWS: usize = 1 << 14;

/// A block in the tree: the blocks on the way to it, the chosen one first, itself last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Whether it stands among the holders, or among what is held.
    pub direction: Direction,
    /// The blocks.
    pub path: Vec<u64>,
}

/// A row, before it is text.
struct Line<'m> {
    depth: usize,
    kind: Kind<'m>,
    node: Option<Node>,
}

enum Kind<'m> {
    Heading(String),
    Step(Direction, &'m TreeRow),
    /// What stands for rows that are not there.
    Waiting(u64),
    More(u64),
}

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(root) = model.place.address else {
        let text = "no address is chosen: g and an address, or Enter on one in any pane";
        return Content::sentence(Role::Faint, text, width);
    };
    let rows = lines(model, root).into_iter().flat_map(|line| {
        let indent = "  ".repeat(line.depth);
        let mark = match &line.node {
            Some(node) if model.open.contains(node) => "- ",
            Some(_) => "+ ",
            None => "  ",
        };
        let act = line.node.map_or(Act::None, Act::Node);
        match line.kind {
            Kind::Heading(text) => vec![Row::of(Role::Strong, format!("{mark}{text}")).with(act)],
            Kind::Step(direction, step) => {
                let text = match direction {
                    Direction::Up => parts::holder(step),
                    Direction::Down => parts::held(step),
                };
                let runs = vec![
                    (Role::Faint, format!("{indent}{mark}")),
                    (Role::Plain, text),
                ];
                vec![Row::new(runs).with(act)]
            }
            Kind::Waiting(at) => {
                let slots = [Direction::Up, Direction::Down].map(|way| model.trees.get(&(at, way)));
                let mut failed = slots.into_iter().flatten();
                let failed = failed.find(|slot| matches!(slot, Slot::Failed(_)));
                let text = missing(failed.unwrap_or(&Slot::Empty), model, width);
                let rows = text.rows.into_iter();
                rows.map(|row| Row::of(Role::Faint, format!("{indent}  {}", row.text())))
                    .collect()
            }
            Kind::More(more) => {
                let text = format!("{indent}  and {}", parts::count(more, "more word"));
                vec![Row::of(Role::Faint, text)]
            }
        }
    });
    Content {
        rows: rows.collect(),
        note: format!("of {root:#x}"),
        head: None,
    }
}

/// All steps that open branches need and that are not asked for.
pub(super) fn wanted(model: &Model) -> Vec<(u64, Direction)> {
    let Some(root) = model.place.address else {
        return Vec::new();
    };
    let of = |node: &Node| Some((*node.path.last()?, node.direction));
    let open = lines(model, root).into_iter().filter_map(|line| line.node);
    let open = open.filter(|node| model.open.contains(node));
    let mut steps: Vec<(u64, Direction)> = open.filter_map(|node| of(&node)).collect();
    steps.retain(|step| matches!(model.trees.get(step), None | Some(Slot::Empty)));
    steps.dedup();
    steps
}

/// The tree as far as it is open. Nothing recurses: what is to come lies on a stack.
fn lines(model: &Model, root: u64) -> Vec<Line<'_>> {
    let mut out = Vec::new();
    for direction in [Direction::Up, Direction::Down] {
        let node = Node {
            direction,
            path: vec![root],
        };
        let slot = model.trees.get(&(root, direction));
        out.push(Line {
            depth: 0,
            kind: Kind::Heading(heading(slot, direction)),
            node: Some(node.clone()),
        });
        if !model.open.contains(&node) {
            continue;
        }
        let mut stack = below(model, &node);
        while let Some(line) = stack.pop() {
            if out.len() >= MAX_ROWS {
                break;
            }
            let open = line.node.clone().filter(|node| model.open.contains(node));
            out.push(line);
            if let Some(node) = open {
                stack.extend(below(model, &node));
            }
        }
    }
    out
}

fn heading(slot: Option<&Slot<Tree>>, direction: Direction) -> String {
    let tree = match slot {
        Some(Slot::Here(tree)) => Some(tree),
        _ => None,
    };
    match (direction, tree) {
        (Direction::Up, Some(tree)) if tree.rows.is_empty() => "held by nobody".into(),
        (Direction::Up, _) => "held by".into(),
        (Direction::Down, Some(tree)) if tree.reached.blocks > 0 => format!(
            "points to, with what hangs on it {}, {}",
            parts::count(tree.reached.blocks, "block"),
            parts::bytes(tree.reached.bytes)
        ),
        (Direction::Down, Some(tree)) if tree.rows.is_empty() => "points to nothing".into(),
        (Direction::Down, _) => "points to".into(),
    }
}

/// What stands below a node, the last first.
fn below<'m>(model: &'m Model, node: &Node) -> Vec<Line<'m>> {
    let depth = node.path.len();
    let Some(at) = node.path.last().copied() else {
        return Vec::new();
    };
    let Some(Slot::Here(tree)) = model.trees.get(&(at, node.direction)) else {
        return vec![Line {
            depth,
            kind: Kind::Waiting(at),
            node: None,
        }];
    };
    let rows = tree.rows.iter().filter(|row| row.depth == 1);
    let mut lines: Vec<Line<'m>> = rows
        .map(|row| {
            let block = match node.direction {
                Direction::Up => row.from.block.as_ref(),
                Direction::Down => row.to.as_ref(),
            };
            // What is on the way already leads around in a circle.
            let next = block.map(|block| block.address.0);
            let next = next.filter(|at| depth < MAX_DEPTH && !node.path.contains(at));
            Line {
                depth,
                kind: Kind::Step(node.direction, row),
                node: next.map(|at| {
                    let mut path = node.path.clone();
                    path.push(at);
                    Node {
                        direction: node.direction,
                        path,
                    }
                }),
            }
        })
        .collect();
    if tree.more > 0 {
        lines.push(Line {
            depth,
            kind: Kind::More(tree.more),
            node: None,
        });
    }
    lines.reverse();
    lines
}
