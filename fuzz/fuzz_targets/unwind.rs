//! Changes the program's file, its unwind tables among it.
#![no_main]

use fuzz::{Shared, with};
use libfuzzer_sys::fuzz_target;

static CASE: Shared = Shared::new(None);

fuzz_target!(
    |data: &[u8]| with(&CASE, "stacks/cases-O2-handler", |case| case
        .with_binary(data))
);
