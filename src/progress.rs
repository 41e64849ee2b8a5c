//! How far the work is, for whoever waits: told by the long phases, shown by the command line, on a terminal only.

/// Hears about progress. Called from any thread, so implementations must be quick.
pub trait Progress: Sync {
    /// A phase begins: a verb phrase (`unpacking the core`), and its number of steps if that is known.
    fn phase(&self, name: &'static str, steps: Option<u64>);

    /// So many steps of the current phase are done.
    fn done(&self, steps: u64);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _name: &'static str, _steps: Option<u64>) {}

    fn done(&self, _steps: u64) {}
}
