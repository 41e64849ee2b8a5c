//! `--since CORE|REPORT`: what is lost that was not lost there.
//!
//! Two cores of one process are compared block by block, by address and size. Another process has its blocks elsewhere: then groups are compared by
//! their fingerprint, and of a group that has grown so many blocks are new.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{Args, Error, session_options};
use crate::analysis;
use crate::graph::{leaks, roots};
use crate::progress::Progress;
use crate::report::compose::{self, ReportOptions};
use crate::report::schema::{Hex, LeakedBlock, Leaks, Report, Since, Sum};
use postmortem::session::Session;

/// Bytes of a report that are read.
const MAX_REPORT: u64 = 4 << 30;

/// What was lost before.
#[derive(Debug, Default)]
struct Before {
    /// The process, as far as it is told.
    process: (Option<u64>, String),
    /// Blocks that were lost, and those that were possibly; `None` if the report does not list them.
    blocks: Option<[BTreeSet<(u64, u64)>; 2]>,
    /// By fingerprint: blocks and bytes of groups that were lost, and of those that were possibly, with what hung on them.
    groups: [BTreeMap<String, Sum>; 2],
}

/// Compares a report with what was before.
///
/// # Errors
/// If the core or the report that was named cannot be read, or is no report of `leaks`.
pub(super) fn compare(
    report: &mut Report,
    blocks: &[LeakedBlock],
    path: &Path,
    args: &Args,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let before = match is_report(path)? {
        true => of_report(path)?,
        false => of_core(path, args, progress)?,
    };
    let process = process(report);
    let known = before
        .blocks
        .as_ref()
        .filter(|_| before.process == process && process.0.is_some());
    let Some(leaks) = &mut report.leaks else {
        return Ok(());
    };
    let mut since = match known {
        Some(known) => by_address(leaks, blocks, known),
        None => by_group(leaks, &before.groups),
    };
    since.source = path.display().to_string();
    leaks.since = Some(since);
    Ok(())
}

fn process(report: &Report) -> (Option<u64>, String) {
    let name = report.process.executable.clone().unwrap_or_default();
    (report.pid.map(u64::from), name)
}

/// Whether a file is a report: JSON begins with a brace.
fn is_report(path: &Path) -> Result<bool, Error> {
    let mut first = Vec::new();
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.take(64).read_to_end(&mut first)?;
    let mut visible = first.iter().filter(|byte| !byte.is_ascii_whitespace());
    Ok(visible.next() == Some(&b'{'))
}

fn of_core(path: &Path, args: &Args, progress: &dyn Progress) -> Result<Before, Error> {
    progress.phase("opening the earlier core", None);
    let session = Session::open(&session_options(args, path))?;
    let only = args.heap.allocator.as_deref();
    let analysis = analysis::analyse(session.target(), only, progress)?;
    let ground = roots::ground(&session, &analysis);
    let found = leaks::find(
        &ground,
        leaks::Wanted {
            blocks: true,
            types: false,
        },
    );
    let report = compose::graph::leaks(&ground, &found, true, &ReportOptions::default());
    let mut before = Before {
        process: process(&report),
        ..Before::default()
    };
    let leaks = report.leaks.unwrap_or_default();
    for group in &leaks.groups {
        before.add_group(
            &group.class,
            &group.fingerprint.v2,
            Sum {
                blocks: group.blocks.saturating_add(group.indirect_blocks),
                bytes: group.bytes.saturating_add(group.indirect_bytes),
            },
        );
    }
    for block in leaks.blocks.unwrap_or_default() {
        before.add_block(&block.class, block.address.0, block.size);
    }
    before.blocks.get_or_insert_default();
    Ok(before)
}

fn of_report(path: &Path) -> Result<Before, Error> {
    let name = path.display();
    let file = File::open(path)?;
    let mut written = String::new();
    file.take(MAX_REPORT).read_to_string(&mut written)?;
    let mut documents = serde_json::Deserializer::from_str(&written).into_iter::<Value>();
    let first = documents.next().transpose();
    let report = first
        .map_err(|error| format!("{name}: {error}"))?
        .unwrap_or_default();
    let groups = report.pointer("/leaks/groups").and_then(Value::as_array);
    let groups = groups.ok_or_else(|| format!("{name}: no report of `heapcheck leaks`"))?;
    let mut before = Before {
        process: (
            report.pointer("/pid").and_then(Value::as_u64),
            text(&report, "/process/executable"),
        ),
        ..Before::default()
    };
    for group in groups {
        let sum = |own: &str, held: &str| number(group, own).saturating_add(number(group, held));
        before.add_group(
            &text(group, "/class"),
            &text(group, "/fingerprint/v2"),
            Sum {
                blocks: sum("/blocks", "/indirect_blocks"),
                bytes: sum("/bytes", "/indirect_bytes"),
            },
        );
    }
    let mut add = |block: &Value| {
        let address = text(block, "/address");
        let digits = address.strip_prefix("0x");
        if let Some(at) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            before.add_block(&text(block, "/class"), at, number(block, "/size"));
        }
    };
    // In an NDJSON report each block has a line of its own.
    for line in documents {
        let line = line.map_err(|error| format!("{name}: {error}"))?;
        if text(&line, "/record") == "leaked-block" {
            add(&line);
        }
    }
    let blocks = report.pointer("/leaks/blocks").and_then(Value::as_array);
    if let Some(blocks) = blocks {
        blocks.iter().for_each(&mut add);
        before.blocks.get_or_insert_default();
    }
    Ok(before)
}

/// The number at a place of a report; 0 if there is none.
fn number(value: &Value, place: &str) -> u64 {
    value.pointer(place).and_then(Value::as_u64).unwrap_or(0)
}

/// The text at a place of a report; empty if there is none.
fn text(value: &Value, place: &str) -> String {
    let text = value.pointer(place).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

impl Before {
    fn add_group(&mut self, class: &str, fingerprint: &str, sum: Sum) {
        let [lost, possible] = &mut self.groups;
        let groups = if class == "possible" { possible } else { lost };
        let known = groups.entry(fingerprint.to_owned()).or_default();
        *known = plus(*known, sum);
    }

    fn add_block(&mut self, class: &str, at: u64, bytes: u64) {
        let [lost, possible] = self.blocks.get_or_insert_default();
        let blocks = if class == "possible" { possible } else { lost };
        blocks.insert((at, bytes));
    }
}

fn plus(one: Sum, other: Sum) -> Sum {
    Sum {
        blocks: one.blocks.saturating_add(other.blocks),
        bytes: one.bytes.saturating_add(other.bytes),
    }
}

fn minus(one: Sum, other: Sum) -> Sum {
    Sum {
        blocks: one.blocks.saturating_sub(other.blocks),
        bytes: one.bytes.saturating_sub(other.bytes),
    }
}

/// Block by block.
fn by_address(
    leaks: &mut Leaks,
    blocks: &[LeakedBlock],
    [lost, possible]: &[BTreeSet<(u64, u64)>; 2],
) -> Since {
    let mut since = Since {
        matched_by: "address".into(),
        ..Since::default()
    };
    let mut of_group: BTreeMap<usize, Sum> = BTreeMap::new();
    let mut now: BTreeSet<(u64, u64)> = BTreeSet::new();
    for block in blocks {
        let LeakedBlock {
            address: Hex(at),
            size,
            ..
        } = *block;
        let is_possible = block.class == "possible";
        if !is_possible {
            now.insert((at, size));
        }
        let was = lost.contains(&(at, size)) || is_possible && possible.contains(&(at, size));
        if was {
            continue;
        }
        let one = Sum {
            blocks: 1,
            bytes: size,
        };
        let sum = if is_possible {
            &mut since.possible
        } else {
            &mut since.lost
        };
        *sum = plus(*sum, one);
        if let Some(group) = block.group {
            let sum = of_group.entry(group).or_default();
            *sum = plus(*sum, one);
        }
    }
    for (_, size) in lost.difference(&now) {
        let one = Sum {
            blocks: 1,
            bytes: *size,
        };
        since.gone = plus(since.gone, one);
    }
    for group in &mut leaks.groups {
        group.new = Some(of_group.get(&group.id).copied().unwrap_or_default());
    }
    since
}

/// Group by group: several of one fingerprint count together.
fn by_group(leaks: &mut Leaks, [lost, possible]: &[BTreeMap<String, Sum>; 2]) -> Since {
    let mut since = Since {
        matched_by: "group".into(),
        ..Since::default()
    };
    let mut left = [lost.clone(), possible.clone()];
    for group in &mut leaks.groups {
        let all = Sum {
            blocks: group.blocks.saturating_add(group.indirect_blocks),
            bytes: group.bytes.saturating_add(group.indirect_bytes),
        };
        let [lost, possible] = &mut left;
        let (left, sum) = match group.class == "possible" {
            true => (possible, &mut since.possible),
            false => (lost, &mut since.lost),
        };
        let known = left.get(&group.fingerprint.v2).copied().unwrap_or_default();
        let new = minus(all, known);
        left.insert(group.fingerprint.v2.clone(), minus(known, all));
        *sum = plus(*sum, new);
        group.new = Some(new);
    }
    let [lost, _] = left;
    since.gone = lost.into_values().fold(Sum::default(), plus);
    since
}
