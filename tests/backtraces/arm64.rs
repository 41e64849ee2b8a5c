//! What is special of aarch64 and of the cores that qemu writes: no list of files, no build IDs, no signal information, no
//! code.

use serde_json::Value;

use crate::common::heapcheck;
use crate::{GUESTS, cases, directory, frames, key, report};

#[test]
fn files_that_were_named_are_used_and_called_unverified() {
    let (status, report) = report("arm64-pie-O2-free", &[]);
    assert_eq!(status, 0);
    assert_eq!(report["system_info"]["cpu_arch"], "arm64");
    let modules = report["modules"].as_array().unwrap();
    for name in ["libc.so.6", "ld-linux-aarch64.so.1"] {
        let module = modules.iter().find(|module| module["filename"] == name);
        assert_eq!(module.unwrap()["verified"], false, "{name}");
        assert_eq!(module.unwrap()["loaded_symbols"], true, "{name}");
    }
    let limits = report["limits"].as_array().unwrap().iter();
    let unverified = limits.filter(|limit| {
        let why = limit["why"].as_str().unwrap();
        why.contains("no build ID") && why.contains("unverified")
    });
    assert_eq!(unverified.count(), modules.len());
}

#[test]
fn without_the_files_frame_pointers_lead_on() {
    let core = directory("arm64-O0-free").join("core");
    let arguments = ["--minidump", "--no-default-paths", "--format", "json"];
    let outcome = heapcheck(arguments.map(Into::into).into_iter().chain([core]));
    let report = outcome.json().unwrap();
    assert_eq!(report["modules"], Value::Array(Vec::new()));
    // abort() and what it calls are compiled with frame pointers.
    let trusts: Vec<_> = frames(&report).iter().map(|f| &f["trust"]).collect();
    assert!(trusts.len() > 3, "{trusts:?}");
    assert_eq!(trusts[0], "context");
    assert!(trusts[1..].iter().all(|trust| *trust == "frame_pointer"));
}

/// A program that lies elsewhere than the core says is not the program.
#[test]
fn a_file_that_does_not_fit_is_not_used() {
    let core = directory("arm64-O0-free").join("core");
    let other = directory("arm64-pie-O2-free").join("binary");
    let arguments = ["--minidump", "--format", "json"];
    let outcome = heapcheck(arguments.map(Into::into).into_iter().chain([core, other]));
    let report = outcome.json().unwrap();
    let named = frames(&report).iter().filter(|f| f["function"].is_string());
    assert_eq!(named.count(), 0);
}

fn own_functions(case: &str) -> Vec<String> {
    let (_, report) = report(case, &[]);
    let own = frames(&report).iter();
    own.filter(|frame| {
        let file = frame["file"].as_str().unwrap_or("");
        file.contains("testdata/stacks/")
    })
    .map(|frame| key(frame["function"].as_str().unwrap()))
    .take(4000)
    .collect()
}

/// gdb is no judge of programs without a fixed place or with signed return addresses; the same program without them is.
#[test]
fn a_program_has_the_stack_of_its_twin() {
    for case in cases() {
        let pie = case.strip_prefix("arm64-pie-O2-");
        let Some(mode) = pie.or_else(|| case.strip_prefix("arm64-signed-")) else {
            continue;
        };
        if ["plt", "threads-40"].contains(&mode) {
            continue; // a static program has no linkage table; threads come in any order
        }
        let own = own_functions(&case);
        assert_eq!(
            own,
            own_functions(&format!("arm64-static-O2-{mode}")),
            "{mode}"
        );
        assert!(!own.is_empty() || mode == "smash", "{mode}");
    }
}

#[test]
fn code_without_rules_is_marked_in_trust() {
    for build in GUESTS {
        for (mode, frame, trust) in [
            ("frame", 5, "frame_pointer"),
            ("go", 5, "frame_pointer"),
            ("leaf", 1, "scan"),
        ] {
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            let found = frames(&report)[frame]["trust"].as_str();
            assert_eq!(found, Some(trust), "{build} {mode}");
        }
    }
}

#[test]
fn signed_return_addresses_are_followed() {
    let (status, report) = report("arm64-signed-deep", &[]);
    assert_eq!(status, 0);
    let thread = &report["threads"][0];
    assert_eq!(thread["stack_end"], "complete");
    let rules = frames(&report).iter().skip(1);
    let by_rules = rules.filter(|frame| frame["trust"] == "cfi").count();
    assert!(by_rules > 4000, "{by_rules}");
}
