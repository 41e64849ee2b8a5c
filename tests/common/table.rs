//! The tables in the README, which the tests of the fixtures write.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use super::root;
use super::suite::Run;
use super::way::Way;

/// Releases by ways of finding: how many fixtures were found that way, of how many. `n/a`: there is nothing to find them
/// by in that way.
pub fn by_way(title: &str, runs: &[Run]) -> String {
    /// Fixtures found, of how many, by way.
    type Row = BTreeMap<Way, (usize, usize)>;
    let mut rows: BTreeMap<(Vec<u32>, &str), Row> = BTreeMap::new();
    for run in runs.iter().filter(|run| !run.fixture.is("OTHER")) {
        let release = run.fixture.release.as_str();
        let row = rows.entry((order(release), release)).or_default();
        let cell = row.entry(run.way).or_default();
        let expected = match run.way {
            Way::Bare => Way::Structure,
            way => way,
        };
        cell.1 += 1;
        let found = run.located_by.as_deref() == Some(expected.name());
        cell.0 += usize::from(found && !run.known_miss);
    }
    let mut text = format!(
        "| {title} | debug info | symbols | structure | structure, and no files but the core |\n|---|---|---|---|---|\n"
    );
    for ((_, release), ways) in rows {
        let _ = write!(text, "| {release} |");
        for way in Way::ALL {
            let _ = match ways.get(&way) {
                None | Some((0, _)) => write!(text, " n/a |"),
                Some((found, all)) => write!(text, " {found} of {all} |"),
            };
        }
        text.push('\n');
    }
    text
}

/// The numbers of a release's version, so that 2.8.1 comes before 2.10.
fn order(release: &str) -> Vec<u32> {
    let version = release
        .split('-')
        .find(|part| part.starts_with(|letter: char| letter.is_ascii_digit()));
    let parts = version.unwrap_or_default().split('.');
    parts.map(|part| part.parse().unwrap_or(0)).collect()
}

/// The table of that name in the README is the one that this run gave. `HEAPCHECK_BLESS=1` writes it.
pub fn keep_readme_table(name: &str, table: &str) {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- table: {name}, tests/fixtures.rs -->\n");
    let (before, rest) = readme
        .split_once(&begin)
        .expect("the README has the table's begin");
    let (found, after) = rest
        .split_once("<!-- end of table -->")
        .expect("the README has the table's end");
    if std::env::var_os("HEAPCHECK_BLESS").is_some() {
        let blessed = format!("{before}{begin}{table}<!-- end of table -->{after}");
        fs::write(&path, blessed).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "the README's table is not what the tests give: HEAPCHECK_BLESS=1 cargo test --test fixtures"
    );
}
