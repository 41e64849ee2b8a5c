//! Signals that come while the program works: what they must not do is leave half an answer, or none.
//!
//! ```text
//! SIGBUS                     a mapped file became shorter, or its medium fails ──> error line, ERROR document, status 2
//! SIGINT, SIGTERM, SIGHUP    the file that is being written beside the report is removed, then the signal does its work
//! all of them                a terminal that the viewer holds is given back as it was first
//! ```
//!
//! Files are mapped, so a core that its writer shortens (or a temporary folder that is full, in which a page of a hole cannot
//! be made) is a signal and not an error of a call. Nothing can be computed any more at that moment: everything that is said
//! is prepared before, and the handlers use only what signal-safety(7) allows: `open`, `write`, `rename`, `unlink`, `_exit`.

#![allow(unsafe_code)] // signal handlers are unsafe by nature; see the SAFETY paragraphs

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libc::{c_char, c_int};

/// What is said if a file cannot be read any more.
pub const FILE_LOST: &str = "a file became shorter or could not be read while it was being read, or the folder for \
                             temporary files is full: copy the core to where nothing writes to it, or name another --tmpdir";

/// The exit status of [`FILE_LOST`].
const NOT_ANALYSED: c_int = 2;

/// What is written on a SIGBUS.
struct LastWords {
    line: Vec<u8>,
    document: Option<Document>,
}

/// The document, and where it goes; `None`: standard output.
struct Document {
    bytes: Vec<u8>,
    file: Option<Destination>,
}

/// The file that is opened, and the name that it is given then.
struct Destination {
    opened: CString,
    renamed: Option<CString>,
}

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();
static DYING: AtomicBool = AtomicBool::new(false);
/// Name of the file that is being written; never freed once it stood here.
static TEMPORARY: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// Watches for signals from now on. `document`: the ERROR document for [`FILE_LOST`], and the file that it goes to, if it
/// does not go to standard output.
pub fn watch(document: Option<(Vec<u8>, Option<&Path>)>) {
    let words = LastWords {
        line: format!("heapcheck: {FILE_LOST}\n").into_bytes(),
        document: document.map(|(bytes, path)| Document {
            bytes,
            file: path.and_then(destination),
        }),
    };
    if LAST_WORDS.set(words).is_err() {
        return; // it is watching
    }
    handle(libc::SIGBUS, file_lost);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        handle(signal, interrupted);
    }
}

/// Says that this file is being written and is nothing worth until it has another name; `None`: no more.
pub fn writing(temporary: Option<&Path>) {
    let name = temporary.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let name = name.map_or(ptr::null_mut(), CString::into_raw);
    // The old name is left as it is: a handler may be reading it. A run writes one report.
    TEMPORARY.store(name, Ordering::Release);
}

/// What gives a terminal back.
struct Terminal {
    /// For the screen.
    text: Vec<u8>,
    /// For its keys.
    settings: libc::termios,
}

/// The terminal that is held; never freed once it stood here.
static TERMINAL: AtomicPtr<Terminal> = AtomicPtr::new(ptr::null_mut());

/// Says that the terminal is held from now on, as its settings are now, and what gives its screen back; `None`: no more.
pub fn holding_terminal(text: Option<Vec<u8>>) {
    let terminal = text.and_then(|text| {
        // SAFETY: the structure is plain data that the call fills.
        let settings = unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            (libc::tcgetattr(libc::STDIN_FILENO, &mut settings) == 0).then_some(settings)
        };
        settings.map(|settings| Terminal { text, settings })
    });
    let terminal = terminal.map_or(ptr::null_mut(), |it| Box::into_raw(Box::new(it)));
    // The old one is left as it is: a handler may be reading it. A run enters the terminal once.
    TERMINAL.store(terminal, Ordering::Release);
}

fn give_terminal_back() {
    let terminal = TERMINAL.swap(ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: what stood there is never freed or changed; `tcsetattr` is one of the calls that signal-safety(7) allows.
    unsafe {
        if let Some(terminal) = terminal.as_ref() {
            write(libc::STDOUT_FILENO, &terminal.text);
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &terminal.settings);
        }
    }
}

/// Where a document goes, by the rules of [`crate::output`].
fn destination(path: &Path) -> Option<Destination> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
    if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
        let opened = name(&path)?;
        return Some(Destination {
            opened,
            renamed: None,
        });
    }
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(path.file_name()?);
    temporary.push(format!(".{}-lost", std::process::id()));
    Some(Destination {
        opened: name(&path.with_file_name(temporary))?,
        renamed: Some(name(&path)?),
    })
}

/// Sets a handler, unless whoever started the program wants the signal ignored.
fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: both structures are plain data that the calls fill or read; the handlers are functions of the right type that
    // touch nothing but atomics, memory that is never freed, and calls that signal-safety(7) allows.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, ptr::null(), &mut old) != 0 || old.sa_sigaction == libc::SIG_IGN
        {
            return;
        }
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler as *const () as libc::sighandler_t;
        new.sa_flags = libc::SA_ONSTACK;
        libc::sigemptyset(&mut new.sa_mask);
        libc::sigaction(signal, &new, ptr::null_mut());
    }
}

extern "C" fn file_lost(_: c_int) {
    if DYING.swap(true, Ordering::AcqRel) {
        loop {
            // SAFETY: another thread is writing and ends the process.
            unsafe { libc::pause() };
        }
    }
    give_terminal_back();
    if let Some(words) = LAST_WORDS.get() {
        write(libc::STDERR_FILENO, &words.line);
        if let Some(document) = &words.document
            && !document.file.as_ref().is_some_and(|file| {
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
                // SAFETY: the names end in NUL and are never freed.
                let descriptor = unsafe { libc::open(file.opened.as_ptr(), flags, 0o666) };
                descriptor >= 0
                    && write(descriptor, &document.bytes)
                    && file.renamed.as_ref().is_none_or(|renamed| {
                        // SAFETY: as above.
                        unsafe { libc::rename(file.opened.as_ptr(), renamed.as_ptr()) == 0 }
                    })
            })
        {
            write(libc::STDOUT_FILENO, &document.bytes);
        }
    }
    remove_temporary();
    // SAFETY: nothing is left to be done, and nothing that runs at an ordinary exit may be trusted now.
    unsafe { libc::_exit(NOT_ANALYSED) }
}

extern "C" fn interrupted(signal: c_int) {
    give_terminal_back();
    remove_temporary();
    // SAFETY: the signal does what it would have done without this handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn remove_temporary() {
    let name = TEMPORARY.load(Ordering::Acquire);
    if !name.is_null() {
        // SAFETY: the name ends in NUL and is never freed.
        unsafe { libc::unlink(name) };
    }
}

/// Writes everything, as far as it can be written.
fn write(descriptor: c_int, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: the bytes are there, as many as are said.
        let count = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(count) {
            Ok(count) if count > 0 => bytes = bytes.get(count..).unwrap_or(&[]),
            _ => return false,
        }
    }
    true
}
