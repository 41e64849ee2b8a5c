//! What the targets share: a log read by one reader, whatever it looks like.

use reports::Record;
use reports::import::import_by;

/// Reads a log; what comes out can be written and read again.
pub fn read(format: &str, log: &[u8]) {
    let read = import_by(format, log, &mut |record| {
        let line = serde_json::to_string(&record)?;
        assert_eq!(serde_json::from_str::<Record>(&line)?, record);
        Ok(())
    });
    read.expect("there is such a reader").expect("memory can be read");
}
