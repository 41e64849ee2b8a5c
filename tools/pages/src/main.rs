//! `pages FOLDER`: writes the man pages and the completions of bash, zsh and fish, from the command line that the program has.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use heapcheck::cli::help::{self, EXIT_STATUS};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let folder: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("usage: pages FOLDER")?
        .into();
    write(&folder)
}

/// Writes `man1/` and `completions/` below a folder.
fn write(folder: &Path) -> Result<()> {
    let (manuals, completions) = (folder.join("man1"), folder.join("completions"));
    fs::create_dir_all(&manuals)?;
    fs::create_dir_all(&completions)?;
    let command = help::command();
    for (name, page) in manual_pages(&command)? {
        fs::write(manuals.join(name), page)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command.clone(), "heapcheck", &completions)?;
    }
    Ok(())
}

/// The page of the program and one of each command: `heapcheck-leaks.1`.
fn manual_pages(command: &Command) -> Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.clone();
    // A page is told when the program was released, not when the page was made.
    command.build();
    let mut pages = Vec::new();
    let mut open = vec![(command.get_name().to_owned(), &command)];
    while let Some((name, command)) = open.pop() {
        let mut page = Vec::new();
        let title = name.to_uppercase();
        // A name of clap lives as long as the program.
        let called: &'static str = name.clone().leak();
        let manual = Man::new(command.clone().name(called))
            .title(title)
            .section("1");
        let manual = manual.source("heapcheck").manual("heapcheck");
        manual.render_title(&mut page)?;
        manual.render_name_section(&mut page)?;
        let below = name.strip_prefix("heapcheck").unwrap_or(&name);
        let help = help::of(below.trim_start_matches('-'));
        match help {
            Some(help) => forms(help).to_writer(&mut page)?,
            None => manual.render_synopsis_section(&mut page)?,
        }
        manual.render_description_section(&mut page)?;
        manual.render_options_section(&mut page)?;
        if command.has_subcommands() {
            manual.render_subcommands_section(&mut page)?;
        }
        if let Some(help) = help {
            examples(help).to_writer(&mut page)?;
        }
        if name == "heapcheck" {
            exit_status().to_writer(&mut page)?;
        }
        let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
        open.extend(visible.map(|below| (format!("{name}-{}", below.get_name()), below)));
        pages.push((format!("{name}.1"), page));
    }
    pages.sort();
    Ok(pages)
}

fn forms(help: &help::Help) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for form in help.forms {
        let called = format!("heapcheck {}", help.command);
        roff.text([bold(called.trim_end()), roman(format!(" {form}"))]);
        roff.control("br", []);
    }
    roff
}

fn examples(help: &help::Help) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (line, gives) in help.examples {
        roff.control("TP", []);
        roff.text([bold(format!("heapcheck {line}"))]);
        roff.text([roman(*gives)]);
    }
    roff
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUS {
        roff.control("TP", []);
        roff.text([bold(*status)]);
        roff.text([roman(*meaning)]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All commands with what they are called, the program first.
    fn commands() -> Vec<(String, Command)> {
        let mut root = help::command();
        root.build();
        let mut found = Vec::new();
        let mut open = vec![("heapcheck".to_owned(), root)];
        while let Some((name, command)) = open.pop() {
            for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
                open.push((format!("{name}-{}", below.get_name()), below.clone()));
            }
            found.push((name, command));
        }
        found
    }

    #[test]
    fn every_command_has_a_page_with_all_of_its_options() {
        let pages = manual_pages(&help::command()).unwrap();
        let commands = commands();
        assert_eq!(pages.len(), commands.len());
        assert!(pages.len() > 8, "{}", pages.len());
        for (name, command) in commands {
            let (_, page) = pages
                .iter()
                .find(|(file, _)| *file == format!("{name}.1"))
                .unwrap_or_else(|| panic!("no page of {name}"));
            let page = String::from_utf8_lossy(page).replace("\\-", "-");
            assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
            for argument in command.get_arguments().filter(|it| !it.is_hide_set()) {
                if let Some(long) = argument.get_long() {
                    assert!(page.contains(&format!("--{long}")), "{name}: --{long}");
                }
            }
            assert!(
                page.contains("EXAMPLES") || name.matches('-').count() > 1,
                "{name}"
            );
        }
    }

    #[test]
    fn the_files_are_written_and_shells_can_read_them() {
        let folder = std::env::temp_dir().join(format!("heapcheck-pages-{}", std::process::id()));
        write(&folder).unwrap();
        let bash = folder.join("completions/heapcheck.bash");
        let checked = std::process::Command::new("bash")
            .arg("-n")
            .arg(&bash)
            .status();
        assert!(checked.unwrap().success());
        for file in [
            "completions/_heapcheck",
            "completions/heapcheck.fish",
            "man1/heapcheck-leaks.1",
        ] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            assert!(text.len() > 500, "{file}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
