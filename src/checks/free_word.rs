//! A word that the allocator keeps in a free block, beside its link, was written over: a key, a link
//! back, a size. The header in front of the block is whole, so whoever wrote did it through a
//! pointer to the freed block.

use heaps::anomaly::AnomalyKind;

use super::finding::{Confidence, Finding, FindingKind, Found};
use super::link_damage::{overwriter_of, written_prefix};
use super::{Check, Subject, wording};

/// See the module.
pub struct FreeWord;

impl Check for FreeWord {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::UseAfterFreeWrite]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::FreeWord {
            block,
            at,
            what,
            expected,
            found,
            edge,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let what = wording::field(*what);
        let message = format!(
            "the free block {} of {} bytes was written to after it was freed: its {what} is {found:#x}",
            block.address, block.bytes
        );
        let mut finding = wording::finding(
            subject,
            FindingKind::UseAfterFreeWrite,
            block.address,
            Some(*block),
            message,
        );
        finding.confidence = finding.confidence.min(Confidence::Likely);
        finding.evidence = vec![wording::word_evidence(
            *at,
            what,
            wording::expected(expected),
            Found::word(*found),
        )];
        finding.locations = edge.iter().map(wording::location).collect();
        let word = found.to_le_bytes();
        let written = written_prefix(word, block.address.get().to_le_bytes());
        let bytes = word.get(..written).unwrap_or(&word);
        finding.overwriter = overwriter_of(subject.target, bytes, word);
        finding.next_steps = vec![
            format!(
                "find who keeps a pointer to an object of up to {} bytes after freeing it",
                block.bytes
            ),
            "run the same input under AddressSanitizer: it stops at the write, with the stack of the free"
                .to_owned(),
        ];
        Some(finding)
    }
}
