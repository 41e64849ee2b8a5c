//! What is drawn: of a real core, on any screen, and of one that is cut or means harm.

use std::fs;

use heapcheck::report::schema::Report;
use heapcheck::view::End;
use heapcheck::view::draw::{self, Look};
use heapcheck::view::jobs::Told;
use heapcheck::view::model::{Input, Key, Model, Pane};
use heapcheck::view::panes::help;
use ratatui_core::buffer::Buffer;
use ratatui_core::style::Color;

use super::common::{in_parallel, small};
use super::{PLAIN, Seen, opening};

#[test]
fn screens_of_the_demo() {
    let mut small = Seen::demo((80, 24));
    insta::assert_snapshot!("small_first", small.screen());
    insta::assert_snapshot!("small_keys", small.keys("?").screen());
    insta::assert_snapshot!(
        "small_address",
        small.keys("jz3g55d2374ca000<Enter>").screen()
    );
    insta::assert_snapshot!("small_holders", small.keys("4").screen());
    insta::assert_snapshot!("small_usage", small.keys("6tt").screen());
    let mut large = Seen::demo((120, 40));
    insta::assert_snapshot!("large_first", large.screen());
    insta::assert_snapshot!("large_crash", large.keys("1").screen());
    insta::assert_snapshot!(
        "large_address",
        large.keys("g0x55d2374ca000<Enter><End>").screen()
    );
}

#[test]
fn any_size_is_drawn_and_the_old_one_is_as_it_was() {
    let mut seen = Seen::demo((80, 24));
    for keys in ["", "1", "g55d2374ca000<Enter>", "4", "5", "6", "?"] {
        seen.keys(keys);
        let before = seen.screen();
        for (width, height) in [
            (1, 1),
            (0, 0),
            (2, 3),
            (7, 2),
            (40, 10),
            (60, 16),
            (200, 60),
            (1, 50),
        ] {
            seen.input(Input::Resize(width, height));
            let screen = seen.screen();
            assert_eq!(
                screen.lines().count(),
                usize::from(height) * usize::from(width > 0)
            );
        }
        assert_eq!(seen.input(Input::Resize(80, 24)).screen(), before, "{keys}");
    }
}

#[test]
fn colour_is_never_all_that_says_something() {
    let seen = Seen::demo((80, 24));
    let colors = |look: Look| {
        let buffer = seen.buffer(look);
        buffer.content.iter().any(|cell| cell.fg != Color::Reset)
    };
    let color = Look {
        color: true,
        ..PLAIN
    };
    assert!(colors(color) && !colors(PLAIN));
    let ascii = Look {
        unicode: false,
        ..PLAIN
    };
    let is_ascii = |cell: &ratatui_core::buffer::Cell| cell.symbol().is_ascii();
    assert!(seen.buffer(ascii).content.iter().all(is_ascii));
    // The chosen pane, row, view and the severity are words and marks.
    let screen = seen.screen();
    for mark in ["┏━Findings", "┃> CRITICAL", "[2Finding]", "crash"] {
        assert!(screen.contains(mark), "{mark}:\n{screen}");
    }
}

#[test]
fn strings_of_the_core_cannot_act_on_the_terminal() {
    let mut model = Model::new(120, 40);
    let evil = "\x1b]0;owned\x07\u{202e}";
    let mut report = Report::default();
    report.process.executable = Some(evil.into());
    report.crash_info.signal = Some(evil.into());
    report.threads.push(Default::default());
    report.threads[0].thread_name = Some(evil.into());
    report.threads[0].frames.push(Default::default());
    report.threads[0].frames[0].function = Some(evil.into());
    report.findings.push(Default::default());
    report.findings[0].kind = evil.into();
    report.findings[0].message = evil.into();
    model.told(Told::Checked(Box::new(report)));
    for key in ['1', '2', '3', '4'] {
        model.handle(Input::Key(Key::Char(key)));
        for pane in Pane::ALL {
            for row in model.content(pane).rows {
                let text = row.text();
                let is_active = heapcheck::report::escape::is_active;
                assert!(!text.chars().any(is_active), "{pane:?}: {text:?}");
            }
        }
    }
    let mut buffer = Buffer::empty(ratatui_core::layout::Rect::new(0, 0, 120, 40));
    draw::draw(&model, PLAIN, &mut buffer);
    let shown: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
    assert!(shown.contains("\\x1b]0;owned") && !shown.contains('\x1b'));
}

#[test]
fn a_cut_core_opens_or_says_why_not() {
    let fixtures = small::fixtures();
    let fixture = fixtures
        .iter()
        .find(|it| it.name == "bin-smashed-O2")
        .unwrap();
    let whole = fs::read(&fixture.core).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let cut = directory.path().join("core");
    let mut opened = 0;
    for percent in [0, 1, 5, 30, 60, 90, 99] {
        fs::write(&cut, &whole[..whole.len() * percent / 100]).unwrap();
        let mut seen = Seen::open(opening(vec![cut.clone()], None), (80, 24));
        match seen.end.clone() {
            Some(End::Failed(message)) => {
                assert!(!message.contains("panicked"), "{message}");
                continue;
            }
            Some(End::Quit) => panic!("nobody left"),
            None => opened += 1,
        }
        seen.keys("<Tab>j<Tab>j<Tab>j123456t6ttttt<Tab>j<Enter>");
        let screen = seen.screen();
        assert!(!screen.contains("panicked"), "{screen}");
    }
    assert!(opened > 3, "{opened}");
}

#[test]
fn every_core_of_the_repository_can_be_walked_in() {
    let fixtures = small::fixtures();
    let errors = in_parallel(&fixtures, |fixture| {
        let mut seen = Seen::small(&fixture.release, &fixture.name, (100, 30));
        let name = format!("{}/{}", fixture.release, fixture.name);
        if let Some(end) = &seen.end {
            return Some(format!("{name}: {end:?}"));
        }
        let mut screens = vec![seen.screen()];
        for keys in [
            "<Enter>",
            "jj<Enter>",
            "4jl<Down> <Enter>",
            "5<Enter>",
            "6tj<Enter>",
            "6ttttj<Enter>",
            "[[]",
            "<Tab><Tab><Tab>j<Tab>j<Enter>G<Enter>",
            "1<End>z",
        ] {
            seen.keys(keys);
            screens.push(seen.screen());
        }
        let wrong = screens.iter().find(|screen| screen.contains("panicked"));
        wrong.map(|screen| format!("{name}:\n{screen}"))
    });
    let errors: Vec<String> = errors.into_iter().flatten().collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn the_document_has_all_keys() {
    let text = fs::read_to_string("docs/view.md").unwrap();
    let rows = text.split_once("what it does |\n|---|---|\n").unwrap().1;
    let rows: Vec<&str> = rows
        .lines()
        .take_while(|row| row.starts_with('|'))
        .collect();
    let keys = help::KEYS.iter();
    let expected: Vec<String> = keys
        .map(|(key, does)| format!("| {key} | {does} |"))
        .collect();
    assert_eq!(rows, expected);
}
