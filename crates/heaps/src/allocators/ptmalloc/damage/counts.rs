//! Counts of a cache's lists: four of them share a word, so one write spoils four.

use std::collections::BTreeMap;

use super::Inquiry;
use crate::anomaly::{
    Anomaly, AnomalyKind, BrokenWord, Expected, Field, HolderKind, Reason, Value,
};

impl Inquiry<'_, '_> {
    /// Makes one anomaly of the counts that lie in one word.
    pub(super) fn merge_counts(&mut self) {
        let mut first: BTreeMap<u64, usize> = BTreeMap::new();
        let mut kept: Vec<Anomaly> = Vec::new();
        for mut anomaly in std::mem::take(&mut self.out) {
            let AnomalyKind::Length { list, at, .. } = &anomaly.kind else {
                kept.push(anomaly);
                continue;
            };
            let word = at.get() & !7;
            let known = first.get(&word).and_then(|index| kept.get_mut(*index));
            match known.filter(|_| list.holder == HolderKind::Tcache) {
                None => {
                    first.insert(word, kept.len());
                    kept.push(anomaly);
                }
                Some(known) => {
                    // What nobody's work explains comes first.
                    if known.transient.is_some() && anomaly.transient.is_none() {
                        std::mem::swap(known, &mut anomaly);
                        known.related.append(&mut anomaly.related);
                    }
                    known.lost_blocks = known.lost_blocks.saturating_add(anomaly.lost_blocks);
                    known.related.extend(related(&anomaly.kind));
                }
            }
        }
        self.out = kept;
    }
}

fn related(kind: &AnomalyKind) -> Option<BrokenWord> {
    let AnomalyKind::Length {
        list,
        at,
        recorded,
        walked,
    } = kind
    else {
        return None;
    };
    Some(BrokenWord {
        of: list.at,
        at: *at,
        what: Field::CountBesideList,
        expected: Expected::Exactly(Value::Number(*walked), Reason::BlocksThatItHolds),
        found: Value::Number(*recorded),
    })
}
