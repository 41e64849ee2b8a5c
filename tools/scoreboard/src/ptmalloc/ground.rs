//! A healthy heap of glibc's, read by its chunks' headers and its lists.

use ground::target::{Address, MemoryExt, Target};
use heapcheck::analysis::HeapAnalysis;
use heaps::allocators::Detail;
use heaps::map::{Owner, Shape};

use super::layout::{HEADER, HEAP_MAX, Layout, M, N, P};

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Handed out.
    Used,
    /// In a list: its index, and the position there.
    Listed(usize, usize),
    /// A thread's cache itself.
    Cache,
    /// On its way, or in a list that is being changed.
    Unknown,
}

/// A chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Its header.
    pub at: u64,
    /// Bytes, header included.
    pub size: u64,
    /// Index of its arena; 0 is the main one.
    pub arena: usize,
    /// What it is.
    pub state: State,
}

impl Chunk {
    /// The pointer that the program knows.
    pub fn block(&self) -> u64 {
        self.at + HEADER
    }

    /// First byte past the chunk: the header of the next one.
    pub fn end(&self) -> u64 {
        self.at + self.size
    }

    /// First byte past what the program may use.
    pub fn block_end(&self) -> u64 {
        self.end() + 8
    }
}

/// Kinds of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a thread's cache.
    Cache,
    /// A fastbin.
    Fast,
    /// Unsorted, small or large.
    Bin,
}

/// A list that is as it should be.
pub struct List {
    /// What kind.
    pub kind: Kind,
    /// The cache or the arena that has it.
    pub holder: u64,
    /// Number of the bin.
    pub number: u64,
    /// The word that names its first entry.
    pub head: u64,
    /// Chunks in order.
    pub entries: Vec<u64>,
}

/// The heap and what is in it.
pub struct Ground<'a> {
    /// The process.
    pub target: Target<'a>,
    /// Of its release.
    pub layout: Layout,
    /// `mp_`, where it was found.
    pub parameters: Option<u64>,
    /// Arenas, the main one first.
    pub arenas: Vec<u64>,
    /// Caches of threads that are in the core.
    pub caches: Vec<u64>,
    /// Those of others: of a process that forked.
    orphans: Vec<u64>,
    /// All chunks, by address.
    pub chunks: Vec<Chunk>,
    /// All sound lists that are not empty.
    pub lists: Vec<List>,
    /// Runs of chunks: first and end.
    pub runs: Vec<(u64, u64)>,
    /// Chunks with mappings of their own.
    pub mapped: Vec<u64>,
    /// Whether the program's own variables and malloc's are in different modules.
    pub is_shared: bool,
}

impl<'a> Ground<'a> {
    /// Looks at a heap. `None` if its release is not known.
    pub fn survey(target: Target<'a>, heap: &HeapAnalysis<'_>) -> Option<Self> {
        let identity = &heap.identity;
        let version = identity.version.as_ref()?.strip_prefix("2.")?;
        let minor = version.split(['.', '-']).next()?.parse().ok()?;
        let part = |name: &str| {
            let part = identity.located.iter().find(|part| part.part == name)?;
            Some(part.at.get())
        };
        let program = target.modules.iter().find(|module| module.is_executable)?;
        let mut ground = Self {
            target,
            layout: Layout::of(minor)?,
            parameters: part("mp_"),
            arenas: Vec::new(),
            caches: caches(heap, true),
            orphans: caches(heap, false),
            chunks: Vec::new(),
            lists: Vec::new(),
            runs: Vec::new(),
            mapped: Vec::new(),
            is_shared: program.id != identity.module,
        };
        ground.find_arenas(part("main_arena")?)?;
        for extent in heap.map.extents() {
            let (start, end) = (extent.start.get(), extent.end().get());
            match extent.shape {
                Shape::Chunks { .. } => ground.walk(start, end)?,
                Shape::Single if extent.owner == Owner::InUse => ground.mapped.push(start - HEADER),
                _ => {}
            }
        }
        ground.chunks.sort_by_key(|chunk| chunk.at);
        for cache in [&ground.caches[..], &ground.orphans].concat() {
            ground.mark(cache - HEADER, State::Cache);
            ground.follow_cache(cache);
        }
        for arena in ground.arenas.clone() {
            ground.follow_fastbins(arena);
            ground.follow_bins(arena);
        }
        ground.mark_on_their_way();
        Some(ground)
    }

    /// A word of the healthy core.
    pub fn word(&self, at: u64) -> Option<u64> {
        self.target.memory.read_u64(Address::new(at)).ok()
    }

    /// Two bytes of it.
    pub fn half(&self, at: u64) -> Option<u16> {
        self.target.memory.read_u16(Address::new(at)).ok()
    }

    fn find_arenas(&mut self, main: u64) -> Option<()> {
        let mut arena = main;
        while !self.arenas.contains(&arena) && self.arenas.len() < 4096 {
            self.arenas.push(arena);
            arena = self.word(arena + self.layout.next())?;
        }
        (arena == main).then_some(())
    }

    /// Index of the arena that an address belongs to.
    fn arena_of(&self, at: u64) -> usize {
        let owner = self.word(at & !(HEAP_MAX - 1));
        let others = self.arenas.iter().skip(1);
        others
            .zip(1..)
            .find(|(arena, _)| owner == Some(**arena))
            .map_or(0, |(_, index)| index)
    }

    fn walk(&mut self, start: u64, end: u64) -> Option<()> {
        let arena = self.arena_of(start);
        let mut at = start;
        while at < end {
            let size = self.word(at + 8)? & !(P | M | N);
            if size < 0x20 || !size.is_multiple_of(16) || size > end - at {
                return None;
            }
            self.chunks.push(Chunk {
                at,
                size,
                arena,
                state: State::Used,
            });
            at += size;
        }
        self.runs.push((start, end));
        Some(())
    }

    /// Index of the chunk that begins here.
    pub fn index_of(&self, at: u64) -> Option<usize> {
        self.chunks.binary_search_by_key(&at, |chunk| chunk.at).ok()
    }

    /// The chunk whose memory, header included, holds an address.
    pub fn holding(&self, at: u64) -> Option<(usize, Chunk)> {
        let after = self.chunks.partition_point(|chunk| chunk.at <= at);
        let index = after.checked_sub(1)?;
        let chunk = *self.chunks.get(index)?;
        (at < chunk.end()).then_some((index, chunk))
    }

    /// The arena whose top chunk begins here.
    pub fn top_at(&self, at: u64) -> Option<u64> {
        let top = self.layout.top;
        let mut arenas = self.arenas.iter().copied();
        arenas.find(|arena| self.word(arena + top) == Some(at))
    }

    fn mark(&mut self, at: u64, state: State) {
        if let Some(index) = self.index_of(at) {
            self.chunks[index].state = state;
        }
    }

    /// Takes a list if every entry is a chunk, and it ends where it should.
    fn take(&mut self, list: List, is_sound: bool) {
        let index = self.lists.len();
        let known = |at: &u64| self.index_of(*at).is_some();
        let is_sound = is_sound && list.entries.iter().all(known);
        for (position, at) in list.entries.iter().enumerate() {
            let state = if is_sound {
                State::Listed(index, position)
            } else {
                State::Unknown
            };
            self.mark(*at, state);
        }
        if is_sound && !list.entries.is_empty() {
            self.lists.push(list);
        }
    }

    /// Entries of a list of single links; `lead` bytes from what they name to the block.
    fn chain(&self, head: u64, lead: u64, most: usize) -> (Vec<u64>, bool) {
        let mut entries = Vec::new();
        let mut entry = head;
        while entry != 0 && entries.len() < most {
            let block = entry + lead;
            entries.push(block - HEADER);
            match self.word(block) {
                Some(word) => entry = self.layout.link(block, word),
                None => return (entries, false),
            }
        }
        (entries, entry == 0)
    }

    fn follow_cache(&mut self, cache: u64) {
        let limit = self.cache_limit();
        for number in 0..self.layout.cache_bins {
            let head = cache + self.layout.entries() + 8 * number;
            let counted = self.half(cache + 2 * number).unwrap_or(0);
            let count = if self.layout.counts_down() {
                limit.wrapping_sub(counted)
            } else {
                counted
            };
            let first = self.word(head).unwrap_or(0);
            let (entries, ends) = self.chain(first, 0, usize::from(count) + 1);
            let is_sound = ends && entries.len() == usize::from(count);
            let list = List {
                kind: Kind::Cache,
                holder: cache,
                number,
                head,
                entries,
            };
            self.take(list, is_sound);
        }
    }

    fn follow_fastbins(&mut self, arena: u64) {
        let Some(fastbins) = self.layout.fastbins else {
            return;
        };
        for number in 0..10 {
            let head = arena + fastbins + 8 * number;
            let first = self.word(head).unwrap_or(0);
            let (entries, is_sound) = self.chain(first, HEADER, 1 << 20);
            let list = List {
                kind: Kind::Fast,
                holder: arena,
                number,
                head,
                entries,
            };
            self.take(list, is_sound);
        }
    }

    fn follow_bins(&mut self, arena: u64) {
        for number in 1..=127 {
            let bin = arena + self.layout.bin(number);
            let mut entries = Vec::new();
            let (mut before, mut is_sound) = (bin, true);
            let mut at = self.word(bin + 16).unwrap_or(bin);
            while at != bin && entries.len() < 1 << 20 {
                entries.push(at);
                is_sound &= self.word(at + 24) == Some(before);
                before = at;
                match self.word(at + 16) {
                    Some(next) => at = next,
                    None => break,
                }
            }
            is_sound &= at == bin && self.word(bin + 24) == Some(before);
            let list = List {
                kind: Kind::Bin,
                holder: arena,
                number,
                head: bin + 16,
                entries,
            };
            self.take(list, is_sound);
        }
    }

    /// Free by the next chunk's header, and in no bin; or the other way round.
    fn mark_on_their_way(&mut self) {
        for index in 0..self.chunks.len() {
            let chunk = self.chunks[index];
            let in_bin = match chunk.state {
                State::Listed(list, _) => self.lists[list].kind == Kind::Bin,
                _ => false,
            };
            let next = self.word(chunk.end() + 8);
            if next.is_some_and(|next| (next & P == 0) != in_bin) {
                self.chunks[index].state = State::Unknown;
            }
        }
    }

    /// `mp_.tcache_count`.
    pub fn cache_limit(&self) -> u16 {
        let [.., count] = self.layout.parameters;
        let default = if self.layout.minor >= 43 { 16 } else { 7 };
        self.parameters
            .and_then(|at| self.half(at + count))
            .unwrap_or(default)
    }

    /// The list that has this head word, if it is sound and not empty.
    pub fn list_at(&self, head: u64) -> Option<&List> {
        self.lists.iter().find(|list| list.head == head)
    }

    /// A list of a kind.
    pub fn some_list(&self, kind: Kind, rng: &mut fastrand::Rng) -> Option<(usize, &List)> {
        let fits = |(_, list): &(usize, &List)| list.kind == kind;
        let lists: Vec<_> = self.lists.iter().enumerate().filter(fits).collect();
        lists.get(rng.usize(..lists.len().max(1))).copied()
    }

    /// A chunk in use that a chunk or the top chunk follows.
    pub fn some_used(&self, rng: &mut fastrand::Rng) -> Option<Chunk> {
        (0..400).find_map(|_| {
            let chunk = *self.chunks.get(rng.usize(..self.chunks.len().max(1)))?;
            let followed =
                self.index_of(chunk.end()).is_some() || self.top_at(chunk.end()).is_some();
            (chunk.state == State::Used && followed).then_some(chunk)
        })
    }

    /// What this process's `free` writes behind the link of a cached block.
    pub fn key(&self, cache: u64) -> Option<u64> {
        match self.layout.minor {
            ..=28 => None,
            29..=33 => Some(cache),
            _ => {
                let list = self.lists.iter().find(|list| list.kind == Kind::Cache)?;
                self.word(list.entries.first()? + HEADER + 8)
            }
        }
    }
}

/// Caches, as heapcheck found them: those of the core's threads, or the others.
fn caches(heap: &HeapAnalysis<'_>, owned: bool) -> Vec<u64> {
    let list = heap.details.iter().find(|(name, _)| *name == "tcaches");
    let Some((_, Detail::List(rows))) = list else {
        return Vec::new();
    };
    let caches = rows.iter().filter_map(|row| {
        let Detail::Table(fields) = row else {
            return None;
        };
        let field = |wanted: &str| fields.iter().find(|(name, _)| *name == wanted);
        let (_, Detail::Address(at)) = field("address")? else {
            return None;
        };
        let has_owner = matches!(field("thread_id"), Some((_, Detail::Number(_))));
        (has_owner == owned).then_some(at.get())
    });
    caches.collect()
}
