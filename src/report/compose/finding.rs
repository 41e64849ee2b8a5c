//! Findings, with the bytes that prove them.

use ground::target::{Address, MemoryExt, TargetMemory};

use super::Context;
use super::graph;
use super::threads::recorded_frames;
use crate::analysis::Analysis;
use crate::checks::finding::{self as found, Finding};
use crate::checks::fingerprint::{self, Names};
use crate::graph::holders::{MAX_SHOWN, References};
use crate::report::schema::{
    self, Block, Bytes, Cause, Collateral, Culprit, Dump, Evidence, Fingerprint, Hex, Location,
    Overwriter, Repair, Stacks,
};

/// Bytes of a row in a dump; a dump starts at a multiple of it.
const ROW_BYTES: u64 = 16;

/// Most bytes of a dump: what proves a finding is always shown, and no more than that.
const MAX_DUMP_BYTES: u64 = 32;

/// A finding as the report shows it.
pub fn finding(
    id: usize,
    finding: &Finding,
    (block_holders, culprit_holders): &(References, References),
    analysis: &Analysis<'_>,
    context: &Context<'_>,
) -> schema::Finding {
    let memory = context.target.memory;
    let names = Names {
        target: context.target,
        debug: context.names,
        program: context.program,
        crash: context.crash,
    };
    let heap = finding.heap.and_then(|heap| analysis.heaps.get(heap));
    let by_names = fingerprint::v2(names, heap.map(|heap| &heap.map), finding);
    let contents = |at: Address, bytes: u64| contents(memory, at, bytes, context.include_bytes);
    schema::Finding {
        id,
        kind: finding.kind.code().into(),
        cwe: finding.kind.cwe(),
        severity: severity(finding.severity()),
        confidence: confidence(finding.confidence),
        allocator: finding.allocator.map(Into::into),
        address: finding.at.map(Into::into),
        block: finding.block.map(|view| Block {
            address: view.block.address.into(),
            size: view.block.bytes,
            state: view.state.name().into(),
            offset: view.offset,
            type_of: block_holders.block_type.as_ref().map(graph::type_of),
            bytes: contents(view.block.address, view.block.bytes),
        }),
        message: finding.message.clone(),
        evidence: finding
            .evidence
            .iter()
            .map(|evidence| Evidence {
                address: evidence.at.into(),
                size: evidence.bytes,
                what: evidence.what.clone(),
                expected: evidence.expected.clone(),
                found: evidence.found.text().to_owned(),
                dump: dump(memory, evidence, culprit_ends_before(finding, evidence.at)),
            })
            .collect(),
        locations: finding
            .locations
            .iter()
            .map(|location| Location {
                holder: location.list.holder.name().into(),
                thread_id: location.list.thread,
                size_class: location.list.class.into(),
                size_class_bytes: location.list.class_bytes,
                position: location.position,
                list_address: location.list.at.into(),
            })
            .collect(),
        collateral: Collateral {
            lost_blocks: finding.lost_blocks,
        },
        culprit: finding.culprit.as_ref().map(|culprit| Culprit {
            address: culprit.block.address.into(),
            size: culprit.block.bytes,
            state: culprit.state.name().into(),
            type_of: culprit_holders.block_type.as_ref().map(graph::type_of),
            contents: culprit.contents.clone(),
            bytes: contents(culprit.block.address, culprit.block.bytes),
            allocated_at: None,
            freed_at: None,
            referenced_by: references(culprit_holders),
            referenced_by_count: culprit_holders.count,
        }),
        overwriter: finding.overwriter.as_ref().map(|overwriter| Overwriter {
            class: overwriter.class.name().into(),
            text: overwriter.text.clone(),
        }),
        stacks: finding.stacks.as_ref().map(|stacks| Stacks {
            allocation: recorded_frames(&stacks.allocation, context),
            deallocation: recorded_frames(&stacks.deallocation, context),
        }),
        allocated_at: None,
        freed_at: None,
        freed_again_at: None,
        referenced_by: references(block_holders),
        referenced_by_count: block_holders.count,
        explains_crash: finding.explains_crash.name().into(),
        causes: finding.causes.iter().map(cause).collect(),
        repairs: finding
            .repairs
            .iter()
            .map(|repair| Repair {
                address: repair.at.into(),
                found: Hex(repair.found),
                original: Hex(repair.original),
                proof: repair.proof.clone(),
            })
            .collect(),
        next_steps: finding.next_steps.clone(),
        fingerprint: Fingerprint {
            v1: finding.fingerprint.clone(),
            v2: by_names.hash,
            v2_text: by_names.text,
        },
    }
}

fn references(found: &References) -> Vec<schema::Reference> {
    let shown = found.from.iter().take(MAX_SHOWN);
    shown.map(graph::reference).collect()
}

fn severity(severity: found::Severity) -> schema::Severity {
    match severity {
        found::Severity::Note => schema::Severity::Note,
        found::Severity::Warning => schema::Severity::Warning,
        found::Severity::Critical => schema::Severity::Critical,
    }
}

fn confidence(confidence: found::Confidence) -> schema::Confidence {
    match confidence {
        found::Confidence::Suspected => schema::Confidence::Suspected,
        found::Confidence::Likely => schema::Confidence::Likely,
        found::Confidence::Certain => schema::Confidence::Certain,
    }
}

/// Whether the finding's culprit ends in the row before `at`.
fn culprit_ends_before(finding: &Finding, at: Address) -> bool {
    finding.culprit.as_ref().is_some_and(|culprit| {
        culprit
            .block
            .address
            .checked_add(culprit.block.bytes)
            .and_then(|end| at.offset_from(end))
            .is_some_and(|between| between < ROW_BYTES)
    })
}

/// The rows that hold the evidence; after a culprit also the row before, which shows where its block ends and how the
/// bytes run on.
fn dump(
    memory: &dyn TargetMemory,
    evidence: &found::Evidence,
    after_culprit: bool,
) -> Option<Dump> {
    let at = evidence.at.get();
    let first = at & !(ROW_BYTES - 1);
    let end = at.checked_add(u64::from(evidence.bytes).clamp(1, MAX_DUMP_BYTES))?;
    let end = end.checked_next_multiple_of(ROW_BYTES)?;
    let start = if after_culprit && end.checked_sub(first)? <= ROW_BYTES {
        first.saturating_sub(ROW_BYTES)
    } else {
        first
    };
    let count = end.checked_sub(start)?.min(MAX_DUMP_BYTES);
    let read = |start: u64, count: u64| {
        let mut bytes = vec![0; usize::try_from(count).ok()?];
        memory.read_into(Address::new(start), &mut bytes).ok()?;
        Some(Dump {
            address: schema::Hex(start),
            bytes: Bytes(bytes),
        })
    };
    // At the edge of what is in the core, the word alone.
    read(start, count).or_else(|| read(at, u64::from(evidence.bytes).clamp(1, MAX_DUMP_BYTES)))
}

/// The first bytes of a block, as far as the command line permits and the core holds them.
pub(super) fn contents(
    memory: &dyn TargetMemory,
    at: Address,
    bytes: u64,
    most: usize,
) -> Option<Bytes> {
    let count = usize::try_from(bytes).unwrap_or(usize::MAX).min(most);
    if count == 0 {
        return None;
    }
    let mut contents = Vec::with_capacity(count.min(1 << 16));
    while contents.len() < count {
        let here = at.checked_add(contents.len() as u64)?;
        let Ok(window) = memory.window(here) else {
            break;
        };
        let wanted = count - contents.len();
        let got = window.bytes.get(..wanted).unwrap_or(window.bytes);
        if got.is_empty() {
            break;
        }
        contents.extend_from_slice(got);
    }
    (!contents.is_empty()).then_some(Bytes(contents))
}

/// A step of the way back from the crash.
pub fn cause(cause: &crate::checks::finding::Cause) -> Cause {
    Cause {
        kind: cause.kind.name().into(),
        address: cause.at.map(Into::into),
        text: cause.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ground::target::{Abi, Fault, Region, Source, Window};

    use super::*;

    /// Bytes 0, 1, 2, ... from 0x1000 to 0x1058.
    struct Memory(Vec<u8>);

    impl TargetMemory for Memory {
        fn abi(&self) -> Abi {
            Abi {
                pointer_bytes: 8,
                little_endian: true,
                page_bytes: 4096,
            }
        }

        fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
            let bytes = at
                .get()
                .checked_sub(0x1000)
                .and_then(|offset| self.0.get(offset as usize..))
                .filter(|bytes| !bytes.is_empty())
                .ok_or(Fault::Unmapped(at))?;
            Ok(Window {
                start: at,
                bytes,
                source: Source::Core,
            })
        }

        fn regions(&self) -> &[Region] {
            &[]
        }
    }

    fn memory() -> Memory {
        Memory((0..0x58).collect())
    }

    #[test]
    fn a_dump_is_the_rows_of_the_word_and_never_more_than_32_bytes() {
        let check = |at, bytes, after_culprit, expected: Option<(u64, usize)>| {
            let evidence = found::Evidence {
                at: Address::new(at),
                bytes,
                what: String::new(),
                expected: String::new(),
                found: found::Found::said(""),
            };
            let dump = dump(&memory(), &evidence, after_culprit);
            assert_eq!(
                dump.map(|dump| (dump.address.0, dump.bytes.0.len())),
                expected,
                "{at:#x} {bytes}"
            );
        };
        check(0x1010, 8, false, Some((0x1010, 16)));
        check(0x1018, 8, false, Some((0x1010, 16)));
        check(0x101c, 8, false, Some((0x1010, 32)));
        check(0x1010, 32, false, Some((0x1010, 32)));
        check(0x1014, 32, false, Some((0x1010, 32)));
        check(0x1010, 4000, false, Some((0x1010, 32)));
        check(0x1020, 8, true, Some((0x1010, 32)));
        check(0x1000, 8, true, Some((0x1000, 8))); // the row before is not there
        check(0x1050, 8, false, Some((0x1050, 8))); // nor is the end of this one
        check(0x2000, 8, false, None);
        check(u64::MAX, 8, false, None);
    }

    #[test]
    fn contents_are_shown_only_when_asked_for_and_as_far_as_they_are_there() {
        let memory = memory();
        let read = |at, bytes, most| {
            contents(&memory, Address::new(at), bytes, most).map(|bytes| bytes.0.len())
        };
        assert_eq!(read(0x1000, 48, 0), None);
        assert_eq!(read(0x1000, 48, 16), Some(16));
        assert_eq!(read(0x1000, 48, 4096), Some(48));
        assert_eq!(read(0x1050, 48, 4096), Some(8));
        assert_eq!(read(0x9000, 48, 4096), None);
        assert_eq!(read(0x1000, u64::MAX, usize::MAX), Some(0x58));
    }
}
