//! The viewer without a terminal: keys in, screens out. Tests wait for answers, not for seconds.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::small;
use heapcheck::report::schema::Report;
use heapcheck::view::draw::Look;
use heapcheck::view::model::{Ask, Input, Key, Model, Pane, View};
use heapcheck::view::work::{Job, Opening, Told};
use heapcheck::view::{End, Message, Viewer};
use postmortem::modules::SearchPaths;
use postmortem::session::SessionOptions;
use ratatui_core::backend::TestBackend;
use ratatui_core::buffer::Buffer;
use ratatui_core::style::Color;
use ratatui_core::terminal::Terminal;

/// Longer than any answer takes on any machine.
const PATIENCE: Duration = Duration::from_secs(300);

const PLAIN: Look = Look {
    color: false,
    unicode: true,
};

fn opening(files: Vec<PathBuf>, sysroot: Option<PathBuf>) -> Opening {
    let search = SearchPaths {
        sysroots: sysroot.into_iter().collect(),
        defaults: false,
        ..SearchPaths::default()
    };
    Opening {
        session: SessionOptions {
            search,
            jobs: Some(2),
            ..SessionOptions::of(files)
        },
        allocator: None,
    }
}

/// A viewer, and the screen that it is on.
struct Seen {
    viewer: Viewer,
    size: (u16, u16),
    end: Option<End>,
}

impl Seen {
    fn open(opening: Opening, size: (u16, u16)) -> Self {
        let viewer = Viewer::start(opening, size).unwrap();
        let mut seen = Self {
            viewer,
            size,
            end: None,
        };
        seen.settle();
        seen
    }

    /// The demo's core as a machine shows it that has none of its libraries.
    fn demo(size: (u16, u16)) -> Self {
        let files = ["double-free.core.zst", "double-free"];
        let files = files.map(|name| PathBuf::from("testdata/demo").join(name));
        Self::open(opening(files.into(), None), size)
    }

    fn small(release: &str, name: &str, size: (u16, u16)) -> Self {
        let fixtures = small::fixtures();
        let mut found = fixtures.iter();
        let found = found.find(|it| it.release == release && it.name == name);
        let found = found.expect("the core is in tests/cores");
        let files = vec![found.core.clone(), found.binary.clone()];
        let root = small::directory().join("root");
        Self::open(opening(files, Some(root)), size)
    }

    fn settle(&mut self) {
        let end = self.viewer.settle(PATIENCE).expect("an answer comes");
        self.end = self.end.take().or(end);
    }

    fn input(&mut self, input: Input) -> &mut Self {
        if let Input::Resize(width, height) = input {
            self.size = (width, height);
        }
        self.end = self.viewer.take(Message::Input(input));
        if self.end.is_none() {
            self.settle();
        }
        self
    }

    fn key(&mut self, key: Key) -> &mut Self {
        self.input(Input::Key(key))
    }

    /// Letters as they are; what stands in `<>` by its name.
    fn keys(&mut self, keys: &str) -> &mut Self {
        let mut rest = keys;
        while let Some(letter) = rest.chars().next() {
            let named = rest.strip_prefix('<').and_then(|it| it.split_once('>'));
            let named = named.filter(|(name, _)| name.len() > 1);
            let (key, after) = match named {
                Some((name, after)) => (of_name(name), after),
                None => (Key::Char(letter), &rest[letter.len_utf8()..]),
            };
            self.key(key);
            rest = after;
        }
        self
    }

    fn buffer(&self, look: Look) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(self.size.0, self.size.1)).unwrap();
        terminal
            .draw(|frame| self.viewer.draw(look, frame.buffer_mut()))
            .unwrap();
        terminal.backend().buffer().clone()
    }

    fn screen(&self) -> String {
        let buffer = self.buffer(PLAIN);
        let rows = buffer.content.chunks(usize::from(self.size.0.max(1)));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        rows.map(|row| row.trim_end().to_owned() + "\n").collect()
    }

    /// The rows of a pane.
    fn rows(&self, pane: Pane) -> Vec<String> {
        let content = self.viewer.model.content(pane);
        content.rows.iter().map(|row| row.text()).collect()
    }

    fn model(&self) -> &Model {
        &self.viewer.model
    }

    fn view(&self) -> (View, Option<u64>) {
        (self.model().place.view, self.model().place.address)
    }
}

fn of_name(name: &str) -> Key {
    match name {
        "Enter" => Key::Enter,
        "Tab" => Key::Tab,
        "BackTab" => Key::BackTab,
        "Esc" => Key::Escape,
        "Down" => Key::Down,
        "Up" => Key::Up,
        "Left" => Key::Left,
        "Right" => Key::Right,
        "PgDn" => Key::PageDown,
        "PgUp" => Key::PageUp,
        "Home" => Key::Home,
        "End" => Key::End,
        "BS" => Key::Backspace,
        "Back" => Key::Back,
        "Forward" => Key::Forward,
        "C-c" => Key::Ctrl('c'),
        "C-u" => Key::Ctrl('u'),
        _ => panic!("{name}"),
    }
}

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
    insta::assert_snapshot!("small_usage", small.keys("6t").screen());
    let mut large = Seen::demo((120, 40));
    insta::assert_snapshot!("large_first", large.screen());
    insta::assert_snapshot!("large_crash", large.keys("1").screen());
    insta::assert_snapshot!(
        "large_address",
        large.keys("g0x55d2374ca000<Enter><End>").screen()
    );
}

#[test]
fn the_finding_leads_to_its_block_and_back() {
    let mut seen = Seen::demo((100, 30));
    assert_eq!(seen.view(), (View::Finding, None));
    let said = seen.rows(Pane::Main).join(" ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("freed more than once") && said.contains("next steps"),
        "{said}"
    );
    // From the finding by its first address, by one in its words, and by the keyboard.
    let block = 0x55d2_374c_a000;
    seen.keys("<Enter>");
    assert_eq!(
        (seen.view(), seen.model().focus),
        ((View::Finding, None), Pane::Main)
    );
    seen.keys("j<Enter>");
    assert_eq!(seen.view(), (View::Address, Some(block)));
    assert!(seen.rows(Pane::Main)[0].contains("heap-block"));
    seen.keys("g 7ffe5c8f7c18 <Enter>");
    assert_eq!(seen.view(), (View::Address, Some(0x7ffe_5c8f_7c18)));
    assert!(seen.rows(Pane::Main).concat().contains("connections+0x18"));
    seen.keys("[");
    assert_eq!(seen.view(), (View::Address, Some(block)));
    seen.keys("<BS>");
    assert_eq!(seen.view(), (View::Finding, None));
    assert_eq!(seen.model().place.cursor.row, 1, "where it was");
    seen.keys("<Forward>]");
    assert_eq!(seen.view(), (View::Address, Some(0x7ffe_5c8f_7c18)));
    seen.keys("<Back>]]");
    assert_eq!(
        seen.model().message.as_deref(),
        Some("nothing to go forward to")
    );
    seen.keys(":main<Enter>");
    assert!(
        seen.model()
            .message
            .as_deref()
            .unwrap()
            .starts_with("not an address")
    );
    assert_eq!(
        seen.keys(":12<Esc>").view(),
        (View::Address, Some(0x7ffe_5c8f_7c18))
    );
}

#[test]
fn panes_turn_and_the_cursor_moves_in_each() {
    let mut seen = Seen::demo((80, 24));
    let start = seen.model().focus;
    for pane in Pane::ALL.iter().cycle().skip(4).take(6) {
        seen.keys("<Tab>");
        assert_eq!(seen.model().focus, *pane);
    }
    assert_eq!(seen.model().focus, start);
    seen.keys("<BackTab>");
    for (keys, expected) in [
        ("<Home>", 0),
        ("j", 1),
        ("<Down>", 2),
        ("k<Up>", 0),
        ("<End>", seen.rows(Pane::Frame).len() - 1),
        ("j", seen.rows(Pane::Frame).len() - 1),
        ("<PgUp><Home>", 0),
        ("<PgDn>", 4),
        (
            "/rsp<Enter>",
            seen.rows(Pane::Frame)
                .iter()
                .position(|it| it.contains("rsp"))
                .unwrap(),
        ),
        ("<Home>G", seen.rows(Pane::Frame).len() - 1),
    ] {
        seen.keys(keys);
        let content = seen.model().content(Pane::Frame);
        assert_eq!(
            seen.model().cursor(Pane::Frame, &content).row,
            expected,
            "{keys}"
        );
    }
    seen.keys("/no such text<Enter>");
    assert_eq!(
        seen.model().message.as_deref(),
        Some("not in this pane: no such text")
    );
    // A frame further out has variables of its own.
    let inner = seen.rows(Pane::Frame);
    seen.keys("<BackTab>j");
    assert_eq!(seen.model().frame_index, 1);
    let outer = seen.rows(Pane::Frame);
    assert_ne!(inner, outer);
    assert!(
        outer.iter().any(|row| row.contains("0x7ffe5c8f7c")),
        "{outer:?}"
    );
    // What a register holds can be gone to.
    seen.keys("<Enter>/rsp<Enter><Enter>");
    assert_eq!(seen.view().0, View::Address);
    assert!(
        seen.rows(Pane::Main)[0].ends_with(": stack"),
        "{:?}",
        seen.rows(Pane::Main)
    );
    for quits in ["q", "<C-c>"] {
        let mut seen = Seen::demo((80, 24));
        assert_eq!(seen.keys(quits).end, Some(End::Quit));
    }
}

#[test]
fn the_tree_opens_step_by_step_and_goes_both_ways() {
    let mut seen = Seen::small("glibc-2.36", "dangling-member-O2", (100, 40));
    let in_use = block_in_use(&mut seen);
    seen.keys(&format!("g{in_use:x}<Enter>4"));
    let rows = seen.rows(Pane::Main);
    assert!(rows[0].starts_with("- held by"), "{rows:?}");
    let down = rows.iter().position(|row| row.starts_with("- points to"));
    let down = down.unwrap_or_else(|| panic!("{rows:?}"));
    seen.keys(" ");
    assert!(seen.rows(Pane::Main)[0].starts_with("+ "));
    assert_eq!(seen.rows(Pane::Main).len(), rows.len() + 1 - down);
    seen.keys("l");
    assert_eq!(seen.rows(Pane::Main), rows);
    // Whoever points at a block is pointed from there.
    let holder = rows.iter().position(|row| row.contains("in block 0x"));
    if let Some(holder) = holder {
        seen.keys(&"j".repeat(holder));
        seen.keys("l");
        assert!(seen.rows(Pane::Main).len() > rows.len());
        seen.keys("hh");
        let content = seen.model().content(Pane::Main);
        assert_eq!(seen.model().cursor(Pane::Main, &content).row, 0);
        seen.keys(&"j".repeat(holder));
        seen.keys("<Enter>4");
        let down = seen.rows(Pane::Main);
        let below = down
            .iter()
            .skip_while(|row| !row.starts_with("- points to"));
        assert!(
            below
                .clone()
                .any(|row| row.contains(&format!("{in_use:#x}"))),
            "{down:?}"
        );
    }
}

/// A block that another one holds, or else any that is in use.
fn block_in_use(seen: &mut Seen) -> u64 {
    seen.keys("6tt");
    let rows = seen.rows(Pane::Main);
    let largest = rows.iter().filter_map(|row| {
        let digits = row.trim_start().strip_prefix("0x")?;
        u64::from_str_radix(digits.split(' ').next()?, 16).ok()
    });
    let blocks: Vec<u64> = largest.collect();
    let held = blocks.iter().find(|at| {
        seen.keys(&format!("g{at:x}<Enter>4"));
        seen.rows(Pane::Main)
            .iter()
            .any(|row| row.contains("in block 0x"))
    });
    *held.or(blocks.first()).expect("something is in use")
}

#[test]
fn tables_are_sorted_and_filtered() {
    let mut seen = Seen::small("glibc-2.36", "types-stripped", (120, 40));
    seen.keys("5");
    let column = |rows: &[String], column: usize| -> Vec<u64> {
        let cell = |row: &String| row.split_whitespace().nth(column).unwrap().replace(',', "");
        rows.iter().map(|row| cell(row).parse().unwrap()).collect()
    };
    let all = seen.rows(Pane::Main);
    assert!(all.len() > 2, "{all:?}");
    seen.keys("ss");
    let blocks = column(&seen.rows(Pane::Main), 1);
    assert!(blocks.is_sorted_by(|one, other| one >= other), "{blocks:?}");
    seen.keys("r");
    let blocks = column(&seen.rows(Pane::Main), 1);
    assert!(blocks.is_sorted(), "{blocks:?}");
    seen.keys("ssssss");
    assert_eq!(seen.rows(Pane::Main), all, "by no column again");
    let word = all[0].split_whitespace().nth(4).unwrap().to_owned();
    seen.keys(&format!("f{word}<Enter>"));
    assert_eq!(seen.rows(Pane::Main), [all[0].clone()]);
    seen.keys("<Enter>");
    assert_eq!(format!("{:#x}", seen.view().1.unwrap()), word);
    seen.keys("[f<C-u><Enter>");
    assert_eq!(seen.rows(Pane::Main).len(), all.len());
    seen.keys("1s");
    assert!(
        seen.model()
            .message
            .as_deref()
            .unwrap()
            .contains("only the tables")
    );
    let mut tables = vec![seen.keys("6").rows(Pane::Main)];
    for _ in 0..3 {
        tables.push(seen.keys("t").rows(Pane::Main));
    }
    assert!(tables.iter().all(|rows| !rows.is_empty()), "{tables:?}");
    assert_eq!(seen.keys("t").rows(Pane::Main), tables[0]);
}

#[test]
fn another_thread_has_other_frames() {
    let mut seen = Seen::small("2.10", "cross-thread-O2", (100, 30));
    let threads = seen.rows(Pane::Threads);
    assert!(
        threads.len() > 1 && threads[0].ends_with(" crashed"),
        "{threads:?}"
    );
    let frames = seen.rows(Pane::Frames);
    seen.keys("<Tab><Tab><Tab>j");
    assert_eq!(
        (seen.model().focus, seen.model().thread),
        (Pane::Threads, 1)
    );
    assert_ne!(seen.rows(Pane::Frames), frames);
    let frame = seen.model().frame.as_ref().unwrap();
    assert_eq!(
        (frame.id.thread, frame.id.frame, frame.is_explained),
        (1, 0, true)
    );
}

#[test]
fn the_mouse_chooses_follows_and_scrolls() {
    let mut seen = Seen::demo((80, 24));
    let place = |seen: &Seen, text: &str| -> (u16, u16) {
        let screen = seen.screen();
        let mut rows = (0..).zip(screen.lines());
        let found = rows.find_map(|(y, row)| {
            let x = row.find(text)?;
            Some((row[..x].chars().count() as u16, y))
        });
        found.unwrap_or_else(|| panic!("{text} is not on\n{screen}"))
    };
    let (x, y) = place(&seen, "main (");
    seen.input(Input::Click(x, y));
    assert_eq!(
        (seen.model().focus, seen.model().frame_index),
        (Pane::Frames, 1)
    );
    let (x, y) = place(&seen, "5Leaks");
    seen.input(Input::Click(x, y));
    assert_eq!(seen.view().0, View::Leaks);
    let (x, y) = place(&seen, "CRITICAL double-free");
    seen.input(Input::Click(x, y)).input(Input::Click(x, y));
    assert_eq!(seen.view().0, View::Finding);
    let before = seen.rows(Pane::Main);
    let (x, y) = place(&seen, "address      0x55d2374ca000");
    seen.input(Input::Wheel(x, y, 1));
    assert!(!seen.screen().contains(&before[0][..20]), "it moved");
    let (x, y) = place(&seen, "address      0x55d2374ca000");
    seen.input(Input::Click(x + 14, y));
    assert_eq!(seen.view(), (View::Address, Some(0x55d2_374c_a000)));
    // Outside of everything nothing happens.
    seen.input(Input::Click(5000, 5000))
        .input(Input::Wheel(5000, 5000, -1));
    seen.input(Input::Click(0, 0)).input(Input::Click(79, 23));
    assert_eq!(seen.view(), (View::Address, Some(0x55d2_374c_a000)));
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
fn what_is_left_is_given_up_and_asked_for_again() {
    let mut model = Model::new(80, 24);
    model.told(Told::Checked(Box::new(Report::default())));
    let key = |model: &mut Model, key| model.handle(Input::Key(key));
    assert_eq!(key(&mut model, Key::Char('5')), [Ask::Do(Job::Leaks)]);
    assert_eq!(key(&mut model, Key::Down), [], "it was asked for");
    assert_eq!(
        key(&mut model, Key::Char('6')),
        [Ask::Leave(View::Leaks), Ask::Do(Job::Usage)]
    );
    assert_eq!(model.told(Told::GivenUp(Job::Leaks)), []);
    assert_eq!(
        key(&mut model, Key::Char('5')),
        [Ask::Leave(View::Usage), Ask::Do(Job::Leaks)]
    );
    // The word that it was given up comes late: it is wanted again.
    key(&mut model, Key::Char('1'));
    key(&mut model, Key::Char('5'));
    assert_eq!(model.told(Told::GivenUp(Job::Leaks)), [Ask::Do(Job::Leaks)]);
    assert_eq!(model.told(Told::Failed(Job::Leaks, "a reason".into())), []);
    let said = model.content(Pane::Main);
    assert_eq!(said.rows[0].text(), "a reason");
    assert_eq!(
        model.told(Told::Closed("no core".into())),
        [Ask::Quit(Some("no core".into()))]
    );
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
    heapcheck::view::draw::draw(&model, PLAIN, &mut buffer);
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
        seen.keys("<Tab>j<Tab>j<Tab>j123456t<Tab>j<Enter>");
        let screen = seen.screen();
        assert!(!screen.contains("panicked"), "{screen}");
    }
    assert!(opened > 3, "{opened}");
}
