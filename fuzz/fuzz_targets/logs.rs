//! A log of any tool: every reader of `reports` sees it. What comes out can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reports::Record;
use reports::import::{Options, Summary, import};

fuzz_target!(|data: &[u8]| {
    let mut summary = Summary::default();
    import(data, "log", &Options::default(), &mut summary, &mut |record| {
        let line = serde_json::to_string(&record)?;
        assert_eq!(serde_json::from_str::<Record>(&line)?, record);
        Ok(())
    })
    .unwrap();
});
