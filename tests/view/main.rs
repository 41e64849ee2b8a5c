//! The viewer without a terminal: keys in, screens out. Tests wait for answers, not for seconds.

#[path = "../common/mod.rs"]
mod common;
mod keys;
mod screens;

use std::path::PathBuf;
use std::time::Duration;

use common::small;
use heapcheck::view::draw::Look;
use heapcheck::view::jobs::Opening;
use heapcheck::view::model::{Input, Key, Model, Pane, View};
use heapcheck::view::{End, Message, Viewer};
use postmortem::modules::SearchPaths;
use postmortem::session::SessionOptions;
use ratatui_core::backend::TestBackend;
use ratatui_core::buffer::Buffer;
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
        let files = [&found.core, &found.binary]
            .into_iter()
            .filter(|file| file.exists());
        let files = files.cloned().collect();
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
