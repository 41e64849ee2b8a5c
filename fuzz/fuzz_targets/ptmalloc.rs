//! Changes words of a healthy heap of glibc.
#![no_main]

use fuzz::{Shared, with};
use libfuzzer_sys::fuzz_target;

static CASE: Shared = Shared::new(None);

fuzz_target!(
    |data: &[u8]| with(&CASE, "glibc-2.36/healthy-stats", |case| case
        .with_words(data))
);
