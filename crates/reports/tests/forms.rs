//! Forms that cannot be made here: newer or older versions, tools without a package. Each sample was written after the tool's
//! documentation or source.

use reports::import::{Options, Summary, import};
use reports::{Record, Role};

fn read(name: &str) -> Vec<Record> {
    let text = std::fs::read(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/forms")
            .join(name),
    )
    .unwrap();
    let mut records = Vec::new();
    let mut summary = Summary::default();
    import(
        &text[..],
        name,
        &Options::default(),
        &mut summary,
        &mut |record| {
            records.push(record);
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(
        (summary.failures, summary.created as usize),
        (0, records.len()),
        "{name}: {summary:?}"
    );
    records
}

fn keys(records: &[Record]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record.key_text.as_str())
        .collect()
}

#[test]
fn new_words_of_address_sanitizer() {
    assert_eq!(
        keys(&read("asan-llvm17.txt")),
        [
            "heap-overrun | fill_cart | checkout | main",
            "heap-underrun | peek_cart | main"
        ]
    );
}

#[test]
fn dr_memory() {
    let records = read("drmemory.txt");
    assert_eq!(
        keys(&records),
        [
            "use-after-free | drop_price | main",
            "heap-overrun | label_price | main",
            "uninitialised-use | compare_price | main",
            "invalid-free | return_tag | main",
            "memory-leak | new_tag | main",
            "memory-leak | new_label | main"
        ]
    );
    assert!(records.iter().all(|record| record.pid == Some(4711)));
    assert_eq!(
        (records[4].bytes, records[4].indirect_bytes),
        (Some(24), Some(16))
    );
    assert_eq!(
        records[0].access.as_ref().and_then(|access| access.size),
        Some(4)
    );
}

#[test]
fn valgrinds_sixth_protocol() {
    let records = read("valgrind-protocol6.txt");
    assert_eq!(
        keys(&records),
        [
            "other | shrink | main",
            "mismatched-free | drop | main",
            "memory-leak | make | main"
        ]
    );
    assert_eq!(
        (
            records[2].bytes,
            records[2].indirect_bytes,
            records[2].blocks
        ),
        (Some(24), Some(48), Some(1))
    );
    assert_eq!(
        (
            records[0].occurrences,
            records[0].process.as_deref(),
            records[0].pid
        ),
        (Some(7), Some("shop"), Some(91))
    );
}

#[test]
fn casr_without_its_secrets() {
    let records = read("casr.json");
    assert_eq!(
        keys(&records),
        [
            "crash | stock_shelf | open_shop",
            "use-after-free | drop_price | main"
        ]
    );
    assert_eq!(
        (records[0].tool.as_str(), records[1].tool.as_str()),
        ("casr", "asan")
    );
    let text = serde_json::to_string(&records).unwrap();
    assert!(
        !text.contains("hunter2") && !text.contains("someone") && !text.contains("EXPLOITABLE")
    );
}

#[test]
fn both_memleaks() {
    let records = read("memleak.txt");
    assert_eq!(
        records
            .iter()
            .map(|record| record.bytes.unwrap())
            .collect::<Vec<_>>(),
        [1024, 40, 2048, 2048]
    );
    assert_eq!(records[0].key, records[3].key);
    assert_eq!(records[0].key_text, "memory-leak | queue_order | serve");
    assert_eq!(
        records[2].time.as_ref().and_then(|time| time.as_str()),
        Some("11:32:19")
    );
}

#[test]
fn libmemleak_and_mtrace() {
    let records = read("libmemleak.txt");
    assert_eq!(
        (keys(&records), records[0].bytes, records[0].blocks),
        (
            vec!["memory-leak | take_order | serve"],
            Some(1004),
            Some(77)
        )
    );
    let records = read("mtrace-double.txt");
    let double = records
        .iter()
        .find(|record| record.kind == "double-free")
        .unwrap();
    let frees: Vec<_> = double
        .stacks
        .iter()
        .filter(|stack| stack.role == Role::Free)
        .map(|stack| stack.frames[0].function.as_deref().unwrap())
        .collect();
    assert_eq!(frees, ["close_shop", "drop_tag"]);
    let leak = records
        .iter()
        .find(|record| record.key_text.contains("grow"))
        .unwrap();
    assert_eq!((leak.bytes, leak.blocks), (Some(0x40), Some(1)));
    // The last line is cut: that block has no size, or the wrong one, and harms nobody.
    assert!(records.len() <= 3);
}

#[test]
fn heapchecks_own_reports() {
    let records = read("heapcheck.json");
    assert_eq!(
        keys(&records),
        [
            "double-free | close_shop | main",
            "heap-overrun | in shop | v2:0123",
            "memory-leak | make_cart | main",
            "memory-leak | in shop | v2:89ab",
            "crash | open_door | main"
        ]
    );
    assert_eq!(
        (
            records[2].bytes,
            records[2].blocks,
            records[2].indirect_bytes
        ),
        (Some(96), Some(2), Some(10))
    );
    assert!(
        records
            .iter()
            .all(|record| record.process.as_deref() == Some("shop") && record.tool == "heapcheck")
    );
    assert_eq!(records[0].stacks[0].frames[0].build_id, None);
    assert_eq!(
        records[0].stacks[0].frames[1].build_id.as_deref(),
        Some("00ff")
    );
}
