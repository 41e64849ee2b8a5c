//! The tables in docs/support.md, which the tests of the fixtures write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use super::misses::Known;
use super::suite::Run;
use super::way::Way;
use super::{every, missing_releases, root};

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
        cell.0 += usize::from(found && run.known == Known::No);
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

/// Kinds by releases: in how many fixtures the finding was made, in each way of finding, of how many. Builds of a release
/// count with it.
pub fn by_kind(runs: &[Run]) -> String {
    /// Found, of how many, by way.
    type Cell = BTreeMap<Way, (usize, usize)>;
    let mut releases = BTreeSet::new();
    let mut rows: BTreeMap<String, BTreeMap<Vec<u32>, Cell>> = BTreeMap::new();
    for run in runs {
        let expected = run.fixture.facts("EXPECT").next();
        let kind = match expected.and_then(|fact| fact.get("kind")) {
            Some(kind) => format!("`{kind}`"),
            None => "healthy, and silent".to_owned(),
        };
        let release = order(&run.fixture.release);
        releases.insert(release.clone());
        let cell = rows.entry(kind).or_default().entry(release).or_default();
        let (found, all) = cell.entry(run.way).or_default();
        *all += 1;
        *found += usize::from(run.differences.is_empty());
    }
    let mut text = String::from("| debug info, symbols, structure, no files |");
    for release in &releases {
        let numbers: Vec<String> = release.iter().map(u32::to_string).collect();
        let _ = write!(text, " {} |", numbers.join("."));
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(releases.len()));
    for (kind, cells) in rows {
        let _ = write!(text, "| {kind} |");
        for release in &releases {
            let found = |way| cells.get(release).and_then(|cell| cell.get(&way)).copied();
            let ways: Vec<String> = Way::ALL
                .into_iter()
                .filter_map(|way| Some(found(way)?.0.to_string()))
                .collect();
            let _ = match found(Way::Bare) {
                Some((_, all)) => write!(text, " {} of {all} |", ways.join(", ")),
                None => write!(text, " n/a |"),
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

/// The table of that name in docs/support.md is the one that this run gave. `HEAPCHECK_BLESS=1` writes it. A run without all releases
/// has no say in it.
pub fn keep_table(name: &str, table: &str) {
    if every() > 1 {
        println!("{name}: the table is not compared: not every reading was made");
        return;
    }
    let missing = missing_releases();
    if !missing.is_empty() {
        println!("{name}: the table is not compared: there is no {missing:?} here");
        return;
    }
    let path = root().join("docs/support.md");
    let page = fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- table: {name}, tests/fixtures.rs -->\n");
    let (before, rest) = page
        .split_once(&begin)
        .expect("docs/support.md has the table's begin");
    let (found, after) = rest
        .split_once("<!-- end of table -->")
        .expect("docs/support.md has the table's end");
    if std::env::var_os("HEAPCHECK_BLESS").is_some() {
        let blessed = format!("{before}{begin}{table}<!-- end of table -->{after}");
        fs::write(&path, blessed).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "the table is not what the tests give: HEAPCHECK_BLESS=1 cargo test --features fixtures --test fixtures"
    );
}
