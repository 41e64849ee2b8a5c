//! A debug file whose sections are the fuzzer's: units, abbreviations, line tables, ranges, strings.
#![no_main]

use fuzz::{Shared, elf, parts, with};
use libfuzzer_sys::fuzz_target;

static CASE: Shared = Shared::new(None);

const SECTIONS: [&str; 9] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_aranges",
    ".debug_addr",
];

fuzz_target!(|data: &[u8]| with(&CASE, "stacks/cases-O2-store", |case| {
    let note = case.build_id_note();
    let contents: [&[u8]; SECTIONS.len()] = parts(data);
    let mut sections = vec![(".note.gnu.build-id", 7, &*note)];
    sections.extend(
        SECTIONS
            .iter()
            .zip(contents)
            .map(|(name, part)| (*name, 1, part)),
    );
    case.with_debug_file(&elf(&sections));
}));
