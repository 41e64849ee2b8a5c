//! What is asked, and what answers do.

use std::collections::BTreeMap;

use super::{Ask, Cursor, Model, Place, Slot, View};
use crate::report::schema::{Report, Severity};
use crate::view::jobs::{FrameContents, Job, Told};
use crate::view::panes::{self, UsageKind};

/// Addresses and steps of trees that are kept; beyond that all go.
const MAX_KEPT: usize = 1 << 10;

impl Model {
    /// An answer came.
    pub fn told(&mut self, told: Told) -> Vec<Ask> {
        match told {
            Told::Opened(report) => {
                if !self.is_checked {
                    self.opened(report);
                }
            }
            Told::Checked(report) => self.checked_now(report),
            Told::Frame(job, contents) => self.framed(job, contents),
            Told::Address(at, found) => {
                bound(&mut self.addresses, at);
                self.addresses.insert(at, Slot::Here(found));
            }
            Told::Step(at, direction, tree) => {
                bound(&mut self.trees, (at, direction));
                self.trees.insert((at, direction), Slot::Here(*tree));
            }
            Told::Leaks(report) => self.leaks = Slot::Here(report),
            Told::Usage(report) => self.usage = Slot::Here(report),
            Told::Types(report) => self.types = Slot::Here(report),
            Told::GivenUp(job) => self.unanswered(job, None),
            Told::Failed(job, message) => {
                self.unanswered(job, Some(&message));
                if job.view().is_none() {
                    self.message = Some(message);
                }
            }
            Told::Closed(message) => self.quits = Some(Some(message)),
        }
        self.wanted()
    }

    pub(super) fn opened(&mut self, report: Box<Report>) {
        if self.report.is_none() {
            self.thread = report.crash_info.crashing_thread.unwrap_or(0);
            self.choose_thread(&report, self.thread);
        }
        self.report = Some(report);
    }

    pub(super) fn checked_now(&mut self, report: Box<Report>) {
        let is_critical = report
            .findings
            .first()
            .is_some_and(|found| found.severity == Severity::Critical);
        self.opened(report);
        self.is_checked = true;
        // Who has gone somewhere already stays there.
        if is_critical && self.back.is_empty() && self.place.view == View::Crash {
            self.place.view = View::Finding;
            self.place.cursor = Cursor::default();
        }
    }

    pub(super) fn framed(&mut self, job: Job, contents: FrameContents) {
        let is_worse = matches!(job, Job::Frame(_))
            && self
                .frame
                .as_ref()
                .is_some_and(|known| known.id == contents.id && known.is_explained);
        if contents.id == self.frame_id() && !is_worse {
            self.frame = Some(contents);
        }
    }

    /// Notes that there is no answer: because of `why`, which another try would not change, or because nobody wanted it.
    pub(super) fn unanswered(&mut self, job: Job, why: Option<&str>) {
        match job {
            Job::Frame(_) | Job::Meanings(_) => {}
            Job::Address(at) => {
                self.addresses.insert(at, Slot::without(why));
            }
            Job::Step(at, direction) => {
                self.trees.insert((at, direction), Slot::without(why));
            }
            Job::Leaks => self.leaks = Slot::without(why),
            Job::Usage => self.usage = Slot::without(why),
            Job::Types => self.types = Slot::without(why),
        }
    }

    /// The questions that what is shown now needs, and those that it does not need any more.
    pub(super) fn wanted(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        if let Some(message) = self.quits.take() {
            asks.push(Ask::Quit(message));
            return asks;
        }
        let before = self.shown;
        let is_left = (before.view, before.address) != (self.place.view, self.place.address);
        if is_left && self.is_asked(before) {
            asks.push(Ask::Leave(before.view));
        }
        self.shown = self.place;
        let frame = self.frame_id();
        let is_there = self.chosen_thread().is_some_and(|it| !it.frames.is_empty());
        if is_there && self.asked_frame != Some(frame) {
            self.asked_frame = Some(frame);
            asks.extend([Ask::Do(Job::Frame(frame)), Ask::Do(Job::Meanings(frame))]);
        }
        match (self.place.view, self.place.address) {
            (View::Address, Some(at)) => {
                let slot = self.addresses.entry(at).or_default();
                asks.extend(slot.ask(Job::Address(at)));
            }
            (View::Holders, _) => {
                for (at, direction) in panes::steps_wanted(self) {
                    let slot = self.trees.entry((at, direction)).or_default();
                    asks.extend(slot.ask(Job::Step(at, direction)));
                }
            }
            (View::Leaks, _) => asks.extend(self.leaks.ask(Job::Leaks)),
            (View::Usage, _) => asks.extend(match self.usage_kind {
                UsageKind::Types => self.types.ask(Job::Types),
                _ => self.usage.ask(Job::Usage),
            }),
            _ => {}
        }
        asks
    }

    /// Whether a place waits for an answer.
    pub(super) fn is_asked(&self, place: Place) -> bool {
        match (place.view, place.address) {
            (View::Address, Some(at)) => matches!(self.addresses.get(&at), Some(Slot::Asked)),
            (View::Holders, _) => self.trees.values().any(|slot| matches!(slot, Slot::Asked)),
            (View::Leaks, _) => matches!(self.leaks, Slot::Asked),
            (View::Usage, _) => {
                matches!(self.usage, Slot::Asked) || matches!(self.types, Slot::Asked)
            }
            _ => false,
        }
    }
}

impl<T> Slot<T> {
    pub(super) fn without(why: Option<&str>) -> Self {
        why.map_or(Slot::Empty, |why| Slot::Failed(why.to_owned()))
    }

    /// The question, if nobody has asked yet.
    pub(super) fn ask(&mut self, job: Job) -> Option<Ask> {
        matches!(self, Slot::Empty).then(|| {
            *self = Slot::Asked;
            Ask::Do(job)
        })
    }
}

/// Makes room for one more.
fn bound<K: Ord + Copy, T>(kept: &mut BTreeMap<K, Slot<T>>, new: K) {
    if kept.len() >= MAX_KEPT && !kept.contains_key(&new) {
        kept.retain(|_, slot| matches!(slot, Slot::Asked));
    }
}
