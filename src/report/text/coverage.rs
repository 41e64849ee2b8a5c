//! What share of the memory was looked at, and who was not.

use crate::report::escape::escaped;
use crate::report::schema::Report;

use super::number::{bytes, short};

/// Strangers that are named on the first screen.
const MAX_NAMED: usize = 3;

/// The allocators because of which the analysis is not whole, in words.
pub fn strangers(report: &Report) -> Option<String> {
    let strangers = report.unsupported_allocators.iter();
    let messages: Vec<String> = strangers
        .filter(|stranger| stranger.incomplete)
        .take(MAX_NAMED)
        .map(|stranger| escaped(&stranger.message))
        .collect();
    (!messages.is_empty()).then(|| messages.join("; "))
}

/// The share of the writable memory that was looked at, where more of it is nobody's or the analysis is not whole.
pub fn looked_at(report: &Report) -> Option<String> {
    let memory = report.memory.as_ref()?;
    let incomplete = report.limits.iter().any(|limit| limit.incomplete);
    let is_most = memory.walked_bytes >= memory.unclaimed_bytes;
    if memory.writable_bytes == 0 || is_most && !incomplete {
        return None;
    }
    let size = |number: u64| short(number).unwrap_or_else(|| bytes(number));
    let percent = match memory.walked_bytes.saturating_mul(100) / memory.writable_bytes {
        0 if memory.walked_bytes > 0 => "less than 1".to_owned(),
        percent => percent.to_string(),
    };
    let mut text = format!(
        "heaps that were walked hold {percent} % of the {} of writable memory in the core",
        size(memory.writable_bytes)
    );
    if memory.unclaimed_bytes > 0 {
        text = format!(
            "{text}; nothing that is known claims {}",
            size(memory.unclaimed_bytes)
        );
    }
    Some(text)
}
