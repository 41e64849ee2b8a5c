//! The page of real cores: well-formed, the same each time, small, and without what may not leave the house.

mod common;

use common::small::fixtures;
use common::{Files, Fixture, heapcheck, in_parallel};
use quick_xml::Reader;
use quick_xml::events::Event;

/// The page of a core.
fn page(fixture: &Fixture, options: &[&str]) -> String {
    let mut arguments = vec![
        "--format".into(),
        "html".into(),
        "--no-default-paths".into(),
    ];
    arguments.extend(options.iter().map(|option| option.to_string().into()));
    if let Files::Below(root) = &fixture.files {
        arguments.extend(["--sysroot".into(), root.clone().into_os_string()]);
    }
    arguments.push(fixture.core.clone().into_os_string());
    if !matches!(fixture.files, Files::None) {
        arguments.push(fixture.binary.clone().into_os_string());
    }
    let outcome = heapcheck(arguments);
    assert!(outcome.status != 2, "{}: {}", fixture.name, outcome.stderr);
    outcome.text().to_owned()
}

/// What a reader without eyes is told, in its order: headings with their depth, and the text in between. Fails if the page is not well-formed.
fn read_aloud(page: &str) -> Vec<String> {
    let mut reader = Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let mut lines = Vec::new();
    let mut open: Vec<String> = Vec::new();
    loop {
        match reader.read_event().expect("the page is well-formed") {
            Event::Start(start) => {
                for attribute in start.attributes() {
                    attribute.expect("attributes are well-formed");
                }
                open.push(String::from_utf8(start.name().as_ref().to_vec()).unwrap());
            }
            Event::End(_) => drop(open.pop()),
            Event::Text(text) => {
                let text = String::from_utf8(text.to_vec()).unwrap();
                let silent = ["style", "script", "title"];
                let shown = !open.iter().any(|tag| silent.contains(&tag.as_str()));
                if shown && !text.trim().is_empty() {
                    let tag = open.last().unwrap();
                    lines.push(format!("{tag}: {}", text.trim()));
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    lines
}

#[test]
fn every_page_is_well_formed_and_headings_go_down_step_by_step() {
    let fixtures = fixtures();
    let errors: Vec<String> = in_parallel(&fixtures, |fixture| {
        let name = format!("{}/{}", fixture.release, fixture.name);
        let page = page(fixture, &[]);
        let lines = read_aloud(&page);
        let mut depth = 0;
        for line in &lines {
            let heading = line
                .strip_prefix('h')
                .and_then(|rest| rest.get(..1)?.parse().ok());
            if let Some(next) = heading {
                if next > depth + 1 {
                    return Some(format!("{name}: {line} after a heading of depth {depth}"));
                }
                depth = next;
            }
        }
        let ones = lines.iter().filter(|line| line.starts_with("h1: ")).count();
        let wrong = ones != 1 || page.len() > 2 << 20;
        wrong.then(|| format!("{name}: {ones} first headings, {} bytes", page.len()))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn a_page_is_the_same_each_time() {
    let fixtures = fixtures();
    let some: Vec<&Fixture> = fixtures.iter().step_by(9).collect();
    in_parallel(&some, |fixture| {
        let one = page(fixture, &["--threads", "1"]);
        assert!(
            one == page(fixture, &["--threads", "4"]),
            "{}",
            fixture.name
        );
    });
}

#[test]
fn what_is_read_first_is_what_matters() {
    let arguments = [
        "--format",
        "html",
        "--no-default-paths",
        "testdata/demo/double-free.core.zst",
        "testdata/demo/double-free",
    ];
    let page = heapcheck(arguments);
    insta::assert_snapshot!("demo_page", read_aloud(page.text()).join("\n"));
}

#[test]
fn a_redacted_page_has_no_text_and_no_folder() {
    let fixtures = fixtures();
    let text = fixtures
        .iter()
        .find(|it| it.name.starts_with("overrun-text"));
    let fixture = text.expect("a core of an overrun with text");
    let (open, redacted) = (page(fixture, &[]), page(fixture, &["--redact"]));
    assert!(open.contains("<mark>") && open.contains("dt>command</dt>"));
    for gone in ["<mark>", "dt>command</dt>", "/usr/lib", "/tmp/"] {
        assert!(!redacted.contains(gone), "{gone}");
    }
    let bytes = page(fixture, &["--include-bytes", "16"]);
    assert!(bytes.contains("from its start") && !open.contains("from its start"));
}
