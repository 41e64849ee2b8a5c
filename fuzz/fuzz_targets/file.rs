//! A whole ELF file: headers, symbol tables, sections.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::read_file(data));
