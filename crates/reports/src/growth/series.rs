//! Series of groups over the reports of one process.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::statistics::{Shape, Verdict, discoveries, judge};
use crate::import::OWNER;
use crate::kind::is_memory;
use crate::triage::Item;

/// Most points of all series together.
const MAX_POINTS: usize = 4 << 20;

/// All series.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Growth {
    /// Series that were tested: what the chances are corrected for.
    pub tested: usize,
    /// Linear and exponential ones first, fastest first.
    pub series: Vec<Series>,
}

/// One group of one process over time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Series {
    /// Key or fingerprint of the group.
    pub group: String,
    /// Readable form.
    pub text: String,
    /// The process.
    pub process: String,
    /// Reports.
    pub points: usize,
    /// From the first to the last.
    pub seconds: f64,
    /// Who holds it, where it is told by holder: the container.
    pub container: Option<String>,
    /// How it grows.
    pub shape: Shape,
    /// Chance of as much growth without a leak, before correction.
    pub p: f64,
    /// Late slope.
    pub bytes_per_second: f64,
    /// The last value and the late slope over 24 hours; doubled at the same pace for an exponential one.
    pub projected_bytes_24h: Option<u64>,
    /// Bytes in the last report.
    pub bytes: u64,
    /// Blocks in the last report.
    pub blocks: u64,
    /// How to catch the site in the next run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next_steps: Vec<String>,
}

/// Gathers points.
#[derive(Default)]
pub struct Watch {
    processes: BTreeMap<String, Process>,
    points: usize,
    /// Records without a time.
    pub untimed: u64,
}

#[derive(Default)]
struct Process {
    pid: Option<u64>,
    times: BTreeSet<Seconds>,
    groups: BTreeMap<String, Points>,
}

#[derive(Default)]
struct Points {
    text: String,
    /// A tool that shows its largest groups only: absence is no zero.
    partial: bool,
    /// Told by holder.
    is_owner: bool,
    values: BTreeMap<Seconds, (u64, u64)>,
}

/// Milliseconds since some beginning.
type Seconds = i64;

impl Watch {
    /// Takes one record; those that are no memory have no size.
    pub fn add(&mut self, item: &Item<'_>) {
        if !is_memory(&item.kind) {
            return;
        }
        let Some(time) = item.time_text().and_then(|text| milliseconds(&text)) else {
            self.untimed += 1;
            return;
        };
        if self.points >= MAX_POINTS {
            return;
        }
        self.points += 1;
        let start = item
            .attributes
            .get("process_start")
            .map_or("", |start| start);
        let name = item.process.as_deref().unwrap_or("");
        let id = format!(
            "{name}[{}]{start}",
            item.pid.map_or_else(String::new, |pid| pid.to_string())
        );
        let process = self.processes.entry(id).or_default();
        process.pid = item.pid;
        process.times.insert(time);
        let name = match &item.subject {
            Some(fingerprint) if item.tool == "heapcheck" => fingerprint,
            _ => &item.key,
        };
        let group = process.groups.entry(name.to_string()).or_default();
        if group.text.is_empty() {
            group.text.push_str(&item.key_text);
        }
        group.partial |= item.tool == "memleak";
        group.is_owner |= item.tool == "heapcheck" && item.tool_kind == OWNER;
        let value = group.values.entry(time).or_default();
        value.0 = value.0.saturating_add(item.bytes.unwrap_or(0));
        value.1 = value.1.saturating_add(item.blocks.unwrap_or(0));
    }
}

/// Judges all series.
#[expect(clippy::cast_precision_loss)]
pub fn growth(watch: &Watch) -> Growth {
    let mut found: Vec<(Series, Verdict)> = Vec::new();
    for (name, process) in &watch.processes {
        for (key, group) in &process.groups {
            let value = |time: &Seconds| match group.values.get(time) {
                Some(&value) => Some(value),
                None => (!group.partial).then_some((0, 0)),
            };
            let points: Vec<(f64, f64)> = process
                .times
                .iter()
                .filter_map(|time| {
                    value(time).map(|(bytes, _)| (*time as f64 / 1000.0, bytes as f64))
                })
                .collect();
            let verdict = judge(&points);
            let (bytes, blocks) = process.times.last().and_then(value).unwrap_or_default();
            let seconds = points.last().map_or(0.0, |last| last.0)
                - points.first().map_or(0.0, |first| first.0);
            let series = Series {
                group: key.clone(),
                text: group.text.clone(),
                process: name.clone(),
                points: points.len(),
                seconds,
                container: group.is_owner.then(|| key.clone()),
                shape: verdict.shape,
                p: verdict.p,
                bytes_per_second: verdict.slope,
                projected_bytes_24h: None,
                bytes,
                blocks,
                next_steps: Vec::new(),
            };
            found.push((series, verdict));
        }
    }
    let tested: Vec<f64> = found
        .iter()
        .filter(|(series, _)| series.shape != Shape::TooFew)
        .map(|(series, _)| series.p)
        .collect();
    let mut holds = discoveries(&tested).into_iter();
    for (series, verdict) in &mut found {
        if series.shape != Shape::TooFew
            && holds.next() == Some(false)
            && series.shape != Shape::Constant
        {
            series.shape = Shape::Undecided;
        }
        if matches!(
            series.shape,
            Shape::Linear | Shape::Exponential | Shape::Undecided
        ) && verdict.slope > 0.0
        {
            let day = 86_400.0;
            let more = match series.shape {
                // Twice as fast in each further span of the same length.
                Shape::Exponential if series.seconds > 0.0 => {
                    series.bytes as f64 * (2.0_f64.powf((day / series.seconds).min(60.0)) - 1.0)
                }
                _ => verdict.slope * day,
            };
            series.projected_bytes_24h = Some(saturating(series.bytes as f64 + more));
            if series.shape != Shape::Undecided {
                let pid = watch
                    .processes
                    .get(&series.process)
                    .and_then(|process| process.pid);
                series.next_steps = recipes(pid, series.bytes, series.blocks);
            }
        }
    }
    let rank = |shape: Shape| match shape {
        Shape::Exponential => 0,
        Shape::Linear => 1,
        Shape::Undecided => 2,
        Shape::Step => 3,
        Shape::Flattening => 4,
        Shape::Constant => 5,
        Shape::TooFew => 6,
    };
    let mut series: Vec<Series> = found.into_iter().map(|(series, _)| series).collect();
    series.sort_by(|a, b| {
        let by_speed = b.bytes_per_second.total_cmp(&a.bytes_per_second);
        rank(a.shape)
            .cmp(&rank(b.shape))
            .then(by_speed)
            .then_with(|| (&a.process, &a.group).cmp(&(&b.process, &b.group)))
    });
    Growth {
        tested: tested.len(),
        series,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn saturating(value: f64) -> u64 {
    value.clamp(0.0, 9.0e18) as u64
}

/// What catches the allocating site live, for blocks of this size: commands for a shell, where PROGRAM stands for the program.
fn recipes(pid: Option<u64>, bytes: u64, blocks: u64) -> Vec<String> {
    // What was asked for is less than what a block has: by 15 bytes in glibc's heap, by a fifth at most elsewhere.
    let size = bytes.checked_div(blocks).unwrap_or(0);
    let least = size.saturating_sub((size / 5).max(15));
    let pid = pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
    vec![
        format!("memleak-bpfcc -p {pid} -a -z {least} -Z {size} 60 1 > memleak.log; heapcheck import memleak.log  # now, as root; a minute"),
        "echo 'extern void mtrace(void); __attribute__((constructor)) static void start(void) { mtrace(); }' | gcc -shared -fPIC -x c -o mtrace.so - && LD_PRELOAD=./mtrace.so:libc_malloc_debug.so.0 MALLOC_TRACE=trace.log PROGRAM; heapcheck import trace.log  # glibc, next run".to_owned(),
        "MALLOC_CONF=prof:true,prof_final:true,lg_prof_sample:17,prof_prefix:jeprof PROGRAM; heapcheck import jeprof.*.heap  # jemalloc, next run".to_owned(),
        "HEAPPROFILE=./tcprof PROGRAM; heapcheck import tcprof.*.heap  # tcmalloc (not minimal), next run".to_owned(),
    ]
}

/// Seconds since the epoch, RFC 3339, or a time of day, in milliseconds.
#[expect(clippy::cast_possible_truncation)]
pub(crate) fn milliseconds(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds
            .is_finite()
            .then_some((seconds.clamp(-1e15, 1e15) * 1000.0) as i64);
    }
    let (date, rest) = match text.split_once(['T', ' ']) {
        Some((date, rest)) => (Some(date), rest),
        None => (None, text),
    };
    let sign_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(sign_at);
    let mut parts = clock.split(':');
    let hour: f64 = parts.next()?.parse().ok()?;
    let minute: f64 = parts.next()?.parse().ok()?;
    let second: f64 = parts.next().unwrap_or("0").parse().ok()?;
    let mut seconds = hour * 3600.0 + minute * 60.0 + second;
    if let Some((hours, minutes)) = zone.get(1..).and_then(|zone| zone.split_once(':')) {
        let shift = hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * 60.0;
        seconds -= if zone.starts_with('-') { -shift } else { shift };
    }
    if let Some(date) = date {
        let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let year = if month <= 2 { year - 1 } else { year };
        let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        return Some(days * 86_400_000 + (seconds * 1000.0) as i64);
    }
    seconds.is_finite().then_some((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(milliseconds("1.5"), Some(1500));
        assert_eq!(milliseconds("1970-01-02T00:00:01Z"), Some(86_401_000));
        assert_eq!(
            milliseconds("2000-03-01T01:00:00+01:00"),
            Some(951_868_800_000)
        );
        assert_eq!(milliseconds("11:32:14"), Some(41_534_000));
        assert_eq!(milliseconds("soon"), None);
    }
}
