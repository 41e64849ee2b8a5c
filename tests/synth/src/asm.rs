//! Bytes one after the other, with labels.

use std::collections::HashMap;

/// Assembles bytes from an address on. Every method appends and gives the assembler back.
#[derive(Default)]
pub struct Asm {
    at: u64,
    runs: Vec<(u64, Vec<u8>)>,
    labels: HashMap<String, u64>,
    /// Words to fill in: where, which label, and what to add to it.
    uses: Vec<(u64, String, u64)>,
}

/// Assembled memory: runs of bytes, and where the labels are.
pub struct Image {
    /// Runs of bytes, in the order in which they were begun.
    pub runs: Vec<(u64, Vec<u8>)>,
    labels: HashMap<String, u64>,
}

impl Asm {
    /// An assembler whose first byte is at `address`.
    pub fn at(address: u64) -> Self {
        Self {
            at: address,
            runs: vec![(address, Vec::new())],
            ..Self::default()
        }
    }

    /// Names the address of the next byte.
    ///
    /// # Panics
    /// If the label is placed already.
    pub fn here(mut self, label: &str) -> Self {
        let before = self.labels.insert(label.to_owned(), self.at);
        assert!(before.is_none(), "label {label} is placed twice");
        self
    }

    /// A pointer to a label, placed before or after.
    pub fn ptr(self, label: &str) -> Self {
        self.ptr_plus(label, 0)
    }

    /// A pointer to `offset` bytes behind a label.
    pub fn ptr_plus(mut self, label: &str, offset: u64) -> Self {
        self.uses.push((self.at, label.to_owned(), offset));
        self.u64(0)
    }

    /// One byte.
    pub fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    /// A 16-bit word.
    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A 32-bit word.
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A 64-bit word.
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Some bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        if let Some((_, run)) = self.runs.last_mut() {
            run.extend_from_slice(bytes);
        }
        self.at += bytes.len() as u64;
        self
    }

    /// The same byte `count` times.
    pub fn fill(self, byte: u8, count: usize) -> Self {
        self.bytes(&vec![byte; count])
    }

    /// Zeroes up to the next multiple of `alignment`.
    pub fn align(self, alignment: u64) -> Self {
        let count = self.at.next_multiple_of(alignment) - self.at;
        self.fill(0, usize::try_from(count).expect("a small alignment"))
    }

    /// Leaves out `count` bytes: the next byte begins a new run.
    pub fn gap(mut self, count: u64) -> Self {
        self.at += count;
        self.runs.push((self.at, Vec::new()));
        self
    }

    /// The finished memory.
    ///
    /// # Panics
    /// If a label is used and nowhere placed.
    pub fn image(mut self) -> Image {
        for (at, label, offset) in &self.uses {
            let target = self.labels.get(label);
            let target = target.unwrap_or_else(|| panic!("label {label} is nowhere placed"));
            let (start, run) = self
                .runs
                .iter_mut()
                .find(|(start, run)| (*start..*start + run.len() as u64).contains(at))
                .expect("a use lies in a run");
            let place = usize::try_from(*at - *start).expect("a run fits the memory");
            run[place..place + 8].copy_from_slice(&target.wrapping_add(*offset).to_le_bytes());
        }
        self.runs.retain(|(_, run)| !run.is_empty());
        Image {
            runs: self.runs,
            labels: self.labels,
        }
    }
}

impl Image {
    /// Where a label is.
    ///
    /// # Panics
    /// If it is nowhere.
    pub fn label(&self, label: &str) -> u64 {
        *self
            .labels
            .get(label)
            .unwrap_or_else(|| panic!("label {label} is nowhere placed"))
    }
}

#[cfg(test)]
mod tests {
    use super::Asm;

    #[test]
    fn a_label_is_used_before_it_is_placed() {
        let image = Asm::at(0x1000).ptr("b").here("b").ptr_plus("b", 2).image();
        let words = [0x1008u64.to_le_bytes(), 0x100au64.to_le_bytes()].concat();
        assert_eq!(image.runs, [(0x1000, words)]);
    }

    #[test]
    fn a_gap_begins_a_new_run() {
        let image = Asm::at(0x1000)
            .u8(1)
            .align(4)
            .gap(0x10)
            .here("behind")
            .u16(2)
            .image();
        assert_eq!(image.label("behind"), 0x1014);
        assert_eq!(
            image.runs,
            [(0x1000, vec![1, 0, 0, 0]), (0x1014, vec![2, 0])]
        );
    }

    #[test]
    #[should_panic(expected = "label nobody is nowhere placed")]
    fn a_label_must_be_placed() {
        Asm::at(0).ptr("nobody").image();
    }
}
