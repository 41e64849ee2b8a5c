//! Moving about: cursors, what they choose, and places that can be come back to.

use super::{Act, Cursor, Direction, Model, Node, Pane, Place, View};
use crate::report::schema::Report;

/// Places that can be gone back to.
const MAX_HISTORY: usize = 1 << 10;

impl Model {
    /// Moves a pane's cursor, and what depends on it.
    pub(super) fn move_cursor(&mut self, pane: Pane, go: impl FnOnce(&mut Cursor, usize, usize)) {
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
    pub(super) fn choose(&mut self, act: &Act) {
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
    pub(super) fn choose_thread(&mut self, report: &Report, thread: usize) {
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
    pub(super) fn go(&mut self, place: Place) {
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

    pub(super) fn go_to(&mut self, address: u64) {
        self.go(Place {
            view: View::Address,
            address: Some(address),
            cursor: Cursor::default(),
            ..self.place
        });
    }

    pub(super) fn go_view(&mut self, view: View) {
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

    pub(super) fn go_back(&mut self) {
        match self.back.pop() {
            Some(place) => {
                self.forward.push(self.place);
                self.place = place;
            }
            None => self.message = Some("nothing to go back to".into()),
        }
    }

    pub(super) fn go_forward(&mut self) {
        match self.forward.pop() {
            Some(place) => {
                self.back.push(self.place);
                self.place = place;
            }
            None => self.message = Some("nothing to go forward to".into()),
        }
    }
}
