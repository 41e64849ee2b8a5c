//! Changes headers and notes of a core.
#![no_main]

use fuzz::{Shared, with};
use libfuzzer_sys::fuzz_target;

static CASE: Shared = Shared::new(None);

fuzz_target!(
    |data: &[u8]| with(&CASE, "glibc-2.36/overrun-nul-O2", |case| case
        .with_head(data))
);
