//! What is said of how each program died.

use serde_json::Value;

use crate::{all_builds, at_fault, frames, functions, is_guest, key, report};

#[test]
fn the_instruction_at_fault_is_told_with_its_address() {
    for build in all_builds() {
        for (mode, function, access, address) in [
            ("leaf", "assembler_leaf", "read", "0x10"),
            ("store", "store", "write", "0x10030"),
        ] {
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            let instruction = &report["crash_info"]["instruction_details"];
            assert_eq!(instruction["explains_fault"], true, "{build} {mode}");
            let memory = &instruction["memory"][0];
            assert_eq!(memory["access"], access, "{build} {mode}");
            assert_eq!(memory["address"], address, "{build} {mode}");
            if !is_guest(build) {
                assert_eq!(report["crash_info"]["address"], address);
            }
            if !build.ends_with("stripped") {
                assert_eq!(key(at_fault(&report)), function, "{build}");
            }
        }
        for mode in ["overflow", "overflow-handled", "plt"] {
            if mode == "plt" && is_static(build) {
                continue;
            }
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            let instruction = &report["crash_info"]["instruction_details"];
            assert_eq!(instruction["explains_fault"], true, "{build} {mode}");
        }
        for (mode, pc) in [("null", "0x0"), ("wild", "0x1234567890")] {
            let (status, report) = report(&format!("{build}-{mode}"), &[]);
            assert_eq!(status, 0, "{build} {mode}");
            assert_eq!(report["crash_info"]["instruction_details"], Value::Null);
            assert_eq!(frames(&report)[0]["offset"], pc);
        }
    }
}

/// A static program has no linkage table.
fn is_static(build: &str) -> bool {
    ["arm64-static-O2", "arm64-stripped", "arm64-signed"].contains(&build)
}

#[test]
fn an_entry_of_the_linkage_table_has_a_name() {
    for build in all_builds().filter(|build| !is_static(build)) {
        let (_, report) = report(&format!("{build}-plt"), &[]);
        assert_eq!(functions(&report)[0], "getppid@plt", "{build}");
    }
}

#[test]
fn a_program_with_its_own_handler_shows_what_crashed() {
    for build in all_builds() {
        for (mode, function, code, address) in [
            ("handler", "assembler_leaf", Value::Null, "0x10"),
            ("handler-informed", "store", "SEGV_MAPERR".into(), "0x10030"),
        ] {
            let (status, report) = report(&format!("{build}-{mode}"), &[]);
            assert_eq!(status, 0);
            let crash = &report["crash_info"];
            assert_eq!(crash["type"], "SIGABRT", "{build} {mode}");
            assert_eq!(crash["handled"]["type"], "SIGSEGV", "{build} {mode}");
            assert_eq!(crash["handled"]["code"], code, "{build} {mode}");
            assert_eq!(crash["handled"]["address"], address, "{build} {mode}");
            assert_eq!(
                crash["instruction_details"]["memory"][0]["address"],
                address
            );
            let pc = if is_guest(build) { "pc" } else { "rip" };
            assert!(report["crashing_thread"]["frame_registers"][pc].is_string());
            if !build.ends_with("stripped") {
                assert_eq!(key(at_fault(&report)), function, "{build}");
            }
            assert!(functions(&report).contains(&"<signal handler called>"));
        }
    }
}

#[test]
fn last_words_are_found_with_and_without_symbols() {
    for build in all_builds() {
        for (mode, words) in [("free", "free(): invalid pointer"), ("assert", "a reason")] {
            let case = format!("{build}-{mode}");
            let with = report(&case, &[]).1;
            let without = report(&case, &["--no-default-paths", "--locate", "structure"]).1;
            let by_name = match build {
                "arm64-stripped" => "structure",
                _ => "symbols",
            };
            for (report, found_by) in [(with, by_name), (without, "structure")] {
                let message = &report["crash_info"]["abort_message"];
                let text = message["text"].as_str().unwrap_or("");
                assert!(text.contains(words), "{case} {found_by}: {text}");
                assert_eq!(message["found_by"], found_by, "{case}");
            }
        }
    }
    // abort() alone says nothing.
    let (_, report) = report("cases-O2-deep", &[]);
    assert_eq!(report["crash_info"]["abort_message"], Value::Null);
}

#[test]
fn an_exception_that_nobody_caught_has_its_type() {
    for build in ["deep-O0", "deep-O2", "arm64-deep-O0", "arm64-deep-O2"] {
        for (mode, name, says) in [
            ("throw", "std::out_of_range", "map::at".into()),
            ("throw-own", "deep::Refused", "no".into()),
            ("throw-text", "char const*", "a mere text".into()),
            ("throw-number", "int", "-42".into()),
            ("throw-class", "deep::Box<int, 7>", Value::Null),
        ] {
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            let exception = &report["crash_info"]["exception"];
            assert_eq!(exception["type"], name, "{build}");
            assert_eq!(exception["message"], says, "{build} {mode}");
        }
        let (_, report) = report(&format!("{build}-lambda"), &[]);
        assert_eq!(report["crash_info"]["exception"], Value::Null);
    }
}
