//! What people decided about groups: `heapcheck.triage.toml`, in the user's repository and reviewed like code.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Serialize;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::key::Frames;

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing.
    #[default]
    Open,
    /// Known and not to be reported.
    Muted,
    /// Part of another group.
    Merged,
    /// There is a ticket.
    Ticket,
    /// Several bugs: its records are told apart by more frames.
    Split,
}

impl State {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "open" => Self::Open,
            "muted" => Self::Muted,
            "merged" => Self::Merged,
            "ticket" => Self::Ticket,
            "split" => Self::Split,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Muted => "muted",
            Self::Merged => "merged",
            Self::Ticket => "ticket",
            Self::Split => "split",
        }
    }
}

/// One decision.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The group's key.
    pub key: String,
    /// Its readable form when the decision was made.
    pub text: String,
    /// What was decided.
    pub state: State,
    /// Merged: the key of the group that it is part of. Ticket: its address or number.
    pub into: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Last day, YYYY-MM-DD.
    pub until: Option<String>,
    /// Split: functions of the new keys.
    pub frames: usize,
}

/// The decisions, and the file's text.
#[derive(Clone, Debug, Default)]
pub struct TriageFile {
    document: DocumentMut,
    /// Decisions in the file's order.
    pub rules: Vec<Rule>,
    /// Functions and modules that keys leave out or keep.
    pub frames: Frames,
    today: String,
}

impl TriageFile {
    /// Reads the text of a file; `today` is YYYY-MM-DD.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn parse(text: &str, today: &str) -> Result<Self, String> {
        let document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| error.to_string())?;
        let mut rules = Vec::new();
        let tables = match document.get("group") {
            None => None,
            Some(item) => Some(
                item.as_array_of_tables()
                    .ok_or("`group` must be written as [[group]]")?,
            ),
        };
        for table in tables.iter().flat_map(|tables| tables.iter()) {
            let get = |name: &str| match table.get(name) {
                None => Ok(None),
                Some(item) => item
                    .as_str()
                    .map(|text| Some(text.to_owned()))
                    .ok_or(format!("`{name}` of a group must be text")),
            };
            let key = get("key")?.ok_or("a group has no `key`")?;
            let state = get("state")?.unwrap_or_default();
            let state = State::of(&state).ok_or(format!(
                "{key}: `{state}` is no state: muted, merged, ticket, split"
            ))?;
            let frames = table
                .get("frames")
                .and_then(Item::as_integer)
                .and_then(|frames| usize::try_from(frames).ok())
                .unwrap_or(8);
            let until = get("until")?;
            if until.as_deref().is_some_and(|until| !is_date(until)) {
                return Err(format!("{key}: `until` must be YYYY-MM-DD"));
            }
            let into = get("into")?;
            if state == State::Merged && into.is_none() {
                return Err(format!("{key}: a merged group needs `into`"));
            }
            rules.push(Rule {
                text: get("text")?.unwrap_or_default(),
                key,
                state,
                into,
                reason: get("reason")?,
                until,
                frames,
            });
        }
        let list = |name: &str| -> Vec<String> {
            let array = document
                .get("frames")
                .and_then(|frames| frames.get(name))
                .and_then(Item::as_array);
            array
                .iter()
                .flat_map(|array| array.iter())
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect()
        };
        let frames = Frames {
            ignore: list("ignore"),
            keep: list("keep"),
        };
        Ok(Self {
            document,
            rules,
            frames,
            today: today.to_owned(),
        })
    }

    /// What was decided of a key; a mute that has ended counts no more.
    pub fn state(&self, key: &str) -> Option<State> {
        let rule = self.rules.iter().rev().find(|rule| rule.key == key)?;
        (rule.state != State::Muted || self.problem(rule).is_none()).then_some(rule.state)
    }

    /// The group that a merged key is part of, through any number of steps.
    pub fn merged(&self, key: &str) -> Option<&str> {
        let step = |key: &str| {
            let rule = self
                .rules
                .iter()
                .rev()
                .find(|rule| rule.key == key && rule.state == State::Merged)?;
            rule.into.as_deref()
        };
        let mut found = step(key)?;
        for _ in 0..self.rules.len() {
            match step(found) {
                Some(next) if next != key => found = next,
                _ => break,
            }
        }
        Some(found)
    }

    /// What is wrong with the decisions: mutes without a reason, or past their end.
    pub fn problems(&self) -> Vec<String> {
        self.rules
            .iter()
            .filter(|rule| rule.state == State::Muted)
            .filter_map(|rule| self.problem(rule))
            .collect()
    }

    fn problem(&self, rule: &Rule) -> Option<String> {
        let name = if rule.text.is_empty() {
            &rule.key
        } else {
            &rule.text
        };
        if rule
            .reason
            .as_deref()
            .is_none_or(|reason| reason.trim().is_empty())
        {
            return Some(format!("{name}: muted without a reason"));
        }
        let until = rule.until.as_deref()?;
        (until < self.today.as_str()).then(|| format!("{name}: the mute ended on {until}"))
    }

    /// Puts a decision into the file, in the place of an older one of the same key; comments stay.
    pub fn set(&mut self, rule: Rule) {
        let mut table = Table::new();
        table["key"] = value(&rule.key);
        if !rule.text.is_empty() {
            table["text"] = value(&rule.text);
        }
        table["state"] = value(rule.state.word());
        for (name, text) in [
            ("into", &rule.into),
            ("reason", &rule.reason),
            ("until", &rule.until),
        ] {
            if let Some(text) = text {
                table[name] = value(text);
            }
        }
        if rule.state == State::Split {
            table["frames"] = value(i64::try_from(rule.frames).unwrap_or(8));
        }
        let groups = self
            .document
            .entry("group")
            .or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(groups) = groups.as_array_of_tables_mut() {
            let old = groups
                .iter()
                .position(|old| old.get("key").and_then(Item::as_str) == Some(&rule.key));
            match old.and_then(|at| groups.get_mut(at)) {
                Some(old) => {
                    for (name, item) in table {
                        old.insert(&name, item);
                    }
                }
                None => groups.push(table),
            }
        }
        self.rules.retain(|old| old.key != rule.key);
        self.rules.push(rule);
    }

    /// The file's text.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// What reading gives, or what is wrong in the file.
    pub fn open(path: &std::path::Path, today: &str) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        Self::parse(&text, today).map_err(|why| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {why}", path.display()),
            )
        })
    }
}

/// True of YYYY-MM-DD.
fn is_date(text: &str) -> bool {
    let digits =
        |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.split('-');
    matches!((parts.next(), parts.next(), parts.next(), parts.next()), (Some(y), Some(m), Some(d), None)
        if digits(y, 4) && digits(m, 2) && digits(d, 2) && ("01"..="12").contains(&m) && ("01"..="31").contains(&d))
}

/// Today by the system's clock, UTC, as YYYY-MM-DD.
pub fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    date(seconds)
}

/// The day of a time in seconds since the epoch, by the proleptic Gregorian calendar.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!(
        "{:04}-{month:02}-{day:02}",
        year + era * 400 + u64::from(month <= 2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_read_and_written() {
        let text = "# ours\n[frames]\nignore = [\"pool_*\"]\n\n[[group]]\nkey = \"v1:a\" # old\nstate = \"muted\"\nreason = \"vendor\"\nuntil = \"2026-01-31\"\n";
        let mut file = TriageFile::parse(text, "2026-01-31").unwrap();
        assert_eq!(file.frames.ignore, ["pool_*"]);
        assert_eq!(file.state("v1:a"), Some(State::Muted));
        let late = TriageFile::parse(text, "2026-02-01").unwrap();
        assert_eq!((late.state("v1:a"), late.problems().len()), (None, 1));
        file.set(Rule {
            key: "v1:b".into(),
            state: State::Merged,
            into: Some("v1:c".into()),
            ..Rule::default()
        });
        file.set(Rule {
            key: "v1:c".into(),
            state: State::Merged,
            into: Some("v1:d".into()),
            ..Rule::default()
        });
        let again = TriageFile::parse(&file.text(), "2026-01-01").unwrap();
        assert!(file.text().starts_with("# ours"));
        assert_eq!(again.merged("v1:b"), Some("v1:d"));
        assert!(TriageFile::parse("[[group]]\nkey = \"a\"\nstate = \"x\"\n", "").is_err());
        assert!(
            TriageFile::parse(
                "[[group]]\nkey = \"a\"\nstate = \"muted\"\nuntil = \"soon\"\n",
                ""
            )
            .is_err()
        );
        let circle = "[[group]]\nkey='a'\nstate='merged'\ninto='b'\n[[group]]\nkey='b'\nstate='merged'\ninto='a'\n";
        assert_eq!(
            TriageFile::parse(circle, "").unwrap().merged("a"),
            Some("b")
        );
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_796_083_200), "2026-12-01");
    }
}
