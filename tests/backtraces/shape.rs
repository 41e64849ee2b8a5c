//! Stacks as a whole: deep ones, damaged ones, many of them.

use serde_json::Value;

use crate::{BUILDS, GUESTS, all_builds, cases, frames, is_guest, minidump, report};

#[test]
fn a_stripped_program_has_the_stack_of_its_twin() {
    for case in cases() {
        // Threads of a guest come in any order. Which instruction of a runaway recursion first touches what is not there is a matter of chance.
        let (twin, mode) = match (
            case.strip_prefix("stripped-"),
            case.strip_prefix("arm64-stripped-"),
        ) {
            (Some(mode), _) => ("cases-O2", mode),
            (_, Some(mode)) => ("arm64-static-O2", mode),
            (None, None) => continue,
        };
        if mode.starts_with("overflow") || mode == "threads-40" {
            continue;
        }
        let places = |case: &str| -> Vec<String> {
            let (_, report) = report(case, &[]);
            let own = frames(&report).iter();
            own.filter(|frame| frame["module"] == "binary")
                .map(|frame| frame["module_offset"].as_str().unwrap().to_owned())
                .collect()
        };
        let (one, other) = (places(&case), places(&format!("{twin}-{mode}")));
        let differ = one.iter().zip(&other).position(|(one, other)| one != other);
        assert_eq!(
            differ, None,
            "{mode}: first frame of the program that differs"
        );
        assert_eq!(one.len(), other.len(), "{mode}");
    }
}

#[test]
fn recursion_is_a_line_in_text_and_bounded_in_json() {
    for build in all_builds() {
        for (mode, told) in [
            ("deep", "... the frame above 4,0"),
            ("mutual", "... the 2 frames above 2,0"),
            ("overflow", "... the frame above 4,0"),
        ] {
            let case = format!("{build}-{mode}");
            let text = minidump(&case);
            assert!(text.lines().count() < 40, "{case}: {text}");
            assert!(text.contains(told), "{case}: {text}");
            assert!(text.contains("frames that are not kept"), "{case}: {text}");
            let (status, report) = report(&case, &[]);
            assert_eq!(status, 0, "{case}");
            let thread = &report["threads"][0];
            assert_eq!(thread["stack_end"], "complete", "{case}");
            let frames = thread["frames"].as_array().unwrap();
            assert!(frames.len() < 5000, "{case}: {}", frames.len());
            if mode == "deep" {
                // abort() and what it calls, 20,001 calls, main and what called it
                let last = frames.last().unwrap()["frame"].as_u64().unwrap();
                assert!((20_001 + 4..20_001 + 12).contains(&last), "{case}: {last}");
            }
        }
    }
}

#[test]
fn an_overwritten_stack_is_incomplete_and_says_so() {
    for build in all_builds() {
        let case = format!("{build}-smash");
        let (status, report) = report(&case, &[]);
        assert_eq!(status, 3, "{case}");
        assert_eq!(report["threads"][0]["stack_end"], "overwritten", "{case}");
        if is_guest(build) {
            // It went there, and faulted there; the highest byte of an address is ignored, and where it was to be signed, the
            // processor has marked it as forged.
            let pc = match build {
                "arm64-signed" => "0x20414141414141",
                _ => "0x41414141414141",
            };
            assert_eq!(frames(&report)[0]["offset"], pc, "{case}");
            continue;
        }
        let jump = &report["crash_info"]["instruction_details"]["memory"][0];
        assert_eq!(jump["access"], "execute", "{case}");
        assert_eq!(jump["address"], "0x4141414141414141", "{case}");
        assert!(
            minidump(&case).contains("(the stack is overwritten"),
            "{case}"
        );
    }
}

#[test]
fn threads_with_one_stack_are_one_group_in_text_and_all_in_json() {
    for (build, count) in BUILDS
        .map(|build| (build, 1000))
        .into_iter()
        .chain(GUESTS.map(|build| (build, 40)))
    {
        let case = format!("{build}-threads-{count}");
        let (status, report) = report(&case, &[]);
        assert_eq!(status, 0, "{case}");
        let threads = report["threads"].as_array().unwrap();
        assert_eq!(threads.len(), count + 1, "{case}");
        assert_eq!(threads[0]["state"], "in tgkill", "{case}");
        for call in ["in pause", "in clock_nanosleep", "in futex", "in read"] {
            let call = match (is_guest(build), call) {
                (true, "in pause") => "in ppoll", // aarch64 has no pause
                (_, call) => call,
            };
            let waiting = threads.iter().filter(|thread| thread["state"] == call);
            assert!(waiting.count() >= count * 19 / 100, "{case}: {call}");
        }
        let text = minidump(&case);
        let (first, _) = text.split_once("threads:").unwrap();
        assert!(first.contains("(crashed)"), "{case}: {text}");
        let groups = text.lines().filter(|line| line.contains(" threads: "));
        let grouped: usize = groups
            .map(|line| line.split(' ').next().unwrap().replace(',', ""))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        assert!(
            grouped >= count * 9 / 10,
            "{case}: {grouped} threads in groups"
        );
        assert!(text.lines().count() < 200, "{case}: {text}");
    }
}

#[test]
fn frames_in_the_kernels_own_library_are_unwound() {
    let (_, report) = report("cases-O2-vdso", &[]);
    let threads = report["threads"].as_array().unwrap();
    let inside = threads.iter().filter(|thread| {
        let frames = thread["frames"].as_array().unwrap();
        let vdso = |frame: &Value| {
            frame["module"]
                .as_str()
                .is_some_and(|name| name.contains("vdso"))
        };
        frames.iter().any(vdso) && thread["stack_end"] == "complete"
    });
    assert!(inside.count() > 0);
}
