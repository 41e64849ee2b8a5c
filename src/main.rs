//! The command line program.

use std::process::ExitCode;

use heapcheck::{program, unforeseen};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // mimalloc asks for huge pages for the memory of each thread: to clear them took a quarter of the time of a small core.
    #[cfg(target_env = "musl")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    unforeseen::remember_place();
    ExitCode::from(program::run(std::env::args_os().collect()))
}
