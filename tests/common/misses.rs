//! What is known not to be found yet, with the reason: a list that only shrinks, as a run that agrees with its truth must not be
//! in it.
//!
//! A line of the file is `NAME RELEASES WAYS REASON...`; releases and ways are separated by commas, `*` is all of them.

use std::fs;

use super::way::Way;
use super::{Fixture, root};

/// The known misses of one allocator.
pub struct Misses(Vec<Miss>);

struct Miss {
    name: String,
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
                    let miss = Miss {
                        name: word(),
                        releases: word(),
                        ways: word(),
                    };
                    word(); // and a reason
                    miss
                })
                .collect(),
        )
    }

    /// Whether this run is one of them.
    pub fn has(&self, fixture: &Fixture, way: Way) -> bool {
        let lists = |list: &str, word: &str| list == "*" || list.split(',').any(|one| one == word);
        self.0.iter().any(|miss| {
            miss.name == fixture.name
                && lists(&miss.releases, &fixture.release)
                && lists(&miss.ways, way.name())
        })
    }
}
