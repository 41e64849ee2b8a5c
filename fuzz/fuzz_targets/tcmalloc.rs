//! Changes words of a healthy heap of gperftools.
#![no_main]

use fuzz::{Shared, with};
use libfuzzer_sys::fuzz_target;

static CASE: Shared = Shared::new(None);

fuzz_target!(|data: &[u8]| with(&CASE, "2.10/healthy-stats", |case| case.with_words(data)));
