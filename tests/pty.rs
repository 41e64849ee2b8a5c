//! The viewer on a terminal of its own: it starts, draws, hears keys, and leaves the terminal as it was, however it ends.

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use common::{heapcheck, root};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// Longer than anything takes on any machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What gives a terminal back: no mouse, the first screen, the cursor.
const LEAVES: [&str; 3] = ["\x1b[?1000l", "\x1b[?1049l", "\x1b[?25h"];

struct Terminal {
    keys: File,
    /// The side of the program, kept so that its settings can be asked for when the program is gone.
    side: File,
    before: Termios,
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let path = std::path::Path::new(name.to_str().unwrap());
        let side = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&side, size).unwrap();
        let before = tcgetattr(&side).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_heapcheck"))
            .current_dir(root())
            .args(arguments)
            .env("TERM", "xterm")
            .env("LANG", "C.UTF-8")
            .env_remove("LC_ALL")
            .env_remove("NO_COLOR")
            .stdin(side.try_clone().unwrap())
            .stdout(side.try_clone().unwrap())
            .stderr(side.try_clone().unwrap())
            .spawn()
            .unwrap();
        let keys = File::from(ours);
        let mut screen = keys.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = screen.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys,
            side,
            before,
            child,
            output,
            seen: String::new(),
        }
    }

    /// Waits until this was written since the last time.
    fn wait(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let bytes = self.output.recv_timeout(PATIENCE);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&bytes);
        }
    }

    fn key(&mut self, keys: &str) {
        self.seen.clear();
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end; the terminal must be as it was.
    fn end(mut self) -> (ExitStatus, String) {
        for leaves in LEAVES {
            self.wait(leaves);
        }
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.side).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        (status, self.seen)
    }
}

const DEMO: [&str; 4] = [
    "view",
    "--no-default-paths",
    "testdata/demo/double-free.core.zst",
    "testdata/demo/double-free",
];

#[test]
fn it_draws_hears_keys_and_leaves_the_terminal_as_it_was() {
    let mut terminal = Terminal::start(&DEMO);
    terminal.wait("DAMAGED");
    terminal.wait("\x1b[0;1;31m");
    let held = tcgetattr(&terminal.side).unwrap();
    assert_ne!(format!("{held:?}"), format!("{:?}", terminal.before));
    terminal.key("?");
    terminal.wait("any key goes on");
    terminal.key("q");
    terminal.wait("CRITICAL");
    terminal.key("\x1b[<0;60;2M"); // the mouse on the first finding
    terminal.key("\r");
    terminal.key("q");
    let (status, _) = terminal.end();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn no_colour_where_none_is_wanted() {
    let mut arguments = DEMO.to_vec();
    arguments.insert(1, "--color=never");
    let mut terminal = Terminal::start(&arguments);
    terminal.wait("DAMAGED");
    terminal.wait("CRITICAL");
    assert!(!terminal.seen.contains(";31m"));
    terminal.key("q");
    assert_eq!(terminal.end().0.code(), Some(0));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let mut terminal = Terminal::start(&DEMO);
    terminal.wait("DAMAGED");
    let child = Pid::from_child(&terminal.child);
    kill_process(child, Signal::TERM).unwrap();
    let (status, _) = terminal.end();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn what_is_no_core_is_said_on_the_terminal_that_was_there_before() {
    let terminal = Terminal::start(&["view", "Cargo.toml"]);
    let (status, seen) = terminal.end();
    assert_eq!(status.code(), Some(2));
    let (_, said) = seen.rsplit_once("heapcheck: ").expect(&seen);
    assert!(said.contains("Cargo.toml"), "{said}");
    assert!(
        !said.contains("\x1b[?1049"),
        "said behind the screen: {seen:?}"
    );
}

#[test]
fn without_a_terminal_it_says_so() {
    let outcome = heapcheck(["view", "testdata/demo/double-free.core.zst"]);
    assert_eq!((outcome.status, outcome.text()), (2, ""));
    assert_eq!(outcome.stderr.lines().count(), 1);
    assert!(
        outcome.stderr.contains("needs a terminal"),
        "{}",
        outcome.stderr
    );
}
