//! Changes words of a healthy heap of jemalloc.
#![no_main]

use fuzz::{Shared, with};
use libfuzzer_sys::fuzz_target;

static CASE: Shared = Shared::new(None);

fuzz_target!(
    |data: &[u8]| with(&CASE, "jemalloc-5.3.0/healthy-stats", |case| case
        .with_words(data))
);
