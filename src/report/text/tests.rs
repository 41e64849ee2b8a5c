//! The whole page, letter for letter: alignment is what a reader at night lives on.

use super::*;
use crate::report::sample;
use crate::report::schema::{Allocator, Limit};

#[test]
fn a_report_answers_first_and_proves_then() {
    let text = check(&sample::overrun(), Screen::default());
    let expected = include_str!("expected-report.txt");
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn colour_adds_nothing_but_colour() {
    let plain = check(&sample::overrun(), Screen::default());
    let colored = check(
        &sample::overrun(),
        Screen {
            color: true,
            width: None,
        },
    );
    assert_ne!(plain, colored);
    assert!(!plain.contains('\x1b'));
    let mut rest = colored.as_str();
    let mut stripped = String::new();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        stripped.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
}

#[test]
fn the_thread_dump_has_the_shape_of_a_minidump() {
    let text = minidump(&sample::overrun(), Screen::default());
    let expected = "\
PID: 7958
Thread 7958 \"evil\\x1b[2Jname\" (crashed)
  [  0] libtcmalloc.so.4.3.0      tcmalloc::SLL_SetNext(void*, void*) (src/linked_list.h:49)
  [  1] libtcmalloc.so.4.3.0      +0x1234
  [  2] libc-2.23.so              __libc_start_main [scan]
Thread 7959
  [  0] ?                         0xdead
";
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn silence_is_not_taken_for_health() {
    let heap_line = |report: &Report| {
        let text = super::check(report, Screen::default());
        text.lines()
            .find(|line| line.trim_start().starts_with("heap "))
            .unwrap()
            .trim()
            .to_owned()
    };
    let mut clean = Report {
        allocators: vec![Allocator {
            name: "tcmalloc".into(),
            ..Allocator::default()
        }],
        ..Report::default()
    };
    assert_eq!(
        heap_line(&clean),
        "heap         no damage found in tcmalloc"
    );
    clean.limits.push(Limit {
        incomplete: true,
        ..Limit::default()
    });
    assert_eq!(
        heap_line(&clean),
        "heap         no damage found in what was checked of tcmalloc; NOT WHOLLY ANALYSED, see NOT CHECKED"
    );
    assert!(heap_line(&Report::default()).contains("NOT ANALYSED"));
}

#[test]
fn lines_fit_a_screen() {
    let text = check(&sample::overrun(), Screen::default());
    for line in text.lines() {
        assert!(line.chars().count() <= 120, "{line}");
        assert_eq!(line, line.trim_end());
    }
}
