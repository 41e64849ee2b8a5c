//! The page is well-formed, fetches nothing, shows nothing that was not asked for, and stays small.

use super::*;
use crate::report::sample;
use crate::report::schema::{Frame, Hex, LeakGroup, Leaks, Module, Thread};

fn page(report: Report) -> String {
    let document = Document::Report(Box::new(report));
    String::from_utf8(Html.render(&document, Screen::default()).unwrap()).unwrap()
}

/// Every element is closed by its own end, and no attribute is named twice; gives the elements' names.
fn elements(page: &str) -> Vec<String> {
    let page = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    let mut names = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some((before, tag)) = rest.split_once('<') {
        let text = open
            .last()
            .is_some_and(|it| *it != "style" && *it != "script");
        assert!(!text || !before.contains('>'), "{before}");
        let (inside, after) = tag.split_once('>').unwrap();
        rest = after;
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "near {before}");
            continue;
        }
        let (inside, closed) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
        assert!(attributes.matches('"').count() % 2 == 0, "{inside}");
        names.push(name.to_owned());
        if !closed {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(rest.trim(), "");
    names
}

fn with_leaks() -> Report {
    let frame = |name: &str| Frame {
        function: Some(name.into()),
        ..Frame::default()
    };
    let group = |id, class: &str, stack: Option<Vec<Frame>>| LeakGroup {
        id,
        class: class.into(),
        blocks: 3,
        bytes: 300,
        block_bytes: 100,
        stack,
        message: "3 blocks of 100 bytes".into(),
        ..LeakGroup::default()
    };
    Report {
        leaks: Some(Leaks {
            groups: vec![
                group(1, "definite", Some(vec![frame("new<T>"), frame("main")])),
                group(2, "possible", None),
            ],
            ..Leaks::default()
        }),
        ..sample::overrun()
    }
}

#[test]
fn every_page_is_well_formed() {
    for report in [sample::overrun(), Report::default(), with_leaks()] {
        let names = elements(&page(report));
        assert!(names.iter().any(|name| name == "main"));
    }
    let error = Document::Error(crate::report::schema::ErrorDocument::new("<no> such file"));
    let bytes = Html.render(&error, Screen::default()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    elements(&text);
    assert!(text.contains("&lt;no&gt; such file"));
}

#[test]
fn the_page_says_what_the_text_says() {
    let text = page(sample::overrun());
    for part in [
        "<title>heap-overrun in chat-server</title>",
        "DAMAGED: 1 critical finding in tcmalloc 2.10 (gperftools)",
        "<mark>[",
        "x/2gx 0x1050",
        "CWE-122",
        "thread caches of 2 threads: their pages were not dumped",
        "evil\\x1b[2Jname",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn nothing_is_fetched_and_nothing_of_the_core_is_run() {
    let evil =
        "\"><script src=//evil.example></script><img onerror=x src=y> style='x' ]]> --> &lt;";
    let mut report = sample::overrun();
    report.core.path = evil.into();
    report.process.executable = Some(evil.into());
    report.process.arguments = Some(evil.into());
    report.modules.push(Module {
        path: evil.into(),
        ..Module::default()
    });
    report.attributes.insert(evil.into(), evil.into());
    for thread in &mut report.threads {
        thread.thread_name = Some(evil.into());
        for frame in &mut thread.frames {
            (frame.module, frame.function) = (Some(evil.into()), Some(evil.into()));
        }
    }
    for finding in &mut report.findings {
        finding.message = evil.into();
        finding.evidence[0].found = evil.into();
        finding.kind = evil.into();
    }
    let text = page(report);
    let names = elements(&text);
    let count = |name: &str| names.iter().filter(|it| *it == name).count();
    assert_eq!((count("script"), count("style"), count("img")), (1, 1, 0));
    for name in ["link", "iframe", "object", "form", "base", "image", "use"] {
        assert_eq!(count(name), 0, "{name}");
    }
    // No attribute that loads: only anchors of the page itself.
    for reference in text.split("href=\"").skip(1) {
        assert!(reference.starts_with('#'));
    }
    assert!(!text.contains(" src=\""));
    // The policy names exactly the page's own style and script.
    let policy = text.split("content=\"").nth(1).unwrap();
    let policy = policy.split('"').next().unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    for element in ["style", "script"] {
        let open = format!("<{element}>");
        let inside = text.split(&open).nth(1).unwrap();
        let inside = inside.split(&format!("</{element}>")).next().unwrap();
        assert!(policy.contains(&source_of(inside)), "{element}: {policy}");
    }
}

#[test]
fn hashes_are_written_as_browsers_want_them() {
    for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
        assert_eq!(base64(bytes.as_bytes()), expected);
    }
    let empty = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    assert_eq!(source_of(""), empty);
}

#[test]
fn contents_of_blocks_are_shown_only_where_the_document_has_them() {
    let shown = page(sample::overrun());
    assert!(shown.contains("The culprit 0x1020, 4 bytes from its start"));
    let mut report = sample::overrun();
    report.findings[0].culprit.as_mut().unwrap().bytes = None;
    let text = page(report);
    assert!(!text.contains("from its start"));
}

#[test]
fn a_page_stays_one_that_can_be_sent() {
    let long = "<&>".repeat(5000);
    let mut report = sample::overrun();
    let finding = report.findings[0].clone();
    for id in 2..4000 {
        let mut more = finding.clone();
        (more.id, more.message) = (id, long.clone());
        report.findings.push(more);
    }
    let frame = |frame| Frame {
        frame,
        function: Some(long.clone()),
        module: Some(long.clone()),
        ..Frame::default()
    };
    report.threads = (0..1000u32)
        .map(|thread_id| Thread {
            thread_id,
            thread_name: Some(long.clone()),
            frames: (0..50)
                .map(|number| Frame {
                    offset: Hex(u64::from(thread_id) << 8 | number as u64),
                    ..frame(number)
                })
                .collect(),
            ..Thread::default()
        })
        .collect();
    let text = page(report);
    elements(&text);
    assert!(text.len() < 5 << 20, "{}", text.len());
    assert!(text.contains("Lists were cut"));
}
