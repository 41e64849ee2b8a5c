//! The command line program.

use std::process::ExitCode;

use heapcheck::{program, unforeseen};

fn main() -> ExitCode {
    unforeseen::remember_place();
    ExitCode::from(program::run(std::env::args_os().collect()))
}
