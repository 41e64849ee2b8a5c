//! The process and its modules.

use crate::report::schema::{self, hex_digits};
use crate::session::Session;

/// The dead process.
pub fn process(session: &Session) -> schema::Process {
    let process = session.process();
    schema::Process {
        executable: session
            .modules()
            .executable()
            .map(|module| module.name.clone())
            .or_else(|| process.name.clone()),
        arguments: process.arguments.clone(),
        uid: process.uid,
    }
}

/// All modules.
pub fn modules(session: &Session) -> Vec<schema::Module> {
    let modules = session.modules();
    modules
        .modules()
        .iter()
        .map(|module| {
            let file = modules.file(module.id);
            schema::Module {
                base_addr: module.range.start.into(),
                end_addr: module.range.end.into(),
                filename: module.name.clone(),
                path: module.path.clone(),
                code_id: module.build_id.as_deref().map(hex_digits),
                debug_id: None,
                loaded_symbols: file.is_some(),
                missing_symbols: file.is_none(),
                verified: file.is_some_and(|file| file.verified),
            }
        })
        .collect()
}
