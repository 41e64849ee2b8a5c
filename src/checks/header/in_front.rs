//! A write that began in front of a block and went on in it: what stands around the header is one more element of the array that the
//! block begins with, or the start of its text.

/// Bytes of an element of an array, at most.
const MAX_ELEMENT: usize = 128;
/// Elements of the block that must agree with the one in front of it.
const ALIKE: usize = 3;

/// Bytes of the elements that stand in front of a block, header and all. `front`: up to the header; `behind`: from there on.
pub(super) fn element(front: &[u8], behind: &[u8]) -> Option<usize> {
    const WORD: usize = 8;
    let start = front.len().checked_add(WORD)?;
    let word = |at: usize| {
        let bytes = match at.checked_sub(front.len()) {
            Some(at) => behind.get(at..at.checked_add(WORD)?),
            None => front.get(at..at.checked_add(WORD)?),
        };
        bytes?.first_chunk::<8>().copied().map(u64::from_le_bytes)
    };
    // Whether a word is that of the elements behind it, or as far from each as the next ones are from each other; and says something.
    let fits = |at: usize, stride: usize| {
        let mut words = [0; ALIKE + 1];
        for (index, into) in words.iter_mut().enumerate() {
            *into = word(at.checked_add(index.checked_mul(stride)?)?)?;
        }
        let steps = words
            .iter()
            .zip(words.iter().skip(1))
            .map(|(one, next)| next.wrapping_sub(*one));
        let first = steps.clone().next()?;
        let agree = steps.clone().all(|step| step == first);
        agree.then_some(first != 0 || stride > WORD && words.iter().all(|word| *word != 0))
    };
    let is_element = |at: usize, stride: usize| {
        let each = (at..at.saturating_add(stride))
            .step_by(WORD)
            .map(|at| fits(at, stride));
        let mut says = 0;
        for told in each {
            says += usize::from(told?);
        }
        Some(says > 0)
    };
    let (at, stride) = (1..=MAX_ELEMENT / WORD).find_map(|words| {
        let stride = words * WORD;
        let at = start.checked_sub(stride)?;
        (is_element(at, stride) == Some(true)).then_some((at, stride))
    })?;
    // An array that comes from further in front is that of the block before.
    let mut from = at;
    while let Some(further) = from.checked_sub(stride)
        && is_element(further, stride) == Some(true)
    {
        from = further;
    }
    let bytes = start - from;
    let is_own = bytes.saturating_sub(WORD).saturating_mul(2) <= front.len();
    is_own.then_some(bytes)
}

/// Whether text begins with the header, behind a value that is repeated up to there, and goes on in the block.
pub(super) fn text(tail: &[u8; 16], behind: &[u8], text_run: usize) -> bool {
    let [.., last] = tail;
    let is_filled = tail.iter().skip(8).all(|byte| byte == last);
    is_filled && text_run > 8 && behind.first() != Some(last)
}

/// Last bytes of the block before, if one value fills them, the header and the start of the block behind it, and no more of that block.
pub(super) fn value(tail: &[u8; 16], behind: &[u8]) -> Option<usize> {
    /// The header, and as much again.
    const LEAST: usize = 16;
    let first = *behind.first()?;
    let filled = behind
        .iter()
        .take(LEAST)
        .filter(|byte| **byte == first)
        .count();
    let bytes = tail.iter().rev().take_while(|byte| **byte == first).count();
    let is_filled = first != 0 && filled == LEAST && (1..8).contains(&bytes);
    is_filled
        .then_some(bytes)
        .or_else(|| number(tail, behind, LEAST))
}

/// The same of a number of 4 bytes.
fn number(tail: &[u8; 16], behind: &[u8], least: usize) -> Option<usize> {
    const BYTES: usize = 4;
    let number = behind.first_chunk::<BYTES>()?;
    let (numbers, _) = behind.get(..least)?.as_chunks::<BYTES>();
    let (in_front, _) = tail.as_chunks::<BYTES>();
    let ends_so = in_front
        .iter()
        .rev()
        .take_while(|other| *other == number)
        .count();
    let is_filled = *number != [0; BYTES] && numbers.iter().all(|other| other == number);
    (is_filled && ends_so == 1).then_some(BYTES)
}

#[cfg(test)]
mod tests {
    use super::{element, text, value};

    #[test]
    fn a_value_that_begins_shortly_before_the_header() {
        assert_eq!(
            value(b"888888888888TTT#", b"########################"),
            Some(1)
        );
        assert_eq!(
            value(b"################", b"########################"),
            None
        );
        assert_eq!(
            value(b"888888888888TTT8", b"########################"),
            None
        );
        assert_eq!(
            value(b"888888888888TTT#", b"##########88888888888888"),
            None
        );
    }

    #[test]
    fn a_number_that_begins_shortly_before_the_header() {
        let numbers: Vec<u8> = [0x1f1f_u32; 8]
            .iter()
            .flat_map(|one| one.to_le_bytes())
            .collect();
        let tail = |last: u64| {
            let mut tail = [0; 16];
            tail[8..].copy_from_slice(&last.to_le_bytes());
            tail
        };
        assert_eq!(value(&tail(0x1f1f << 32), &numbers), Some(4));
        assert_eq!(value(&tail(0x1f1f << 32 | 0x1f1f), &numbers), None);
        assert_eq!(value(&tail(0), &numbers), None);
    }

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn an_element_in_front_is_that_of_its_array() {
        // Three words each: a key, a pointer, zero. The header is the last one.
        let records: Vec<u64> = (0..6).flat_map(|key| [0x100 + key, 0x5000, 0]).collect();
        let (front, behind) = records.split_at(2);
        let noise = bytes(&[7, 99, 3]);
        let front = [noise, bytes(front)].concat();
        assert_eq!(element(&front, &bytes(behind)), Some(24));
        // A size in front of zeros, or of data of another kind.
        assert_eq!(
            element(&bytes(&[0, 0, 0]), &bytes(&[0x31, 0, 0, 0, 0, 0])),
            None
        );
        assert_eq!(
            element(&bytes(&[1, 9, 4]), &bytes(&[0x31, 5, 8, 2, 77, 6])),
            None
        );
        // The whole of it is an array that comes from further in front.
        let all: Vec<u64> = (0..12).map(|index| 0x700 + index).collect();
        let (front, behind) = all.split_at(6);
        assert_eq!(element(&bytes(front), &bytes(behind)), None);
        // Two elements in front, in a block of other data.
        let front = [bytes(&[9; 6]), bytes(&[0x6ff])].concat();
        let behind: Vec<u64> = (0..6).map(|index| 0x700 + index).collect();
        assert_eq!(element(&front, &bytes(&behind)), Some(16));
    }

    #[test]
    fn text_behind_a_fill_begins_there() {
        assert!(text(b"3333333333333333", b"123456789012345\0", 15));
        assert!(!text(b"a text that goes", b" on and on and on", 17));
        assert!(!text(b"3333333333333333", b"1234567\0", 7));
    }
}
