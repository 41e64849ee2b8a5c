//! The stepped process: attached to, stopped, stepped, read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// General registers, as ptrace gives them.
pub type Registers = nix::libc::user_regs_struct;

/// How a thread's step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It stands at its next instruction.
    Done,
    /// It waits in the kernel.
    Blocked,
    /// It is gone.
    Ended,
}

/// A traced process.
pub struct Process {
    child: Child,
    memory: File,
    /// Living threads, the first one first.
    threads: Vec<Pid>,
    /// Threads that run at the moment.
    running: Vec<Pid>,
    /// Threads that reached a mark while another one's was waited for.
    marked: Vec<Pid>,
    code: HashMap<u64, Vec<u8>>,
}

/// How long a step may take before the thread counts as blocked.
const PATIENCE: Duration = Duration::from_millis(100);
const CODE_PAGE: u64 = 4096;

/// Registers that are all zero.
pub fn no_registers() -> Registers {
    Registers {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        orig_rax: 0,
        rip: 0,
        cs: 0,
        eflags: 0,
        rsp: 0,
        ss: 0,
        fs_base: 0,
        gs_base: 0,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
    }
}

fn other(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

impl Process {
    /// Starts a program with its addresses not randomised, and lets it run to its first mark.
    ///
    /// # Errors
    /// If it cannot be started or attached to.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> io::Result<Self> {
        let mut child = Command::new("setarch")
            .arg("-R")
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        let said = child
            .stdout
            .as_mut()
            .map(|stdout| stdout.read_exact(&mut ready));
        if !matches!(said, Some(Ok(()))) {
            let status = child.wait()?;
            return Err(io::Error::other(format!(
                "the program ended ({status}) before it was ready"
            )));
        }
        let pid = Pid::from_raw(child.id().cast_signed());
        let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options).map_err(other)?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        if let Some(stdin) = child.stdin.as_mut() {
            stdin.write_all(b"\n")?;
        }
        Ok(Self {
            child,
            memory,
            threads: vec![pid],
            running: vec![pid],
            marked: Vec::new(),
            code: HashMap::new(),
        })
    }

    /// Kernel id of the process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Living threads.
    pub fn threads(&self) -> &[Pid] {
        &self.threads
    }

    /// Reads memory, as far as it is there.
    ///
    /// # Errors
    /// If nothing is there.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(bytes, at)
    }

    /// Registers of a stopped thread.
    ///
    /// # Errors
    /// If it is not stopped.
    pub fn registers(&self, thread: Pid) -> io::Result<Registers> {
        ptrace::getregs(thread).map_err(other)
    }

    /// The bytes at a stopped thread's program counter: enough for an instruction.
    pub fn code_at(&mut self, at: u64) -> &[u8] {
        let page = at / CODE_PAGE * CODE_PAGE;
        let memory = &self.memory;
        // Two pages: an instruction may begin in the one and end in the next.
        let bytes = self.code.entry(page).or_insert_with(|| {
            let mut bytes = vec![0; 2 * CODE_PAGE as usize];
            let half = CODE_PAGE as usize;
            let first = memory.read_exact_at(&mut bytes[..half], page);
            let _ = memory.read_exact_at(&mut bytes[half..], page + CODE_PAGE);
            first.map(|()| bytes).unwrap_or_default()
        });
        let from = ((at - page) as usize).min(bytes.len());
        &bytes[from..(from + 16).min(bytes.len())]
    }

    /// A short text of the program's.
    pub fn text(&self, at: u64) -> Option<String> {
        let mut bytes = [0; 32];
        self.read(at, &mut bytes).ok()?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// Lets threads run until one of them reaches a mark; the rest is stopped where it is. `None`
    /// when the process has ended.
    ///
    /// # Errors
    /// If tracing fails.
    pub fn run_to_mark(&mut self, threads: &[Pid]) -> io::Result<Option<Pid>> {
        if let Some(thread) = self.marked.pop() {
            return Ok(Some(thread));
        }
        for &thread in threads {
            self.resume(thread)?;
        }
        loop {
            // Only of this thread's children: tests step several programs at once.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            match waitpid(None, Some(flags)).map_err(other) {
                Ok(status) => {
                    if let Some(thread) = self.note(status)? {
                        self.stop_all()?;
                        return Ok(Some(thread));
                    }
                }
                Err(_) if self.threads.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
            if self.threads.is_empty() {
                return Ok(None);
            }
        }
    }

    fn resume(&mut self, thread: Pid) -> io::Result<()> {
        if !self.running.contains(&thread) {
            ptrace::cont(thread, None).map_err(other)?;
            self.running.push(thread);
        }
        Ok(())
    }

    /// Takes a change of state into account while threads run freely; the thread that reached a mark.
    fn note(&mut self, status: WaitStatus) -> io::Result<Option<Pid>> {
        match status {
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _) => {
                self.forget(thread);
            }
            WaitStatus::Stopped(thread, Signal::SIGTRAP) => {
                self.running.retain(|other| *other != thread);
                return Ok(Some(thread));
            }
            WaitStatus::Stopped(thread, signal) => {
                return Err(io::Error::other(format!("thread {thread} got {signal}")));
            }
            WaitStatus::PtraceEvent(thread, ..) => {
                if !self.threads.contains(&thread) {
                    self.threads.push(thread);
                }
                self.running.retain(|other| *other != thread);
                self.resume(thread)?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn forget(&mut self, thread: Pid) {
        self.threads.retain(|other| *other != thread);
        self.running.retain(|other| *other != thread);
    }

    fn stop_all(&mut self) -> io::Result<()> {
        for thread in self.running.clone() {
            if ptrace::interrupt(thread).is_err() {
                self.forget(thread);
            }
        }
        while let Some(&thread) = self.running.first() {
            match waitpid(thread, Some(WaitPidFlag::__WALL)).map_err(other)? {
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _) => {
                    self.forget(thread);
                }
                WaitStatus::PtraceEvent(_, _, event) if event != STOP => {
                    // The start of a thread was reported first; the stop comes after it.
                    ptrace::cont(thread, None).map_err(other)?;
                }
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    self.marked.push(thread);
                    self.running.retain(|other| *other != thread);
                }
                _ => self.running.retain(|other| *other != thread),
            }
        }
        Ok(())
    }

    /// Executes one instruction of a stopped thread.
    ///
    /// # Errors
    /// If tracing fails or the program gets a signal.
    pub fn step(&mut self, thread: Pid) -> io::Result<Stepped> {
        ptrace::step(thread, None).map_err(other)?;
        let begun = Instant::now();
        loop {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            match waitpid(thread, Some(flags)).map_err(other)? {
                WaitStatus::StillAlive if begun.elapsed() > PATIENCE => {
                    ptrace::interrupt(thread).map_err(other)?;
                    waitpid(thread, Some(WaitPidFlag::__WALL)).map_err(other)?;
                    return Ok(Stepped::Blocked);
                }
                WaitStatus::StillAlive if begun.elapsed() > Duration::from_micros(200) => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                WaitStatus::StillAlive => std::thread::yield_now(),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    self.forget(thread);
                    return Ok(Stepped::Ended);
                }
                WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => {
                    return Ok(Stepped::Done);
                }
                status => return Err(io::Error::other(format!("a step ended with {status:?}"))),
            }
        }
    }
}

/// `PTRACE_EVENT_STOP`.
const STOP: i32 = 128;

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // A process whose traced threads were not waited for cannot be waited for.
        let others = self.threads.iter().filter(|thread| **thread != self.pid());
        for &thread in others {
            while let Ok(status) = waitpid(thread, Some(WaitPidFlag::__WALL)) {
                if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                    break;
                }
            }
        }
        while let Ok(status) = waitpid(self.pid(), Some(WaitPidFlag::__WALL)) {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                break;
            }
        }
    }
}
