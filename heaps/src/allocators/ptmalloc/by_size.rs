//! Counts of chunks by their sizes: exact for small ones, together for the rest.

/// Chunks by size.
#[derive(Clone, Debug)]
pub struct BySize {
    /// Numbers, by size / 16, of sizes below 0x420.
    pub small: Vec<u64>,
    /// Number of larger ones.
    pub large: u64,
    /// Their bytes, headers included.
    pub large_bytes: u64,
}

impl Default for BySize {
    fn default() -> Self {
        Self {
            small: vec![0; 0x42],
            large: 0,
            large_bytes: 0,
        }
    }
}

impl BySize {
    /// Counts a chunk.
    #[inline]
    pub fn add(&mut self, size: u64) {
        self.add_many(size, 1);
    }

    /// Counts chunks of one size.
    #[inline]
    pub fn add_many(&mut self, size: u64, chunks: u64) {
        match usize::try_from(size / 16)
            .ok()
            .and_then(|index| self.small.get_mut(index))
        {
            Some(count) => *count += chunks,
            None => {
                self.large += chunks;
                self.large_bytes = self.large_bytes.saturating_add(size.saturating_mul(chunks));
            }
        }
    }

    /// Takes a chunk back.
    pub fn remove(&mut self, size: u64) {
        match usize::try_from(size / 16)
            .ok()
            .and_then(|index| self.small.get_mut(index))
        {
            Some(count) => *count = count.saturating_sub(1),
            None => {
                self.large = self.large.saturating_sub(1);
                self.large_bytes = self.large_bytes.saturating_sub(size);
            }
        }
    }

    /// Takes another count away.
    pub fn subtract(&mut self, other: &Self) {
        for (to, from) in self.small.iter_mut().zip(&other.small) {
            *to = to.saturating_sub(*from);
        }
        self.large = self.large.saturating_sub(other.large);
        self.large_bytes = self.large_bytes.saturating_sub(other.large_bytes);
    }

    /// Adds another count.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.small.iter_mut().zip(&other.small) {
            *to += from;
        }
        self.large += other.large;
        self.large_bytes = self.large_bytes.saturating_add(other.large_bytes);
    }

    /// Chunks, and their usable bytes.
    pub fn total(&self) -> (u64, u64) {
        let small: u64 = self.small.iter().sum();
        let bytes: u64 = (0u64..)
            .zip(&self.small)
            .map(|(index, count)| (index * 16).saturating_sub(8) * count)
            .sum();
        (
            small + self.large,
            bytes + self.large_bytes.saturating_sub(8 * self.large),
        )
    }
}
