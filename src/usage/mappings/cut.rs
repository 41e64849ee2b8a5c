//! Mappings in pieces: where the kernel has one, modules, heaps and threads may have parts.

use std::collections::BTreeSet;
use std::ops::Range;

use ground::target::{Address, Module, Region, RegionKind, TargetMemory};
use heaps::graph::roots::Ranges;
use postmortem::session::Session;

use super::{Kind, Mapping};
use crate::analysis::Analysis;
use crate::graph::roots::{Land, LandKind};

/// Arenas that a row names.
const MAX_ARENAS: usize = 64;

/// What claims a run of anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Heap(usize),
    Land(LandKind, usize),
}

/// Cuts mappings where another owner begins.
pub(super) struct Cutter<'a> {
    session: &'a Session,
    analysis: &'a Analysis<'a>,
    /// By address, without overlap.
    claims: Vec<(Range<Address>, Claim)>,
    /// Addresses that heaps keep, and whose, by address.
    kept: Vec<(Range<Address>, usize)>,
    page: u64,
}

/// What heaps and threads claim: a byte that several claim belongs to the first heap, else to the first kind of [`LandKind`].
fn claims(analysis: &Analysis<'_>, lands: &[Land]) -> Vec<(Range<Address>, Claim)> {
    let mut found: Vec<(Range<Address>, Claim)> = Vec::new();
    let mut taken = Ranges::default();
    for (index, heap) in analysis.heaps.iter().enumerate() {
        let extents = heap.map.extents().iter();
        let mut ranges: Vec<Range<Address>> =
            extents.map(|extent| extent.start..extent.end()).collect();
        ranges.extend(heap.heap.own_memory());
        let ranges = Ranges::new(ranges);
        for range in ranges.list() {
            let parts = taken.without(range.clone()).into_iter();
            found.extend(parts.map(|part| (part, Claim::Heap(index))));
        }
        let all = taken.list().iter().chain(ranges.list()).cloned();
        taken = Ranges::new(all.collect());
    }
    let mut order: Vec<&Land> = lands.iter().collect();
    order.sort_by_key(|land| (land.kind, land.range.start, land.thread));
    for group in order.chunk_by(|one, other| one.kind == other.kind) {
        let mut floor = Address::new(0);
        for land in group {
            let range = land.range.start.max(floor)..land.range.end;
            floor = floor.max(land.range.end);
            let parts = taken.without(range).into_iter();
            let claim = Claim::Land(land.kind, land.thread);
            found.extend(parts.map(|part| (part, claim)));
        }
        let ranges = group.iter().map(|land| land.range.clone());
        taken = Ranges::new(taken.list().iter().cloned().chain(ranges).collect());
    }
    found.sort_by_key(|(range, _)| range.start);
    found
}

/// Addresses that heaps keep beyond what they have.
fn kept(analysis: &Analysis<'_>) -> Vec<(Range<Address>, usize)> {
    let heaps = analysis.heaps.iter().enumerate();
    let mut kept: Vec<_> = heaps
        .flat_map(|(index, heap)| {
            heap.heap
                .kept_memory()
                .into_iter()
                .map(move |range| (range, index))
        })
        .collect();
    kept.sort_by_key(|(range, index)| (range.start, *index));
    kept
}

impl<'a> Cutter<'a> {
    /// With all that heaps and threads claim.
    pub(super) fn new(session: &'a Session, analysis: &'a Analysis<'a>, lands: &[Land]) -> Self {
        Self {
            session,
            analysis,
            claims: claims(analysis, lands),
            kept: kept(analysis),
            page: session.memory().abi().page_bytes.clamp(512, 1 << 16),
        }
    }

    /// The heap that keeps these addresses.
    fn keeper(&self, range: &Range<Address>) -> Option<usize> {
        let after = self
            .kept
            .partition_point(|(kept, _)| kept.start <= range.start);
        let (kept, index) = self.kept.get(after.checked_sub(1)?)?;
        (range.end <= kept.end).then_some(*index)
    }

    /// Appends the rows of a mapping.
    pub(super) fn cut(&self, region: &Region, rows: &mut Vec<Mapping>) {
        if region.kind == RegionKind::Kernel {
            let name = match (region.executable, region.range.start.get() >> 63) {
                (_, 1) => "[vsyscall]",
                (true, _) => "[vdso]",
                _ => "[vvar]",
            };
            rows.push(row(region.range.clone(), Kind::Vdso, Some(name.into())));
            return;
        }
        let file = self.session.mapped_file(region.range.start);
        if region.kind == RegionKind::File {
            let path = file.map(|file| file.path.clone());
            for (range, module) in self.by_module(region) {
                let (kind, name) = match module {
                    Some(module) => (
                        self.kind_in(module, region, &range),
                        Some(module.path.clone()),
                    ),
                    None => (Kind::File, path.clone()),
                };
                rows.push(row(range, kind, name.filter(|name| !name.is_empty())));
            }
            return;
        }
        if let Some(file) = file {
            rows.push(row(
                region.range.clone(),
                Kind::Shared,
                Some(file.path.clone()),
            ));
            return;
        }
        for (range, module) in self.by_module(region) {
            match module {
                Some(module) => {
                    let kind = self.kind_in(module, region, &range);
                    rows.push(row(range, kind, Some(module.path.clone())));
                }
                None => self.cut_anonymous(region, range, rows),
            }
        }
    }

    /// A mapping in pieces that modules' segments have, and those that none has.
    fn by_module(&self, region: &Region) -> Vec<(Range<Address>, Option<&Module>)> {
        let modules = self.session.target().modules;
        let range = &region.range;
        let mut pieces: Vec<(Range<Address>, Option<&Module>)> = Vec::new();
        let mut at = range.start;
        // Modules lie by address, and may reach into each other's gaps.
        let near = modules.iter().filter(|module| {
            module.range.start < range.end && self.end(module.range.end) > range.start
        });
        let mut segments: Vec<(Range<Address>, &Module)> = near
            .flat_map(|module| module.segments.iter().map(move |segment| (segment, module)))
            .map(|(segment, module)| (self.pages(&segment.range), module))
            .filter(|(segment, _)| segment.start < range.end && segment.end > range.start)
            .collect();
        segments.sort_by_key(|(segment, _)| segment.start);
        for (segment, module) in segments {
            let start = segment.start.max(at);
            let end = segment.end.min(range.end);
            if start >= end {
                continue;
            }
            if at < start {
                pieces.push((at..start, None));
            }
            match pieces.last_mut() {
                Some((last, Some(known))) if last.end == start && known.id == module.id => {
                    last.end = end
                }
                _ => pieces.push((start..end, Some(module))),
            }
            at = end;
        }
        if at < range.end {
            pieces.push((at..range.end, None));
        }
        // A whole file mapping between a module's segments is the module's, too.
        if region.kind == RegionKind::File
            && let [(_, module @ None)] = pieces.as_mut_slice()
        {
            let path = self.session.mapped_file(range.start).map(|file| &file.path);
            *module = modules
                .iter()
                .find(|module| module.range.contains(&range.start) && Some(&module.path) == path);
        }
        pieces
    }

    fn end(&self, at: Address) -> Address {
        let end = at.get().checked_next_multiple_of(self.page);
        Address::new(end.unwrap_or(u64::MAX))
    }

    fn pages(&self, range: &Range<Address>) -> Range<Address> {
        let start = Address::new(range.start.get() / self.page * self.page);
        start..self.end(range.end)
    }

    /// What a piece of a module is: by its segment's permissions, since relocated constants are read-only at death.
    fn kind_in(&self, module: &Module, region: &Region, range: &Range<Address>) -> Kind {
        let mut here = module.segments.iter().filter(|segment| {
            let pages = self.pages(&segment.range);
            pages.start < range.end && pages.end > range.start
        });
        let is_closed = !region.readable && !region.writable && !region.executable;
        match (region.kind, here.next()) {
            (_, None) if is_closed => Kind::Reserved,
            (RegionKind::Anonymous, Some(segment)) if segment.writable => Kind::Bss,
            (_, Some(segment)) if segment.executable || region.executable => Kind::Text,
            (_, Some(segment)) if segment.writable => Kind::Data,
            _ if region.executable => Kind::Text,
            _ => Kind::ReadOnly,
        }
    }

    /// Appends rows of anonymous memory that no module has.
    fn cut_anonymous(&self, region: &Region, range: Range<Address>, rows: &mut Vec<Mapping>) {
        let rest = match (region.readable || region.writable, region.executable) {
            (_, true) => Kind::Jit,
            (true, _) => Kind::Anonymous,
            _ => Kind::Reserved,
        };
        let first = self
            .claims
            .partition_point(|(claim, _)| claim.end <= range.start);
        let claims = self.claims.get(first..).unwrap_or_default().iter();
        let mut pieces: Vec<(Range<Address>, Option<Claim>)> = Vec::new();
        let mut at = range.start;
        for (claim, who) in claims.take_while(|(claim, _)| claim.start < range.end) {
            let (start, end) = (claim.start.max(at), claim.end.min(range.end));
            if at < start {
                pieces.push((at..start, None));
            }
            if start < end {
                join(&mut pieces, start..end, *who);
            }
            at = at.max(end);
        }
        if at < range.end {
            pieces.push((at..range.end, None));
        }
        let is_open = rest != Kind::Reserved;
        for piece in &mut pieces {
            let keeper = self
                .keeper(&piece.0)
                .filter(|_| is_open && piece.1.is_none());
            piece.1 = piece.1.or(keeper.map(Claim::Heap));
        }
        for (range, claim) in self.fill(pieces) {
            rows.push(match claim {
                None => match self.keeper(&range) {
                    Some(heap) => Mapping {
                        kind: rest,
                        ..self.heap(heap, range)
                    },
                    None => row(range, rest, None),
                },
                Some(Claim::Heap(heap)) => self.heap(heap, range),
                Some(Claim::Land(kind, thread)) => self.land(kind, thread, range),
            });
        }
    }

    /// Gives to a heap what lies beside it and is less than a page, and joins what is alike then.
    fn fill(
        &self,
        pieces: Vec<(Range<Address>, Option<Claim>)>,
    ) -> Vec<(Range<Address>, Option<Claim>)> {
        let is_heap = |piece: Option<&(Range<Address>, Option<Claim>)>| match piece {
            Some((_, Some(claim @ Claim::Heap(_)))) => Some(*claim),
            _ => None,
        };
        let mut filled: Vec<(Range<Address>, Option<Claim>)> = Vec::new();
        for (index, (range, claim)) in pieces.iter().enumerate() {
            let bytes = range.end.offset_from(range.start).unwrap_or(0);
            let before = index.checked_sub(1).and_then(|before| pieces.get(before));
            let beside = is_heap(before).or_else(|| is_heap(pieces.get(index.saturating_add(1))));
            match claim.or_else(|| beside.filter(|_| bytes < self.page)) {
                Some(claim) => join(&mut filled, range.clone(), claim),
                None => filled.push((range.clone(), None)),
            }
        }
        filled
    }

    fn heap(&self, index: usize, range: Range<Address>) -> Mapping {
        let Some(heap) = self.analysis.heaps.get(index) else {
            return row(range, Kind::Heap, None);
        };
        let allocator = heap.identity.name();
        let extents = heap.map.extents();
        let first = extents.partition_point(|extent| extent.end() <= range.start);
        let mut arenas = BTreeSet::new();
        for extent in extents.get(first..).unwrap_or_default() {
            if extent.start >= range.end || arenas.len() > MAX_ARENAS {
                break;
            }
            arenas.extend(heap.heap.arena(extent.start));
        }
        if arenas.is_empty() {
            // What lies behind an arena's chunks.
            let before = first.checked_sub(1).and_then(|before| extents.get(before));
            arenas.extend(before.and_then(|before| heap.heap.arena(before.start)));
        }
        Mapping {
            allocator: Some(allocator),
            ..row(range, Kind::Heap, Some(of_arenas(allocator, &arenas)))
        }
    }

    fn land(&self, kind: LandKind, thread: usize, range: Range<Address>) -> Mapping {
        let known = self.session.threads().list().get(thread);
        let tid = known
            .map(|thread| thread.tid)
            .filter(|_| kind != LandKind::StackOfTheGone);
        let thread = tid.map_or_else(
            || "a thread that is not in the core".to_owned(),
            |tid| format!("thread {tid}"),
        );
        let kind = match kind {
            LandKind::Tls => Kind::Tls,
            LandKind::Stack | LandKind::StackOfTheGone => Kind::Stack,
        };
        Mapping {
            thread: tid,
            ..row(range, kind, Some(thread))
        }
    }
}

/// `ptmalloc, main arena`, `jemalloc, arenas 0, 1 and 3`.
fn of_arenas(allocator: &str, arenas: &BTreeSet<u32>) -> String {
    let numbers: Vec<String> = arenas.iter().map(ToString::to_string).collect();
    match (allocator, numbers.as_slice()) {
        (_, []) => allocator.to_owned(),
        ("ptmalloc", [one]) if one == "0" => format!("{allocator}, main arena"),
        (_, [one]) => format!("{allocator}, arena {one}"),
        (_, all) if all.len() > MAX_ARENAS => format!("{allocator}, many arenas"),
        (_, [all @ .., last]) => format!("{allocator}, arenas {} and {last}", all.join(", ")),
    }
}

/// Appends a piece, joined to the last one if that is alike.
fn join(pieces: &mut Vec<(Range<Address>, Option<Claim>)>, range: Range<Address>, claim: Claim) {
    match pieces.last_mut() {
        Some((last, known)) if *known == Some(claim) && last.end == range.start => {
            last.end = range.end
        }
        _ => pieces.push((range, Some(claim))),
    }
}

fn row(range: Range<Address>, kind: Kind, name: Option<String>) -> Mapping {
    Mapping {
        range,
        kind,
        name,
        allocator: None,
        thread: None,
        permissions: None,
        present_bytes: 0,
    }
}
