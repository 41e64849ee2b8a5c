//! Groups records or logs and prints them: what `heapcheck triage groups` does, as a library. `-` is standard input.

use reports::import::Summary;
use reports::triage::{Gather, Input, TriageFile, each, today};

fn main() -> std::io::Result<()> {
    let input = Input {
        files: std::env::args().skip(1).collect(),
        ..Input::default()
    };
    let file = TriageFile::parse("", &today()).map_err(std::io::Error::other)?;
    let mut gather = Gather::new(&file);
    let mut summary = Summary::default();
    each(&input, &mut summary, &mut |item| {
        gather.add(item);
        Ok(())
    })?;
    let groups = gather.finish(summary.failures, &file);
    for group in groups.groups.iter().take(80) {
        println!(
            "{:>8} {:>6} {:?} {:?} {:?} {}",
            group.errors,
            group.processes,
            group.key_strength,
            group.recurrence,
            group.bytes,
            group.key_text
        );
    }
    eprintln!(
        "{} errors, {} failures, {} groups",
        groups.errors,
        groups.failures,
        groups.groups.len()
    );
    Ok(())
}
