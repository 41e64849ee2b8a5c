//! Numbers for people: thousands separated, bytes exact and in a unit that can be read at a glance.

/// `12,345,678`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 block`, `1,234 blocks`.
pub fn count(number: u64, singular: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {singular}{plural}", thousands(number))
}

/// `48 bytes`, `2,097,152 bytes (2.0 MiB)`.
pub fn bytes(number: u64) -> String {
    let exact = count(number, "byte");
    match short(number) {
        Some(short) => format!("{exact} ({short})"),
        None => exact,
    }
}

/// `2.0 MiB`; `None` below a KiB, where the exact number is as short.
pub fn short(number: u64) -> Option<String> {
    const UNITS: [(&str, u32); 5] = [
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("KiB", 10),
    ];
    UNITS.iter().find_map(|(unit, shift)| {
        let whole = number >> shift;
        if whole == 0 {
            return None;
        }
        let below = number & ((1 << shift) - 1);
        // Below 2^50, so ten times as much fits.
        let tenth = (below * 10) >> shift;
        Some(format!("{}.{tenth} {unit}", thousands(whole)))
    })
}

/// `12.3 %` of a whole; empty for a whole of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    let permille = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{} %", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(count(1, "block"), "1 block");
        assert_eq!(count(0, "block"), "0 blocks");
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(1023), "1,023 bytes");
        assert_eq!(bytes(1536), "1,536 bytes (1.5 KiB)");
        assert_eq!(bytes(2 << 20), "2,097,152 bytes (2.0 MiB)");
        assert_eq!(short(u64::MAX).unwrap(), "16,383.9 PiB");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0 %");
        assert_eq!(percent(0, 0), "");
    }
}
