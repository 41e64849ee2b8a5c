//! Answers as text. What comes from logs is escaped.

use std::fmt::Write;

use reports::growth::{Growth, Shape};
use reports::triage::{Gate, Group, Groups, Introduced, Recurrence, State};

/// Text of logs, safe for a terminal.
fn safe(text: &str) -> String {
    crate::report::escape::escaped(text).to_string()
}

/// A row of a group.
fn row(group: &Group) -> String {
    let mut row = format!(
        "{:>8} {:>6}  {}  {}",
        group.errors,
        group.processes,
        group.key,
        safe(&group.key_text)
    );
    if group.key_strength != reports::Strength::Full {
        let _ = write!(row, "  ({:?} key)", group.key_strength); // a String takes all
    }
    if let Some(bytes) = group.bytes {
        let _ = write!(row, "  {bytes} bytes");
    }
    match group.recurrence {
        Recurrence::OneTime => row.push_str(", once in a process"),
        Recurrence::Recurring => row.push_str(", again and again"),
        Recurrence::Unknown => {}
    }
    if group.state != State::Open {
        let _ = write!(row, "  [{:?}]", group.state);
    }
    row
}

pub(super) fn groups(groups: &Groups) -> String {
    let mut out = format!(
        "{} errors, {} bugs, {} failures\n\n  errors  procs  key                  bug\n",
        groups.errors,
        groups.groups.len(),
        groups.failures
    );
    for group in &groups.groups {
        let _ = writeln!(out, "{}", row(group));
    }
    if !groups.proposals.is_empty() {
        out.push_str("\nMay be one bug (`triage diff KEY KEY` shows them, `triage merge KEY KEY` joins them):\n");
        for proposal in groups.proposals.iter().take(20) {
            let _ = writeln!(
                out,
                "  {} {}  distance {:.2}",
                proposal.key, proposal.into, proposal.distance
            );
        }
    }
    out
}

pub(super) fn gate(gate: &Gate) -> String {
    let mut out = String::new();
    for (title, list) in [
        ("New", &gate.new),
        (
            "New, but they happen once in a process (--one-time counts them)",
            &gate.one_time,
        ),
        (
            "New or not: their keys change with every build",
            &gate.unsure,
        ),
    ] {
        if !list.is_empty() {
            let _ = writeln!(out, "{title}:");
            for group in list {
                let _ = writeln!(out, "{}", row(group));
            }
        }
    }
    for problem in &gate.problems {
        let _ = writeln!(out, "Decision that counts no more: {}", safe(problem));
    }
    let _ = writeln!(
        out,
        "{} errors, {} new bugs, {} of the baseline not seen, {} failures",
        gate.errors,
        gate.new.len(),
        gate.gone,
        gate.failures
    );
    out
}

pub(super) fn introduced(groups: &[Introduced]) -> String {
    let mut out = String::new();
    for group in groups {
        let version = group
            .first_seen
            .as_deref()
            .map_or_else(|| "in no version of the order".to_owned(), safe);
        let how = if group.clean_before {
            ", and the version before was clean"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "{}  {}  first seen: {version}{how}",
            group.key,
            safe(&group.key_text)
        );
    }
    out
}

pub(super) fn frames(frames: &[(String, u64)]) -> String {
    frames.iter().fold(String::new(), |mut out, (name, bytes)| {
        let _ = writeln!(out, "{bytes:>14}  {}", safe(name));
        out
    })
}

pub(super) fn bytes(groups: &Groups) -> String {
    let mut out = "         bytes      blocks  key                  site\n".to_owned();
    for group in &groups.groups {
        let _ = writeln!(
            out,
            "{:>14} {:>11}  {}  {}",
            group.bytes.unwrap_or(0),
            group.blocks.unwrap_or(0),
            group.key,
            safe(&group.key_text)
        );
    }
    out
}

pub(super) fn growth(growth: &Growth, untimed: u64, all: bool) -> String {
    let mut out = format!("{} series tested\n", growth.tested);
    let shown = |shape| {
        all || matches!(
            shape,
            Shape::Linear | Shape::Exponential | Shape::Undecided | Shape::Step
        )
    };
    for series in growth.series.iter().filter(|series| shown(series.shape)) {
        let shape = match series.shape {
            Shape::Undecided if series.points < 8 => "grows, shape open (8 points tell)".to_owned(),
            Shape::TooFew => "too few points (5 tell)".to_owned(),
            shape => format!("{shape:?}").to_lowercase(),
        };
        let _ = writeln!(
            out,
            "\n{}  {}\n  {}: {shape}",
            series.group,
            safe(&series.text),
            safe(&series.process)
        );
        let _ = writeln!(
            out,
            "  {} points in {:.0} s, now {} bytes in {} blocks, {:.1} bytes/s, p = {:.2e}",
            series.points,
            series.seconds,
            series.bytes,
            series.blocks,
            series.bytes_per_second,
            series.p
        );
        if let Some(projected) = series.projected_bytes_24h {
            let _ = writeln!(out, "  in 24 h: {projected} bytes");
        }
        for step in &series.next_steps {
            let _ = writeln!(out, "  > {step}");
        }
    }
    if untimed > 0 {
        let _ = writeln!(
            out,
            "\n{untimed} records have no time: give --time, or files with the time of the report"
        );
    }
    out
}
