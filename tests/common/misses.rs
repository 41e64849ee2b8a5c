//! What is known not to be found yet, with the reason: a list that only shrinks, as a run that agrees with its truth must not be
//! in it.
//!
//! A line of the file is `NAME RELEASES WAYS REASON...`; releases and ways are separated by commas, `*` is all of them. With a `?` before
//! the name, chance decides (what an earlier call left on the stack, say): such a run counts as one that differs, whichever it does.

use std::fs;

use super::way::Way;
use super::{Fixture, root};

/// The known misses of one allocator.
pub struct Misses(Vec<Miss>);

/// Whether a run is known to differ from its truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has to agree.
    No,
    /// It differs.
    Differs,
    /// It may do either.
    ByChance,
}

struct Miss {
    name: String,
    known: Known,
    releases: String,
    ways: String,
}

impl Misses {
    /// Of `tests/misses/<allocator>.txt`; none if there is no such file.
    pub fn of(allocator: &str) -> Self {
        let path = root().join(format!("tests/misses/{allocator}.txt"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .map(|line| {
                    let mut words = line.split_whitespace().map(str::to_owned);
                    let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
                    let name = word();
                    let (name, known) = match name.strip_prefix('?') {
                        Some(name) => (name.to_owned(), Known::ByChance),
                        None => (name, Known::Differs),
                    };
                    let miss = Miss {
                        name,
                        known,
                        releases: word(),
                        ways: word(),
                    };
                    word(); // and a reason
                    miss
                })
                .collect(),
        )
    }

    /// What is known of a run.
    pub fn known(&self, fixture: &Fixture, way: Way) -> Known {
        let lists = |list: &str, word: &str| list == "*" || list.split(',').any(|one| one == word);
        let miss = self.0.iter().find(|miss| {
            miss.name == fixture.name
                && lists(&miss.releases, &fixture.release)
                && lists(&miss.ways, way.name())
        });
        miss.map_or(Known::No, |miss| miss.known)
    }
}
