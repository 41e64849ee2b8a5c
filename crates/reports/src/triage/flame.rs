//! Where the bytes come from: folded stacks, a picture of them, and bytes by frame.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::key::{Name, responsible, trimmed};
use crate::record::{Frame, Record};
use crate::text;

/// Most different stacks that are kept; the rest is one frame, `(more)`.
const MAX_STACKS: usize = 500_000;
/// Most frames of a stack in a picture.
const MAX_DEPTH: usize = 128;

/// What a stack weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// Bytes of leaks and sites; an error without bytes weighs nothing.
    #[default]
    Bytes,
    /// Blocks of leaks and sites, else errors.
    Count,
}

impl Weight {
    fn of(self, record: &Record) -> u64 {
        match self {
            Self::Bytes => record.bytes.unwrap_or(0),
            Self::Count => record.blocks.unwrap_or(1),
        }
    }
}

/// A frame's name in a picture.
fn name(frame: &Frame) -> String {
    let name = match (
        &frame.function,
        &frame.module,
        &frame.module_offset,
        &frame.address,
    ) {
        (Some(function), ..) => Name::of(function).text(),
        (None, Some(module), Some(offset), _) => format!("{module}+{offset}"),
        (None, None, _, Some(address)) => address.clone(),
        _ => "??".to_owned(),
    };
    text::escaped(&name.replace(';', ","))
}

/// Names of the responsible stack, outermost first.
fn path(record: &Record) -> Vec<String> {
    let stack = responsible(record).into_iter().next();
    let mut names: Vec<String> = stack
        .iter()
        .flat_map(|stack| trimmed(stack))
        .map(name)
        .take(MAX_DEPTH)
        .collect();
    names.reverse();
    if names.is_empty() {
        names.push("(no stack)".to_owned());
    }
    names
}

/// Stacks with their weight.
#[derive(Default)]
pub struct Stacks {
    weights: BTreeMap<Vec<String>, u64>,
}

impl Stacks {
    /// Takes one record.
    pub fn add(&mut self, record: &Record, weight: Weight) {
        let weight = weight.of(record);
        if weight == 0 {
            return;
        }
        self.add_path(path(record), weight);
    }

    /// Takes a stack by the names of its functions, outermost first.
    pub fn add_path(&mut self, path: Vec<String>, weight: u64) {
        let path = if self.weights.len() < MAX_STACKS || self.weights.contains_key(&path) {
            path
        } else {
            vec!["(more)".to_owned()]
        };
        let sum = self.weights.entry(path).or_default();
        *sum = sum.saturating_add(weight);
    }
}

/// One line a stack: `main;f;g 123`.
pub fn folded(stacks: &Stacks) -> String {
    let mut out = String::new();
    for (path, weight) in &stacks.weights {
        let _ = writeln!(out, "{} {weight}", path.join(";")); // a String takes all
    }
    out
}

/// Inclusive weight of each frame, heaviest first: a function counts once in a stack however often it is in it.
pub fn by_frame(stacks: &Stacks) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (path, weight) in &stacks.weights {
        for name in path.iter().collect::<BTreeSet<_>>() {
            let sum = sums.entry(name).or_default();
            *sum = sum.saturating_add(*weight);
        }
    }
    let mut frames: Vec<(String, u64)> = sums
        .into_iter()
        .map(|(name, sum)| (name.to_owned(), sum))
        .collect();
    frames.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    frames
}

/// A picture: each frame a bar over its caller, as wide as its weight. Bars narrower than a thousandth are left out.
#[expect(clippy::cast_precision_loss)]
pub fn svg(stacks: &Stacks, title: &str, unit: &str) -> String {
    const WIDTH: f64 = 1200.0;
    const HEIGHT: f64 = 17.0;
    let total: u64 = stacks
        .weights
        .values()
        .fold(0, |sum, weight| sum.saturating_add(*weight));
    let scale = WIDTH / total.max(1) as f64;
    // Bars that are open, by depth: name, start, weight so far.
    let mut open: Vec<(&str, f64, u64)> = Vec::new();
    let mut bars: Vec<(usize, String, f64, u64)> = Vec::new();
    let mut at = 0.0;
    let close = |open: &mut Vec<(&str, f64, u64)>,
                 depth: usize,
                 bars: &mut Vec<(usize, String, f64, u64)>| {
        while open.len() > depth {
            if let Some((name, start, weight)) = open.pop() {
                bars.push((open.len(), name.to_owned(), start, weight));
            }
        }
    };
    for (path, weight) in &stacks.weights {
        let same = open
            .iter()
            .zip(path)
            .take_while(|(bar, name)| bar.0 == name.as_str())
            .count();
        close(&mut open, same, &mut bars);
        open.extend(path.iter().skip(same).map(|name| (name.as_str(), at, 0)));
        for bar in &mut open {
            bar.2 = bar.2.saturating_add(*weight);
        }
        at += *weight as f64 * scale;
    }
    close(&mut open, 0, &mut bars);
    bars.retain(|bar| bar.3 as f64 * scale >= WIDTH / 1000.0);
    bars.sort_by(|a, b| a.0.cmp(&b.0).then(a.2.total_cmp(&b.2)));
    let depth = bars.iter().map(|bar| bar.0 + 1).max().unwrap_or(0);
    let height = (depth as f64 + 2.0) * HEIGHT + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"4\" y=\"14\">{}: {total} {}</text>\n",
        markup(title),
        markup(unit)
    );
    for (level, name, start, weight) in bars {
        let width = weight as f64 * scale;
        let y = height - (level as f64 + 1.0) * HEIGHT - 5.0;
        let share = 100.0 * weight as f64 / total.max(1) as f64;
        let letters = (0..)
            .take_while(|&letters| f64::from(letters) * 6.7 + 6.0 < width)
            .count()
            .saturating_sub(1);
        let label: String = name.chars().take(letters).collect();
        let _ = writeln!(
            out,
            "<g><title>{}: {weight} {} ({share:.1} %)</title><rect x=\"{start:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\" stroke=\"#fff\" stroke-width=\"0.5\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            markup(&name),
            markup(unit),
            HEIGHT - 1.0,
            colour(&name),
            start + 3.0,
            y + 12.0,
            markup(&label)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A warm colour that is the same for the same name.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(2_166_136_261_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    format!("hsl({},80%,{}%)", 10 + hash % 45, 62 + hash / 64 % 14)
}

/// Text for SVG: what has a meaning there is written out.
fn markup(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    text.chars().filter(|c| !c.is_control()).collect()
}
