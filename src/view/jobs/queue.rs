//! Questions that wait, and the one that is being answered.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ground::parallel::Task;

use super::Job;
use crate::report::text::parts::{short, thousands};
use crate::view::model::View;

/// A question that is to be answered now.
pub struct Queued {
    /// Which.
    pub job: Job,
    /// The answer's work.
    pub task: Task,
}

/// Questions for both threads.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// For the thread that reads frames: only the last one counts.
    frame: Option<Job>,
    waiting: VecDeque<Job>,
    current: Option<(Job, Task)>,
    phase: Option<Phase>,
    is_closed: bool,
}

struct Phase {
    name: &'static str,
    since: Instant,
    task: Task,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole whatever thread died with it in hand.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a question; gives those that nobody will answer for it.
    pub fn push(&self, job: Job) -> Vec<Job> {
        let mut state = self.lock();
        let mut dropped = Vec::new();
        match job {
            Job::Frame(_) => dropped.extend(state.frame.replace(job)),
            Job::Meanings(_) => {
                let is_other = |waiting: &Job| !matches!(waiting, Job::Meanings(_));
                let (kept, old): (Vec<Job>, Vec<Job>) =
                    state.waiting.iter().partition(|job| is_other(job));
                state.waiting = kept.into();
                dropped.extend(old);
                state.waiting.push_back(job);
            }
            _ => state.waiting.push_back(job),
        }
        drop(state);
        self.changed.notify_all();
        dropped
    }

    /// Gives up what only this view shows; gives those that were not begun.
    pub fn leave(&self, view: View) -> Vec<Job> {
        let mut state = self.lock();
        let is_of = |job: &Job| job.view() == Some(view);
        if let Some((job, task)) = &state.current
            && is_of(job)
        {
            task.give_up();
        }
        let (dropped, kept): (Vec<Job>, Vec<Job>) =
            state.waiting.iter().partition(|job| is_of(job));
        state.waiting = kept.into();
        dropped
    }

    /// The next frame that is asked for; `None`: no more.
    pub fn next_frame(&self) -> Option<Job> {
        self.wait(|state| state.frame.take())
    }

    /// The next question of the heaps; `None`: no more.
    pub fn next(&self) -> Option<Queued> {
        self.wait(|state| {
            let job = state.waiting.pop_front()?;
            let task = Task::default();
            state.current = Some((job, task.clone()));
            Some(Queued { job, task })
        })
    }

    fn wait<T>(&self, mut take: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(found) = take(&mut state) {
                return Some(found);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says what is being done now.
    pub fn begin(&self, name: &'static str, task: Task) {
        self.lock().phase = Some(Phase {
            name,
            since: Instant::now(),
            task,
        });
    }

    /// Says that nothing is.
    pub fn rest(&self) {
        let mut state = self.lock();
        state.phase = None;
        state.current = None;
    }

    /// Ends both threads where they wait, and gives up what they do.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        if let Some((_, task)) = &state.current {
            task.give_up();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What is being done, in words.
    pub fn busy(&self) -> Option<String> {
        let state = self.lock();
        let phase = state.phase.as_ref()?;
        let elapsed = phase.since.elapsed();
        Some(said(phase.name, phase.task.bytes(), elapsed.as_millis()))
    }
}

/// `following pointers: 1.2 GiB, 600.0 MiB/s, 2 s`.
fn said(name: &str, bytes: u64, milliseconds: u128) -> String {
    let seconds = milliseconds / 1000;
    let mut text = name.to_owned();
    if let Some(size) = short(bytes) {
        text = format!("{text}: {size}");
        let rate = u128::from(bytes).saturating_mul(1000) / milliseconds.max(1);
        let rate = u64::try_from(rate).ok().and_then(short);
        if let Some(rate) = rate.filter(|_| seconds > 0) {
            text = format!("{text}, {rate}/s");
        }
    }
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => format!("{text}, {} s", thousands(seconds)),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, FrameId};
    use super::*;

    #[test]
    fn what_is_left_is_given_up_and_the_rest_waits_in_order() {
        let queue = Queue::default();
        let frame = |frame| FrameId { thread: 0, frame };
        assert_eq!(queue.push(Job::Leaks), []);
        let current = queue.next().unwrap();
        assert_eq!(current.job, Job::Leaks);
        queue.push(Job::Address(1));
        queue.push(Job::Step(2, Direction::Up));
        queue.push(Job::Meanings(frame(1)));
        assert_eq!(
            queue.push(Job::Meanings(frame(2))),
            [Job::Meanings(frame(1))]
        );
        queue.push(Job::Frame(frame(1)));
        assert_eq!(queue.push(Job::Frame(frame(2))), [Job::Frame(frame(1))]);
        assert_eq!(queue.leave(View::Address), [Job::Address(1)]);
        assert_eq!(queue.leave(View::Leaks), [], "it is being answered");
        assert!(
            current
                .task
                .run(Some(1), || ground::parallel::passed(0))
                .is_none()
        );
        let rest: Vec<Job> = (0..2).map(|_| queue.next().unwrap().job).collect();
        assert_eq!(rest, [Job::Step(2, Direction::Up), Job::Meanings(frame(2))]);
        assert_eq!(queue.next_frame(), Some(Job::Frame(frame(2))));
        queue.close();
        assert!(queue.next().is_none() && queue.next_frame().is_none());
    }

    #[test]
    fn what_is_done_is_said_with_its_rate() {
        assert_eq!(said("checking", 0, 900), "checking");
        assert_eq!(said("checking", 0, 2100), "checking, 2 s");
        assert_eq!(said("p", 3 << 30, 500), "p: 3.0 GiB");
        assert_eq!(said("p", 3 << 30, 2000), "p: 3.0 GiB, 1.5 GiB/s, 2 s");
    }
}
