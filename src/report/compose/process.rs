//! The process and its modules.

use crate::report::schema::{self, hex_digits};
use postmortem::session::Session;

/// File name of the executable; empty if the core does not tell.
pub fn program(session: &Session) -> &str {
    let executable = session.modules().executable();
    let name = executable.map(|module| module.name.as_str());
    name.or(session.process().name.as_deref()).unwrap_or("")
}

/// The dead process.
pub fn process(session: &Session) -> schema::Process {
    let process = session.process();
    schema::Process {
        executable: session
            .modules()
            .executable()
            .map(|module| module.name.clone())
            .or_else(|| process.name.clone()),
        name: process.name.clone(),
        arguments: process.arguments.clone(),
        uid: process.uid,
    }
}

/// The identifier of symbol files (Breakpad's, common/linux/file_id.cc): the first 16 bytes of the build ID as a GUID, whose
/// first three numbers are little-endian, and the age, which is 0.
fn debug_id(build_id: &[u8]) -> Option<String> {
    if build_id.is_empty() {
        return None;
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(build_id) {
        *to = *from;
    }
    let [a, b, c, d, e, f, g, h, rest @ ..] = id;
    let mut guid = hex_digits(&[d, c, b, a, f, e, h, g]);
    guid.push_str(&hex_digits(&rest));
    Some(format!("{}0", guid.to_uppercase()))
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
                debug_file: module.name.clone(),
                debug_id: module.build_id.as_deref().and_then(debug_id),
                loaded_symbols: file.is_some(),
                missing_symbols: file.is_none(),
                verified: file.is_some_and(|file| file.verified),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_id_is_a_guid_with_an_age() {
        let id: Vec<u8> = (1..=20).collect();
        assert_eq!(
            debug_id(&id).as_deref(),
            Some("0403020106050807090A0B0C0D0E0F100")
        );
        let short = debug_id(&[0xab; 8]).unwrap();
        assert_eq!(short, "ABABABABABABABAB00000000000000000");
        assert_eq!(debug_id(&[]), None);
    }
}
