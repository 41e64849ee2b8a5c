//! What programs store: the bytes of damage.

use ground::target::Target;

/// Text that a program may hold.
pub fn text(length: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    const TEXT: &[u8] =
        b"GET /index.html HTTP/1.1 Host: example.org user=Alice;path=/tmp/data.txt;name=Smith ";
    let from = rng.usize(..TEXT.len());
    TEXT.iter()
        .copied()
        .cycle()
        .skip(from)
        .take(length)
        .collect()
}

/// Eight bytes as programs store them, with their name. `block` gives the address of a block in use.
pub fn word(
    target: Target<'_>,
    rng: &mut fastrand::Rng,
    block: impl FnOnce(&mut fastrand::Rng) -> u64,
) -> (&'static str, u64) {
    match rng.u8(..7) {
        0 => (
            "text",
            u64::from_le_bytes(text(8, rng).try_into().unwrap_or_default()),
        ),
        1 => ("a heap pointer", block(rng)),
        2 => {
            let module = &target.modules[rng.usize(..target.modules.len())];
            (
                "a static pointer",
                module.range.start.get() + rng.u64(..0x1000) * 8,
            )
        }
        3 => ("a small number", rng.u64(1..5000)),
        4 => ("zero", 0),
        5 => (
            "a double",
            f64::from(rng.u32(1..1_000_000) as f32 / 64.0).to_bits(),
        ),
        _ => ("random bytes", rng.u64(..)),
    }
}
