//! Small ELF images for tests, their numbers written out.

/// An ELF image in the making: everything in one page of headers and one page per segment.
#[derive(Clone)]
pub struct TestElf {
    /// `e_type`: 2 or 3.
    pub kind: u16,
    /// Link address of the first segment; the others follow page by page.
    pub base: u64,
    /// Flags of the segments, one page each; the first holds the headers.
    pub segments: Vec<u32>,
    pub build_id: Option<Vec<u8>>,
    /// Link address of the dynamic section, which is 64 bytes long.
    pub dynamic: Option<u64>,
    pub interpreter: bool,
    /// Fills the pages behind the first.
    pub fill: u8,
}

pub const PAGE: u64 = 4096;

impl Default for TestElf {
    fn default() -> Self {
        Self {
            kind: 3,
            base: 0,
            segments: vec![4, 5, 6],
            build_id: Some(vec![0xab; 20]),
            dynamic: None,
            interpreter: false,
            fill: 0x90,
        }
    }
}

impl TestElf {
    pub fn with_id(id: u8) -> Self {
        Self {
            build_id: Some(vec![id; 20]),
            ..Self::default()
        }
    }

    /// The first page: headers and notes.
    pub fn first_page(&self) -> Vec<u8> {
        let mut headers: Vec<[u64; 7]> = Vec::new(); // type and flags, offset, vaddr, paddr, filesz, memsz, align
        let word = |kind: u64, flags: u64| kind | flags << 32;
        for (index, flags) in self.segments.iter().enumerate() {
            let offset = index as u64 * PAGE;
            let at = self.base + offset;
            headers.push([word(1, u64::from(*flags)), offset, at, 0, PAGE, PAGE, PAGE]);
        }
        if self.build_id.is_some() {
            let bytes = 16 + self.build_id.as_ref().map_or(0, Vec::len) as u64;
            let at = self.base + 0x800;
            headers.push([word(4, 4), 0x800, at, 0, bytes, bytes, 4]);
        }
        if let Some(at) = self.dynamic {
            headers.push([word(2, 6), at - self.base, at, 0, 64, 64, 8]);
        }
        if self.interpreter {
            headers.push([word(3, 4), 0x700, self.base + 0x700, 0, 8, 8, 1]);
        }
        let mut page = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        page.extend(self.kind.to_le_bytes());
        page.extend([62, 0, 1, 0, 0, 0]);
        for word in [self.base + PAGE, 64, 0] {
            page.extend(u64::to_le_bytes(word));
        }
        page.extend([0, 0, 0, 0, 64, 0, 56, 0]);
        page.extend((headers.len() as u16).to_le_bytes());
        page.extend([0; 6]);
        for header in headers {
            page.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        }
        page.resize(0x800, 0);
        if let Some(id) = &self.build_id {
            page.extend([4, 0, 0, 0, id.len() as u8, 0, 0, 0, 3, 0, 0, 0]);
            page.extend(b"GNU\0");
            page.extend(id);
        }
        page.resize(PAGE as usize, 0);
        page
    }

    /// The whole file.
    pub fn file(&self) -> Vec<u8> {
        let mut file = self.first_page();
        file.resize(self.segments.len() * PAGE as usize, self.fill);
        file
    }
}
