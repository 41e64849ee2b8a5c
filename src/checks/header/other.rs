//! Headers that were written over, but not past the end of the block before them.

use heaps::map::Block;

use crate::checks::finding::FindingKind;

/// How a header was written over, if not past the end of the block before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// So many of its last bytes, up to where the block begins.
    InFront(usize),
    /// The block begins with the same bytes.
    GoesOn,
    /// So many bytes in front of the block are elements of the array that it begins with.
    Element(usize),
    /// One value fills the header, most of what follows and only so many last bytes of the block before.
    Through(usize),
    /// Bytes in its middle.
    Inside,
}

impl Other {
    /// What of a header and how, if `intact` of its lowest bytes are as they were.
    pub(super) fn of(word: [u8; 8], expected: [u8; 8], behind: &[u8]) -> Option<Self> {
        let intact = word
            .iter()
            .zip(expected)
            .position(|(new, old)| *new != old)?;
        let data = behind.get(8..16);
        let goes_on = data == Some(&word) && word.iter().any(|byte| *byte != 0);
        match (word.last() != expected.last(), intact) {
            (true, 0) if goes_on => Some(Self::GoesOn),
            // Numbers of 4 bytes, whose upper ones are zeros as those of a size.
            (false, 0) if goes_on && word.first_chunk::<4>() == word.last_chunk::<4>() => {
                Some(Self::GoesOn)
            }
            (_, 0) => None,
            (true, _) => Some(Self::InFront(8 - intact)),
            (false, _) => Some(Self::Inside),
        }
    }

    pub(super) fn kind(self) -> FindingKind {
        match self {
            Self::InFront(_) | Self::GoesOn | Self::Element(_) | Self::Through(_) => {
                FindingKind::HeapUnderrun
            }
            Self::Inside => FindingKind::CorruptMetadata,
        }
    }

    pub(super) fn words(self, block: &Block) -> String {
        let at = block.address;
        match self {
            Self::InFront(1) => format!("the byte in front of the block {at} was written over"),
            Self::InFront(bytes) => {
                format!("the {bytes} bytes in front of the block {at} were written over")
            }
            Self::GoesOn => {
                format!("a write to the block {at} began in front of it, by 8 bytes at least")
            }
            Self::Element(bytes) => format!(
                "a write to the block {at} began {bytes} bytes in front of it: what stands there goes on in front of the array in it"
            ),
            Self::Through(bytes) => format!(
                "a write to the block {at} began {} bytes in front of it, or one to the block before it {bytes} bytes in front of its end",
                bytes + 8
            ),
            Self::Inside => format!(
                "the header of the block {at} was written over, but not its lowest byte, which the block before it would reach first"
            ),
        }
    }

    pub(super) fn steps(self, block: &Block) -> Vec<String> {
        match self {
            Self::InFront(_) | Self::GoesOn | Self::Element(_) | Self::Through(_) => vec![
                format!(
                    "look for a negative index, or a pointer that was moved below the start of a block of {} bytes or a little less",
                    block.bytes
                ),
                "run the same input under AddressSanitizer: it stops at the first byte written in front of a block"
                    .to_owned(),
            ],
            Self::Inside => super::steps(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Other;

    /// What a word that was 0x151 shows, in front of a block that begins with `data`.
    fn other(word: u64, data: u64) -> Option<Other> {
        let behind = [word.to_le_bytes(), data.to_le_bytes()].concat();
        Other::of(word.to_le_bytes(), 0x151u64.to_le_bytes(), &behind)
    }

    #[test]
    fn a_header_is_written_over_from_its_side() {
        // Past the end of the block before it: its lowest byte is the first that goes.
        assert_eq!(other(0x100, 0), None);
        assert_eq!(other(0x6f77_2065_6874_2061, 7), None);
        assert_eq!(other(0, 0), None);
        // In front of its own block: the highest byte is.
        assert_eq!(other(0x6f77_2065_6874_2051, 7), Some(Other::InFront(7)));
        assert_eq!(other(0xff00_0000_0000_0151, 7), Some(Other::InFront(1)));
        let filled = 0xffff_fffb_ffff_fffb;
        assert_eq!(other(filled, filled), Some(Other::GoesOn));
        assert_eq!(other(filled, 7), None);
        let numbers = 0x2a2a_0000_2a2a;
        assert_eq!(other(numbers, numbers), Some(Other::GoesOn));
        assert_eq!(other(numbers, 7), None);
        // A bit in its middle.
        assert_eq!(other(0x551, 7), Some(Other::Inside));
    }
}
