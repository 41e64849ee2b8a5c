//! What the viewer knows and where a person is in it. Pure: what happens makes a new state and questions to ask; nothing here
//! draws, waits or reads a core.

mod cursor;
mod input;
mod keys;
mod mouse;

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{self, Layout};
use super::panes::{self, Act, Content, Node, Row, UsageKind};
use super::work::{Direction, FrameContents, FrameId, Job, Told};
use crate::report::schema::{InspectedAddress, Report, Severity, Thread, Tree};

pub use cursor::Cursor;
pub use input::{Input, Key, Prompt, PromptKind};

/// Addresses and steps of trees that are kept; beyond that the lowest go.
const MAX_KEPT: usize = 1 << 10;
/// Places that can be gone back to.
const MAX_HISTORY: usize = 1 << 10;
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

    /// An answer came.
    pub fn told(&mut self, told: Told) -> Vec<Ask> {
        match told {
            Told::Opened(report) => {
                if !self.is_checked {
                    self.opened(report);
                }
            }
            Told::Checked(report) => self.checked_now(report),
            Told::Frame(job, contents) => self.framed(job, contents),
            Told::Address(at, found) => {
                bound(&mut self.addresses, at);
                self.addresses.insert(at, Slot::Here(found));
            }
            Told::Step(at, direction, tree) => {
                bound(&mut self.trees, (at, direction));
                self.trees.insert((at, direction), Slot::Here(*tree));
            }
            Told::Leaks(report) => self.leaks = Slot::Here(report),
            Told::Usage(report) => self.usage = Slot::Here(report),
            Told::GivenUp(job) => self.unanswered(job, None),
            Told::Failed(job, message) => {
                self.unanswered(job, Some(&message));
                if job.view().is_none() {
                    self.message = Some(message);
                }
            }
            Told::Closed(message) => self.quits = Some(Some(message)),
        }
        self.wanted()
    }

    fn opened(&mut self, report: Box<Report>) {
        if self.report.is_none() {
            self.thread = report.crash_info.crashing_thread.unwrap_or(0);
            self.choose_thread(&report, self.thread);
        }
        self.report = Some(report);
    }

    fn checked_now(&mut self, report: Box<Report>) {
        let is_critical = report
            .findings
            .first()
            .is_some_and(|found| found.severity == Severity::Critical);
        self.opened(report);
        self.is_checked = true;
        // Who has gone somewhere already stays there.
        if is_critical && self.back.is_empty() && self.place.view == View::Crash {
            self.place.view = View::Finding;
            self.place.cursor = Cursor::default();
        }
    }

    fn framed(&mut self, job: Job, contents: FrameContents) {
        let is_worse = matches!(job, Job::Frame(_))
            && self
                .frame
                .as_ref()
                .is_some_and(|known| known.id == contents.id && known.is_explained);
        if contents.id == self.frame_id() && !is_worse {
            self.frame = Some(contents);
        }
    }

    /// Notes that there is no answer: because of `why`, which another try would not change, or because nobody wanted it.
    fn unanswered(&mut self, job: Job, why: Option<&str>) {
        match job {
            Job::Frame(_) | Job::Meanings(_) => {}
            Job::Address(at) => {
                self.addresses.insert(at, Slot::without(why));
            }
            Job::Step(at, direction) => {
                self.trees.insert((at, direction), Slot::without(why));
            }
            Job::Leaks => self.leaks = Slot::without(why),
            Job::Usage => self.usage = Slot::without(why),
        }
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

    /// Moves a pane's cursor, and what depends on it.
    fn move_cursor(&mut self, pane: Pane, go: impl FnOnce(&mut Cursor, usize, usize)) {
        let content = self.content(pane);
        let height = self.room(pane, Some(&content)).1;
        let mut cursor = self.cursor(pane, &content);
        go(&mut cursor, content.rows.len(), height);
        *self.cursor_mut(pane) = cursor;
        if let Some(row) = content.rows.get(cursor.row) {
            self.choose(&row.act.clone());
        }
    }

    /// What a row stands for is chosen as soon as the cursor is on it.
    fn choose(&mut self, act: &Act) {
        match act {
            Act::Thread(index) if *index != self.thread => {
                self.thread = *index;
                if let Some(report) = self.report.take() {
                    self.choose_thread(&report, *index);
                    self.report = Some(report);
                }
            }
            Act::Frame(index) => {
                if *index != self.frame_index {
                    self.cursors.remove(&Pane::Frame);
                }
                self.frame_index = *index;
            }
            Act::Finding(index) => {
                if self.place.view == View::Finding && self.place.finding != *index {
                    self.place.cursor = Cursor::default();
                }
                self.place.finding = *index;
            }
            _ => {}
        }
    }

    /// The frame at fault of the thread that crashed, the innermost of any other.
    fn choose_thread(&mut self, report: &Report, thread: usize) {
        let crash = &report.crash_info;
        let at_fault = crash
            .crashing_frame
            .filter(|_| crash.crashing_thread == Some(thread));
        self.frame_index = at_fault.unwrap_or(0);
        self.cursors.remove(&Pane::Frame);
        self.cursors.remove(&Pane::Frames);
        if self.frame_index > 0 {
            // Its row is known when the pane is drawn: frames have rows of their own for what was inlined into them.
            let rows = report.threads.get(thread).map_or(0, |thread| {
                let frames = thread.frames.iter().take(self.frame_index);
                frames.map(|frame| frame.inlines.len() + 1).sum()
            });
            self.cursor_mut(Pane::Frames).row = rows;
        }
    }

    /// Shows something else in the middle; what was there can be come back to.
    fn go(&mut self, place: Place) {
        let is_same = (place.view, place.address, place.finding)
            == (self.place.view, self.place.address, self.place.finding);
        if !is_same {
            self.back.push(self.place);
            if self.back.len() > MAX_HISTORY {
                self.back.remove(0);
            }
            self.forward.clear();
            self.place = place;
        }
        self.focus = Pane::Main;
    }

    fn go_to(&mut self, address: u64) {
        self.go(Place {
            view: View::Address,
            address: Some(address),
            cursor: Cursor::default(),
            ..self.place
        });
    }

    fn go_view(&mut self, view: View) {
        if view == View::Holders
            && let Some(at) = self.place.address
        {
            for direction in [Direction::Up, Direction::Down] {
                let path = vec![at];
                self.open.insert(Node { direction, path });
            }
        }
        self.go(Place {
            view,
            cursor: Cursor::default(),
            ..self.place
        });
    }

    fn go_back(&mut self) {
        match self.back.pop() {
            Some(place) => {
                self.forward.push(self.place);
                self.place = place;
            }
            None => self.message = Some("nothing to go back to".into()),
        }
    }

    fn go_forward(&mut self) {
        match self.forward.pop() {
            Some(place) => {
                self.back.push(self.place);
                self.place = place;
            }
            None => self.message = Some("nothing to go forward to".into()),
        }
    }

    /// The questions that what is shown now needs, and those that it does not need any more.
    fn wanted(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        if let Some(message) = self.quits.take() {
            asks.push(Ask::Quit(message));
            return asks;
        }
        let before = self.shown;
        let is_left = (before.view, before.address) != (self.place.view, self.place.address);
        if is_left && self.is_asked(before) {
            asks.push(Ask::Leave(before.view));
        }
        self.shown = self.place;
        let frame = self.frame_id();
        let is_there = self.chosen_thread().is_some_and(|it| !it.frames.is_empty());
        if is_there && self.asked_frame != Some(frame) {
            self.asked_frame = Some(frame);
            asks.extend([Ask::Do(Job::Frame(frame)), Ask::Do(Job::Meanings(frame))]);
        }
        match (self.place.view, self.place.address) {
            (View::Address, Some(at)) => {
                let slot = self.addresses.entry(at).or_default();
                asks.extend(slot.ask(Job::Address(at)));
            }
            (View::Holders, _) => {
                for (at, direction) in panes::steps_wanted(self) {
                    let slot = self.trees.entry((at, direction)).or_default();
                    asks.extend(slot.ask(Job::Step(at, direction)));
                }
            }
            (View::Leaks, _) => asks.extend(self.leaks.ask(Job::Leaks)),
            (View::Usage, _) => asks.extend(self.usage.ask(Job::Usage)),
            _ => {}
        }
        asks
    }

    /// Whether a place waits for an answer.
    fn is_asked(&self, place: Place) -> bool {
        match (place.view, place.address) {
            (View::Address, Some(at)) => matches!(self.addresses.get(&at), Some(Slot::Asked)),
            (View::Holders, _) => self.trees.values().any(|slot| matches!(slot, Slot::Asked)),
            (View::Leaks, _) => matches!(self.leaks, Slot::Asked),
            (View::Usage, _) => matches!(self.usage, Slot::Asked),
            _ => false,
        }
    }

    /// The row that the cursor of a pane is on.
    fn row(&self, pane: Pane) -> Option<Row> {
        let content = self.content(pane);
        let cursor = self.cursor(pane, &content);
        content.rows.get(cursor.row).cloned()
    }
}

impl<T> Slot<T> {
    fn without(why: Option<&str>) -> Self {
        why.map_or(Slot::Empty, |why| Slot::Failed(why.to_owned()))
    }

    /// The question, if nobody has asked yet.
    fn ask(&mut self, job: Job) -> Option<Ask> {
        matches!(self, Slot::Empty).then(|| {
            *self = Slot::Asked;
            Ask::Do(job)
        })
    }
}

/// Makes room for one more.
fn bound<K: Ord + Copy, T>(kept: &mut BTreeMap<K, Slot<T>>, new: K) {
    if kept.len() >= MAX_KEPT && !kept.contains_key(&new) {
        kept.retain(|_, slot| matches!(slot, Slot::Asked));
    }
}
