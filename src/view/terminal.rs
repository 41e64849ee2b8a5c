//! The terminal: entered, drawn on, listened to, and given back as it was, whatever happens.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crossterm::event::{
    self, DisableMouseCapture, EnableMouseCapture, Event, KeyCode, KeyEvent, KeyEventKind,
    KeyModifiers, MouseButton, MouseEventKind,
};
use crossterm::{Command, cursor, style, terminal};
use ratatui_core::backend::{Backend, ClearType, WindowSize};
use ratatui_core::buffer::Cell;
use ratatui_core::layout::{Position, Size};
use ratatui_core::style::{Color, Modifier};

use super::draw::Look;
use super::model::{Input, Key};
use crate::interrupt;

/// The terminal in the viewer's hands; dropped, it is as it was before.
pub struct Held(());

/// Whether there is a terminal to view on.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// What the terminal can show; `color` is what the command line and the environment want.
pub fn look(color: bool) -> Look {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let mut set = set.filter_map(|name| std::env::var(name).ok());
    let locale = set.find(|value| !value.is_empty()).unwrap_or_default();
    let locale = locale.to_lowercase();
    Look {
        color,
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

/// Takes the terminal.
///
/// # Errors
/// If it cannot be had.
pub fn enter() -> io::Result<Held> {
    interrupt::holding_terminal(Some(leaving()));
    let held = Held(());
    terminal::enable_raw_mode()?;
    let mut text = String::new();
    ansi(&mut text, &terminal::EnterAlternateScreen);
    ansi(&mut text, &EnableMouseCapture);
    ansi(&mut text, &cursor::Hide);
    write(&text)?;
    Ok(held)
}

/// What gives the screen back.
fn leaving() -> Vec<u8> {
    let mut text = String::new();
    ansi(&mut text, &style::SetAttribute(style::Attribute::Reset));
    ansi(&mut text, &DisableMouseCapture);
    ansi(&mut text, &terminal::LeaveAlternateScreen);
    ansi(&mut text, &cursor::Show);
    text.into_bytes()
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = io::stdout().write_all(&leaving());
        let _ = io::stdout().flush();
        let _ = terminal::disable_raw_mode();
        interrupt::holding_terminal(None);
    }
}

/// The next thing that happens; waits for it.
///
/// # Errors
/// If the terminal is gone.
pub fn next() -> io::Result<Option<Input>> {
    Ok(match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => self::key(key).map(Input::Key),
        Event::Mouse(mouse) => match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => Some(Input::Click(mouse.column, mouse.row)),
            MouseEventKind::ScrollDown => Some(Input::Wheel(mouse.column, mouse.row, 1)),
            MouseEventKind::ScrollUp => Some(Input::Wheel(mouse.column, mouse.row, -1)),
            _ => None,
        },
        Event::Resize(width, height) => Some(Input::Resize(width, height)),
        _ => None,
    })
}

fn key(event: KeyEvent) -> Option<Key> {
    let has = |modifier| event.modifiers.contains(modifier);
    Some(match event.code {
        KeyCode::Left if has(KeyModifiers::ALT) => Key::Back,
        KeyCode::Right if has(KeyModifiers::ALT) => Key::Forward,
        KeyCode::Char(letter) if has(KeyModifiers::CONTROL) => Key::Ctrl(letter),
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

/// Columns and rows.
///
/// # Errors
/// If the terminal does not tell.
pub fn size() -> io::Result<(u16, u16)> {
    terminal::size()
}

/// What a command is in escape sequences.
fn ansi(text: &mut String, command: &impl Command) {
    // Writing to a string cannot fail.
    let _ = command.write_ansi(text);
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The screen, for ratatui. What is drawn goes out in one piece.
#[derive(Default)]
pub struct Screen {
    text: String,
}

impl Backend for Screen {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut expected = None;
        let mut shown = None;
        for (x, y, cell) in content {
            if expected != Some((x, y)) {
                ansi(&mut self.text, &cursor::MoveTo(x, y));
            }
            // A wide character moves the cursor further: the next cell then says where it is.
            expected = cell.symbol().is_ascii().then_some((x.saturating_add(1), y));
            let style = (cell.fg, cell.modifier);
            if shown != Some(style) {
                self.style(cell.fg, cell.modifier);
                shown = Some(style);
            }
            self.text.push_str(cell.symbol());
        }
        self.style(Color::Reset, Modifier::empty());
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        ansi(&mut self.text, &cursor::Hide);
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        ansi(&mut self.text, &cursor::Show);
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        // The viewer never asks: it has the whole screen.
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        ansi(&mut self.text, &cursor::MoveTo(x, y));
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, _clear_type: ClearType) -> io::Result<()> {
        ansi(&mut self.text, &terminal::Clear(terminal::ClearType::All));
        Ok(())
    }

    fn size(&self) -> io::Result<Size> {
        let (width, height) = size()?;
        Ok(Size { width, height })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize {
            columns_rows: Backend::size(self)?,
            pixels: Size::ZERO,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        write(&text)
    }
}

impl Screen {
    /// Select graphic rendition: everything off, then what is wanted.
    fn style(&mut self, color: Color, modifier: Modifier) {
        let mut codes = String::from("0");
        for (has, code) in [
            (Modifier::BOLD, 1),
            (Modifier::DIM, 2),
            (Modifier::UNDERLINED, 4),
            (Modifier::REVERSED, 7),
        ] {
            if modifier.contains(has) {
                let _ = write!(codes, ";{code}");
            }
        }
        let code = match color {
            Color::Red => Some(31),
            Color::Green => Some(32),
            Color::Yellow => Some(33),
            Color::Cyan => Some(36),
            _ => None,
        };
        if let Some(code) = code {
            let _ = write!(codes, ";{code}");
        }
        let _ = write!(self.text, "\x1b[{codes}m");
    }
}
