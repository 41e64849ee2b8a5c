//! `stacks CORE [BINARY]`: all stacks of a core, with functions and lines.

use postmortem::session::{Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = Session::open(&SessionOptions::of(std::env::args_os().skip(1)))?;
    for (index, thread) in session.threads().list().iter().enumerate() {
        println!(
            "thread {} {}",
            thread.tid,
            thread.name.as_deref().unwrap_or("")
        );
        for frame in session.threads().frames(index) {
            let Some(id) = frame.module else {
                println!("  {} in no module", frame.pc);
                continue;
            };
            let function = session.debug_info().function_at(id, frame.lookup);
            let function = function.map_or("?".into(), |function| function.name);
            let module = session.modules().module(id);
            let module = module.map_or("?", |module| &module.name);
            println!("  {} {function} in {module}", frame.pc);
            for place in &session.debug_info().source_at(id, frame.lookup).frames {
                let file = place.file.as_deref().unwrap_or("?");
                println!("      {file}:{}", place.line.unwrap_or(0));
            }
        }
    }
    Ok(())
}
