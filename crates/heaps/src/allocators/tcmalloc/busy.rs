//! What the allocator's own state says of a list beyond its links: who may be changing it, and
//! whether a register holds the entry that an interrupted insertion had not linked yet.
//!
//! gperftools' `free` publishes a block before it links it (the compiler's order in every
//! distribution's build):
//!
//! ```text
//! list_ = p;            <- stopped here: p's first word is still the program's data
//! *p = old head;           the old head is in a register only
//! length_++
//! ```

use super::TcmallocHeap;
use crate::anomaly::{HolderKind, Holding, ListRef, Lock, Proof, Transient};
use crate::list::FreeList;
use crate::list::graph::Keeper;
use crate::presence::Presence;
use ground::target::Address;

impl TcmallocHeap<'_> {
    /// Proof that somebody may be changing the page heap or spans on their way to or from it.
    pub(super) fn page_heap_busy(&self) -> Option<Transient> {
        if let Some(lock) = self.located.page_heap_lock
            && let Some(transient) = self.lock_held(lock, Lock::PageHeap)
        {
            return Some(transient);
        }
        self.somebody_inside()
    }

    /// Proof that the page map or a list of free spans may be half changed. All that is done to them
    /// is done under the page heap's lock; where that is not known, anybody inside may hold it.
    pub(super) fn page_heap_locked(&self) -> Option<Transient> {
        use ground::target::MemoryExt;
        match self.located.page_heap_lock {
            Some(lock) if self.target.memory.read_u32(lock) == Ok(0) => None,
            _ => self.page_heap_busy(),
        }
    }

    /// Proof that a thread is inside the allocator, or that one which no longer exists may have been.
    pub(super) fn somebody_inside(&self) -> Option<Transient> {
        if let Some(thread) = self.presences.anyone() {
            return Some(self.presences.at_work(thread));
        }
        self.vanished()
    }

    /// The child of a fork has its parent's caches, but none of the threads that used them.
    pub(super) fn vanished(&self) -> Option<Transient> {
        let owned =
            |cache: &&super::caches::Cache| cache.owner.is_none() && self.cache_is_used(cache.at);
        let cache = self.caches.rows.iter().find(owned)?;
        Some(Transient::gone(Proof::OwnerIsGone(cache.at)))
    }

    /// Caches that hold something and whose thread is not in the core.
    pub(super) fn vanished_caches(&self) -> usize {
        self.caches
            .rows
            .iter()
            .filter(|cache| cache.owner.is_none() && self.cache_is_used(cache.at))
            .count()
    }

    fn cache_is_used(&self, cache: Address) -> bool {
        self.located
            .layout
            .cache
            .size
            .read(self.target.memory, cache)
            .is_ok_and(|size| size > 0)
    }

    fn lock_held(&self, at: Address, lock: Lock) -> Option<Transient> {
        use ground::target::MemoryExt;
        let word = self.target.memory.read_u32(at).ok()?;
        (1..=2)
            .contains(&word)
            .then(|| Transient::held(lock, at, word))
    }

    pub(super) fn central_busy(&self, class: u16) -> Option<Transient> {
        let central = self.central.get(usize::from(class))?.as_ref()?;
        self.lock_held(
            self.located.layout.central.lock.at(central.at),
            Lock::CentralList,
        )
    }

    fn owner_of(&self, list: &FreeList) -> Option<usize> {
        self.caches.rows.get(list.owner as usize)?.owner
    }

    /// Whether it is the list of a cache whose thread is not known.
    pub(super) fn is_ownerless(&self, list: &FreeList) -> bool {
        list.holder == HolderKind::ThreadCache && self.owner_of(list).is_none()
    }

    /// Whether somebody may be inserting the list's first entry: a thread that is, or may be,
    /// inside the allocator and holds the entry in a register (`free` stores the link through it),
    /// and has the one `behind` it in hand, or, if that is not known, some block that `may_follow`;
    /// or a thread that is no longer there to tell. A thread that died of its own fault stopped at
    /// the faulting instruction, which is none of those.
    pub(super) fn may_be_inserting(
        &self,
        list: &FreeList,
        behind: Option<Address>,
        may_follow: &dyn Fn(Address) -> bool,
    ) -> Option<Transient> {
        if self.is_ownerless(list) {
            return self.busy(list);
        }
        if list.holder == HolderKind::CentralList {
            self.central_busy(list.class)?;
        }
        self.candidates(list).into_iter().find_map(|thread| {
            if !self.is_at_work(thread) || self.presences.faulted(thread) {
                return None;
            }
            let registers = self.presences.registers(thread);
            let holds = |at: Address| registers.iter().find(|(_, value)| *value == at.get());
            let (register, _) = holds(list.head)?;
            let in_hand = self.presences.words_in_hand(thread);
            let follows = match (behind.filter(|behind| !behind.is_null()), in_hand) {
                (Some(behind), Some(hand)) => hand.contains(&behind.get()),
                (Some(behind), None) => holds(behind).is_some(),
                // Behind the only block there is nothing.
                (None, Some(hand)) if behind.is_none() && list.recorded > 1 => {
                    let mut words = hand.iter().map(|word| Address::new(*word));
                    words.any(|at| at != list.head && may_follow(at))
                }
                _ => true,
            };
            if !follows {
                return None;
            }
            let at_work = self.presences.at_work(thread);
            Some(at_work.holding(Holding::Block { register }))
        })
    }

    /// Threads whose registers may hold a piece of the list.
    pub(super) fn candidates(&self, list: &FreeList) -> Vec<usize> {
        match (list.holder, self.owner_of(list)) {
            (HolderKind::ThreadCache, Some(owner)) => vec![owner],
            _ => (0..self.presences.count()).collect(),
        }
    }
}

impl Keeper for TcmallocHeap<'_> {
    fn list_ref(&self, list: &FreeList) -> ListRef {
        let head_word = match list.holder {
            HolderKind::CentralList => self.located.layout.span.objects.at(list.at),
            _ => list.at,
        };
        ListRef {
            holder: list.holder,
            thread: match list.holder {
                HolderKind::ThreadCache => self
                    .owner_of(list)
                    .and_then(|thread| self.presences.tid(thread)),
                _ => None,
            },
            at: list.at,
            head_word,
            class: list.class,
            class_bytes: self.located.sizes.bytes(list.class).into(),
        }
    }

    fn busy(&self, list: &FreeList) -> Option<Transient> {
        match list.holder {
            HolderKind::ThreadCache => match self.owner_of(list) {
                Some(thread) if !self.is_at_work(thread) => None,
                Some(thread) => Some(self.presences.at_work(thread)),
                None => {
                    let cache = self.caches.rows.get(list.owner as usize)?;
                    Some(Transient::gone(Proof::OwnerIsGone(cache.at)))
                }
            },
            _ => self.central_busy(list.class),
        }
    }

    fn in_flight(
        &self,
        list: &FreeList,
        fits: &dyn Fn(Address) -> bool,
    ) -> Option<(Address, Transient)> {
        if list.holder == HolderKind::TransferCache
            || list.holder == HolderKind::CentralList && self.central_busy(list.class).is_none()
        {
            return None;
        }
        for thread in self.candidates(list) {
            if !self.is_at_work(thread) {
                continue;
            }
            let registers = self.presences.registers(thread);
            let Some((holds_head, _)) = registers
                .iter()
                .find(|(_, value)| *value == list.head.get())
            else {
                continue;
            };
            let behind = registers.iter().find(|(_, value)| {
                *value != 0 && *value != list.head.get() && fits(Address::new(*value))
            });
            let at_work = || self.presences.at_work(thread);
            if let Some((next_register, value)) = behind {
                let next = Address::new(*value);
                let holding = Holding::BlockAndNext {
                    register: holds_head,
                    next_register,
                    next,
                };
                return Some((next, at_work().holding(holding)));
            }
            let inside = matches!(self.presences.of(thread), Presence::Inside { .. });
            if list.recorded == 0 && inside && !self.presences.faulted(thread) {
                let holding = Holding::BlockForEmptyList {
                    register: holds_head,
                };
                return Some((Address::new(0), at_work().holding(holding)));
            }
        }
        None
    }

    /// A transfer cache's slot names both ends of its chain.
    fn last(&self, list: &FreeList) -> Option<Address> {
        if list.holder != HolderKind::TransferCache {
            return None;
        }
        let central = self.central.get(usize::from(list.class))?.as_ref()?;
        Some(central.slots.get(list.owner as usize)?.tail)
    }

    fn confined(&self, list: &FreeList) -> Option<std::ops::Range<Address>> {
        if list.holder != HolderKind::CentralList {
            return None;
        }
        Some(self.span_range(self.spans.rows().get(list.owner as usize)?))
    }
}
