//! What an allocator writes down twice, and what is said where the two disagree.

use std::collections::HashSet;

use crate::anomaly::{Anomaly, AnomalyKind, BrokenWord, Transient};
use ground::target::Address;

/// Anomalies of bookkeeping per heap.
const MAX_ANOMALIES: usize = 128;

/// A word that contradicts others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The word.
    pub word: BrokenWord,
    /// No work in progress leaves it so, not even for a moment.
    pub impossible: bool,
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
    pub fn damage(&mut self, word: BrokenWord, busy: Option<Transient>) {
        self.damaged |= busy.is_none();
        self.say(word, false, busy);
    }

    /// A counter that disagrees with what it counts. While somebody is at work that is not worth a word.
    pub fn count(&mut self, word: BrokenWord, busy: Option<Transient>) {
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

    fn say(&mut self, word: BrokenWord, counts_only: bool, transient: Option<Transient>) {
        let of = word.of;
        let kind = AnomalyKind::Metadata { word, counts_only };
        self.push(of, kind, transient);
    }
}
