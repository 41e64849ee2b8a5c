//! Lines of any length from a stream, in pieces of bounded length.

use std::io::{self, BufRead};

/// Longest piece of a line, in bytes.
const PIECE: usize = 64 << 10;

/// A piece of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Line number from 1.
    pub number: u64,
    /// True of the first piece of a line.
    pub first: bool,
    /// True of the last piece of a line.
    pub last: bool,
}

/// Cuts a stream into lines, and long lines into pieces. In a line that begins with `<` a piece ends behind each tag: XML
/// written without line ends comes in the same pieces as XML with them.
pub(crate) struct Lines<R> {
    reader: R,
    number: u64,
    inside: bool,
    tags: bool,
    whole: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            number: 0,
            inside: false,
            tags: false,
            whole: false,
        }
    }

    /// Whether the last line had an end: a stream may stop in the middle of one.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The next piece, without its line end; none at the end of the stream.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Piece>> {
        buffer.clear();
        let first = !self.inside;
        let mut began = self.inside;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                self.inside = false;
                self.whole = false;
                if !began {
                    return Ok(None);
                }
                self.count(first);
                return Ok(Some(Piece {
                    number: self.number,
                    first,
                    last: true,
                }));
            }
            began = true;
            if first && buffer.is_empty() {
                self.tags =
                    available.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<');
            }
            let room = PIECE.saturating_sub(buffer.len());
            let part = available.get(..room).unwrap_or(available);
            let end = part
                .iter()
                .position(|&byte| byte == b'\n' || (self.tags && byte == b'>'));
            let taken = end.map_or(part.len(), |end| end + 1);
            buffer.extend_from_slice(&part[..taken]);
            let ended = end.is_some() && buffer.last() == Some(&b'\n');
            self.reader.consume(taken);
            if ended {
                buffer.pop();
                if buffer.last() == Some(&b'\r') {
                    buffer.pop();
                }
            }
            if end.is_some() || buffer.len() >= PIECE {
                self.inside = !ended;
                self.whole = ended;
                self.count(first);
                return Ok(Some(Piece {
                    number: self.number,
                    first,
                    last: ended,
                }));
            }
        }
    }

    fn count(&mut self, first: bool) {
        self.number += u64::from(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8], chunk: usize) -> Vec<(u64, bool, bool, usize)> {
        let mut lines = Lines::new(io::BufReader::with_capacity(chunk, text));
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        while let Some(piece) = lines.next(&mut buffer).unwrap() {
            found.push((piece.number, piece.first, piece.last, buffer.len()));
        }
        found
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let mut text = vec![b'a'; PIECE + 3];
        text.extend(b"\r\nb\n\nc");
        let expected = vec![
            (1, true, false, PIECE),
            (1, false, true, 3),
            (2, true, true, 1),
            (3, true, true, 0),
            (4, true, true, 1),
        ];
        assert_eq!(pieces(&text, 100), expected);
        assert_eq!(pieces(&text, 1 << 20), expected);
    }

    #[test]
    fn tags_end_pieces() {
        let found = pieces(b" <a><b>x</b>\nstd::vector<int> y\n", 7);
        let lengths: Vec<usize> = found.iter().map(|piece| piece.3).collect();
        assert_eq!(lengths, [4, 3, 5, 0, 18]);
        assert_eq!(found[3], (1, false, true, 0));
    }
}
