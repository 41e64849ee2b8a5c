//! The viewer: a core on a terminal, to walk in.
//!
//! ```text
//! terminal ──Input──> model ──Ask──> work ──Told──> model ──> panes ──> draw ──> terminal
//! ```
//!
//! [`model`] is pure: what happens makes a new state and questions. [`jobs`] answers them in threads of its own, by what the
//! commands compute; [`panes`] writes the answers in the words of the text report.

pub mod draw;
pub mod jobs;
pub mod layout;
pub mod model;
pub mod panes;
pub mod terminal;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{io, thread};

use ratatui_core::buffer::Buffer;
use ratatui_core::terminal::Terminal;

use draw::Look;
use jobs::{Opening, Told, Work};
use model::{Ask, Input, Model};

/// Time between two pictures while something is being done.
const TURN: Duration = Duration::from_millis(120);

/// What the viewer hears.
#[derive(Debug)]
pub enum Message {
    /// From whoever looks at it.
    Input(Input),
    /// From its threads.
    Told(Told),
    /// The terminal is gone.
    Gone(io::Error),
}

/// How the viewer was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As whoever looked at it wanted.
    Quit,
    /// Nothing can be viewed: why.
    Failed(String),
}

/// A core that is being viewed.
pub struct Viewer {
    /// What is known, and where a person is in it.
    pub model: Model,
    work: Work,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    /// Questions without an answer.
    pending: usize,
}

impl Viewer {
    /// Begins to open the core, for a screen of so many columns and rows.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start(opening: Opening, (width, height): (u16, u16)) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        Ok(Self {
            model: Model::new(width, height),
            work: Work::start(opening, sender.clone(), Message::Told)?,
            sender,
            receiver,
            pending: 0,
        })
    }

    /// Takes what happened; `Some`: the viewer is left.
    pub fn take(&mut self, message: Message) -> Option<End> {
        let asks = match message {
            Message::Input(input) => self.model.handle(input),
            Message::Told(told) => {
                self.pending = self
                    .pending
                    .saturating_sub(usize::from(told.job().is_some()));
                self.model.told(told)
            }
            Message::Gone(error) => {
                return Some(End::Failed(format!("the terminal is gone: {error}")));
            }
        };
        for ask in asks {
            match ask {
                Ask::Do(job) => {
                    self.pending = self.pending.saturating_add(1);
                    self.work.ask(job);
                }
                Ask::Leave(view) => self.work.leave(view),
                Ask::Quit(None) => return Some(End::Quit),
                Ask::Quit(Some(message)) => return Some(End::Failed(message)),
            }
        }
        None
    }

    /// Takes what comes until the heaps are checked and every question has its answer; `Some`: the viewer is left.
    ///
    /// # Errors
    /// If nothing comes for `patience`.
    pub fn settle(&mut self, patience: Duration) -> Result<Option<End>, RecvTimeoutError> {
        while !self.is_settled() {
            let message = self.receiver.recv_timeout(patience)?;
            if let Some(end) = self.take(message) {
                return Ok(Some(end));
            }
        }
        self.model.busy = None;
        Ok(None)
    }

    /// Whether the heaps are checked and every question has its answer.
    fn is_settled(&self) -> bool {
        self.model.checked().is_some() && self.pending == 0
    }

    /// Draws it.
    pub fn draw(&self, look: Look, buffer: &mut Buffer) {
        draw::draw(&self.model, look, buffer);
    }

    /// Shows it on the terminal until it is left.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn show(mut self, look: Look) -> io::Result<End> {
        let _held = terminal::enter()?;
        let mut screen = Terminal::new(terminal::Screen::default())?;
        let sender = self.sender.clone();
        thread::Builder::new().name("keys".into()).spawn(move || {
            loop {
                let message = match terminal::next() {
                    Ok(Some(input)) => Message::Input(input),
                    Ok(None) => continue,
                    Err(error) => Message::Gone(error),
                };
                let is_last = matches!(message, Message::Gone(_));
                if sender.send(message).is_err() || is_last {
                    return;
                }
            }
        })?;
        loop {
            self.model.busy = self.work.busy();
            self.model.turn = self.model.turn.wrapping_add(1);
            screen.draw(|frame| self.draw(look, frame.buffer_mut()))?;
            // What was asked just now has perhaps not been begun.
            let first = match self.is_settled() && self.model.busy.is_none() {
                true => self.receiver.recv().map_err(RecvTimeoutError::from),
                false => self.receiver.recv_timeout(TURN),
            };
            let first = match first {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Quit),
            };
            // What came meanwhile is taken before the next picture.
            let more: Vec<Message> = self.receiver.try_iter().collect();
            for message in std::iter::once(first).chain(more) {
                if let Some(end) = self.take(message) {
                    return Ok(end);
                }
            }
        }
    }
}
