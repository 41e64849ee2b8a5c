//! What an allocator writes down twice, and what is said where the two disagree.

use std::collections::HashSet;

use crate::anomaly::{Anomaly, AnomalyKind, Transient};
use ground::target::Address;

/// Anomalies of bookkeeping per heap.
const MAX_ANOMALIES: usize = 128;

/// A word of bookkeeping that is not as it should be.
pub(super) struct Word {
    /// The structure that it belongs to.
    pub of: Address,
    /// Its address.
    pub at: Address,
    /// What it is.
    pub what: &'static str,
    /// What it should hold.
    pub expected: String,
    /// What it holds.
    pub found: String,
}

/// Anomalies on their way out: one per structure.
#[derive(Default)]
pub(super) struct Books {
    /// What is said.
    pub out: Vec<Anomaly>,
    /// Structures of which something is said, here or elsewhere.
    pub said: HashSet<Address>,
    /// Something is damaged for certain: counters are out of step because of it.
    pub damaged: bool,
}

impl Books {
    /// A link, an identity or a state that is impossible, unless somebody is at work on it.
    pub fn damage(&mut self, word: Word, busy: Option<Transient>) {
        self.damaged |= busy.is_none();
        self.say(word, false, busy);
    }

    /// A counter that disagrees with what it counts. While somebody is at work that is not worth a word.
    pub fn count(&mut self, word: Word, busy: Option<Transient>) {
        if busy.is_none() {
            self.say(word, true, None);
        }
    }

    /// Anything else about a structure.
    pub fn push(&mut self, of: Address, kind: AnomalyKind, transient: Option<Transient>) {
        if self.out.len() < MAX_ANOMALIES && self.said.insert(of) {
            let mut anomaly = Anomaly::new(kind);
            anomaly.transient = transient;
            self.out.push(anomaly);
        }
    }

    fn say(&mut self, word: Word, counts_only: bool, transient: Option<Transient>) {
        let of = word.of;
        let kind = AnomalyKind::Metadata {
            of,
            at: word.at,
            what: word.what,
            expected: word.expected,
            found: word.found,
            counts_only,
        };
        self.push(of, kind, transient);
    }
}
