//! Markup that cannot be wrong: elements are closed by the function that opened them, and all text is escaped.

use std::fmt::Write as _;

use crate::report::escape::Escaped;

/// Bytes after which lists end: the rest of a page has room in half a MiB.
const MOST_BYTES: usize = 4 << 20;
/// Letters of a text that are shown; JSON has all of it.
const MOST_LETTERS: usize = 2000;

/// An element's attributes.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

/// A page so far. It is XML as well as HTML: every element is closed.
#[derive(Default)]
pub struct Markup {
    text: String,
}

impl Markup {
    /// Everything written.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Whether a list should end here, so that the page stays one that can be sent.
    pub fn is_full(&self) -> bool {
        self.text.len() >= MOST_BYTES
    }

    /// An element and what is in it.
    pub fn element(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        body: impl FnOnce(&mut Self),
    ) {
        self.open(tag, attributes);
        self.text.push('>');
        body(self);
        let _ = write!(self.text, "</{tag}>"); // a String takes all
        if is_block(tag) {
            self.text.push('\n');
        }
    }

    /// An element with text in it.
    pub fn leaf(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(tag, attributes, |page| page.text(text));
    }

    /// An element with nothing in it.
    pub fn empty(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.open(tag, attributes);
        self.text.push_str("/>");
    }

    fn open(&mut self, tag: &str, attributes: Attributes<'_>) {
        self.text.push('<');
        self.text.push_str(tag);
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"");
            self.text(value);
            self.text.push('"');
        }
    }

    /// Text, also of the core.
    pub fn text(&mut self, text: &str) {
        let cut = text.char_indices().nth(MOST_LETTERS).map(|(at, _)| at);
        let shown = cut.and_then(|at| text.get(..at)).unwrap_or(text);
        for letter in Escaped(shown).to_string().chars() {
            match letter {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                // Letters of no language, which XML does not have.
                '\u{fffe}' | '\u{ffff}' => self.text.push('\u{fffd}'),
                _ => self.text.push(letter),
            }
        }
        if cut.is_some() {
            self.text.push('…');
        }
    }

    /// Markup that is the program's own, as it is.
    pub fn own(&mut self, markup: &str) {
        self.text.push_str(markup);
    }
}

/// Elements after which a line of the file ends.
fn is_block(tag: &str) -> bool {
    ![
        "a", "b", "code", "mark", "span", "text", "title", "th", "td", "summary",
    ]
    .contains(&tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_and_never_acted_upon() {
        let mut page = Markup::default();
        page.leaf("p", &[("title", "\"><script>")], "<b>&amp;\x1b\u{202e}'\n");
        assert_eq!(
            page.into_text(),
            "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;b&gt;&amp;amp;\\x1b\\u{202e}'\\n</p>\n"
        );
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut page = Markup::default();
        page.text(&"ä".repeat(MOST_LETTERS + 1));
        assert_eq!(page.into_text(), "ä".repeat(MOST_LETTERS) + "…");
    }
}
