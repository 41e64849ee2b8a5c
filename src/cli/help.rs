//! What the help says beside the options: each form of a command, and examples that can be typed as they stand.

use clap::{Command, CommandFactory as _};

use super::Arguments;

/// What the exit status means, for the help and the manual.
pub const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "nothing found"),
    ("1", "a finding at or above --fail-on"),
    ("2", "not analysed"),
    ("3", "nothing found but not wholly analysed"),
];

/// A command's forms and examples.
pub struct Help {
    /// The command; empty for the program itself.
    pub command: &'static str,
    /// Its forms, without the program's name.
    pub forms: &'static [&'static str],
    /// What is typed, without the program's name, and what that gives.
    pub examples: &'static [(&'static str, &'static str)],
}

/// All commands, in the order of the help.
pub const HELP: &[Help] = &[
    Help {
        command: "",
        forms: &[
            "[OPTIONS] <CORE> [BINARY]",
            "[OPTIONS] <BINARY> -c <CORE>",
            "<COMMAND> ...",
        ],
        examples: &[
            (
                "core.7958",
                "check the heap; the program is found by its build ID",
            ),
            (
                "--format html -o report.html core.7958",
                "the same as a page to send",
            ),
            ("leaks core.7958", "what does nobody point at any more"),
        ],
    },
    Help {
        command: "check",
        forms: &["[OPTIONS] <CORE> [BINARY]", "[OPTIONS] <BINARY> -c <CORE>"],
        examples: &[
            (
                "check core.7958 ./server",
                "the core and its program, in either order",
            ),
            (
                "check --sysroot /srv/images/web core.7958",
                "a core of another machine or container",
            ),
            (
                "check --redact core.7958",
                "a report that can leave the house",
            ),
        ],
    },
    Help {
        command: "stacks",
        forms: &["[OPTIONS] <CORE> [BINARY]", "[OPTIONS] <BINARY> -c <CORE>"],
        examples: &[("stacks core.7958", "where every thread was")],
    },
    Help {
        command: "leaks",
        forms: &["[OPTIONS] <CORE> [BINARY]", "[OPTIONS] <BINARY> -c <CORE>"],
        examples: &[
            ("leaks core.7958", "what nobody points at, in groups"),
            (
                "leaks --at-least 1M core.7958",
                "exit with 1 only if a MiB is lost",
            ),
        ],
    },
    Help {
        command: "usage",
        forms: &["[OPTIONS] <CORE> [BINARY]", "[OPTIONS] <BINARY> -c <CORE>"],
        examples: &[(
            "usage core.7958",
            "where the memory is, and what could be given back",
        )],
    },
    Help {
        command: "maps",
        forms: &["[OPTIONS] <CORE> [BINARY]", "[OPTIONS] <BINARY> -c <CORE>"],
        examples: &[(
            "maps core.7958",
            "every mapping, and how much of it is in the core",
        )],
    },
    Help {
        command: "refs",
        forms: &["[OPTIONS] <CORE> [BINARY] <ADDRESS>..."],
        examples: &[(
            "refs core.7958 0x55d2374ca000",
            "who points at this block, and from which root",
        )],
    },
    Help {
        command: "inspect",
        forms: &["[OPTIONS] <CORE> [BINARY] <ADDRESS>..."],
        examples: &[(
            "inspect core.7958 0x55d2374ca000",
            "what this address is, and each word around it",
        )],
    },
    Help {
        command: "view",
        forms: &["[OPTIONS] <CORE> [BINARY]", "[OPTIONS] <BINARY> -c <CORE>"],
        examples: &[(
            "view core.7958",
            "threads, findings, blocks and who holds them, to walk in; ? shows the keys",
        )],
    },
    Help {
        command: "batch",
        forms: &["[OPTIONS] <LIST>..."],
        examples: &[(
            "batch --output all.ndjson /var/lib/cores",
            "a line for each core, each in a process of its own",
        )],
    },
    Help {
        command: "import",
        forms: &["[OPTIONS] <LOG>..."],
        examples: &[(
            "import asan.log.* valgrind.xml > run.ndjson",
            "logs of many tools in one form",
        )],
    },
    Help {
        command: "triage",
        forms: &["<VERB> ..."],
        examples: &[
            ("triage groups run.ndjson", "the bugs behind many reports"),
            (
                "triage new --baseline old.ndjson run.ndjson",
                "those that are new; exit status 1 if there are any",
            ),
        ],
    },
    Help {
        command: "schema",
        forms: &["[COMMAND]"],
        examples: &[(
            "schema > report.schema.json",
            "the schema of the JSON report",
        )],
    },
];

/// The row of a command.
pub fn of(command: &str) -> Option<&'static Help> {
    HELP.iter().find(|help| help.command == command)
}

/// The command line with its forms and examples.
pub fn command() -> Command {
    let command = Arguments::command();
    let names = command.get_subcommands().map(|it| it.get_name().to_owned());
    let names: Vec<String> = names.collect();
    let own = of("").map(|help| help.after(true));
    let command = names.iter().fold(command, |command, name| match of(name) {
        Some(help) => command.mut_subcommand(name, |it| {
            it.override_usage(help.usage())
                .after_help(help.after(false))
        }),
        None => command,
    });
    match (of(""), own) {
        (Some(help), Some(after)) => command.override_usage(help.usage()).after_help(after),
        _ => command,
    }
}

impl Help {
    /// `heapcheck leaks`.
    fn called(&self) -> String {
        format!("heapcheck {}", self.command).trim_end().to_owned()
    }

    /// Its forms, a line each.
    fn usage(&self) -> String {
        let called = self.called();
        let forms = self.forms.iter().map(|form| format!("{called} {form}"));
        forms.collect::<Vec<_>>().join("\n       ")
    }

    fn after(&self, exit_status: bool) -> String {
        let lines = self.examples.iter();
        let lines = lines.map(|(line, gives)| format!("  heapcheck {line}\n      {gives}"));
        let mut text = format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"));
        if exit_status {
            let meanings = EXIT_STATUS.iter();
            let meanings = meanings.map(|(status, meaning)| format!("{status} {meaning}"));
            let meanings: Vec<String> = meanings.collect();
            text = format!("{text}\n\nExit status: {}", meanings.join(", "));
        }
        text
    }
}

/// What a file that is not there may have been meant as, if it is nearly the name of a command.
pub fn meant(file: &str) -> Option<&'static str> {
    let near = |help: &&Help| !help.command.is_empty() && is_near(file, help.command);
    HELP.iter().find(near).map(|help| help.command)
}

/// Whether one letter was left out, added or mistaken, or two that stand together were exchanged.
fn is_near(typed: &str, name: &str) -> bool {
    let (typed, name): (Vec<char>, Vec<char>) = (typed.chars().collect(), name.chars().collect());
    let same = typed.iter().zip(&name).take_while(|(a, b)| a == b).count();
    let rest = |letters: &[char], skip: usize| letters.get(same + skip..).map(<[char]>::to_vec);
    let exchanged = |letters: &[char]| {
        let mut rest = rest(letters, 0)?;
        (rest.len() > 1).then(|| rest.swap(0, 1))?;
        Some(rest)
    };
    let (whole_typed, whole_name) = (rest(&typed, 0), rest(&name, 0));
    whole_typed != whole_name
        && (rest(&typed, 1).is_some_and(|it| Some(it) == whole_name)
            || rest(&name, 1).is_some_and(|it| Some(it) == whole_typed)
            || rest(&typed, 1).is_some_and(|it| Some(it) == rest(&name, 1))
            || exchanged(&typed).is_some_and(|it| Some(it) == whole_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_forms_and_an_example_that_parses() {
        let command = command();
        for name in command.get_subcommands().map(Command::get_name) {
            assert!(of(name).is_some(), "cli/help.rs has no row for {name}");
        }
        let known = |name: &str| name.is_empty() || command.find_subcommand(name).is_some();
        for help in HELP.iter().filter(|help| known(help.command)) {
            assert!(!help.forms.is_empty() && !help.examples.is_empty());
            for (line, _) in help.examples {
                let typed = line.split(" > ").next().unwrap().split(' ');
                let words = std::iter::once("heapcheck").chain(typed).map(Into::into);
                let parsed = crate::cli::parse(words.collect());
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
    }

    #[test]
    fn a_slip_is_told_from_a_file() {
        for (typed, expected) in [
            ("leeks", Some("leaks")),
            ("leak", Some("leaks")),
            ("leaksx", Some("leaks")),
            ("laeks", Some("leaks")),
            ("chekc", Some("check")),
            ("leaks", None),
            ("core", None),
            ("core.7958", None),
            ("", None),
        ] {
            assert_eq!(meant(typed), expected, "{typed}");
        }
    }
}
