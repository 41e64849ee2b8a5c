//! A log of any tool: every reader of `reports` sees it. What comes out can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reports::Record;
use reports::events;
use reports::import::{Options, Summary, import};

fuzz_target!(|data: &[u8]| {
    let mut summary = Summary::default();
    import(data, "log", &Options::default(), &mut summary, &mut |record| {
        let line = serde_json::to_string(&record)?;
        assert_eq!(serde_json::from_str::<Record>(&line)?, record);
        Ok(())
    })
    .unwrap();
    let wanted = events::Wanted::new(vec![0..0x1000, 0x5000_0000_0000..0x8000_0000_0000]);
    let trace = events::trace(data, &wanted).unwrap();
    assert!(trace.live.len() as u64 <= trace.events);
    events::samples(data, "log").unwrap();
    let (end, text) = data.split_at(data.len() / 2);
    let _ = (events::goes_on(end, text), events::is_trace_text(text));
});
