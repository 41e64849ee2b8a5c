//! The terminal's side: whether to colour, and a line of progress on standard error for what takes longer than a second.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::ColorChoice;
use crate::progress::Progress;

/// Nothing is shown of what is done sooner.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two versions of the line.
const REFRESH: Duration = Duration::from_millis(250);

/// Whether a text for standard output is coloured. `to_stdout` is false when it goes to a file.
pub fn wants_color(choice: ColorChoice, to_stdout: bool) -> bool {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            to_stdout
                && std::io::stdout().is_terminal()
                && variable("NO_COLOR").is_none()
                && variable("TERM").is_none_or(|terminal| terminal != "dumb")
        }
    }
}

/// Columns of a text for standard output, if it goes to a terminal: `COLUMNS`, else what the terminal says.
pub fn width(to_stdout: bool) -> Option<usize> {
    if !to_stdout || !std::io::stdout().is_terminal() {
        return None;
    }
    let variable = std::env::var("COLUMNS").ok();
    variable
        .and_then(|columns| columns.parse().ok())
        .filter(|columns| *columns > 0)
        .or_else(|| {
            let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
            Some(usize::from(width.0))
        })
}

/// Progress on standard error; the line is taken away when this is dropped.
pub struct TerminalProgress {
    shared: Arc<Shared>,
    painter: Option<JoinHandle<()>>,
}

struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
    done: AtomicU64,
}

struct Phase {
    name: &'static str,
    steps: Option<u64>,
    stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        // The phase is whole whatever thread died with it in hand.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TerminalProgress {
    /// Progress on standard error, if that is a terminal.
    pub fn start() -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase {
                name: "starting",
                steps: None,
                stopped: false,
            }),
            changed: Condvar::new(),
            done: AtomicU64::new(0),
        });
        let painter = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("progress".into())
                .spawn(move || paint(&shared))
                .ok()
        };
        Some(Self { shared, painter })
    }
}

impl Progress for TerminalProgress {
    fn phase(&self, name: &'static str, steps: Option<u64>) {
        let mut phase = self.shared.lock();
        phase.name = name;
        phase.steps = steps;
        self.shared.done.store(0, Ordering::Relaxed);
    }

    fn done(&self, steps: u64) {
        self.shared.done.fetch_add(steps, Ordering::Relaxed);
    }
}

impl Drop for TerminalProgress {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        if let Some(painter) = self.painter.take() {
            // A painter that panicked has nothing left to take away.
            let _ = painter.join();
        }
    }
}

/// Repaints the line until the work is over. Errors are of no interest: it is only a terminal.
fn paint(shared: &Shared) {
    let begin = Instant::now();
    let mut pause = PATIENCE;
    let mut painted = false;
    let mut phase = shared.lock();
    loop {
        phase = shared
            .changed
            .wait_timeout(phase, pause)
            .map_or_else(|poisoned| poisoned.into_inner().0, |(phase, _)| phase);
        if phase.stopped {
            break;
        }
        if begin.elapsed() >= PATIENCE {
            let line = line(&phase, shared.done.load(Ordering::Relaxed), begin.elapsed());
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            painted = true;
            pause = REFRESH;
        }
    }
    if painted {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

fn line(phase: &Phase, done: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match phase.steps {
        Some(steps) if steps > 0 => {
            let percent = u128::from(done.min(steps)) * 100 / u128::from(steps);
            format!("{} {percent} % ({seconds} s)", phase.name)
        }
        _ => format!("{} ({seconds} s)", phase.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_the_phase_is() {
        let phase = |steps| Phase {
            name: "following free lists",
            steps,
            stopped: false,
        };
        let elapsed = Duration::from_millis(2400);
        assert_eq!(line(&phase(None), 7, elapsed), "following free lists (2 s)");
        assert_eq!(
            line(&phase(Some(0)), 7, elapsed),
            "following free lists (2 s)"
        );
        assert_eq!(
            line(&phase(Some(8)), 2, elapsed),
            "following free lists 25 % (2 s)"
        );
        assert_eq!(
            line(&phase(Some(8)), 20, elapsed),
            "following free lists 100 % (2 s)"
        );
    }
}
