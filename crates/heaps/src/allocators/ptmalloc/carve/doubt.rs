//! Headers that cannot be: which one was written over, and where chunks lead on.

use super::super::anchors;
use super::super::layout::{ALIGNMENT, FLAGS, HEADER, MIN_CHUNK, PREV_INUSE};
use super::{ENOUGH, MAX_BROKEN, NON_MAIN, Odd, Passed, Walker};
use ground::target::Address;

impl Walker<'_, '_> {
    /// A header that cannot be one. Where to go on, and what was passed last.
    pub(super) fn trouble(
        &mut self,
        at: Address,
        header: u64,
        last: Option<Passed>,
        possible: bool,
    ) -> (Address, Option<Passed>) {
        if let Some(next) = self.fencepost(at, header, last) {
            return (next, None);
        }
        if self.out.damaged.1 >= MAX_BROKEN {
            self.settle(last, None, at);
            self.out.damaged.0 = self
                .out
                .damaged
                .0
                .saturating_add(self.run.limit.offset_from(at).unwrap_or(0));
            self.end_piece(at);
            return (self.run.limit, None);
        }
        let last_is_known = last.is_some_and(|last| self.is_size_known(last, at));
        if let Some(last) = last
            && !possible
            && !last_is_known
            && let Some(nul) = self.may_be_data(at, header)
            && let Some(inner) = self.swallowed(last, at, nul)
            && !self.is_named_rather(at, inner)
        {
            let size = inner.get().saturating_sub(last.at.get());
            self.odd(Odd::Resized {
                chunk: last.at,
                before: last.before,
                size,
                led_to: at,
            });
            return (inner, Some(Passed { size, ..last }));
        }
        let cut = last.filter(|_| !last_is_known).and_then(|last| {
            let by_byte = (!possible).then(|| self.cut_short(last, at, header));
            let size = by_byte.flatten();
            Some((
                last,
                size.or_else(|| self.cut_anywhere(last, at, header, possible))?,
            ))
        });
        if let Some((last, size)) = cut {
            let resync = last.at.saturating_add(size);
            self.odd(Odd::Resized {
                chunk: last.at,
                before: last.before,
                size,
                led_to: at,
            });
            return (resync, Some(Passed { size, ..last }));
        }
        let resync = self.resync(at, header);
        self.settle(last, None, at);
        self.odd(Odd::Broken {
            before: last.map(|last| last.at),
            at,
            resync,
            possible,
        });
        // One chunk, as far as anybody can tell.
        let size = resync.get().saturating_sub(at.get());
        self.out.damaged.0 = self.out.damaged.0.saturating_add(size);
        self.out.damaged.1 = self.out.damaged.1.saturating_add(1);
        self.start_chunk(at, 0);
        let passed = Passed {
            at,
            size,
            after_free: false,
            before: last.map(|last| last.at),
        };
        (resync, Some(passed))
    }

    /// Whether a possible header cannot be right all the same: its chunk would cover one that a list vouches for, or
    /// the list that holds it knows another size, or it calls the chunk before it free, which does not agree, and no
    /// chunks lead on behind it.
    #[inline]
    pub(super) fn is_contradicted(
        &mut self,
        at: Address,
        header: u64,
        last: Option<Passed>,
    ) -> bool {
        if self.run.anchors.is_empty() {
            return false;
        }
        let size = header & !FLAGS;
        let known = anchors::at(self.run.anchors, at).and_then(|anchor| anchor.size);
        if self.covers_anchor(at, size) || known.is_some_and(|known| known != size) {
            return true;
        }
        let denied = header & PREV_INUSE == 0
            && last
                .is_some_and(|last| self.word(at) != Some(last.size) || !self.is_linked(last.at));
        denied && (self.size_before_nul(at, header).is_some() || !self.leads_on(at))
    }

    /// Where chunks lead on behind one whose header is damaged.
    fn resync(&mut self, at: Address, header: u64) -> Address {
        match self.size_before_nul(at, header) {
            Some(size) => at.saturating_add(size),
            None => self.footing_behind(at).unwrap_or(self.run.limit),
        }
    }

    /// What a size was whose lowest byte a NUL was written over, if it leads to no chunk that anybody knows of now, and to one
    /// with another lowest byte; or to one without the mark of its arena.
    fn size_before_nul(&mut self, at: Address, header: u64) -> Option<u64> {
        let now = at.checked_add(header)?;
        if header & 0xff != 0 || header < 0x100 || now >= self.run.limit || self.is_named(now) {
            return None;
        }
        let is_marked = self.has_mark(now);
        let mut sizes = (header..header.saturating_add(0x100)).step_by(16).skip(1);
        sizes.find(|size| {
            let next = at.saturating_add(*size);
            next < self.run.limit
                && !self.covers_anchor(at, *size)
                && self.has_mark(next)
                && (!is_marked || self.is_named(next))
                && self.leads_on(next)
                && self.fits_behind(at, *size)
        })
    }

    /// Whether a write that is easily made turned `size` into what stands in a header: one bit, or a NUL over the lowest byte.
    /// A size that is wrong in more bits and still a possible one is rarer than a second damaged header is.
    /// With `one_bit`, only a bit above that byte will do.
    fn is_likely(&mut self, at: Address, size: u64, one_bit: bool) -> bool {
        let found = self.word(at.saturating_add(8)).unwrap_or(0) & !FLAGS;
        let change = found ^ size;
        if one_bit {
            return change.is_power_of_two() && change >= 0x100;
        }
        // A letter that leaves a size with its flags is rarer than a damaged header behind one that is whole.
        change.is_power_of_two() || change < 0x100 && found & 0xff == 0
    }

    /// Whether an impossible header may be data to which a wrong size led; and then, whether it looks like one that a NUL
    /// was written over.
    fn may_be_data(&mut self, at: Address, header: u64) -> Option<bool> {
        // Zero behind what ends in something: a NUL was all that a small size had to lose. Zeros among zeros are data.
        let ends = header == 0 && self.word(at).is_some_and(|end| end != 0);
        let nul = ends && self.resync(at, header).get().saturating_sub(at.get()) < 0x100;
        let is_data = !self.is_written(at, header) && !self.is_nearly_one(at, header);
        is_data.then_some(nul)
    }

    fn covers_anchor(&self, at: Address, size: u64) -> bool {
        anchors::between(self.run.anchors, at, at.saturating_add(size)).is_some()
    }

    /// Whether an impossible header is one that was written over, rather than data to which a wrong size led: a list
    /// holds the chunk, only its low bytes are wrong, text runs on into it, or a fill begins with it.
    fn is_written(&mut self, at: Address, header: u64) -> bool {
        if self.is_filled(at, header) {
            return false;
        }
        let room = self.run.limit.get().saturating_sub(at.get());
        let anchored = anchors::at(self.run.anchors, at).is_some();
        if (1..=room).contains(&header)
            || anchored
            || self.is_linked(at)
            || self.starts_fill(at, header)
        {
            return true;
        }
        let text = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let [.., a, b, c] = self.word(at).unwrap_or(0).to_le_bytes();
        let [first, ..] = header.to_le_bytes();
        [a, b, c, first].into_iter().all(text)
    }

    /// Whether one value fills a header and the first words of its block, and nothing in front of it: a write that began there.
    fn starts_fill(&mut self, at: Address, header: u64) -> bool {
        const WORDS: u64 = 5;
        let mut behind = (2..2 + WORDS).map(|index| at.saturating_add(index.saturating_mul(8)));
        header != 0
            && self.word(at) != Some(header)
            && behind.all(|at| self.word(at) == Some(header))
    }

    /// Whether the words on both sides of a header are the same as it: data.
    fn is_filled(&mut self, at: Address, header: u64) -> bool {
        self.word(at) == Some(header) && self.word(at.saturating_add(16)) == Some(header)
    }

    /// Whether a header becomes one from which chunks lead on if one bit of it is turned, or if its upper bytes are taken
    /// for those of a write that began in front of the block.
    fn is_nearly_one(&mut self, at: Address, header: u64) -> bool {
        let bits = (0..64).map(|bit| header ^ 1 << bit);
        let ends =
            (2..8u32).map(|bytes| header & (1u64 << bytes.saturating_mul(8)).saturating_sub(1));
        let room = self.run.limit.get().saturating_sub(at.get());
        header != 0
            && bits.chain(ends).any(|header| {
                let size = header & !FLAGS;
                let sane = header & self.bad == 0 && size >= MIN_CHUNK && size <= room;
                sane && self.leads_on(at.saturating_add(size)) && self.fits_behind(at, size)
            })
    }

    /// Whether a chunk has the mark of its arena, as those in use have: an old header of a free one has not.
    fn has_mark(&mut self, chunk: Address) -> bool {
        let header = self.word(chunk.saturating_add(8)).unwrap_or(0);
        self.run.is_main || header & NON_MAIN != 0 || self.is_linked(chunk)
    }

    /// Whether anybody knows of a chunk: the program points at its block, or a list holds it.
    fn is_named(&mut self, chunk: Address) -> bool {
        (self.run.is_pointed_at)(chunk.saturating_add(HEADER))
            || anchors::at(self.run.anchors, chunk).is_some()
            || self.is_linked(chunk)
    }

    /// Whether the first of two places is known to be a chunk and the second is not: only one of them can be one.
    fn is_named_rather(&mut self, one: Address, other: Address) -> bool {
        self.is_named(one) && !self.is_named(other)
    }

    /// Whether the size of the chunk last passed is known to be right: by the list that holds it, or by what stands
    /// behind it (at `next`) where it is in a bin.
    fn is_size_known(&mut self, last: Passed, next: Address) -> bool {
        let known = anchors::at(self.run.anchors, last.at);
        known.and_then(|anchor| anchor.size) == Some(last.size)
            || self.word(next) == Some(last.size) && self.is_linked(last.at)
    }

    /// Whether a neighbour in a bin points back at a chunk.
    fn is_linked(&mut self, chunk: Address) -> bool {
        let mut answers = |there: u64, back: u64| {
            let other = self.word(chunk.saturating_add(there))?;
            Some(self.word(Address::new(other).checked_add(back)?)? == chunk.get())
        };
        answers(16, 24) == Some(true) || answers(24, 16) == Some(true)
    }

    /// Whether a chunk whose size is `size` may be followed by this header, at `at + size`: it calls the chunk in
    /// use, or a bin holds the chunk.
    fn fits_behind(&mut self, at: Address, size: u64) -> bool {
        let next = at.saturating_add(size);
        let free = self
            .word(next.saturating_add(8))
            .is_some_and(|header| header & PREV_INUSE == 0);
        !free || self.word(next) == Some(size) && self.is_linked(at)
    }

    /// Where chunks lead on behind one whose header is damaged.
    fn footing_behind(&mut self, chunk: Address) -> Option<Address> {
        let known = anchors::at(self.run.anchors, chunk).and_then(|anchor| anchor.size);
        if let Some(next) = known.and_then(|size| chunk.checked_add(size))
            && (next == self.run.limit || self.leads_on(next))
        {
            return Some(next);
        }
        let mut from = chunk.saturating_add(MIN_CHUNK);
        loop {
            let at = self.footing(from).unwrap_or(self.run.limit);
            if let Some(anchor) = anchors::between(self.run.anchors, chunk, at) {
                return Some(anchor);
            }
            let fits = self.fits_behind(chunk, at.offset_from(chunk)?);
            if at == self.run.limit || fits && self.has_mark(at) {
                return Some(at);
            }
            from = at.saturating_add(ALIGNMENT);
        }
    }

    /// What the size of the chunk last passed was, if a write over its lowest byte made it smaller: a NUL, or anything
    /// where what the size leads to is plainly data. `led_to` is no header.
    fn cut_short(&mut self, last: Passed, led_to: Address, no_header: u64) -> Option<u64> {
        let header = self.word(last.at.saturating_add(8))?;
        // Where the chunk before is free and agrees that it is, the flags are as they were.
        let by_nul = header == last.size && header & 0xff == 0 && !last.after_free;
        let is_data = self.is_filled(led_to, no_header) && !self.is_named(led_to);
        if !by_nul && !is_data {
            return None;
        }
        let lowest = last.size & !0xff;
        let mut sizes = (lowest..lowest.saturating_add(0x100))
            .step_by(16)
            .filter(|size| *size > last.size);
        sizes.find(|size| {
            self.leads_on(last.at.saturating_add(*size)) && self.fits_behind(last.at, *size)
        })
    }

    /// What the size of the chunk last passed was, if one bit of it was cleared, its lowest byte written over, or all but
    /// that byte zeroed: then the program points at that chunk, and at nothing where its size leads to.
    fn cut_anywhere(
        &mut self,
        last: Passed,
        led_to: Address,
        no_header: u64,
        possible: bool,
    ) -> Option<u64> {
        /// Footings that are tried.
        const MAX_FOOTINGS: usize = 8;
        if let Some(size) = self.size_by_foot(last) {
            return Some(size);
        }
        let nul = match possible {
            true => false,
            false => self.may_be_data(led_to, no_header)?,
        };
        // Who died in free with the block at hand knows it by its chunk.
        let is_in_hand = (self.run.is_pointed_at)(led_to);
        if is_in_hand || !self.is_named_rather(last.at, led_to) {
            return None;
        }
        let mut from = led_to.saturating_add(ALIGNMENT);
        for _ in 0..MAX_FOOTINGS {
            let at = self.footing(from).unwrap_or(self.run.limit);
            let size = at.offset_from(last.at)?;
            let zeroed = last.size < 0x100 && size & 0xff == last.size && size < 1 << 16;
            if (zeroed || self.is_likely(last.at, size, nul)) && self.fits_behind(last.at, size) {
                return Some(size);
            }
            // An old header in its data is passed over, another block is not.
            if at == self.run.limit || self.is_named(at) {
                break;
            }
            from = at.saturating_add(ALIGNMENT);
        }
        None
    }

    /// The size of a chunk that is in a bin, by what stands behind it, if its own is one that a write which is easily made
    /// left of that.
    fn size_by_foot(&mut self, last: Passed) -> Option<u64> {
        if !self.is_linked(last.at) {
            return None;
        }
        let bits = (4..32).map(|bit| last.size ^ 1 << bit);
        let bytes = (0..16).map(|low| last.size & !0xff | low << 4);
        let room = self.run.limit.offset_from(last.at)?;
        bits.chain(bytes).find(|size| {
            let next = last.at.saturating_add(*size);
            let in_run = *size >= MIN_CHUNK && *size < room && *size != last.size;
            in_run
                && self.word(next) == Some(*size)
                && self
                    .word(next.saturating_add(8))
                    .is_some_and(|header| header & PREV_INUSE == 0)
                && self.leads_on(next)
        })
    }

    /// The first place from `from` on, from where chunks lead on.
    pub(super) fn footing(&mut self, from: Address) -> Option<Address> {
        let mut at = Address::new(from.get().saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1));
        while at < self.run.limit {
            self.budget = self.budget.checked_sub(1)?;
            if self.leads_on(at) {
                return Some(at);
            }
            let passed = self.places_passed(at, self.run.limit);
            if passed > self.budget {
                self.budget = 0;
                return None;
            }
            self.budget = self.budget.saturating_sub(passed.saturating_sub(1));
            at = at.saturating_add(passed.saturating_mul(ALIGNMENT));
        }
        None
    }

    /// Where chunks begin between two places, if a damaged header among the first of them hides that: from there they
    /// lead over one that a list vouches for.
    pub(super) fn first_before(&mut self, from: Address, to: Address) -> Option<Address> {
        let anchor = anchors::any(self.run.anchors, from..to)?;
        let mut place = from;
        while place <= anchor {
            let mut at = place;
            while at < anchor {
                self.budget = self.budget.checked_sub(1)?;
                let header = self.word(at.saturating_add(8))?;
                let size = header & !FLAGS;
                let sane = header & self.bad == 0 && size >= MIN_CHUNK;
                at = match at.checked_add(size).filter(|_| sane) {
                    Some(next) => next,
                    None => break,
                };
            }
            if at == anchor {
                return Some(place);
            }
            place = place.saturating_add(ALIGNMENT);
        }
        None
    }

    /// Whether enough sane chunks follow each other from `at`, or lead to the end of the run.
    pub(super) fn leads_on(&mut self, at: Address) -> bool {
        let enough = self.enough();
        self.follow(at, None, enough)
    }

    /// How many chunks must lead on: more where anchors make up for those that are damaged.
    fn enough(&self) -> u32 {
        if self.run.anchors.is_empty() {
            ENOUGH
        } else {
            2 * ENOUGH
        }
    }

    /// Whether `enough` do, passing over `not` (which is no chunk).
    pub(super) fn follow(&mut self, at: Address, not: Option<Address>, enough: u32) -> bool {
        let limit = self.run.limit;
        let mut at = at;
        let mut size_before = None;
        let mut steps = 0;
        while steps < enough || not.is_some_and(|not| at <= not) {
            if at == limit {
                return steps > 0 || self.run.has_top;
            }
            if not == Some(at) {
                return false;
            }
            let Some(header) = self.word(at.saturating_add(8)) else {
                return false;
            };
            let size = header & !FLAGS;
            let room = limit.get().saturating_sub(at.get());
            if header & PREV_INUSE == 0
                && let Some(before) = size_before
                && !(self.word(at) == Some(before)
                    && at
                        .checked_sub(before)
                        .is_some_and(|free| self.is_linked(free)))
            {
                return false;
            }
            if steps > 0 && size == 16 && header & self.bad & !NON_MAIN == 0 {
                return self
                    .word(at.saturating_add(24))
                    .is_some_and(|second| second & !FLAGS == 16 || second & !FLAGS == 0);
            }
            let impossible = header & self.bad != 0 || size < MIN_CHUNK || size > room;
            if impossible || self.covers_anchor(at, size) {
                return false;
            }
            at = at.saturating_add(size);
            size_before = Some(size);
            steps = steps.saturating_add(1);
        }
        true
    }

    /// A chunk inside the one passed last from which chunks lead on over `at`: the size of the last
    /// one is too large.
    fn swallowed(&mut self, last: Passed, at: Address, one_bit: bool) -> Option<Address> {
        const MAX_SEARCH: u64 = 1 << 20;
        let end = at.min(last.at.saturating_add(MAX_SEARCH));
        let mut inner = last.at.saturating_add(MIN_CHUNK);
        while inner < end {
            self.budget = self.budget.checked_sub(1)?;
            let size = inner.offset_from(last.at)?;
            let enough = self.enough();
            if self.is_likely(last.at, size, one_bit)
                && self.has_mark(inner)
                && self.follow(inner, Some(at), enough)
                && self.fits_behind(last.at, size)
            {
                return Some(inner);
            }
            inner = inner.saturating_add(ALIGNMENT);
        }
        None
    }
}
