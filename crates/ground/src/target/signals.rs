//! Signals by their numbers, the same on all Linux architectures that are read (include/uapi/asm-generic/signal.h).

#![allow(missing_docs)]

pub const SIGILL: i32 = 4;
pub const SIGTRAP: i32 = 5;
pub const SIGABRT: i32 = 6;
pub const SIGBUS: i32 = 7;
pub const SIGFPE: i32 = 8;
pub const SIGSEGV: i32 = 11;
pub const SIGCONT: i32 = 18;
pub const SIGTTOU: i32 = 22;
pub const SIGSYS: i32 = 31;

/// Whether instructions raise this signal.
pub const fn is_fault(signal: i32) -> bool {
    matches!(signal, SIGILL | SIGBUS | SIGFPE | SIGSEGV)
}
