//! Reads logs and prints each error's kind and key: what `heapcheck import` does, as a library.

use std::fs::File;
use std::io::BufReader;

use reports::import::{Options, Summary, import};

fn main() -> std::io::Result<()> {
    let mut summary = Summary::default();
    for path in std::env::args().skip(1) {
        let reader = BufReader::new(File::open(&path)?);
        import(
            reader,
            &path,
            &Options::default(),
            &mut summary,
            &mut |record| {
                println!(
                    "{:<10} {:<22} {} {:?} {:?}",
                    record.tool,
                    record.tool_kind,
                    record.key_text,
                    record.key_strength,
                    record.bytes
                );
                Ok(())
            },
        )?;
    }
    eprintln!("{summary:?}");
    Ok(())
}
