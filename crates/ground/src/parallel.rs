//! The only home of parallelism: maps over independent pieces of work, results in their order; and tasks, which can be given up.
//!
//! One thread and many give the same answer, because nothing depends on which piece ran first.

use std::cell::OnceCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;

/// Applies `work` to every item.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    let step = |item| {
        passed(0);
        work(item)
    };
    items.par_iter().map(step).collect()
}

/// Applies `work` to every number below `count`.
pub fn for_each_index<R: Send>(count: u32, work: impl Fn(u32) -> R + Sync + Send) -> Vec<R> {
    let step = |index| {
        passed(0);
        work(index)
    };
    (0..count).into_par_iter().map(step).collect()
}

thread_local! {
    /// The task that this thread was made for.
    static TASK: OnceCell<Arc<State>> = const { OnceCell::new() };
}

#[derive(Default)]
struct State {
    is_given_up: AtomicBool,
    bytes: AtomicU64,
}

/// What a thread unwinds with when its task was given up. It is no panic: no hook hears of it.
struct GivenUp;

/// Work that whoever waits for it may give up, and ask how far it is.
#[derive(Clone, Default)]
pub struct Task {
    state: Arc<State>,
}

impl Task {
    /// Gives the work up: it ends at its next piece or page.
    pub fn give_up(&self) {
        self.state.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Bytes of memory that it has looked through.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Does `work` in threads of its own, `threads` of them or as many as the machine has; `None` if it was given up, or if no
    /// thread can be had. A panic in `work` goes on in the caller.
    pub fn run<R: Send>(
        &self,
        threads: Option<usize>,
        work: impl FnOnce() -> R + Send,
    ) -> Option<R> {
        let state = Arc::clone(&self.state);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.unwrap_or(0))
            .start_handler(move |_| {
                // The thread is new: nothing is set yet.
                let _ = TASK.with(|task| task.set(Arc::clone(&state)));
            })
            .build()
            .ok()?;
        let done = panic::catch_unwind(AssertUnwindSafe(|| pool.install(work)));
        match done {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<GivenUp>() => None,
            Err(payload) => panic::resume_unwind(payload),
        }
    }
}

/// Says that so many bytes of memory were looked through. Does not return if this thread's [`Task`] was given up.
#[inline]
pub fn passed(bytes: u64) {
    let is_given_up = TASK.with(|task| {
        task.get().is_some_and(|state| {
            if bytes > 0 {
                state.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            state.is_given_up.load(Ordering::Relaxed)
        })
    });
    if is_given_up {
        panic::resume_unwind(Box::new(GivenUp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_ends_where_it_is_given_up_and_not_before() {
        let task = Task::default();
        assert_eq!(
            task.run(Some(2), || map(&[1, 2, 3], |n| n * 2)),
            Some(vec![2, 4, 6])
        );
        // It is given up while it works, so it stops at the next page or piece.
        let endless = Task::default();
        let work = || {
            map(&[0; 4], |_| {
                loop {
                    passed(4096);
                    if endless.bytes() > 1 << 20 {
                        endless.give_up();
                    }
                }
            })
        };
        assert_eq!(endless.run(Some(2), work), None::<Vec<()>>);
        assert!(endless.bytes() > 1 << 20);
        // Outside of a task nothing is counted or given up.
        passed(1);
    }

    #[test]
    #[should_panic(expected = "in a task")]
    fn a_panic_in_a_task_is_the_callers() {
        Task::default().run(Some(1), || panic!("in a task"));
    }
}
