//! Short tags for signals, as classifiers of a crash.

/// The tag of a signal: `segmentation-violation` for `SIGSEGV`.
pub fn tag(signal: &str) -> Option<&'static str> {
    Some(match signal {
        "SIGSEGV" => "segmentation-violation",
        "SIGABRT" => "abort",
        "SIGBUS" => "bus-error",
        "SIGFPE" => "arithmetic-exception",
        "SIGILL" => "illegal-instruction",
        "SIGTRAP" => "trap",
        "SIGSYS" => "bad-system-call",
        "SIGKILL" => "killed",
        "SIGQUIT" => "quit",
        _ => return None,
    })
}
