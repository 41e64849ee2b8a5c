//! Where a report goes: standard output, or a file that is either the whole report or what it was before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    let (mut file, temporary) = create_beside(&path)?;
    let result = write_and_flush(&mut file, bytes).and_then(|()| fs::rename(&temporary, &path));
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
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
