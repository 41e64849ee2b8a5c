//! The command line program.

use std::process::ExitCode;

use heapcheck::{program, unforeseen};

#[cfg(target_env = "musl")]
mod huge_pages;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(target_env = "musl")]
    huge_pages::only_where_advised();
    unforeseen::remember_place();
    ExitCode::from(program::run(std::env::args_os().collect()))
}
