//! Huge pages where they are asked for, and nowhere else.
//!
//! mimalloc's memory of each thread lies where the kernel gives huge pages to whoever touches it: to clear them took a quarter of the time of
//! a small core. The mapping of a core asks for them and keeps them.

#![allow(unsafe_code)] // no crate has this call yet; see the SAFETY paragraph

/// `PR_THP_DISABLE_EXCEPT_ADVISED` of Linux 6.18's `prctl.h`.
const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;

/// Turns off huge pages that nobody asked for; before Linux 6.18, which cannot tell them apart, all of them.
pub fn only_where_advised() {
    let off: libc::c_ulong = 1;
    let none: libc::c_ulong = 0;
    // SAFETY: this call reads and writes no memory of the process; the kernel refuses arguments that it does not know.
    let refused =
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, off, EXCEPT_ADVISED, none, none) != 0 };
    if refused {
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
}
