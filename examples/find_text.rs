//! `find_text CORE TEXT`: where a text stands in a core's memory, and in which block of which heap.
//!
//! Every string that a program still has, and many that it has freed, can be found in its core.

use heapcheck::{analysis, progress::Silent};
use postmortem::session::{Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, text] = &arguments[..] else {
        return Err("usage: find_text CORE TEXT".into());
    };
    let session = Session::open(&SessionOptions::of([core]))?;
    let memory = session.target().memory;
    let heaps = analysis::analyse(session.target(), None, &Silent)?.heaps;
    for region in memory.regions().iter().filter(|region| region.writable) {
        let Ok(window) = memory.window(region.range.start) else {
            continue; // it is not in the core
        };
        let found = window.bytes.windows(text.len().max(1)).enumerate();
        for (offset, _) in found.filter(|(_, bytes)| *bytes == text.as_bytes()) {
            let at = window.start.saturating_add(offset as u64);
            let block = heaps
                .iter()
                .find_map(|heap| heap.map.block_at(at).map(|found| (heap, found)));
            match block {
                Some((heap, (block, inside))) => println!(
                    "{at}: {inside} bytes into the block {} of {} bytes, {}, {}",
                    block.address,
                    block.bytes,
                    heap.map.state(block.id).name(),
                    heap.identity.name()
                ),
                None => println!("{at}: in no block"),
            }
        }
    }
    Ok(())
}
