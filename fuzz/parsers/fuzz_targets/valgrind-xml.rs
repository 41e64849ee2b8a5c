#![no_main]
libfuzzer_sys::fuzz_target!(|log: &[u8]| parsers::read("valgrind-xml", log));
