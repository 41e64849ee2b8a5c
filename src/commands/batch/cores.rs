//! Which cores there are, and how one is known again.

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use postmortem::corefile;

/// Places of a core that its id is made of, beside its beginning and end.
const SAMPLES: u64 = 64;
/// Bytes of the beginning: headers, notes, names of files.
const HEAD: u64 = 1 << 20;
/// Bytes of a sample.
const SAMPLE: u64 = 4096;

/// Cores in the order of the lists; a folder's in the order of their names.
pub(super) fn list(lists: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut cores = Vec::new();
    for path in lists {
        if path.as_os_str() == "-" {
            for line in io::stdin().lock().lines() {
                let line = line?;
                if !line.trim().is_empty() {
                    cores.push(PathBuf::from(line.trim_end_matches('\r')));
                }
            }
        } else if path.is_dir() {
            let mut found: Vec<PathBuf> = fs::read_dir(path)?
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.is_file() && is_core(path))
                .collect();
            found.sort();
            cores.append(&mut found);
        } else {
            cores.push(path.clone());
        }
    }
    Ok(cores)
}

/// True of an ELF core, and of a packed file that may be one.
fn is_core(path: &Path) -> bool {
    let mut start = [0; 18];
    let read = File::open(path)
        .and_then(|mut file| file.read(&mut start))
        .unwrap_or(0);
    let start = start.get(..read).unwrap_or_default();
    let is_elf_core = start.starts_with(b"\x7fELF")
        && (start.get(16..18) == Some(&[4, 0]) || start.get(16..18) == Some(&[0, 4]));
    is_elf_core || corefile::is_packed(start)
}

/// An id of the content: size, beginning, end, and places between them. Two cores of one process at two times differ in it.
pub(super) fn id(path: &Path) -> io::Result<String> {
    // Opening a pipe that nobody writes to would wait for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut part = |from: u64, length: u64| -> io::Result<()> {
        let length =
            usize::try_from(length.min(size.saturating_sub(from))).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, from)?;
        hash.update(&bytes);
        Ok(())
    };
    part(0, HEAD)?;
    for sample in 1..SAMPLES {
        let from = size / SAMPLES * sample / SAMPLE * SAMPLE;
        if from > HEAD {
            part(from, SAMPLE)?;
        }
    }
    part(size.saturating_sub(16 * SAMPLE), 16 * SAMPLE)?;
    Ok(hash
        .finalize()
        .iter()
        .take(16)
        .fold("s1:".to_owned(), |id, byte| format!("{id}{byte:02x}")))
}
