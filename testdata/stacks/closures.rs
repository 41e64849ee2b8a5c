use std::collections::HashMap;
trait Shape { fn area(&self) -> f64; }
struct Sq(f64);
impl Shape for Sq { fn area(&self) -> f64 { deep::<u32>(self.0 as u32, &|x| x + 1) as f64 } }
#[inline(always)] fn deep<T: Into<u64> + Copy>(x: T, f: &dyn Fn(u64) -> u64) -> u64 { let v: Vec<u64> = (0..4).map(|i| f(i + x.into())).collect(); inner(v) }
#[inline(never)] fn inner(v: Vec<u64>) -> u64 { let mut m = HashMap::new(); for x in v.iter() { m.entry(x % 3).and_modify(|e| *e += 1).or_insert_with(|| { if *x > 3 { std::process::abort() } 1 }); } m.len() as u64 }
fn main() { let s: Box<dyn Shape + Send> = Box::new(Sq(3.0)); let h = std::thread::spawn(move || s.area()); println!("{}", h.join().unwrap()); }
