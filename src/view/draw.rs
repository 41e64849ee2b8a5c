//! The model on a screen. What matters is never said by colour alone: the chosen pane has a thick frame, the chosen row a mark.

use std::ops::Range;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use super::layout;
use super::model::{GUTTER, Model, Pane, View};
use super::panes::{Content, Row, help};
use crate::report::text::parts::{self, Role};

/// What a terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours.
    pub color: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
}

/// What a frame is drawn with: horizontal, vertical, and the corners clockwise from above on the left.
type Frame = [&'static str; 6];

const THIN: Frame = ["─", "│", "┌", "┐", "┘", "└"];
const THICK: Frame = ["━", "┃", "┏", "┓", "┛", "┗"];
const THIN_ASCII: Frame = ["-", "|", "+", "+", "+", "+"];
const THICK_ASCII: Frame = ["=", "#", "#", "#", "#", "#"];

/// Draws everything.
pub fn draw(model: &Model, look: Look, buffer: &mut Buffer) {
    let screen = Screen {
        look,
        area: buffer.area,
    };
    let layout = model.layout();
    screen.title(model, layout.title, buffer);
    for (pane, area) in &layout.panes {
        screen.pane(model, *pane, *area, buffer);
    }
    screen.status(model, layout.status, buffer);
    if model.is_help {
        screen.help(buffer);
    }
}

/// The names of the views in the frame of the pane in the middle, each with its columns.
pub fn tabs(chosen: View) -> Vec<(View, Range<usize>, String)> {
    let mut at = 2;
    let tabs = (1..).zip(View::ALL).map(|(digit, view)| {
        let name = match view == chosen {
            true => format!("[{digit}{}]", view.name()),
            false => format!("{digit}{}", view.name()),
        };
        let columns = at..at + name.len();
        at = columns.end + 1;
        (view, columns, name)
    });
    tabs.collect()
}

fn spinner(turn: usize) -> char {
    let turns = ['|', '/', '-', '\\'];
    turns.get(turn % turns.len()).copied().unwrap_or('|')
}

struct Screen {
    look: Look,
    area: Rect,
}

impl Screen {
    fn style(&self, role: Role) -> Style {
        let plain = Style::new();
        let color = |style: Style, color| match self.look.color {
            true => style.fg(color),
            false => style,
        };
        match role {
            Role::Plain => plain,
            Role::Strong => plain.add_modifier(Modifier::BOLD),
            Role::Faint => plain.add_modifier(Modifier::DIM),
            Role::Critical => color(plain.add_modifier(Modifier::BOLD), Color::Red),
            Role::Warning => color(plain, Color::Yellow),
            Role::Note => color(plain, Color::Cyan),
            Role::Good => color(plain, Color::Green),
        }
    }

    /// Writes text at a place, as much as there is room for; gives the column behind it.
    fn put(
        &self,
        buffer: &mut Buffer,
        (x, y): (u16, u16),
        end: u16,
        text: &str,
        style: Style,
    ) -> u16 {
        let end = end.min(self.area.right());
        if x >= end || y >= self.area.bottom() {
            return x;
        }
        let room = usize::from(end.saturating_sub(x));
        let (x, _) = buffer.set_stringn(x, y, text, room, style);
        x
    }

    fn title(&self, model: &Model, area: Rect, buffer: &mut Buffer) {
        if area.height == 0 {
            return;
        }
        let strong = self.style(Role::Strong);
        let end = area.right();
        let mut x = self.put(buffer, (area.x, area.y), end, "heapcheck view", strong);
        let Some(report) = &model.report else {
            return;
        };
        let program = format!("  {}", parts::program(report));
        x = self.put(buffer, (x, area.y), end, &program, Style::new());
        let crash = &report.crash_info;
        if let Some(signal) = &crash.signal {
            let text = format!("  {}", crate::report::escape::escaped(signal));
            x = self.put(buffer, (x, area.y), end, &text, Style::new());
        }
        if let Some(report) = model.checked() {
            let (role, text) = parts::verdict(report);
            self.put(
                buffer,
                (x, area.y),
                end,
                &format!("  {text}"),
                self.style(role),
            );
        }
    }

    fn status(&self, model: &Model, area: Rect, buffer: &mut Buffer) {
        if area.height == 0 {
            return;
        }
        const HINT: &str = "? keys  q quit";
        let left = match (&model.prompt, &model.message, &model.busy) {
            (Some(prompt), ..) => {
                let label = prompt.kind.label();
                // The end of what is typed must be seen.
                let room = usize::from(area.width).saturating_sub(label.len() + 1);
                let skip = prompt.text.chars().count().saturating_sub(room);
                let text: String = prompt.text.chars().skip(skip).collect();
                let text = crate::report::escape::escaped(&text);
                format!("{label}{text}_")
            }
            (None, Some(message), _) => crate::report::escape::escaped(message),
            (None, None, Some(busy)) => format!("{} {busy}", spinner(model.turn)),
            (None, None, None) => String::new(),
        };
        let end = area.right();
        let x = self.put(buffer, (area.x, area.y), end, &left, Style::new());
        let hint = end.saturating_sub(u16::try_from(HINT.len()).unwrap_or(0));
        if model.prompt.is_none() && hint > x.saturating_add(1) {
            self.put(buffer, (hint, area.y), end, HINT, self.style(Role::Faint));
        }
    }

    fn pane(&self, model: &Model, pane: Pane, area: Rect, buffer: &mut Buffer) {
        let content = model.content(pane);
        let is_chosen = model.focus == pane;
        if layout::has_frame(area) {
            self.frame(area, is_chosen, buffer);
            let end = area.right().saturating_sub(1);
            let style = match is_chosen {
                true => self.style(Role::Strong),
                false => Style::new(),
            };
            let mut x = area.x.saturating_add(2);
            if pane == Pane::Main {
                for (view, columns, name) in tabs(model.place.view) {
                    let column = u16::try_from(columns.start).unwrap_or(u16::MAX);
                    let start = area.x.saturating_add(column);
                    let style = match view == model.place.view {
                        true => style,
                        false => Style::new(),
                    };
                    x = self.put(buffer, (start, area.y), end, &name, style);
                }
                x = x.saturating_add(1);
            } else {
                let name = match pane {
                    Pane::Threads => "Threads",
                    Pane::Frames => "Frames",
                    Pane::Frame => "Frame",
                    Pane::Findings => "Findings",
                    Pane::Main | Pane::Heap => "Heap",
                };
                x = self
                    .put(buffer, (x, area.y), end, name, style)
                    .saturating_add(1);
            }
            if !content.note.is_empty() {
                self.put(buffer, (x, area.y), end, &content.note, style);
            }
        }
        self.rows(model, pane, &content, layout::inside(area), buffer);
    }

    fn frame(&self, area: Rect, is_chosen: bool, buffer: &mut Buffer) {
        let [flat, upright, corners @ ..] = match (self.look.unicode, is_chosen) {
            (true, true) => THICK,
            (true, false) => THIN,
            (false, true) => THICK_ASCII,
            (false, false) => THIN_ASCII,
        };
        let (left, right) = (area.x, area.right().saturating_sub(1));
        let (top, bottom) = (area.y, area.bottom().saturating_sub(1));
        let end = area.right();
        for x in left..=right {
            for y in [top, bottom] {
                self.put(buffer, (x, y), end, flat, Style::new());
            }
        }
        for y in top..=bottom {
            for x in [left, right] {
                self.put(buffer, (x, y), end, upright, Style::new());
            }
        }
        let places = [(left, top), (right, top), (right, bottom), (left, bottom)];
        for (place, corner) in places.into_iter().zip(corners) {
            self.put(buffer, place, end, corner, Style::new());
        }
    }

    fn rows(&self, model: &Model, pane: Pane, content: &Content, area: Rect, buffer: &mut Buffer) {
        let cursor = model.cursor(pane, content);
        let is_chosen = model.focus == pane;
        let text = area.x.saturating_add(GUTTER);
        let mut y = area.y;
        if let Some(head) = &content.head
            && y < area.bottom()
        {
            self.row(head, cursor.left, (text, y), area.right(), None, buffer);
            y = y.saturating_add(1);
        }
        let rows = content.rows.iter().enumerate().skip(cursor.top);
        for ((index, row), y) in rows.zip(y..area.bottom()) {
            let is_here = index == cursor.row;
            if is_here {
                let style = self.style(if is_chosen { Role::Strong } else { Role::Faint });
                self.put(buffer, (area.x, y), area.right(), ">", style);
            }
            let last = row.links.len().saturating_sub(1);
            let link = (is_here && is_chosen).then_some(cursor.link.min(last));
            self.row(row, cursor.left, (text, y), area.right(), link, buffer);
        }
    }

    /// A row's text; the address that is chosen reversed, or in a row without one all of it.
    fn row(
        &self,
        row: &Row,
        left: usize,
        (x, y): (u16, u16),
        end: u16,
        link: Option<usize>,
        buffer: &mut Buffer,
    ) {
        let reversed = |style: Style| style.add_modifier(Modifier::REVERSED);
        let chosen = link.map(|link| row.links.get(link).map(|link| link.columns.clone()));
        let mut x = x;
        let mut column = 0usize;
        for (role, text) in &row.runs {
            let style = self.style(*role);
            // Cut where the chosen address begins and ends, so that each piece has one style.
            let mut piece = String::new();
            let mut piece_style = style;
            for letter in text.chars() {
                let is_marked = match &chosen {
                    Some(Some(columns)) => columns.contains(&column),
                    Some(None) => true,
                    None => false,
                };
                let is_link = row.links.iter().any(|link| link.columns.contains(&column));
                let mut wanted = if is_marked { reversed(style) } else { style };
                if is_link && !is_marked {
                    wanted = wanted.add_modifier(Modifier::UNDERLINED);
                }
                if wanted != piece_style {
                    x = self.put(buffer, (x, y), end, &piece, piece_style);
                    piece.clear();
                    piece_style = wanted;
                }
                if column >= left {
                    piece.push(letter);
                }
                column = column.saturating_add(1);
            }
            x = self.put(buffer, (x, y), end, &piece, piece_style);
            if x >= end {
                return;
            }
        }
    }

    /// The keys, over everything.
    fn help(&self, buffer: &mut Buffer) {
        let rows = u16::try_from(help::KEYS.len())
            .unwrap_or(u16::MAX)
            .saturating_add(2);
        let width = 78.min(self.area.width);
        let height = rows.min(self.area.height);
        let area = Rect::new(
            self.area.width.saturating_sub(width) / 2,
            self.area.height.saturating_sub(height) / 2,
            width,
            height,
        );
        for y in area.y..area.bottom() {
            let blank = " ".repeat(usize::from(width));
            self.put(buffer, (area.x, y), area.right(), &blank, Style::new());
            for x in area.x..area.right() {
                if let Some(cell) = buffer.cell_mut((x, y)) {
                    cell.set_style(Style::reset());
                }
            }
        }
        let inside = layout::inside(area);
        if layout::has_frame(area) {
            self.frame(area, true, buffer);
            let title = "Keys (any key goes on)";
            self.put(
                buffer,
                (area.x.saturating_add(2), area.y),
                area.right(),
                title,
                self.style(Role::Strong),
            );
        }
        for (y, (key, does)) in (inside.y..inside.bottom()).zip(help::KEYS) {
            let start = inside.x.saturating_add(1);
            self.put(
                buffer,
                (start, y),
                inside.right(),
                key,
                self.style(Role::Strong),
            );
            self.put(
                buffer,
                (start.saturating_add(18), y),
                inside.right(),
                does,
                Style::new(),
            );
        }
    }
}
