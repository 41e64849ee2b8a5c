//! What the viewer knows and where a person is in it. Pure: what happens makes a new state and questions to ask; nothing here
//! draws, waits or reads a core.

mod answers;
mod cursor;
mod input;
mod keys;
mod mouse;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use super::jobs::{Direction, FrameContents, FrameId, Job};
use super::layout::{self, Layout};
use super::panes::{self, Act, Content, Node, Row, UsageKind};
use crate::report::schema::{InspectedAddress, Report, Thread, Tree};

pub use cursor::Cursor;
pub use input::{Input, Key, Prompt, PromptKind};

/// Columns in front of a row that say where the cursor is.
pub const GUTTER: u16 = 2;

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Pane {
    Threads,
    Frames,
    Frame,
    Findings,
    Main,
    Heap,
}

impl Pane {
    /// All, in the order of Tab.
    pub const ALL: [Pane; 6] = [
        Pane::Threads,
        Pane::Frames,
        Pane::Frame,
        Pane::Findings,
        Pane::Main,
        Pane::Heap,
    ];
}

/// What the pane in the middle shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum View {
    Crash,
    Finding,
    Address,
    Holders,
    Leaks,
    Usage,
}

impl View {
    /// All, in the order of their digits.
    pub const ALL: [View; 6] = [
        View::Crash,
        View::Finding,
        View::Address,
        View::Holders,
        View::Leaks,
        View::Usage,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            View::Crash => "Crash",
            View::Finding => "Finding",
            View::Address => "Address",
            View::Holders => "Holders",
            View::Leaks => "Leaks",
            View::Usage => "Usage",
        }
    }
}

/// What is shown in the middle: a place that can be come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What.
    pub view: View,
    /// Of which address.
    pub address: Option<u64>,
    /// Of which finding.
    pub finding: usize,
    /// Where in it.
    pub cursor: Cursor,
}

/// Something that is looked for when it is first shown.
#[derive(Clone, Debug, Default)]
pub enum Slot<T> {
    /// Nobody has asked.
    #[default]
    Empty,
    /// It was asked for.
    Asked,
    /// It is here.
    Here(T),
    /// It cannot be had: why.
    Failed(String),
}

/// How a table is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// The column that it is sorted by; `None`: as it came.
    pub column: Option<usize>,
    /// The other way around.
    pub is_reversed: bool,
    /// What rows must have.
    pub filter: String,
}

/// What has to be done for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Answer this.
    Do(Job),
    /// Nobody looks at this any more.
    Leave(View),
    /// The viewer is left; with a message, because nothing can be viewed.
    Quit(Option<String>),
}

/// Everything.
#[derive(Debug)]
pub struct Model {
    /// The report, first without heaps.
    pub report: Option<Box<Report>>,
    /// The heaps were checked.
    is_checked: bool,
    /// Index of the chosen thread.
    pub thread: usize,
    /// Index of the chosen frame.
    pub frame_index: usize,
    /// What is in it.
    pub frame: Option<FrameContents>,
    asked_frame: Option<FrameId>,
    /// Addresses that were looked at.
    pub addresses: BTreeMap<u64, Slot<Box<InspectedAddress>>>,
    /// Steps of trees.
    pub trees: BTreeMap<(u64, Direction), Slot<Tree>>,
    /// Branches that are open.
    pub open: BTreeSet<Node>,
    /// What is lost.
    pub leaks: Slot<Box<Report>>,
    /// Where the memory is.
    pub usage: Slot<Box<Report>>,
    /// What the blocks hold.
    pub types: Slot<Box<Report>>,
    /// The table of `usage` that is shown.
    pub usage_kind: UsageKind,
    tables: BTreeMap<(View, UsageKind), TableState>,
    /// What is shown in the middle.
    pub place: Place,
    back: Vec<Place>,
    forward: Vec<Place>,
    shown: Place,
    cursors: BTreeMap<Pane, Cursor>,
    /// The pane that keys go to.
    pub focus: Pane,
    /// It has the whole screen.
    pub is_zoomed: bool,
    /// The keys are shown.
    pub is_help: bool,
    /// What is being typed.
    pub prompt: Option<Prompt>,
    sought: String,
    /// Said in the last line until the next key.
    pub message: Option<String>,
    /// What is being done, in words.
    pub busy: Option<String>,
    /// Turns while something is being done.
    pub turn: usize,
    size: (u16, u16),
    quits: Option<Option<String>>,
}

impl Model {
    /// The state at the start, on a screen of so many columns and rows.
    pub fn new(width: u16, height: u16) -> Self {
        let place = Place {
            view: View::Crash,
            address: None,
            finding: 0,
            cursor: Cursor::default(),
        };
        Self {
            report: None,
            is_checked: false,
            thread: 0,
            frame_index: 0,
            frame: None,
            asked_frame: None,
            addresses: BTreeMap::new(),
            trees: BTreeMap::new(),
            open: BTreeSet::new(),
            leaks: Slot::Empty,
            usage: Slot::Empty,
            types: Slot::Empty,
            usage_kind: UsageKind::default(),
            tables: BTreeMap::new(),
            place,
            back: Vec::new(),
            forward: Vec::new(),
            shown: place,
            cursors: BTreeMap::new(),
            focus: Pane::Findings,
            is_zoomed: false,
            is_help: false,
            prompt: None,
            sought: String::new(),
            message: None,
            busy: None,
            turn: 0,
            size: (width, height),
            quits: None,
        }
    }

    /// Something happened outside.
    pub fn handle(&mut self, input: Input) -> Vec<Ask> {
        match input {
            Input::Key(key) => self.key(key),
            Input::Click(x, y) => self.click(x, y),
            Input::Wheel(x, y, by) => self.wheel(x, y, by),
            Input::Resize(width, height) => self.size = (width, height),
        }
        self.wanted()
    }

    /// The report, if the heaps were checked.
    pub fn checked(&self) -> Option<&Report> {
        self.report.as_deref().filter(|_| self.is_checked)
    }

    /// The chosen thread.
    pub fn chosen_thread(&self) -> Option<&Thread> {
        self.report.as_ref()?.threads.get(self.thread)
    }

    /// Its id in words; nothing where there is none.
    pub fn chosen_thread_id(&self) -> String {
        let thread = self.chosen_thread();
        thread.map_or(String::new(), |thread| thread.thread_id.to_string())
    }

    fn frame_id(&self) -> FrameId {
        FrameId {
            thread: self.thread,
            frame: self.frame_index,
        }
    }

    /// What is said where something is not there yet.
    pub fn waiting(&self) -> String {
        match &self.busy {
            Some(busy) => format!("{busy} ..."),
            None => "waiting ...".into(),
        }
    }

    /// How the table in the middle is shown.
    pub fn table(&self) -> &TableState {
        static PLAIN: TableState = TableState {
            column: None,
            is_reversed: false,
            filter: String::new(),
        };
        self.tables.get(&self.table_key()).unwrap_or(&PLAIN)
    }

    fn table_key(&self) -> (View, UsageKind) {
        let kind = match self.place.view {
            View::Usage => self.usage_kind,
            _ => UsageKind::default(),
        };
        (self.place.view, kind)
    }

    /// Where everything is on the screen.
    pub fn layout(&self) -> Layout {
        layout::cut(self.size.0, self.size.1, self.focus, self.is_zoomed)
    }

    /// Rows and columns that a pane has for its rows, without the gutter.
    fn room(&self, pane: Pane, content: Option<&Content>) -> (usize, usize) {
        let area = self.layout().inside(pane);
        let head = content.is_some_and(|content| content.head.is_some());
        let height = area.height.saturating_sub(u16::from(head));
        (
            usize::from(area.width.saturating_sub(GUTTER)),
            usize::from(height),
        )
    }

    /// What a pane shows.
    pub fn content(&self, pane: Pane) -> Content {
        panes::content(self, pane, self.room(pane, None).0)
    }

    /// Where a pane's cursor is, on the screen as it is now.
    pub fn cursor(&self, pane: Pane, content: &Content) -> Cursor {
        let height = self.room(pane, Some(content)).1;
        self.place_in(pane).shown(content.rows.len(), height)
    }

    fn place_in(&self, pane: Pane) -> Cursor {
        match pane {
            Pane::Main => self.place.cursor,
            pane => self.cursors.get(&pane).copied().unwrap_or_default(),
        }
    }

    fn cursor_mut(&mut self, pane: Pane) -> &mut Cursor {
        match pane {
            Pane::Main => &mut self.place.cursor,
            pane => self.cursors.entry(pane).or_default(),
        }
    }

    /// The row that the cursor of a pane is on.
    fn row(&self, pane: Pane) -> Option<Row> {
        let content = self.content(pane);
        let cursor = self.cursor(pane, &content);
        content.rows.get(cursor.row).cloned()
    }
}
