//! A ticket in Markdown: what, how often, since when, where, and how to look again.

use std::fmt::Write;

use crate::record::Record;
use crate::text;
use crate::triage::{Group, line, role};

/// The ticket of a group with an example. Text from logs cannot break out of where it stands.
pub fn ticket(group: &Group, example: &Record) -> String {
    let functions: Vec<String> = group
        .key_text
        .split(crate::key::SEPARATOR)
        .skip(1)
        .map(inline)
        .collect();
    let mut out = format!(
        "# {}: {}\n\n",
        group.kind,
        if functions.is_empty() {
            "unknown place".to_owned()
        } else {
            functions.join(" ← ")
        }
    );
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "- **{name}:** {value}"); // a String takes all
    };
    row(
        "Group",
        format!("`{}` ({:?} key)", group.key, group.key_strength),
    );
    row(
        "Seen",
        format!("{} times in {} processes", group.errors, group.processes),
    );
    if let (Some(bytes), Some(blocks)) = (group.bytes, group.blocks) {
        row(
            "Memory",
            format!("{bytes} bytes in {blocks} blocks, {:?}", group.recurrence),
        );
    }
    if let Some(cwe) = example.cwe {
        row(
            "CWE",
            format!("[{cwe}](https://cwe.mitre.org/data/definitions/{cwe}.html)"),
        );
    }
    if let (Some(first), Some(last)) = (&group.first_seen, &group.last_seen) {
        row("Between", format!("{} and {}", inline(first), inline(last)));
    }
    for (name, values) in &group.attributes {
        let values: Vec<String> = values
            .iter()
            .take(12)
            .map(|(value, count)| format!("{} ({count})", inline(value)))
            .collect();
        row(&inline(name), values.join(", "));
    }
    row(
        "Tools",
        group
            .tools
            .iter()
            .map(|(tool, count)| format!("{tool} ({count})"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    let _ = write!(out, "\n{}\n", inline(&example.message));
    for stack in &example.stacks {
        let thread = stack
            .thread
            .as_deref()
            .map(|thread| format!(", thread {}", inline(thread)))
            .unwrap_or_default();
        let _ = write!(out, "\n## {}{thread}\n\n~~~text\n", role(stack.role));
        for (at, frame) in stack.frames.iter().enumerate() {
            let _ = writeln!(out, "{at:3}  {}", line(frame).replace("~~~", "~ ~ ~"));
        }
        out.push_str("~~~\n");
    }
    let _ = write!(
        out,
        "\nThe example is line {} of {}; `heapcheck triage show {} FILE…` prints it again.\n",
        example.source.line,
        inline(&example.source.file),
        group.key
    );
    out
}

/// Text inside of a line: nothing of Markdown or HTML is left in it.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for character in text::cut(&text::escaped(text), 600).chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '[' | ']' | '#' | '|' | '~' | '!' => {
                out.push('\\');
                out.push(character);
            }
            '@' => out.push_str("&#64;"), // nobody is called by a symbol's version
            _ => out.push(character),
        }
    }
    out
}
