//! What the first words of a block are, in words that another run of the program gives as well.

use ground::target::{Address, MemoryExt};

use crate::graph::Ground;

/// Words that are looked at.
const WORDS: u64 = 8;

/// The kinds of a block's first words, trailing ones of one kind once.
pub fn of(ground: &Ground<'_>, at: Address, bytes: u64) -> String {
    let memory = ground.session.target().memory;
    let count = (bytes / 8).min(WORDS);
    let mut words: Vec<String> = (0..count)
        .map(|index| {
            let word = at
                .checked_add(index * 8)
                .and_then(|at| memory.read_u64(at).ok());
            word.map_or("?".into(), |word| kind(ground, word))
        })
        .collect();
    while let [.., before, last] = words.as_slice()
        && before == last
    {
        words.pop();
    }
    words.join(" ")
}

fn kind(ground: &Ground<'_>, word: u64) -> String {
    let at = Address::new(word);
    let bytes = word.to_le_bytes();
    // A text that ends within the word counts.
    let length = bytes
        .iter()
        .take_while(|byte| (0x20..0x7f).contains(*byte))
        .count();
    let is_text = length >= 4 && bytes.iter().skip(length).all(|byte| *byte == 0) || length == 8;
    if word == 0 {
        return "zero".into();
    }
    if word < 1 << 16 {
        return "small".into();
    }
    if is_text {
        return "text".into();
    }
    if let Some(hit) = ground.universe.lookup.find(word) {
        return match hit.offset {
            _ if ground.universe.lookup.mapping(hit.node).is_some() => "mapping".into(),
            0 => "heap".into(),
            _ => "heap+".into(),
        };
    }
    if let Some(module) = ground.session.modules().module_at(at) {
        let offset = word.saturating_sub(module.range.start.get());
        return format!("{}+{offset:#x}", module.name);
    }
    "other".into()
}
