//! Trait objects in boxes, each said before the program dies: `TYPE case= address= name=`.
use std::rc::Rc;
use std::sync::Arc;

trait Shape {
    fn area(&self) -> f64;
    fn name(&self) -> String {
        "shape".into()
    }
}
struct Circle {
    radius: f64,
    label: String,
}
struct Square(f64, u64);
struct Many<T> {
    all: Vec<T>,
}
mod deep {
    pub struct Hidden {
        pub words: [u64; 9],
    }
}
impl Shape for Circle {
    fn area(&self) -> f64 {
        self.radius + self.label.len() as f64
    }
}
impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.1 as f64
    }
    fn name(&self) -> String {
        "square".into()
    }
}
impl<T> Shape for Many<T> {
    fn area(&self) -> f64 {
        self.all.len() as f64
    }
}
impl Shape for deep::Hidden {
    fn area(&self) -> f64 {
        self.words[3] as f64
    }
}

fn tell<T: ?Sized>(case: &str, at: *const T, name: &str) {
    println!("TYPE case={case} address={:#x} name={}", at.cast::<u8>() as usize, name.replace(' ', "_"));
}

static mut HELD: Vec<Box<dyn Shape>> = Vec::new();

fn main() {
    #[allow(static_mut_refs)]
    let held = unsafe { &mut HELD };
    held.reserve(64);
    held.push(Box::new(Circle { radius: 1.0, label: "one".into() }));
    tell("circle", &*held[0], "objects::Circle");
    held.push(Box::new(Square(2.0, 3)));
    tell("square", &*held[1], "objects::Square");
    held.push(Box::new(Many { all: vec![1u32; 5] }));
    tell("many", &*held[2], "objects::Many<u32>");
    held.push(Box::new(deep::Hidden { words: [7; 9] }));
    tell("hidden", &*held[3], "objects::deep::Hidden");
    let rc: Rc<dyn Shape> = Rc::new(Circle { radius: 4.0, label: "rc".into() });
    tell("rc", (&*rc as *const dyn Shape).cast::<u8>().wrapping_sub(16), "objects::Circle");
    let arc: Arc<dyn Shape> = Arc::new(Square(5.0, 6));
    tell("arc", (&*arc as *const dyn Shape).cast::<u8>().wrapping_sub(16), "objects::Square");
    let add = held.len() as u64;
    let call: Box<dyn Fn(u64) -> u64> = Box::new(move |x| x + add);
    tell("closure", &*call, "objects::main::{closure_env#0}");
    let sum: f64 = held.iter().map(|s| s.area() + s.name().len() as f64).sum();
    let plain: Box<[u64; 6]> = Box::new([9; 6]);
    println!("TYPE case=plain address={:#x} none=yes or=u64[]", plain.as_ptr() as usize);
    println!("sum {sum} {} {} {}", rc.area(), arc.area(), call(3) + plain[2]);
    std::process::abort();
}
