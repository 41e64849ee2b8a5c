//! Which of the named files is the core, and which the binary: told by what is in them, not by their order.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::SessionError;
use crate::corefile::{CoreError, is_packed};

/// The files by their roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub core: PathBuf,
    pub binary: Option<PathBuf>,
    /// The binary is an ELF file.
    pub binary_is_usable: bool,
}

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A core, a stream or a packed file (which can only be a core).
    Core,
    /// Another ELF file.
    Elf,
    Other,
}

/// Gives each file its role. Where no file looks like a core, the one that also is no ELF file takes that role, so that the
/// error is about it.
pub(super) fn assign(files: &[PathBuf]) -> Result<Files, SessionError> {
    let (first, second) = match files {
        [] => return Err(SessionError::NoCore),
        [core] => {
            return Ok(Files {
                core: core.clone(),
                binary: None,
                binary_is_usable: false,
            });
        }
        [first, second] => (first, second),
        more => return Err(SessionError::TooManyFiles { count: more.len() }),
    };
    let kinds = (kind(first)?, kind(second)?);
    let (core, binary, binary_kind) = match kinds {
        (Kind::Core, Kind::Core) => {
            return Err(SessionError::TwoCores {
                first: first.clone(),
                second: second.clone(),
            });
        }
        (_, Kind::Core) | (Kind::Elf, Kind::Other) => (second, first, kinds.0),
        _ => (first, second, kinds.1),
    };
    Ok(Files {
        core: core.clone(),
        binary: Some(binary.clone()),
        binary_is_usable: binary_kind == Kind::Elf,
    })
}

fn kind(path: &Path) -> Result<Kind, SessionError> {
    if path == Path::new("-") {
        return Ok(Kind::Core);
    }
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SessionError::Core(CoreError::Missing {
            path: path.to_owned(),
        }),
        _ => SessionError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(SessionError::Core(CoreError::NotAFile {
            path: path.to_owned(),
        }));
    }
    if !metadata.is_file() {
        return Ok(Kind::Core); // a pipe can be read once: leave it to its reader
    }
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(20).read_to_end(&mut start))
        .map_err(unreadable)?;
    Ok(match start.as_slice() {
        packed if is_packed(packed) => Kind::Core,
        // e_type in either byte order; the core's reader says what it thinks of a foreign one.
        [0x7f, b'E', b'L', b'F', _, 1, .., 4, 0, _, _] => Kind::Core,
        [0x7f, b'E', b'L', b'F', _, 2, .., 0, 4, _, _] => Kind::Core,
        [0x7f, b'E', b'L', b'F', ..] if start.len() == 20 => Kind::Elf,
        _ => Kind::Other,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = kind;
        bytes
    }

    #[test]
    fn roles_follow_contents_not_order() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let core = put("c", &elf(4));
        let binary = put("b", &elf(3));
        let text = put("t", b"hello");
        let packed = put("z", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
        let roles = |first: &PathBuf, second: &PathBuf| {
            let files = assign(&[first.clone(), second.clone()]).unwrap();
            (files.core, files.binary.unwrap(), files.binary_is_usable)
        };
        let right = (core.clone(), binary.clone(), true);
        assert_eq!(roles(&core, &binary), right);
        assert_eq!(roles(&binary, &core), right);
        assert_eq!(roles(&binary, &packed), (packed, binary.clone(), true));
        assert_eq!(roles(&text, &core), (core.clone(), text.clone(), false));
        assert_eq!(roles(&binary, &text), (text.clone(), binary.clone(), true));
        assert!(matches!(
            assign(&[core.clone(), core.clone()]),
            Err(SessionError::TwoCores { .. })
        ));
        assert!(matches!(
            assign(&[core, dir.path().join("none")]),
            Err(SessionError::Core(CoreError::Missing { .. }))
        ));
        assert!(matches!(assign(&[]), Err(SessionError::NoCore)));
    }
}
