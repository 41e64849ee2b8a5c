//! The frames around a call of the allocator, with their code.

mod received;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use ground::target::{Address, Frame, FrameTrust, MemoryExt};
use iced_x86::Instruction;

use super::Entry;
use super::code::Function;
use super::definition;
use super::entry::Callee;
use super::expression::{Expression, Stores, Words, Worked};
use super::facts::{Fact, Facts, RDI, RSP};
use super::functions::{Functions, MAX_DEPTH, leaves_into};
use super::trace::{Found, Place, Surroundings, back};
use postmortem::session::Session;

/// Frames from the innermost one that may be the allocator's.
const MAX_FRAMES: usize = 64;
/// Frames of the allocator whose code is gone back through.
const MAX_INNER: usize = 6;

/// A value and how it was come by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub worked: Worked,
    /// No other value is possible, as far as the code tells.
    pub certain: bool,
}

/// Where the allocator was entered.
#[derive(Clone)]
pub(super) struct Entered {
    /// The function that was called.
    pub entry: Entry,
    /// Index of the frame that called it.
    pub caller: usize,
    /// How.
    pub way: Way,
    /// The call can have gone nowhere else.
    pub certain: bool,
}

/// How the allocator was entered.
#[derive(Clone)]
pub(super) enum Way {
    /// By a call in the caller.
    Call,
    /// By jumps: the caller called the first of these functions, each left for the next, the last for the allocator.
    Jumps(Vec<u64>),
    /// Not known: the allocator's own frame is all there is.
    Unknown,
}

/// The stack of a thread that died.
pub(super) struct Stack<'s> {
    session: &'s Session,
    functions: Functions<'s>,
    frames: &'s [Frame],
    /// The frame that everything begins with.
    from: usize,
    thread_pointer: Option<u64>,
    stack_end: u64,
    /// What frames' calls lead to, as far as was asked.
    callees: RefCell<HashMap<usize, Option<Callee>>>,
}

/// A place in a function that control left outwards from, with what is known there.
struct Site {
    function: Function,
    index: usize,
    facts: Facts,
}

impl<'s> Stack<'s> {
    pub fn new(session: &'s Session, thread: usize, from: usize) -> Option<Self> {
        let frames = session.threads().frames(thread);
        let state = session.threads().list().get(thread)?;
        let sp = frames.get(from)?.sp;
        Some(Self {
            session,
            functions: Functions::new(session),
            frames,
            from,
            thread_pointer: state.thread_pointer.map(Address::get),
            stack_end: session.memory().region_at(sp)?.range.end.get(),
            callees: RefCell::default(),
        })
    }

    /// The innermost call of the allocator that is under way.
    pub fn entered(&self) -> Option<Entered> {
        let last = self.frames.len().min(self.from.checked_add(MAX_FRAMES)?);
        let inner = (self.from + 1..last)
            .take_while(|index| self.is_by_rules(*index))
            .find_map(|index| self.entered_from(index))?;
        // An entry that only passes its argument on to another one is the allocator's own.
        let mut outer = inner.clone();
        while let Some(next) = self.passed_on(&outer, last) {
            outer = next;
        }
        Some(outer)
    }

    /// Whether `abort` was called from inside of the call.
    pub fn aborts_before(&self, caller: usize) -> bool {
        let names = self.session.debug_info();
        self.frames
            .get(self.from..caller)
            .unwrap_or_default()
            .iter()
            .any(|frame| {
                let name = frame
                    .module
                    .and_then(|module| names.function_at(module, frame.lookup));
                name.is_some_and(|found| matches!(found.name.as_str(), "abort" | "__GI_abort"))
            })
    }

    fn passed_on(&self, inner: &Entered, last: usize) -> Option<Entered> {
        let start = self.frames.get(inner.caller)?.function?.0.get();
        let is_entry = |at: u64| {
            let name = self.functions.names.starting_at(at);
            name.as_deref().and_then(Entry::of_name)
        };
        let entry = is_entry(start)?;
        let caller = inner.caller.checked_add(1)?;
        if caller >= last || !self.is_by_rules(caller) {
            return None;
        }
        let outer = self.entered_from(caller).unwrap_or(Entered {
            entry,
            caller,
            way: Way::Unknown,
            certain: false,
        });
        let (one, other) = (self.given(inner), self.given(&outer));
        match (one, other) {
            (Some(one), Some(other)) if one.worked.value != other.worked.value => None,
            _ => Some(outer),
        }
    }

    fn is_by_rules(&self, index: usize) -> bool {
        self.frames
            .get(index)
            .is_some_and(|frame| frame.trust == FrameTrust::Cfi && !frame.interrupted)
    }

    /// Whether the call that a frame is in leads to the allocator.
    fn entered_from(&self, caller: usize) -> Option<Entered> {
        let inner = self.frames.get(caller.checked_sub(1)?)?;
        let callee = self.callee(caller);
        // That it is an entry is no coincidence, whatever it was loaded from.
        if let Some(entry) = callee.and_then(|callee| callee.entry) {
            return Some(Entered {
                entry,
                caller,
                way: Way::Call,
                certain: true,
            });
        }
        let inner_start = inner.function.map(|(start, _)| start.get());
        if let Some(callee) = callee
            && inner_start != Some(callee.address)
            && let Some((jumps, entry)) = self.functions.jumps(callee.address, MAX_DEPTH)
        {
            return Some(Entered {
                entry,
                caller,
                way: Way::Jumps(jumps),
                certain: callee.certain,
            });
        }
        let name = self.functions.names.starting_at(inner_start?);
        let entry = name.as_deref().and_then(Entry::of_name)?;
        Some(Entered {
            entry,
            caller,
            way: Way::Unknown,
            certain: false,
        })
    }

    /// What the call that a frame is in calls.
    fn callee(&self, index: usize) -> Option<Callee> {
        if let Some(known) = self.callees.borrow().get(&index) {
            return *known;
        }
        // Until it is known: what a frame calls may depend on what its caller gave it.
        self.callees.borrow_mut().insert(index, None);
        let found = self.look_for_callee(index);
        self.callees.borrow_mut().insert(index, found);
        found
    }

    fn look_for_callee(&self, index: usize) -> Option<Callee> {
        let site = self.plain_site(index)?;
        let call = *site.function.get(site.index)?;
        self.functions.names.of_branch(&call).or_else(|| {
            let target = definition::operand(&call, 0, &Arc::default(), self.thread_pointer)?;
            let live = self.frames.get(index)?.sp.get();
            let found = self.follow(vec![site], index.checked_add(1)?, target, live)?;
            let found = value_of(&found)?;
            let callee = self
                .functions
                .names
                .at(found.worked.value)
                .filter(|_| found.certain)?;
            Some(Callee {
                certain: callee.certain && found.worked.loaded_from.is_none(),
                ..callee
            })
        })
    }

    fn walk(&self, function: &Function, place: Place, live_stack: u64) -> Found {
        let changed = |call: &Instruction| self.functions.changed(call);
        back(function, place, &self.around(live_stack, false, &changed))
    }

    fn around<'a>(
        &'a self,
        live_stack: u64,
        stack_only: bool,
        changed: &'a dyn Fn(&Instruction) -> Option<u16>,
    ) -> Surroundings<'a> {
        Surroundings {
            words: Words {
                memory: self.session.memory(),
                live_stack,
                stack_end: self.stack_end,
                stack_only,
            },
            thread_pointer: self.thread_pointer,
            changed,
        }
    }

    /// The pointer that the caller gave, by its code.
    pub fn given(&self, entered: &Entered) -> Option<Value> {
        let found = value_of(&self.all_given(entered)?)?;
        Some(Value {
            certain: found.certain && entered.certain,
            ..found
        })
    }

    /// The pointers of which the caller gave one, by its code: several, if two ways lead to the call.
    pub fn can_be_given(&self, entered: &Entered) -> Vec<Value> {
        let found = self.all_given(entered);
        let found = found.filter(|found| found.entries.is_empty() && !found.lost);
        let values = found.map_or_else(Vec::new, |found| found.values);
        let value = |worked: Worked| Value {
            worked,
            certain: !worked.unsure && entered.certain,
        };
        values.into_iter().map(value).collect()
    }

    fn all_given(&self, entered: &Entered) -> Option<Found> {
        let live = self.frames.get(entered.caller)?.sp.get();
        let mut sites = Vec::new();
        match &entered.way {
            Way::Unknown => return None,
            Way::Call => {}
            Way::Jumps(functions) => {
                let facts = self.at_jump(entered.caller)?;
                for start in functions.iter().rev() {
                    let function = self.functions.function_at(*start)?;
                    let (index, _) = self.functions.way_out(&function)?;
                    sites.push(Site {
                        function,
                        index,
                        facts: facts.clone(),
                    });
                }
            }
        }
        self.follow(sites, entered.caller, Expression::Register(RDI), live)
    }

    /// The values of an expression at the first of some places, each in a function that the next one's called or left for; then in
    /// the frames from `frame` outwards.
    fn follow(
        &self,
        sites: Vec<Site>,
        frame: usize,
        goal: Expression,
        live_stack: u64,
    ) -> Option<Found> {
        let mut goal = goal;
        let mut stores = Arc::<Stores>::default();
        let mut sites = sites.into_iter();
        let mut next_frame = frame;
        let mut start = None;
        for _ in 0..=MAX_DEPTH * 2 {
            let site = match sites.next() {
                Some(site) => site,
                None => {
                    // The next frame must have called this function, not one that jumped here.
                    let is_called = match start {
                        None => true,
                        Some(start) => {
                            self.is_by_rules(next_frame)
                                && self
                                    .callee(next_frame)
                                    .is_some_and(|callee| callee.address == start)
                        }
                    };
                    let site = self.site(next_frame).filter(|_| is_called)?;
                    next_frame = next_frame.checked_add(1)?;
                    site
                }
            };
            // Sites that were given follow from each other.
            start = match sites.len() {
                0 => Some(site.function.start),
                _ => None,
            };
            let place = Place {
                index: site.index,
                facts: site.facts,
                stores,
                goal: Some(goal),
            };
            let found = self.walk(&site.function, place, live_stack);
            if !found.values.is_empty() {
                return Some(found);
            }
            let first = found.entries.first().filter(|_| !found.lost)?;
            if found.entries.iter().any(|entry| entry.goal != first.goal) {
                return None;
            }
            goal = first.goal.clone()?;
            let mut all = Stores::default();
            for entry in &found.entries {
                all.join(&entry.stores);
            }
            stores = all.into();
        }
        None
    }

    /// The registers at a jump that leaves a function which a frame called: its own frame is gone.
    fn at_jump(&self, caller: usize) -> Option<Facts> {
        let mut facts = self.unwound(caller)?;
        let top = facts.get(RSP)?;
        let below = Fact {
            value: top.value.checked_sub(8)?,
            ..top
        };
        facts.set(RSP, Some(below));
        Some(facts)
    }

    /// The call that a frame is in.
    fn site(&self, index: usize) -> Option<Site> {
        let function = self.function(index)?;
        let back = self.frames.get(index)?.pc.get();
        Some(Site {
            index: function.call_before(back)?,
            facts: self.unwound(index)?,
            function,
        })
    }

    /// The instruction that the innermost frame died at.
    fn died(&self, index: usize) -> Option<Site> {
        let function = self.function(index)?;
        let frame = self.frames.get(index)?;
        Some(Site {
            index: function.at(frame.pc.get())?,
            facts: Facts::at_death(frame, index),
            function,
        })
    }

    /// The registers at the time of a frame's call.
    fn unwound(&self, index: usize) -> Option<Facts> {
        Some(Facts::unwound(self.frames.get(index)?, index))
    }

    /// The call that a frame is in, in the part of its function that call-frame information covers.
    fn plain_site(&self, index: usize) -> Option<Site> {
        let (start, end) = self.frames.get(index)?.function?;
        let part = start.get()..end.get();
        let function = Function::decode(self.session.memory(), &[part])?;
        let back = self.frames.get(index)?.pc.get();
        Some(Site {
            index: function.call_before(back)?,
            facts: self.unwound(index)?,
            function,
        })
    }

    /// The function of a frame, with parts that lie apart.
    fn function(&self, index: usize) -> Option<Function> {
        let (start, end) = self.frames.get(index)?.function?;
        let part = start.get()..end.get();
        let outer = index
            .checked_add(1)
            .filter(|outer| self.is_by_rules(*outer));
        let called = outer.and_then(|outer| self.callee(outer));
        // The call leads to another part of it, which has jumps into this one.
        if let Some(called) = called.filter(|called| !part.contains(&called.address))
            && let Some(main) = self.functions.range_at(called.address)
            && main.start == called.address
            && let Some(main_code) =
                Function::decode(self.session.memory(), std::slice::from_ref(&main))
            && leaves_into(&main_code, &part)
        {
            return self.functions.whole(vec![main, part]);
        }
        self.functions.whole(vec![part])
    }
}

/// The one value of what was found.
fn value_of(found: &Found) -> Option<Value> {
    // Some ways came to the start, where the value is the caller's business.
    let worked = found.value().filter(|_| found.entries.is_empty())?;
    Some(Value {
        worked,
        certain: !worked.unsure,
    })
}
