//! Finding `mp_` by its shape: by the defaults of its tunables and by where the heap begins; where most of them were tuned, by
//! what is true of its words in any case, in the memory around `main_arena`, which every build has beside it.

use super::layout::{ArenaLayout, ParametersLayout, Releases};
use ground::scan::words_where;
use ground::target::{Address, MemoryExt, Module, TargetMemory};

/// `mp_` of a module, by structure. `releases` are those that can be; `expected_base` is where the main heap should begin.
pub fn find(
    memory: &dyn TargetMemory,
    module: &Module,
    main: Address,
    arena: &ArenaLayout,
    releases: Releases,
    expected_base: Option<Address>,
) -> Option<(Address, ParametersLayout)> {
    let layouts: Vec<ParametersLayout> = ParametersLayout::ALL
        .into_iter()
        .filter(|layout| {
            layout.releases.low <= releases.high && releases.low <= layout.releases.high
        })
        .collect();
    by_defaults(memory, module, &layouts, expected_base)
        .or_else(|| beside(memory, main, arena, &layouts, expected_base))
}

fn by_defaults(
    memory: &dyn TargetMemory,
    module: &Module,
    layouts: &[ParametersLayout],
    expected_base: Option<Address>,
) -> Option<(Address, ParametersLayout)> {
    const ENOUGH: u32 = 6;
    let mut best: Option<(u32, Address, ParametersLayout)> = None;
    let is_base = |word| expected_base.is_some_and(|base| base.get() == word);
    let known = |_, word| word == 8 || word == 0x20000 || is_base(word);
    for (at, word) in words_where(memory, module, known) {
        for layout in layouts {
            let offset = match word {
                8 => ParametersLayout::ARENA_TEST,
                0x20000 => ParametersLayout::TOP_PAD,
                word if is_base(word) => layout.sbrk_base,
                _ => continue,
            };
            let Some(base) = at.checked_sub(offset) else {
                continue;
            };
            let score = score(memory, base, layout, expected_base);
            if score >= ENOUGH && best.is_none_or(|(most, ..)| score > most) {
                best = Some((score, base, *layout));
            }
        }
    }
    best.map(|(_, at, layout)| (at, layout))
}

/// The place beside `main_arena` whose words can all be those of `mp_`, and of several the one with most defaults.
fn beside(
    memory: &dyn TargetMemory,
    main: Address,
    arena: &ArenaLayout,
    layouts: &[ParametersLayout],
    expected_base: Option<Address>,
) -> Option<(Address, ParametersLayout)> {
    const REACH: u64 = 0x1000;
    const ENOUGH: u32 = 3;
    let start = Address::new(main.get().saturating_sub(REACH) & !7);
    let end = main.saturating_add(arena.bytes.saturating_add(REACH));
    let inside = main..main.saturating_add(arena.bytes);
    let mut found: Vec<(u32, Address, ParametersLayout)> = Vec::new();
    let mut at = start;
    while at < end {
        for layout in layouts {
            let behind = at.saturating_add(layout.sbrk_base.saturating_add(8));
            let apart = behind <= inside.start || at >= inside.end;
            if apart && is_possible(memory, at, layout) {
                let score = score(memory, at, layout, expected_base);
                found.push((score, at, *layout));
            }
        }
        at = at.saturating_add(8);
    }
    let most = found.iter().map(|(score, ..)| *score).max()?;
    let mut best = found
        .into_iter()
        .filter(|(score, ..)| *score == most && most >= ENOUGH);
    let (_, at, layout) = best.next()?;
    best.next().is_none().then_some((at, layout))
}

/// What holds of `mp_` however it was tuned.
fn is_possible(memory: &dyn TargetMemory, at: Address, layout: &ParametersLayout) -> bool {
    const MAX_ARENAS: u64 = 1 << 20;
    let word = |offset| memory.read_u64(at.saturating_add(offset)).ok();
    let int = |offset| memory.read_u32(at.saturating_add(offset)).ok();
    let check = || -> Option<bool> {
        let arenas = word(ParametersLayout::ARENA_TEST)?;
        let most_arenas = word(ParametersLayout::ARENA_TEST + 8)?;
        let huge = layout.huge_page.map_or(Some(0), word)?;
        let (count, most) = (int(layout.n_mmaps)?, int(layout.n_mmaps.saturating_add(8))?);
        let fixed_threshold = int(layout.n_mmaps.saturating_add(12))?;
        let (bytes, most_bytes) = (
            word(layout.mmapped_mem)?,
            word(layout.mmapped_mem.saturating_add(8))?,
        );
        let base = word(layout.sbrk_base)?;
        let page = layout.page_bytes.map(int);
        let mapped = (count == 0) == (bytes == 0)
            && (most == 0) == (most_bytes == 0)
            && count <= most
            && bytes <= most_bytes
            && bytes.is_multiple_of(16);
        let caches = match layout.tcache {
            Some(tcache) => {
                word(tcache)? <= 64
                    && word(tcache.saturating_add(8))? < 1 << 32
                    && word(tcache.saturating_add(16))? <= 0xffff
            }
            None => true,
        };
        Some(
            (1..=MAX_ARENAS).contains(&arenas)
                && most_arenas <= MAX_ARENAS
                && (huge == 0 || huge.is_power_of_two() && huge >= memory.abi().page_bytes)
                && fixed_threshold <= 1
                && mapped
                && page.is_none_or(|page| page.is_some_and(u32::is_power_of_two))
                && caches
                && (base == 0 || memory.region_at(Address::new(base)).is_some()),
        )
    };
    check() == Some(true)
}

fn score(
    memory: &dyn TargetMemory,
    at: Address,
    layout: &ParametersLayout,
    expected_base: Option<Address>,
) -> u32 {
    let word = |offset| memory.read_u64(at.saturating_add(offset)).ok();
    let int = |offset| memory.read_u32(at.saturating_add(offset)).ok();
    let points = |hit: bool, worth: u32| if hit { worth } else { 0 };
    let mut score = points(word(ParametersLayout::TOP_PAD) == Some(0x20000), 1)
        .saturating_add(points(word(ParametersLayout::ARENA_TEST) == Some(8), 2))
        .saturating_add(points(word(ParametersLayout::ARENA_TEST + 8) == Some(0), 1))
        .saturating_add(points(
            int(layout.n_mmaps.saturating_add(4)) == Some(0x10000),
            2,
        ))
        .saturating_add(points(
            expected_base.is_some_and(|base| word(layout.sbrk_base) == Some(base.get())),
            2,
        ));
    if let Some(page) = layout.page_bytes {
        let expected = u32::try_from(memory.abi().page_bytes).ok();
        score = score.saturating_add(points(int(page) == expected, 1));
    }
    if let Some(tcache) = layout.tcache {
        score = score.saturating_add(
            points(word(tcache) == Some(64), 2)
                .saturating_add(points(
                    matches!(word(tcache.saturating_add(8)), Some(1032 | 1040 | 1041)),
                    1,
                ))
                .saturating_add(points(
                    matches!(word(tcache.saturating_add(16)), Some(7 | 16)),
                    1,
                )),
        );
    }
    score
}
