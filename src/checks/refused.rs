//! A call that the allocator refused, or died of: its own verdict, the pointer that it was given, and where that leads.
//!
//! ```text
//! last words, fault ──> death      did it die inside an allocator
//!                         v
//! sayings: the text ──> pointer ──> place: a block, a variable, nothing
//!                         v
//!      a finding that explains this death ── or one made from the place, else from the text
//! ```
//!
//! The pointer is asked first, the text is a witness only. A finding of the walkers explains the death if it is about the same
//! block or its neighbours' headers, or about a list of the kind that the text names.

mod call;
mod death;
mod entered;
mod explained;
mod followed;
mod kept;
mod musl;
mod sayings;
mod told;
mod verdict;

use ground::target::{Address, MemoryExt, Target};
use heaps::allocators::Family;
use heaps::anomaly::{Anomaly, AnomalyKind, BrokenWord, Expected, Field, Property, Value};

use self::death::Death;
use super::finding::{
    Cause, CauseKind, Confidence, Evidence, ExplainsCrash, Finding, FindingKind, Found,
    OverwriterClass, Severity,
};
use super::place::Place;
use super::{Subject, Verdict, explains, wording};
use crate::analysis::Analysis;
use crate::crash::argument::{Argument, Source};
use crate::crash::{Crash, LastWords};

/// From a chunk's header to the block, and bytes of a size in front of a block (glibc).
const HEADER_BYTES: u64 = 16;
const SIZE_BYTES: u64 = 8;
/// Words of a signal's frame in which the program counter is looked for.
const MAX_SAVED_WORDS: u64 = 128;
/// Pieces of evidence of a call inside a call, its consequences included.
const MAX_CONSEQUENCES: usize = 6;
/// Most bytes of the message that are shown as evidence.
const MAX_DUMP_BYTES: u32 = 32;

/// The pointer that was given.
#[derive(Clone, Debug)]
struct Pointer {
    value: Address,
    is_certain: bool,
    /// How it is known, in words: `the variable d of frame 5`.
    known_by: Option<String>,
    loaded_from: Option<Address>,
    place: Place,
}

/// What every part needs.
#[derive(Clone, Copy)]
struct Scene<'a> {
    target: Target<'a>,
    analysis: &'a Analysis<'a>,
    crash: &'a Crash,
    death: Death<'a>,
}

/// Adds what the death says to the verdict: as evidence of the finding that explains it, else as a finding of its own.
pub fn explain(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash, verdict: &mut Verdict) {
    let death = death::of(target, analysis, crash);
    let reentered = reentered(target, analysis, crash, death.as_ref());
    let is_told = reentered.is_some();
    if let Some(mut finding) = reentered {
        take_in_consequences(verdict, &mut finding);
        verdict.findings.push(finding);
    }
    let Some(death) = death.filter(|_| !is_told) else {
        return;
    };
    let scene = Scene {
        target,
        analysis,
        crash,
        death,
    };
    let pointer = scene.pointer();
    kept::leave_out_own_work(scene, pointer.as_ref(), &mut verdict.findings);
    if let Some((found, is_proved)) = explained::by(scene, pointer.as_ref(), &mut verdict.findings)
    {
        if let Some((_, words)) = death.said {
            found.evidence.push(words_as_evidence(words));
        }
        if is_proved {
            scene.blame(pointer.as_ref(), found);
        }
        return;
    }
    let written = pointer.as_ref().and_then(|pointer| {
        let found = explained::by_former_word(scene, pointer, &mut verdict.findings)?;
        Some((found, verdict::died_of(scene, pointer)))
    });
    if let Some((found, how)) = written {
        found.message.push_str(&how);
        found
            .evidence
            .extend(death.said.map(|(_, words)| words_as_evidence(words)));
        return;
    }
    if let Some(mut finding) = verdict::of(scene, pointer.as_ref(), &verdict.findings) {
        // The allocator itself said what it died of, or what it died of follows from the pointer alone.
        if death.said.is_some() || finding.confidence == Confidence::Certain {
            scene.blame(pointer.as_ref(), &mut finding);
        }
        take_in_writes(verdict, &mut finding);
        kept::take_in_alike(&mut verdict.findings, &mut finding);
        verdict.findings.push(finding);
    }
}

/// Who frees a block twice uses it in between: what was written there is the same error's, as the flags of a `FILE` that is closed twice.
fn take_in_writes(verdict: &mut Verdict, twice: &mut Finding) {
    let block = twice.block.map(|view| view.block.address);
    if twice.kind != FindingKind::DoubleFree || block.is_none() {
        return;
    }
    verdict.findings.retain(|finding| {
        let is_it = finding.kind == FindingKind::UseAfterFreeWrite
            && finding.block.map(|view| view.block.address) == block;
        if is_it {
            twice.evidence.extend(finding.evidence.iter().cloned());
            twice.lost_blocks = twice.lost_blocks.saturating_add(finding.lost_blocks);
        }
        !is_it
    });
}

/// What two calls at once leave behind in a heap is one error's: its findings become evidence. Text was written by somebody else.
fn take_in_consequences(verdict: &mut Verdict, reentered: &mut Finding) {
    if reentered.confidence < Confidence::Likely {
        return; // nobody died of it
    }
    verdict.findings.retain(|finding| {
        let written = finding.overwriter.as_ref().map(|written| written.class);
        let is_text = matches!(
            written,
            Some(OverwriterClass::Ascii | OverwriterClass::Utf16)
        );
        if finding.heap != reentered.heap || !is_alarm(finding) || is_text {
            return true;
        }
        let room = MAX_CONSEQUENCES
            .saturating_sub(reentered.evidence.len())
            .min(1);
        reentered
            .evidence
            .extend(finding.evidence.iter().take(room).cloned());
        false
    });
}

impl Scene<'_> {
    /// Says of a finding that it is what the process died of: the allocator refused the call, or died in it.
    fn blame(&self, pointer: Option<&Pointer>, finding: &mut Finding) {
        finding.explains_crash = ExplainsCrash::Yes;
        let message = self.death.said.map(|(_, words)| Cause {
            kind: CauseKind::Message,
            at: Some(words.address),
            text: format!(
                "{} ended the process: \"{}\"",
                words.speaker.name(),
                words.text
            ),
        });
        let call = pointer.map(|pointer| {
            let function = self
                .death
                .call
                .map_or("the allocator", |call| call.entry.name());
            let from = self
                .death
                .caller
                .map_or_else(String::new, |frame| format!(", called from frame {frame}"));
            Cause {
                kind: CauseKind::Call,
                at: Some(pointer.value),
                text: format!("{function} was given {}{from}", pointer.value),
            }
        });
        let loaded = pointer.and_then(|pointer| {
            let from = pointer.loaded_from?;
            Some(Cause {
                kind: CauseKind::Load,
                at: Some(from),
                text: format!("the pointer was loaded from {from}"),
            })
        });
        let damaged = finding
            .evidence
            .iter()
            .find(|word| {
                self.death
                    .said
                    .is_none_or(|(_, words)| words.address != word.at)
            })
            .map(|word| Cause {
                kind: CauseKind::Overwritten,
                at: Some(word.at),
                text: format!("{}: {}, and not {}", word.what, word.found, word.expected),
            });
        let is_written = finding.culprit.is_some() || finding.overwriter.is_some();
        let damaged = damaged.filter(|_| is_written);
        let steps = [message, call, loaded, damaged, explains::writer(finding)];
        finding.causes = steps.into_iter().flatten().collect();
    }

    /// The pointer that the call was given, by the message if that names it, else from the call.
    fn pointer(&self) -> Option<Pointer> {
        let argument = self.death.call.and_then(|call| call.argument.as_ref());
        let written = self
            .death
            .said
            .and_then(|(_, words)| sayings::pointer_in(words));
        if let Some(value) = kept::without_span(*self) {
            return Some(Pointer {
                value,
                is_certain: false,
                known_by: None,
                loaded_from: None,
                place: Place::of(self.target, self.analysis, self.death.heap, value),
            });
        }
        // jemalloc names the page.
        let is_exact = self.death.allocator != Family::Jemalloc;
        let (value, is_certain) =
            match (written.filter(|_| is_exact || argument.is_none()), argument) {
                (Some(written), _) => (self.block_of(written), is_exact),
                (None, Some(argument)) => (argument.value, argument.certain),
                (None, None) if self.death.allocator == Family::Musl => {
                    (musl::pointer(self.target, self.crash)?, false)
                }
                (None, None) => (
                    self.looked_up()
                        .or_else(|| kept::of_two_ways(*self))
                        .or_else(|| kept::block(*self))
                        .or_else(|| kept::of_other_arena(*self))
                        .or_else(|| entered::pointer(self.target, self.crash))?,
                    false,
                ),
            };
        let argument = argument.filter(|argument| argument.value == value);
        Some(Pointer {
            value,
            is_certain,
            known_by: argument.and_then(|argument| known_by(argument, written.is_some())),
            loaded_from: match argument.and_then(|argument| argument.loaded_from) {
                Some(from) if !self.is_on_stack(from) => Some(from),
                // A slot was filled from elsewhere.
                slot => self.loaded(value).or(slot),
            },
            place: Place::of(self.target, self.analysis, self.death.heap, value),
        })
    }

    fn is_on_stack(&self, at: Address) -> bool {
        matches!(Place::outside(self.target, at), Place::Stack { .. })
    }

    /// The word that a pointer was loaded from, of which the allocator died.
    fn loaded(&self, value: Address) -> Option<Address> {
        let is_it = |at: &Address| self.target.memory.read_u64(*at) == Ok(value.get());
        let mut origins = self.crash.origins.iter();
        let origin = origins.find(|origin| origin.value == value.get())?;
        let loads = origin.loads.iter().filter(|load| !load.is_slot);
        loads.filter_map(|load| load.at).find(is_it)
    }

    /// The pointer that the walker saw the allocator look up in vain when it died of a fault.
    fn looked_up(&self) -> Option<Address> {
        let heap = self.analysis.heaps.get(self.death.heap?)?;
        heap.anomalies
            .iter()
            .find_map(|anomaly| match anomaly.kind {
                AnomalyKind::FatalFree { found, .. } => Some(found),
                _ => None,
            })
    }

    /// glibc's messages name the block in some releases, its header in others.
    fn block_of(&self, written: Address) -> Address {
        let starts_block = |at: &Address| {
            let heap = self
                .death
                .heap
                .and_then(|index| self.analysis.heaps.get(index));
            heap.and_then(|heap| heap.map.block_at(*at))
                .is_some_and(|(_, offset)| offset == 0)
        };
        let behind = written.checked_add(HEADER_BYTES).filter(starts_block);
        match behind.filter(|_| self.death.allocator == Family::Ptmalloc && !starts_block(&written))
        {
            Some(behind) => behind,
            None => written,
        }
    }

    /// A finding of this death, with the parts that all have.
    fn finding(
        &self,
        kind: FindingKind,
        at: Option<Address>,
        place: Option<&Place>,
        message: String,
    ) -> Finding {
        let block = match place {
            Some(Place::Block { heap, block, .. }) if Some(*heap) == self.death.heap => {
                Some(*block)
            }
            _ => None,
        };
        let heap = self
            .death
            .heap
            .and_then(|index| Some((index, self.analysis.heaps.get(index)?)));
        let mut finding = match heap {
            Some((index, heap)) => {
                let at = at.unwrap_or_default();
                let anomaly = Anomaly {
                    kind: AnomalyKind::Metadata {
                        word: BrokenWord {
                            of: at,
                            at,
                            what: Field::RefusedCall,
                            expected: Expected::Is(Property::Anything),
                            found: Value::Nothing,
                        },
                        counts_only: false,
                    },
                    transient: None,
                    lost_blocks: 0,
                    related: Vec::new(),
                };
                let subject = Subject {
                    target: self.target,
                    heaps: &self.analysis.heaps,
                    index,
                    heap,
                    anomaly: &anomaly,
                };
                wording::finding(subject, kind, at, block, message)
            }
            None => wording::without_heap(Some(self.death.allocator.name()), kind, message),
        };
        finding.at = at;
        finding.confidence = Confidence::Likely;
        finding
    }
}

fn known_by(argument: &Argument, is_written: bool) -> Option<String> {
    match &argument.source {
        Source::Register { name, frame } if !is_written => Some(format!("{name} in frame {frame}")),
        _ => None,
    }
}

fn words_as_evidence(said: &LastWords) -> Evidence {
    let bytes = u32::try_from(said.text.len()).unwrap_or(MAX_DUMP_BYTES);
    Evidence {
        at: said.address,
        bytes: bytes.clamp(1, MAX_DUMP_BYTES),
        what: format!("{}'s last message", said.speaker.name()),
        expected: "none".into(),
        found: Found::said(said.text.clone()),
    }
}

/// malloc was entered again by the handler of a signal that had interrupted it.
fn reentered(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    death: Option<&Death<'_>>,
) -> Option<Finding> {
    let (index, heap, (outer, inner)) =
        analysis
            .heaps
            .iter()
            .enumerate()
            .find_map(|(index, heap)| {
                let module = target
                    .modules
                    .get(usize::try_from(heap.identity.module.0).ok()?)?;
                Some((index, heap, death::reentry(target, module, crash.thread)?))
            })?;
    let died = death.filter(|death| death.heap == Some(index));
    let frames = target.threads.frames(crash.thread);
    let at = heap.identity.located.first()?.at;
    let message = format!(
        "malloc was re-entered from a signal handler: the signal interrupted it in frame {outer}, and the handler called it again, frame {inner}{}",
        match died {
            Some(_) => "; the process died in it",
            None => "",
        }
    );
    let scene = Scene {
        target,
        analysis,
        crash,
        death: Death {
            heap: Some(index),
            allocator: heap.identity.family,
            said: None,
            call: None,
            caller: None,
            is_fault: false,
        },
    };
    let mut finding = scene.finding(FindingKind::CorruptMetadata, Some(at), None, message);
    finding.confidence = match died {
        Some(_) => Confidence::Likely,
        None => Confidence::Suspected,
    };
    let interrupted = frames.get(outer)?;
    let trampoline = frames.get(outer.checked_sub(1)?)?;
    // Where the kernel keeps the registers of what it interrupted.
    let saved = (0..MAX_SAVED_WORDS).find_map(|index| {
        let at = trampoline.sp.checked_add(index * 8)?;
        (target.memory.read_u64(at).ok()? == interrupted.pc.get()).then_some(at)
    });
    finding.evidence = vec![Evidence {
        at: saved.unwrap_or(trampoline.sp),
        bytes: 8,
        what: "what the kernel saved when the signal came".into(),
        expected: "a program counter outside of malloc".into(),
        found: Found::from(interrupted.pc).and(" in malloc"),
    }];
    if let Some((_, words)) = died.and_then(|death| death.said) {
        finding.evidence.push(words_as_evidence(words));
    }
    finding.next_steps = vec![
        "look at the handler's frames: malloc, free and what uses them (printf, new, std::string) may not be called in a signal handler"
            .into(),
        "let the handler set a flag or write to a pipe, and do the work outside of it".into(),
    ];
    Some(finding)
}

/// Whether a finding says more than a note.
fn is_alarm(finding: &Finding) -> bool {
    finding.severity() != Severity::Note
}
