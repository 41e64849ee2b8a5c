//! Where a report goes: standard output, or a file that is either the whole report or what it was before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::interrupt;
use postmortem::corefile;

/// Whether a report may be written to `path`: not over a file that is being analysed, and not over any core or program. A
/// slip (`-o core` for `-c core`) must not destroy the evidence.
///
/// # Errors
/// What the file is.
pub fn may_write(path: &Path, inputs: &[PathBuf]) -> Result<(), Refused> {
    let refused = |what| {
        Err(Refused {
            path: path.to_owned(),
            what,
        })
    };
    let Ok(found) = fs::metadata(path) else {
        return Ok(()); // there is nothing to lose
    };
    let is_it = |input: &PathBuf| {
        fs::metadata(input)
            .is_ok_and(|input| (input.dev(), input.ino()) == (found.dev(), found.ino()))
    };
    if inputs.iter().any(is_it) {
        return refused("one of the files to be analysed");
    }
    if !found.is_file() {
        return Ok(());
    }
    let mut start = [0; 8];
    let count = File::open(path).and_then(|mut file| file.read(&mut start));
    let start = start.get(..count.unwrap_or(0)).unwrap_or(&[]);
    if start.starts_with(&object::elf::ELFMAG) {
        refused("a core or a program")
    } else if corefile::is_packed(start) {
        refused("a packed file, perhaps a core")
    } else {
        Ok(())
    }
}

/// A file that is not written to.
#[derive(Debug, thiserror::Error)]
#[error("--output {}: this file is {what} and is not overwritten (-c names a core)", path.display())]
pub struct Refused {
    path: PathBuf,
    what: &'static str,
}

/// Writes a report to `path`, or to standard output.
///
/// A regular file is written under another name beside it and renamed, so that a reader never sees half of it; anything
/// else that already has that name (a pipe, `/dev/stderr`) is written to. A reader of standard output that has seen
/// enough (`| head`) is no error.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: Option<&Path>, bytes: &[u8]) -> io::Result<()> {
    match path {
        None => match write_and_flush(&mut io::stdout().lock(), bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        },
        Some(path) => write_file(path, bytes),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link is followed: what it names is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
        return write_and_flush(&mut OpenOptions::new().write(true).open(&path)?, bytes);
    }
    may_write(&path, &[]).map_err(io::Error::other)?;
    let (mut file, temporary) = create_beside(&path)?;
    interrupt::writing(Some(&temporary));
    let result = write_and_flush(&mut file, bytes).and_then(|()| fs::rename(&temporary, &path));
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    interrupt::writing(None);
    result
}

fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?;
    for attempt in 0u32.. {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{attempt}", std::process::id()));
        let temporary = path.with_file_name(temporary);
        match File::create_new(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {}
            result => return result.map(|file| (file, temporary)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn write_and_flush(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        write(Some(&path), b"one").unwrap();
        write(Some(&path), b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["report"]);
    }

    #[test]
    fn evidence_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let (core, packed) = (
            file("core", b"\x7fELF\x02"),
            file("zst", &[0x28, 0xb5, 0x2f, 0xfd]),
        );
        let (text, link) = (file("text", b"a report"), dir.path().join("link"));
        fs::hard_link(&text, &link).unwrap();
        for path in [&core, &packed] {
            let error = may_write(path, &[]).unwrap_err().to_string();
            assert!(error.contains("not overwritten"), "{error}");
            assert!(write(Some(path), b"gone").is_err());
        }
        assert!(may_write(&link, std::slice::from_ref(&text)).is_err());
        assert!(may_write(&text, std::slice::from_ref(&core)).is_ok());
        assert!(may_write(&dir.path().join("new"), std::slice::from_ref(&core)).is_ok());
        assert!(may_write(Path::new("/dev/null"), std::slice::from_ref(&core)).is_ok());
        assert_eq!(fs::read(&core).unwrap(), b"\x7fELF\x02");
        assert_eq!(names(dir.path()), ["core", "link", "text", "zst"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("report"), dir.path().join("link"));
        fs::write(&path, b"old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(Some(&link), b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_is_no_file_is_written_to_and_what_cannot_be_is_an_error() {
        write(Some(Path::new("/dev/null")), b"gone").unwrap();
        assert!(fs::metadata("/dev/null").is_ok_and(|found| !found.is_file()));
        let dir = tempfile::tempdir().unwrap();
        assert!(write(Some(&dir.path().join("no/such/dir")), b"").is_err());
        assert!(write(Some(dir.path()), b"").is_err());
        assert!(names(dir.path()).is_empty());
    }
}
