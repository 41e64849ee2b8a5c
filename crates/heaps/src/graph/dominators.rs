//! Dominators of a graph by SEMI-NCA: without recursion, whatever its shape.
//!
//! Source: Georgiadis, Linear-Time Algorithms for Dominators and Related Problems (2005), chapter 2.

/// No node.
pub const NONE: u32 = u32::MAX;

/// Edges of a graph: those of node `n` are `edges[starts[n]..starts[n + 1]]`.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    starts: Vec<u32>,
    edges: Vec<u32>,
}

impl Edges {
    /// Edges by their source, out of any order; those from or to nodes that do not exist are left out.
    pub fn new(nodes: u32, list: &[(u32, u32)]) -> Self {
        let count = nodes as usize;
        let fits = |edge: &&(u32, u32)| edge.0 < nodes && edge.1 < nodes;
        let mut starts = vec![0u32; count.saturating_add(1)];
        for (from, _) in list.iter().filter(fits) {
            if let Some(start) = starts.get_mut((*from as usize).saturating_add(1)) {
                *start = start.saturating_add(1);
            }
        }
        let mut sum = 0u32;
        for start in &mut starts {
            sum = sum.saturating_add(*start);
            *start = sum;
        }
        let mut next = starts.clone();
        let mut edges = vec![NONE; sum as usize];
        for (from, to) in list.iter().filter(fits) {
            if let Some(place) = next.get_mut(*from as usize) {
                if let Some(edge) = edges.get_mut(*place as usize) {
                    *edge = *to;
                }
                *place = place.saturating_add(1);
            }
        }
        Self { starts, edges }
    }

    /// Number of nodes.
    pub fn nodes(&self) -> u32 {
        u32::try_from(self.starts.len().saturating_sub(1)).unwrap_or(0)
    }

    /// Where the edges of a node lead.
    #[inline]
    pub fn of(&self, node: u32) -> &[u32] {
        let place = |node: usize| self.starts.get(node).map(|start| *start as usize);
        match (
            place(node as usize),
            place((node as usize).saturating_add(1)),
        ) {
            (Some(from), Some(to)) => self.edges.get(from..to).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The same edges, each the other way.
    pub fn reversed(&self) -> Self {
        let pairs: Vec<(u32, u32)> = (0..self.nodes())
            .flat_map(|from| self.of(from).iter().map(move |to| (*to, from)))
            .collect();
        Self::new(self.nodes(), &pairs)
    }
}

/// Who every way from the root to a node leads through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dominators {
    /// The nearest such node of each; `NONE` for the root and for what it does not reach.
    pub nearest: Vec<u32>,
    /// What the root reaches, each behind its dominators.
    pub order: Vec<u32>,
}

/// Dominators of each node as seen from `root`.
pub fn find(edges: &Edges, root: u32) -> Dominators {
    let count = edges.nodes() as usize;
    let (order, number, parent) = depth_first(edges, root);
    let back = edges.reversed();
    // All arrays from here on are by number in depth-first order.
    let reached = order.len();
    let mut semi: Vec<u32> = (0..).take(reached).collect();
    let mut label: Vec<u32> = semi.clone();
    let mut ancestor: Vec<u32> = vec![NONE; reached];
    let mut idom: Vec<u32> = parent.clone();
    let mut path = Vec::new();
    for w in (1..reached).rev() {
        let w32 = u32::try_from(w).unwrap_or(NONE);
        let Some(node) = order.get(w) else { continue };
        let mut best = get(&parent, w32);
        for from in back.of(*node) {
            let v = get(&number, *from);
            if v == NONE {
                continue;
            }
            let u = compress(v, &mut ancestor, &mut label, &semi, &mut path);
            best = best.min(get(&semi, u));
        }
        set(&mut semi, w32, best);
        set(&mut label, w32, w32);
        set(&mut ancestor, w32, get(&parent, w32));
    }
    for w in 1..reached {
        let w = u32::try_from(w).unwrap_or(NONE);
        let limit = get(&semi, w);
        let mut v = get(&idom, w);
        while v != NONE && v > limit {
            v = get(&idom, v);
        }
        set(&mut idom, w, v);
    }
    let mut out = vec![NONE; count];
    for (w, node) in (0u32..).zip(&order) {
        let dominator = get(&idom, w);
        if w > 0 && dominator != NONE {
            let dominator = get(&order, dominator);
            set(&mut out, *node, dominator);
        }
    }
    Dominators {
        nearest: out,
        order,
    }
}

/// Nodes in the order in which a search meets them, the number of each node, and the number of each one's parent by number.
fn depth_first(edges: &Edges, root: u32) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut order = Vec::new();
    let mut number = vec![NONE; edges.nodes() as usize];
    let mut parent = Vec::new();
    let mut stack: Vec<(u32, u32)> = Vec::new();
    if root < edges.nodes() {
        set(&mut number, root, 0);
        order.push(root);
        parent.push(NONE);
        stack.push((root, 0));
    }
    while let Some((node, next)) = stack.last_mut() {
        let (from, index) = (*node, *next);
        let Some(to) = edges.of(from).get(index as usize) else {
            stack.pop();
            continue;
        };
        *next = next.saturating_add(1);
        if get(&number, *to) == NONE {
            set(&mut number, *to, u32::try_from(order.len()).unwrap_or(NONE));
            order.push(*to);
            parent.push(get(&number, from));
            stack.push((*to, 0));
        }
    }
    (order, number, parent)
}

/// The node with the smallest semidominator between `v` and the root of its tree; shortens the way there.
fn compress(
    v: u32,
    ancestor: &mut [u32],
    label: &mut [u32],
    semi: &[u32],
    path: &mut Vec<u32>,
) -> u32 {
    path.clear();
    let mut at = v;
    while get(ancestor, at) != NONE && get(ancestor, get(ancestor, at)) != NONE {
        path.push(at);
        at = get(ancestor, at);
    }
    while let Some(node) = path.pop() {
        let above = get(ancestor, node);
        if get(semi, get(label, above)) < get(semi, get(label, node)) {
            let better = get(label, above);
            set(label, node, better);
        }
        let further = get(ancestor, above);
        set(ancestor, node, further);
    }
    get(label, v)
}

#[inline]
fn get(table: &[u32], index: u32) -> u32 {
    table.get(index as usize).copied().unwrap_or(NONE)
}

#[inline]
fn set(table: &mut [u32], index: u32, value: u32) {
    if let Some(entry) = table.get_mut(index as usize) {
        *entry = value;
    }
}
