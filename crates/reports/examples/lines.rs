//! Writes records as `import` would, for `tools/reports-bench.sh`: `lines COUNT GROUPS`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use reports::import::{Options, Summary, import};
use reports::{Frames, Key};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse::<u64>().ok());
    let (count, groups) = (
        arguments.next().unwrap_or(1000),
        arguments.next().unwrap_or(100).max(1),
    );
    let log = "==7==ERROR: LeakSanitizer: detected memory leaks\n\nDirect leak of 400 byte(s) in 4 object(s) allocated from:\n    #0 0x7f in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69\n    #1 0x55 in site /src/shop/a.cpp:37\n    #2 0x56 in caller /src/shop/a.cpp:38\n    #3 0x57 in main /src/shop/a.cpp:77\n\nSUMMARY: x\n";
    let options = Options {
        attributes: BTreeMap::from([("version".to_owned(), "1.0".to_owned())]),
        ..Options::default()
    };
    let mut records = Vec::new();
    import(
        log.as_bytes(),
        "log",
        &options,
        &mut Summary::default(),
        &mut |record| {
            records.push(record);
            Ok(())
        },
    )?;
    let Some(mut record) = records.pop() else {
        return Ok(());
    };
    // What differs between lines is put into a finished line.
    let mut lines = Vec::new();
    for group in 0..groups {
        record.stacks[0].frames[1].function = Some(format!("site_{group}"));
        Key::of(&record, &Frames::default()).apply(&mut record);
        lines.push(serde_json::to_string(&record)?);
    }
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    for number in 0..count {
        let at = usize::try_from(number % groups).unwrap_or(0);
        let (before, after) = lines[at]
            .split_once("\"pid\":7")
            .unwrap_or((&lines[at], ""));
        writeln!(out, "{before}\"pid\":{}{after}", number / 1000)?;
    }
    out.flush()
}
