//! Bytes over a link that came from a block of its own, which begins inside of the block before: its pointer was freed, and handed out.

use ground::target::Address;
use heaps::anomaly::Edge;
use heaps::map::Block;

use super::Scene;
use super::contest::siblings;
use crate::checks::finding::{Confidence, Finding, FindingKind, Found};
use crate::checks::{Subject, wording};

impl Scene {
    /// Pointers were freed that lie `distance` bytes into their blocks; one of them was handed out as a block, and filled.
    pub(super) fn inner(
        &self,
        subject: Subject<'_>,
        edge: &Edge,
        found: Address,
        (before, distance): (Block, u64),
    ) -> Finding {
        let at = before.address.saturating_add(distance);
        let message = format!(
            "free was called with {at}, {distance} bytes into the block {} of {} bytes, as with others so far into theirs: it was handed out as a \
             block of its own, and what fills it goes on over the link of {}; or the block {} was written past its end",
            before.address, before.bytes, self.block.address, before.address
        );
        let kind = FindingKind::MisalignedFreeEntry;
        let mut finding = wording::finding(subject, kind, at, Some(before), message);
        finding.confidence = Confidence::Likely;
        let expected = format!("null or a block of {} bytes", self.block.bytes);
        let stored = wording::stored(subject, edge, found);
        finding.evidence = vec![wording::edge_evidence(edge, expected, stored)];
        let memory = subject.target.memory;
        if let Some((word, to)) = siblings::link_at(&subject.heap.map, memory, before, distance) {
            finding.evidence.push(wording::word_evidence(
                word,
                "a word as far into another block of that size",
                "the program's own data",
                Found::word(to.get())
                    .and(", as far into one: the link of a pointer that was freed there"),
            ));
        }
        finding.next_steps = vec![
            format!(
                "look for a pointer to a member, or one that was advanced by {distance}, that is passed to free or deleted by a base"
            ),
            "run the same input under AddressSanitizer: it stops at the free".to_owned(),
        ];
        finding
    }
}
