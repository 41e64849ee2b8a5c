//! What keys do.

use super::input::{self, Key, Prompt, PromptKind};
use super::{Act, Model, Node, Pane, View};

/// Columns that long lines are moved by.
const SIDE: usize = 8;

impl Model {
    pub(super) fn key(&mut self, key: Key) {
        self.message = None;
        if key == Key::Ctrl('c') {
            self.quits = Some(None);
        } else if self.prompt.is_some() {
            self.type_key(key);
        } else if std::mem::take(&mut self.is_help) {
            // Any key takes the keys away.
        } else {
            self.command(key);
        }
    }

    fn command(&mut self, key: Key) {
        let focus = self.focus;
        let height = isize::try_from(self.room(focus, None).1).unwrap_or(1);
        let page = (height - 1).max(1);
        let step = |model: &mut Self, by: isize| {
            model.move_cursor(focus, |cursor, rows, height| cursor.step(by, rows, height));
        };
        match key {
            Key::Char('q') => self.quits = Some(None),
            Key::Char('?') => self.is_help = true,
            Key::Tab => self.turn(1),
            Key::BackTab => self.turn(Pane::ALL.len() - 1),
            Key::Char('j') | Key::Down => step(self, 1),
            Key::Char('k') | Key::Up => step(self, -1),
            Key::PageDown | Key::Ctrl('f') => step(self, page),
            Key::PageUp | Key::Ctrl('b') => step(self, -page),
            Key::Ctrl('d') => step(self, (page / 2).max(1)),
            Key::Ctrl('u') => step(self, -(page / 2).max(1)),
            Key::Home => step(self, isize::MIN),
            Key::End | Key::Char('G') => step(self, isize::MAX),
            Key::Char('h') | Key::Left => self.aside(false),
            Key::Char('l') | Key::Right => self.aside(true),
            Key::Char('<') => {
                let cursor = self.cursor_mut(focus);
                cursor.left = cursor.left.saturating_sub(SIDE);
            }
            Key::Char('>') => self.move_right(),
            Key::Char(' ') => self.toggle(None),
            Key::Enter => self.enter(),
            Key::Char(digit @ '1'..='6') => {
                let index = digit.to_digit(10).and_then(|digit| digit.checked_sub(1));
                let index = index.and_then(|index| usize::try_from(index).ok());
                if let Some(view) = index.and_then(|index| View::ALL.get(index)) {
                    self.go_view(*view);
                }
            }
            Key::Char('g' | ':') => self.ask_for(PromptKind::Address, String::new()),
            Key::Char('/') => self.ask_for(PromptKind::Search, String::new()),
            Key::Char('n') => self.search(true),
            Key::Char('N') => self.search(false),
            Key::Char('[') | Key::Back | Key::Backspace => self.go_back(),
            Key::Char(']') | Key::Forward => self.go_forward(),
            Key::Char('z') => self.is_zoomed = !self.is_zoomed,
            Key::Escape => self.is_zoomed = false,
            Key::Char('s' | 'r' | 'f' | 't') => self.table_key_pressed(key),
            _ => self.message = Some("no such key: ? shows them".into()),
        }
    }

    fn ask_for(&mut self, kind: PromptKind, text: String) {
        self.prompt = Some(Prompt { kind, text });
    }

    /// The pane so many further.
    fn turn(&mut self, by: usize) {
        let panes = Pane::ALL;
        let here = panes.iter().position(|pane| *pane == self.focus);
        let next = here.unwrap_or(0).saturating_add(by) % panes.len();
        self.focus = panes.get(next).copied().unwrap_or(Pane::Main);
    }

    /// To the address before or next in the row; in the tree, closes or opens.
    fn aside(&mut self, is_right: bool) {
        let pane = self.focus;
        let Some(row) = self.row(pane) else { return };
        if let Act::Node(node) = &row.act {
            match (is_right, self.open.contains(node)) {
                (true, false) | (false, true) => return self.toggle(Some(node.clone())),
                (false, false) => return self.go_to_parent(node),
                (true, true) => {}
            }
        }
        let last = row.links.len().saturating_sub(1);
        let content = self.content(pane);
        let mut cursor = self.cursor(pane, &content);
        cursor.link = match is_right {
            true => cursor.link.saturating_add(1).min(last),
            false => cursor.link.min(last).saturating_sub(1),
        };
        *self.cursor_mut(pane) = cursor;
    }

    /// To the row of the block that leads to this one.
    fn go_to_parent(&mut self, node: &Node) {
        let Some((_, path)) = node.path.split_last() else {
            return;
        };
        let parent = Act::Node(Node {
            direction: node.direction,
            path: path.to_vec(),
        });
        let content = self.content(Pane::Main);
        if let Some(row) = content.rows.iter().position(|row| row.act == parent) {
            self.move_cursor(Pane::Main, |cursor, rows, height| {
                cursor.go(row, rows, height);
            });
        }
    }

    /// Opens or closes a branch; without one, that of the row.
    fn toggle(&mut self, node: Option<Node>) {
        let of_row = || match self.row(self.focus)?.act {
            Act::Node(node) => Some(node),
            _ => None,
        };
        match node.or_else(of_row) {
            Some(node) => {
                if !self.open.remove(&node) {
                    self.open.insert(node);
                }
            }
            None => self.message = Some("nothing to open here".into()),
        }
    }

    fn move_right(&mut self) {
        let (pane, width) = (self.focus, self.room(self.focus, None).0);
        let content = self.content(pane);
        let rows = content.rows.iter().map(|row| row.text().chars().count());
        let longest = rows.max().unwrap_or(0);
        let cursor = self.cursor_mut(pane);
        if cursor.left.saturating_add(width) < longest {
            cursor.left = cursor.left.saturating_add(SIDE);
        }
    }

    /// Follows the row: to its finding, its frame, or the address in it that is chosen.
    pub(super) fn enter(&mut self) {
        let pane = self.focus;
        let Some(row) = self.row(pane) else { return };
        match &row.act {
            Act::Thread(_) => {
                self.choose(&row.act);
                self.focus = Pane::Frames;
                return;
            }
            Act::Frame(_) => {
                self.choose(&row.act);
                self.focus = Pane::Frame;
                return;
            }
            Act::Finding(index) => {
                self.go(super::Place {
                    view: View::Finding,
                    finding: *index,
                    cursor: super::Cursor::default(),
                    ..self.place
                });
                return;
            }
            Act::Node(node) if node.path.len() > 1 => {
                if let Some(at) = node.path.last() {
                    self.go_to(*at);
                }
                return;
            }
            Act::Node(_) | Act::None => {}
        }
        let chosen = self.place_in(pane).link;
        let last = row.links.len().saturating_sub(1);
        match row.links.get(chosen.min(last)) {
            Some(link) => self.go_to(link.address),
            None => self.message = Some("no address in this row".into()),
        }
    }

    fn table_key_pressed(&mut self, key: Key) {
        let is_table = matches!(self.place.view, View::Leaks | View::Usage);
        if !is_table {
            self.message = Some("only the tables of leaks and usage do that: 5, 6".into());
            return;
        }
        let place = self.table_key();
        let state = self.tables.entry(place).or_default();
        match key {
            Key::Char('s') => {
                let next = state.column.map_or(0, |column| column.saturating_add(1));
                state.column = (next < super::panes::columns(place.0, place.1)).then_some(next);
                state.is_reversed = false;
            }
            Key::Char('r') => {
                // What is sorted by nothing is turned around by its first column.
                state.column = state.column.or(Some(0));
                state.is_reversed = !state.is_reversed;
            }
            Key::Char('f') => {
                let text = state.filter.clone();
                self.ask_for(PromptKind::Filter, text);
            }
            Key::Char('t') if place.0 == View::Usage => {
                self.usage_kind = self.usage_kind.next();
                self.place.cursor = super::Cursor::default();
            }
            _ => self.message = Some("leaks have one table".into()),
        }
        self.focus = Pane::Main;
    }

    /// A key while something is typed.
    fn type_key(&mut self, key: Key) {
        let Some(prompt) = &mut self.prompt else {
            return;
        };
        match key {
            Key::Char(letter) => prompt.text.push(letter),
            Key::Backspace if !prompt.text.is_empty() => {
                prompt.text.pop();
            }
            Key::Backspace | Key::Escape => self.prompt = None,
            Key::Ctrl('u') => prompt.text.clear(),
            Key::Enter => {
                let Some(prompt) = self.prompt.take() else {
                    return;
                };
                match prompt.kind {
                    PromptKind::Search => {
                        if !prompt.text.is_empty() {
                            self.sought = prompt.text;
                        }
                        self.search(true);
                    }
                    PromptKind::Address => match input::address(&prompt.text) {
                        Ok(at) => self.go_to(at),
                        Err(wrong) => self.message = Some(wrong.into()),
                    },
                    PromptKind::Filter => {
                        let key = self.table_key();
                        self.tables.entry(key).or_default().filter = prompt.text;
                        self.place.cursor = super::Cursor::default();
                    }
                }
            }
            _ => {}
        }
    }

    /// To the next row of the pane that has what was sought, around its end.
    fn search(&mut self, is_forward: bool) {
        let wanted = self.sought.to_lowercase();
        if wanted.is_empty() {
            self.message = Some("nothing is sought: / and a text".into());
            return;
        }
        let pane = self.focus;
        let content = self.content(pane);
        let here = self.cursor(pane, &content).row;
        let count = content.rows.len();
        let mut order = (1..=count).map(|by| match is_forward {
            true => (here + by) % count,
            false => (here + count - by % count) % count,
        });
        let has = |index: &usize| {
            let row = content.rows.get(*index);
            row.is_some_and(|row| row.text().to_lowercase().contains(&wanted))
        };
        match order.find(has) {
            Some(row) => {
                self.move_cursor(pane, |cursor, rows, height| cursor.go(row, rows, height));
            }
            None => self.message = Some(format!("not in this pane: {}", self.sought)),
        }
    }
}
