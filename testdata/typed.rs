// Plain values and containers in Rust, none of which shows its type by itself: what holds them tells, by debug information.
//
//   TYPE case= address= name=
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

struct Tag {
    text: [u8; 40],
}
fn tag() -> Box<Tag> {
    Box::new(Tag { text: [b'x'; 40] })
}
struct Part {
    weight: u32,
    tag: Box<Tag>,
}
enum Either {
    Nothing,
    One(Box<Tag>),
    Many { parts: Vec<Part>, name: String },
    Number(u64),
}
struct Session {
    name: String,
    peers: Vec<u32>,
    next: Option<Box<Session>>,
    shared: Rc<Part>,
    cell: Rc<RefCell<Vec<u64>>>,
    either: Either,
    other: Either,
    third: Either,
}
trait Shape {
    fn area(&self) -> f64;
}
struct Circle {
    radius: f64,
    name: String,
    more: [u64; 5],
}
impl Shape for Circle {
    fn area(&self) -> f64 {
        self.radius * self.more[0] as f64 * self.name.len() as f64
    }
}
struct All {
    sessions: Vec<Session>,
    names: Vec<String>,
    numbers: Vec<u32>,
    map: HashMap<String, Part>,
    set: HashSet<u64>,
    tree: BTreeMap<u64, Box<Tag>>,
    names_in_tree: BTreeSet<String>,
    queue: VecDeque<Part>,
    shared: Arc<Part>,
    shape: Box<dyn Shape>,
    slice: Box<[u64]>,
    text: String,
}

fn tell<T: ?Sized>(out: &mut String, case: &str, at: *const T, name: &str) {
    let name = name.replace(' ', "_");
    writeln!(out, "TYPE case={case} address={:p} name={name}", at.cast::<u8>()).unwrap();
}
// What a count of references stands in front of.
fn counted<T>(value: &T) -> *const u8 {
    (value as *const T).cast::<u8>().wrapping_sub(16)
}

fn part(number: u32) -> Part {
    Part { weight: number, tag: tag() }
}

impl All {
    fn new(count: u32) -> Self {
        let mut queue = VecDeque::new();
        for number in 0..count + 3 {
            queue.push_back(part(number));
        }
        for number in 0..3 {
            queue.pop_front();
            queue.push_back(part(number));
            queue.pop_front();
        }
        let session = |number: u32| Session {
            name: format!("the name of session {number}"),
            peers: vec![number; 5],
            next: None,
            shared: Rc::new(part(number)),
            cell: Rc::new(RefCell::new(vec![number.into()])),
            either: Either::One(tag()),
            other: Either::Many { parts: vec![part(1), part(2)], name: "a name that is not short".into() },
            third: if number % 2 == 0 { Either::Nothing } else { Either::Number(0x5555_5555_0000) },
        };
        let sessions = (0..count).map(|number| {
            let mut made = session(number);
            made.next = Some(Box::new(session(number)));
            made
        });
        All {
            sessions: sessions.collect(),
            names: (0..count).map(|number| format!("name {number}")).collect(),
            numbers: (0..count).collect(),
            map: (0..count).map(|number| (format!("key {number}"), part(number))).collect(),
            set: (0..u64::from(count)).collect(),
            tree: (0..u64::from(count)).map(|number| (number, tag())).collect(),
            names_in_tree: (0..count).map(|number| format!("in the tree {number}")).collect(),
            queue,
            shared: Arc::new(part(1)),
            shape: Box::new(Circle { radius: 1.0, name: "circle".into(), more: [1; 5] }),
            slice: vec![1; 100].into_boxed_slice(),
            text: "x".repeat(count as usize),
        }
    }

    fn tell(&self, out: &mut String, case: &str) {
        let vec = |out: &mut String, at: *const u8, full: bool, name: &str| {
            if full {
                tell(out, case, at, name);
            }
        };
        let string = |out: &mut String, text: &String| {
            if text.capacity() > 0 {
                tell(out, case, text.as_ptr(), "characters of String");
            }
        };
        let part = |out: &mut String, part: &Part| tell(out, case, &*part.tag, "typed::Tag");
        vec(out, self.sessions.as_ptr().cast(), !self.sessions.is_empty(), "buffer of Vec<typed::Session>");
        for outer in &self.sessions {
            tell(out, case, &**outer.next.as_ref().unwrap(), "typed::Session");
            for session in [outer, outer.next.as_ref().unwrap()] {
                string(out, &session.name);
                tell(out, case, session.peers.as_ptr(), "buffer of Vec<u32>");
                tell(out, case, counted(&*session.shared), "RcInner<typed::Part>");
                part(out, &session.shared);
                tell(out, case, counted(&*session.cell), "RcInner<RefCell<Vec<u64>>>");
                tell(out, case, session.cell.borrow().as_ptr(), "buffer of Vec<u64>");
                if let Either::One(tag) = &session.either {
                    tell(out, case, &**tag, "typed::Tag");
                }
                if let Either::Many { parts, name } = &session.other {
                    tell(out, case, parts.as_ptr(), "buffer of Vec<typed::Part>");
                    parts.iter().for_each(|one| part(out, one));
                    string(out, name);
                }
                assert!(!matches!(session.third, Either::One(_)));
            }
        }
        vec(out, self.names.as_ptr().cast(), !self.names.is_empty(), "buffer of Vec<String>");
        self.names.iter().for_each(|name| string(out, name));
        vec(out, self.numbers.as_ptr().cast(), !self.numbers.is_empty(), "buffer of Vec<u32>");
        for (key, value) in &self.map {
            string(out, key);
            part(out, value);
        }
        self.tree.values().for_each(|value| tell(out, case, &**value, "typed::Tag"));
        self.names_in_tree.iter().for_each(|name| string(out, name));
        if self.queue.capacity() > 0 {
            let (one, other) = self.queue.as_slices();
            let start = if other.is_empty() { None } else { Some(other.as_ptr()) };
            if let Some(start) = start {
                tell(out, case, start, "buffer of VecDeque<typed::Part>");
            }
            one.iter().chain(other).for_each(|one| part(out, one));
        }
        tell(out, case, counted(&*self.shared), "ArcInner<typed::Part>");
        part(out, &self.shared);
        tell(out, case, &*self.shape, "typed::Circle");
        tell(out, case, self.slice.as_ptr(), "u64[]");
        string(out, &self.text);
        assert!(self.shape.area() > 0.0 && self.set.len() == self.tree.len());
        assert!(self.map.values().all(|part| part.weight < 1 << 20 && part.tag.text[0] == b'x'));
    }
}

static GLOBAL: std::sync::OnceLock<Vec<Arc<Part>>> = std::sync::OnceLock::new();
thread_local! {
    static OF_THREAD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[inline(never)]
fn die_with(all: &[All], moved: &Vec<Box<Part>>, out: &str) {
    use std::io::Write;
    std::io::stdout().write_all(out.as_bytes()).unwrap();
    std::hint::black_box((all, moved));
    std::process::abort();
}

fn main() {
    let mut out = String::new();
    let all: Vec<All> = [0, 1, 15, 16, 1000].into_iter().map(All::new).collect();
    let from: Vec<Box<Part>> = (0..10).map(|number| Box::new(part(number))).collect();
    let moved = from;
    for part in &moved {
        tell(&mut out, "moved", &**part, "typed::Part");
        tell(&mut out, "moved", &*part.tag, "typed::Tag");
    }
    let global = GLOBAL.get_or_init(|| vec![Arc::new(part(1))]);
    tell(&mut out, "global", global.as_ptr(), "buffer of Vec<Arc<typed::Part>>");
    tell(&mut out, "global", counted(&*global[0]), "ArcInner<typed::Part>");
    OF_THREAD.with_borrow_mut(|names| {
        names.push("of a thread's own".into());
        tell(&mut out, "thread-local", names.as_ptr(), "buffer of Vec<String>");
        tell(&mut out, "thread-local", names[0].as_ptr(), "characters of String");
    });
    for (one, name) in all.iter().zip(["0", "1", "15", "16", "1000"]) {
        one.tell(&mut out, name);
    }
    die_with(&all, &moved, &out);
}
