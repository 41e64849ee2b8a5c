//! A panic is a bug of heapcheck; whoever waits for an answer gets one all the same: an error that says where.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::{Mutex, PoisonError};

/// Where the first panic was, in whatever thread.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// heapcheck panicked.
#[derive(Debug, thiserror::Error)]
#[error("an unforeseen error: heapcheck panicked{place}: {message}; please report it")]
pub struct Unforeseen {
    /// ` at FILE:LINE:COLUMN`, if [`remember_place`] was called.
    place: String,
    message: String,
}

/// Keeps the place of the first panic for the error, instead of printing it. With `RUST_BACKTRACE` it is printed, too.
pub fn remember_place() {
    let shows = std::env::var_os("RUST_BACKTRACE").is_some();
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let mut place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert_with(|| info.location().map(Location::to_string).unwrap_or_default());
        drop(place);
        if shows {
            before(info);
        }
    }));
}

/// Does `work`; a panic in it, or in threads that it waits for, is an error.
///
/// # Errors
/// If it panics. What `work` was changing may be half changed.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Unforeseen> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = place.as_ref().filter(|place| !place.is_empty());
        Unforeseen {
            place: place.map_or_else(String::new, |place| format!(" at {place}")),
            message: message(payload.as_ref()),
        }
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it does not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_anything_else_goes_through() {
        assert_eq!(caught(|| 7).ok(), Some(7));
        let error = caught(|| {
            let words: Vec<u64> = Vec::new();
            words[words.len()]
        });
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("panicked") && text.contains("index out of bounds"),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn a_panic_in_a_worker_comes_up_too() {
        let error = caught(|| rayon::join(|| 1, || -> u64 { panic!("in a worker") }));
        assert!(error.unwrap_err().to_string().contains("in a worker"));
    }
}
