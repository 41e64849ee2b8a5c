//! One group, or two side by side, as text.

use std::fmt::Write;

use super::groups::Group;
use super::similar;
use crate::key::Name;
use crate::record::{Frame, Record, Role, Stack};
use crate::text;

/// A role in words.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Access => "used",
        Role::OtherAccess => "used by the other",
        Role::Free => "freed",
        Role::Allocation => "allocated",
        Role::Origin => "comes from",
        Role::Creation => "created",
        Role::Unknown => "stack",
    }
}

/// A frame on one line, safe for a terminal.
pub(crate) fn line(frame: &Frame) -> String {
    let mut line = match (
        &frame.function,
        &frame.module,
        &frame.module_offset,
        &frame.address,
    ) {
        (Some(function), ..) => function.clone(),
        (None, Some(module), Some(offset), _) => format!("{module}+{offset}"),
        (None, Some(module), None, _) => format!("?? in {module}"),
        (None, None, _, Some(address)) => address.clone(),
        _ => "??".to_owned(),
    };
    if let Some(file) = &frame.file {
        let _ = write!(line, " ({}", text::base_name(file)); // a String takes all
        if let Some(number) = frame.line {
            let _ = write!(line, ":{number}");
        }
        line.push(')');
    }
    text::escaped(&line)
}

/// A group with the stacks of an example.
pub fn show(group: &Group, example: &Record) -> String {
    let mut out = format!("{}\n  {}\n", group.key, text::escaped(&group.key_text));
    let _ = writeln!(
        out,
        "  {} errors in {} processes, key {:?}, {:?}",
        group.errors, group.processes, group.key_strength, group.state
    );
    if let (Some(bytes), Some(blocks)) = (group.bytes, group.blocks) {
        let _ = writeln!(
            out,
            "  {bytes} bytes in {blocks} blocks, {:?}",
            group.recurrence
        );
    }
    for (name, values) in &group.attributes {
        let values: Vec<String> = values
            .iter()
            .map(|(value, count)| format!("{} ({count})", text::escaped(value)))
            .collect();
        let _ = writeln!(out, "  {}: {}", text::escaped(name), values.join(", "));
    }
    let _ = writeln!(
        out,
        "\n{} by {}, {}:{}",
        example.tool_kind, example.tool, example.source.file, example.source.line
    );
    let _ = writeln!(out, "{}", text::escaped(&example.message));
    for stack in &example.stacks {
        let _ = writeln!(out, "\n  {}", role(stack.role));
        for (at, frame) in stack.frames.iter().enumerate() {
            let _ = writeln!(out, "  [{at:3}] {}", line(frame));
        }
    }
    out
}

/// Two errors, stack by stack, aligned by their functions; what is common and long is folded.
pub fn diff(a: &Record, b: &Record) -> String {
    let mut out = format!(
        "- {}\n+ {}\n",
        text::escaped(&a.key_text),
        text::escaped(&b.key_text)
    );
    let mut roles: Vec<Role> = Vec::new();
    for stack in a.stacks.iter().chain(&b.stacks) {
        if !roles.contains(&stack.role) {
            roles.push(stack.role);
        }
    }
    for which in roles {
        let frames = |record: &Record| {
            record
                .stack(which)
                .map(|stack: &Stack| stack.frames.clone())
                .unwrap_or_default()
        };
        let _ = writeln!(out, "\n  {}", role(which));
        aligned(&frames(a), &frames(b), &mut out);
    }
    let distance = similar::distance(
        &similar::functions(&a.stacks, &a.kind),
        &similar::functions(&b.stacks, &b.kind),
    );
    let _ = writeln!(out, "\ndistance {distance:.2} (below 0.30: likely one bug)");
    out
}

/// Longest common subsequence of functions, `-` and `+` for what only one has.
fn aligned(a: &[Frame], b: &[Frame], out: &mut String) {
    let name = |frame: &Frame| match &frame.function {
        Some(function) => Name::of(function).text(),
        None => line(frame),
    };
    let (left, right): (Vec<String>, Vec<String>) =
        (a.iter().map(name).collect(), b.iter().map(name).collect());
    let mut lengths = vec![vec![0_u32; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            lengths[i][j] = if left[i] == right[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut common: Vec<String> = Vec::new();
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            common.push(line(&a[i]));
            (i, j) = (i + 1, j + 1);
            continue;
        }
        fold(&mut common, out);
        if j >= right.len() || (i < left.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            let _ = writeln!(out, "- {}", line(&a[i]));
            i += 1;
        } else {
            let _ = writeln!(out, "+ {}", line(&b[j]));
            j += 1;
        }
    }
    fold(&mut common, out);
}

/// Prints common frames; of more than four the middle is counted.
fn fold(common: &mut Vec<String>, out: &mut String) {
    let hidden = if common.len() > 4 {
        common.len() - 2
    } else {
        0
    };
    for (at, frame) in common.iter().enumerate() {
        if hidden > 0 && at == 1 {
            let _ = writeln!(out, "    … {hidden} frames in both");
        }
        if hidden == 0 || at == 0 || at + 1 == common.len() {
            let _ = writeln!(out, "  {frame}");
        }
    }
    common.clear();
}
