//! Lines, colours, wrapping: the page that the sections write on.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::Screen;
use crate::report::escape::escaped;

/// Sentences are broken at this column where there is no terminal; names and dumps never are.
const WIDTH: usize = 120;

/// A terminal that says it is narrower is not believed.
const LEAST_WIDTH: usize = 40;

/// Columns of a label in a list of fields.
const LABEL: usize = 13;

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Text.
    Plain,
    /// A section's heading, and what must be seen first.
    Strong,
    /// A field's name, and what may be skipped.
    Faint,
    /// The heap is damaged; the bytes that prove it.
    Critical,
    /// Worth a look.
    Warning,
    /// By the way.
    Note,
    /// Nothing is wrong.
    Good,
}

impl Role {
    /// All that are painted.
    const PAINTED: [Role; 6] = [
        Role::Critical, // its style begins with that of `Strong`
        Role::Strong,
        Role::Faint,
        Role::Warning,
        Role::Note,
        Role::Good,
    ];

    const fn style(self) -> Style {
        match self {
            Role::Plain => Style::new(),
            Role::Strong => Style::new().bold(),
            Role::Faint => Style::new().dimmed(),
            Role::Critical => Style::new()
                .bold()
                .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))),
            Role::Warning => color_of(AnsiColor::Yellow),
            Role::Note => color_of(AnsiColor::Cyan),
            Role::Good => color_of(AnsiColor::Green),
        }
    }
}

/// The text so far.
pub struct Page {
    text: String,
    color: bool,
    width: Option<usize>,
}

impl Page {
    /// An empty page.
    pub fn new(options: Screen) -> Self {
        Self {
            text: String::new(),
            color: options.color,
            width: options.width.map(|width| width.max(LEAST_WIDTH)),
        }
    }

    /// Columns of a line.
    pub fn width(&self) -> usize {
        self.width.unwrap_or(WIDTH)
    }

    /// Columns of the terminal, if there is one: what is too long for it had better be shortened.
    pub fn terminal_width(&self) -> Option<usize> {
        self.width
    }

    /// Everything written.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Text in the colour of its role. It must be escaped already.
    pub fn paint(&self, role: Role, text: &str) -> String {
        if !self.color || role == Role::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = role.style();
        format!("{style}{text}{style:#}")
    }

    /// A line as it is; it must be escaped already.
    pub fn line(&mut self, line: &str) {
        // A line never ends in blanks.
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// An empty line, unless there is one or nothing stands before.
    pub fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// The heading of a section.
    pub fn heading(&mut self, heading: &str) {
        self.gap();
        let heading = self.paint(Role::Strong, heading);
        self.line(&heading);
    }

    /// `label  value`, the value escaped, wrapped and indented below itself.
    pub fn field(&mut self, indent: usize, label: &str, role: Role, value: &str) {
        let value = escaped(value);
        let hang = indent + LABEL;
        for (number, line) in wrapped(&value, self.width().saturating_sub(hang))
            .into_iter()
            .enumerate()
        {
            let label = if number == 0 { label } else { "" };
            self.labelled(indent, label, role, line);
        }
    }

    /// `label  line`, the line as it is and escaped already.
    pub fn labelled(&mut self, indent: usize, label: &str, role: Role, line: &str) {
        // Blanks are never painted, so that a line that ends in them can lose them.
        let blanks = LABEL.saturating_sub(label.chars().count());
        let mut text = " ".repeat(indent);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{}{:blanks$}{}",
            self.paint(Role::Faint, label),
            "",
            self.paint(role, line)
        );
        self.line(&text);
    }

    /// A wrapped sentence.
    pub fn sentence(&mut self, indent: usize, role: Role, text: &str) {
        for line in wrapped(&escaped(text), self.width().saturating_sub(indent)) {
            let line = format!("{}{}", " ".repeat(indent), self.paint(role, line));
            self.line(&line);
        }
    }

    /// `- text` in a list.
    pub fn item(&mut self, role: Role, text: &str) {
        for (number, line) in wrapped(&escaped(text), self.width().saturating_sub(4))
            .into_iter()
            .enumerate()
        {
            let bullet = if number == 0 { "  - " } else { "    " };
            let line = format!("{bullet}{}", self.paint(role, line));
            self.line(&line);
        }
    }
}

/// A painted line as runs of text, each with what it is: what [`Page::paint`] did, undone.
pub fn runs(line: &str) -> Vec<(Role, String)> {
    let mut runs: Vec<(Role, String)> = Vec::new();
    let mut role = Role::Plain;
    let mut rest = line;
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.find('\x1b').unwrap_or(rest.len()));
        if !text.is_empty() {
            runs.push((role, text.to_owned()));
        }
        let painted = Role::PAINTED.into_iter().find_map(|role| {
            let after = after.strip_prefix(&role.style().render().to_string())?;
            Some((role, after))
        });
        (role, rest) = match painted {
            Some(painted) => painted,
            // What ends a style is the same for all; an escape that is none of ours cannot stand in escaped text.
            None => (
                Role::Plain,
                after.split_once('m').map_or("", |(_, after)| after),
            ),
        };
    }
    runs
}

const fn color_of(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(color)))
}

/// The text cut at blanks into lines of at most `width` characters. A word that is longer stays whole, so that it can
/// be copied. Never empty.
fn wrapped(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text.trim();
    loop {
        let mut cut = None;
        for (column, (at, character)) in rest.char_indices().enumerate() {
            if column > width && cut.is_some() {
                break;
            }
            if character == ' ' {
                cut = Some(at);
                if column > width {
                    break;
                }
            }
        }
        let too_long = rest.chars().nth(width).is_some();
        match cut.filter(|_| too_long) {
            Some(at) => {
                let (line, after) = rest.split_at(at);
                lines.push(line.trim_end());
                rest = after.trim_start();
            }
            None => {
                lines.push(rest);
                return lines;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_cut_at_blanks_and_long_words_stay_whole() {
        for (text, width, expected) in [
            ("", 10, &[""][..]),
            ("short", 10, &["short"]),
            ("exactly 10", 10, &["exactly 10"]),
            ("one two three", 7, &["one two", "three"]),
            ("one two three", 8, &["one two", "three"]),
            (
                "a verylongwordindeed b",
                5,
                &["a", "verylongwordindeed", "b"],
            ),
            ("verylongwordindeed", 5, &["verylongwordindeed"]),
            ("ä ö ü", 3, &["ä ö", "ü"]),
        ] {
            assert_eq!(wrapped(text, width), expected, "{text:?} at {width}");
        }
    }

    #[test]
    fn colour_is_all_or_nothing() {
        let page = |color| Page::new(Screen { color, width: None });
        assert_eq!(page(false).paint(Role::Critical, "x"), "x");
        assert!(page(true).paint(Role::Critical, "x").contains('\x1b'));
        assert_eq!(page(true).paint(Role::Plain, "x"), "x");
    }

    #[test]
    fn runs_are_what_was_painted() {
        let page = Page::new(Screen {
            color: true,
            width: None,
        });
        for role in Role::PAINTED {
            let line = format!("a {} b", page.paint(role, "painted"));
            let expected = [(Role::Plain, "a "), (role, "painted"), (Role::Plain, " b")];
            let expected = expected.map(|(role, text)| (role, text.to_owned()));
            assert_eq!(runs(&line), expected);
        }
        assert_eq!(runs(""), []);
    }

    #[test]
    fn a_page_is_as_wide_as_its_terminal() {
        let lines = |width| {
            let mut page = Page::new(Screen {
                color: false,
                width,
            });
            page.sentence(2, Role::Plain, &"word ".repeat(100));
            let text = page.into_text();
            text.lines().map(|line| line.len()).max()
        };
        assert_eq!(lines(Some(80)), Some(76));
        assert_eq!(lines(Some(200)), Some(196));
        assert_eq!(lines(Some(1)), Some(36));
        assert_eq!(lines(None), Some(116));
    }
}
