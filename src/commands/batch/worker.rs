//! One core in a process of its own, with a limit of time and of memory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::report::status;

/// Longest report of a worker, in bytes.
const MAX_REPORT: u64 = 1 << 30;
/// Longest message of a worker that is kept.
const MAX_MESSAGE: u64 = 64 << 10;

/// How the message of an error that nobody foresaw begins.
const UNFORESEEN: &[u8] = b"\"message\": \"an unforeseen error: ";

/// How workers are started.
pub(super) struct Worker {
    pub program: PathBuf,
    pub command: &'static str,
    pub options: Vec<String>,
    pub timeout: Duration,
    pub memory: Option<u64>,
}

impl Worker {
    /// The line of a core, and its exit status.
    pub fn run(&self, core: &Path, id: &str) -> (Vec<u8>, u8) {
        match self.attempt(core, id) {
            Ok(done) => done,
            Err(error) => (
                failed(core, Some(id), &error.to_string()),
                status::NOT_ANALYSED,
            ),
        }
    }

    fn attempt(&self, core: &Path, id: &str) -> io::Result<(Vec<u8>, u8)> {
        let begin = Instant::now();
        let mut child = Command::new(&self.program)
            .arg(self.command)
            .args(["--format", "json"])
            .args(&self.options)
            .arg("--")
            .arg(core)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        self.limit(&child);
        let out = gather(child.stdout.take(), MAX_REPORT);
        let messages = gather(child.stderr.take(), MAX_MESSAGE);
        let Some(ended) = wait(&mut child, begin + self.timeout)? else {
            return Ok((
                failed(
                    core,
                    Some(id),
                    &format!("not done after {} s", self.timeout.as_secs()),
                ),
                status::NOT_ANALYSED,
            ));
        };
        let report = out.join().unwrap_or_default();
        let seconds = begin.elapsed().as_secs_f64();
        // Without memory for its threads a worker still says an error, but not why.
        let starved = self.memory.is_some()
            && report
                .windows(UNFORESEEN.len())
                .any(|part| part == UNFORESEEN);
        if let Some(code) = ended.code().and_then(|code| u8::try_from(code).ok())
            && !starved
            && let Some(line) = line(&report, core, id, code, seconds)
        {
            return Ok((line, code));
        }
        let messages = messages.join().unwrap_or_default();
        let said = String::from_utf8_lossy(&messages);
        let last = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("");
        let limit = self
            .memory
            .map(|bytes| format!("; its memory was limited to {bytes} bytes"))
            .unwrap_or_default();
        Ok((
            failed(
                core,
                Some(id),
                &format!("the worker died ({ended}){limit}: {last}"),
            ),
            status::NOT_ANALYSED,
        ))
    }

    /// The worker's own memory is limited, the core that it maps is not; and it leaves no core of its own.
    fn limit(&self, child: &Child) {
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
            return;
        };
        let to = |bytes| Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        // A worker that has ended already needs no limit.
        let _ = prlimit(Some(pid), Resource::Core, to(0));
        if let Some(bytes) = self.memory {
            let _ = prlimit(Some(pid), Resource::Data, to(bytes));
        }
    }
}

/// Reads a stream to its end, so that the worker never waits; what is longer than the limit is dropped.
fn gather(
    stream: Option<impl Read + Send + 'static>,
    limit: u64,
) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(limit).read_to_end(&mut bytes); // what came before an error is kept
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        bytes
    })
}

/// Waits until the deadline, then ends the worker; none if it had to.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<std::process::ExitStatus>> {
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(Some(ended));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The report on one line, with the id first; none if it is no whole document.
fn line(report: &[u8], core: &Path, id: &str, code: u8, seconds: f64) -> Option<Vec<u8>> {
    let report = report.trim_ascii();
    let inside = report
        .strip_prefix(b"{")
        .filter(|_| report.ends_with(b"}"))?;
    let path = json!(core.to_string_lossy());
    let mut line = format!(
        "{{\"core_id\":\"{id}\",\"core_file\":{path},\"exit_status\":{code},\"seconds\":{seconds:.3},"
    )
    .into_bytes();
    line.reserve(inside.len() / 2);
    let (mut string, mut escaped) = (false, false);
    for &byte in inside {
        if string {
            line.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => string = false,
                _ => {}
            }
        } else if !byte.is_ascii_whitespace() {
            string = byte == b'"';
            line.push(byte);
        }
    }
    line.push(b'\n');
    Some(line)
}

/// The line of a core that could not be read.
pub(super) fn failed(core: &Path, id: Option<&str>, message: &str) -> Vec<u8> {
    let id = json!(id.unwrap_or(""));
    let path = json!(core.to_string_lossy());
    let message = json!(message);
    format!("{{\"core_id\":{id},\"core_file\":{path},\"exit_status\":2,\"schema_version\":1,\"status\":\"ERROR\",\"error\":{{\"message\":{message}}},\"core\":{{\"path\":{path}}}}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_one_line() {
        let report = b"{\n  \"a\": \"x \\\" {\\n y\",\n  \"b\": [ 1, 2 ]\n}\n";
        let made =
            String::from_utf8(line(report, Path::new("c"), "s1:0", 1, 0.5).unwrap()).unwrap();
        assert_eq!(
            made,
            "{\"core_id\":\"s1:0\",\"core_file\":\"c\",\"exit_status\":1,\"seconds\":0.500,\"a\":\"x \\\" {\\n y\",\"b\":[1,2]}\n"
        );
        assert!(line(b"{\"a\": 1", Path::new("c"), "", 0, 0.0).is_none());
        serde_json::from_slice::<serde_json::Value>(&failed(Path::new("a\"b"), None, "c\nd"))
            .unwrap();
    }
}
