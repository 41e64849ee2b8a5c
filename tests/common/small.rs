//! The cores in the repository, `tests/cores`: what a clone has without building fixtures.
//!
//! `testdata/small-cores.sh` makes them from the same programs, with the truth that each program stated. They are packed; a test unpacks
//! them once, below Cargo's folder for tests, where the next one finds them.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Files, Fixture, in_parallel, root};

/// Bytes that the whole set may take in the repository.
pub const MOST_BYTES: u64 = 9 << 19;

/// A line of the index.
pub struct Entry {
    /// The release, or `stacks`.
    pub release: String,
    pub name: String,
    files: Files,
}

/// Everything in the set, in the index's order.
pub fn entries() -> Vec<Entry> {
    let index = fs::read_to_string(packed_dir().join("index")).expect("tests/cores has an index");
    let entry = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [release, name, files] = words[..] else {
            panic!("a line is: release name files, but there is {line:?}");
        };
        Entry {
            release: release.to_owned(),
            name: name.to_owned(),
            files: match files {
                "files" | "binary" => Files::Below(directory().join("root")),
                "bare" => Files::None,
                _ => panic!("{line}"),
            },
        }
    };
    index.lines().map(entry).collect()
}

/// The heaps of the set.
pub fn fixtures() -> Vec<Fixture> {
    let entries = entries();
    let heaps = entries.iter().filter(|entry| entry.release != "stacks");
    heaps
        .map(|entry| Fixture {
            files: entry.files.clone(),
            ..Fixture::read(directory(), &entry.release, &entry.name)
        })
        .collect()
}

/// Where the set lies in the repository.
pub fn packed_dir() -> PathBuf {
    root().join("tests/cores")
}

/// All of its files.
pub fn packed_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![packed_dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// Where the set lies unpacked.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(unpacked)
}

/// The folder is named by its contents and appears whole, so that neither an older set nor a run that was interrupted is taken for it.
fn unpacked() -> PathBuf {
    let files = packed_files();
    let mut sum = crc32fast::Hasher::new();
    for file in &files {
        sum.update(file.as_os_str().as_encoded_bytes());
        sum.update(&fs::read(file).unwrap());
    }
    let tests = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let whole = tests.join(format!("cores-{:08x}", sum.finalize()));
    if whole.is_dir() {
        return whole;
    }
    let new = tempfile::tempdir_in(tests).unwrap();
    in_parallel(&files, |file| {
        let path = new.path().join(file.strip_prefix(packed_dir()).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match path.extension().is_some_and(|extension| extension == "xz") {
            true => unpack(file, &path.with_extension("")),
            false => drop(fs::copy(file, path).unwrap()),
        }
    });
    // Another test may have been faster.
    let _ = fs::rename(new.path(), &whole);
    assert!(whole.is_dir(), "{}", whole.display());
    whole
}

/// Pages that are zero become holes: most of a core is.
fn unpack(from: &Path, to: &Path) {
    const PAGE: usize = 4096;
    let mut bytes = Vec::new();
    lzma_rust2::XzReader::new(File::open(from).unwrap(), false)
        .read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    let mut file = File::create(to).unwrap();
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start((index * PAGE) as u64)).unwrap();
            file.write_all(page).unwrap();
        }
    }
    file.set_len(bytes.len() as u64).unwrap();
}
