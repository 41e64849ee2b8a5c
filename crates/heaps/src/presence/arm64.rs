//! Addresses that code of aarch64 names: a page, then an offset in it (Arm Architecture Reference Manual, C4.1: `ADRP`, `ADD`
//! with an immediate, loads and stores with an unsigned offset).
//!
//! ```text
//! adrp x0, page          page of the instruction + signed 21 bits * 4096
//! add  x0, x0, #offset   or   ldr x1, [x0, #offset]
//! ```

use ground::target::Address;

/// What the code that begins at `start` names, in its order. A register counts as holding its page until another one is put
/// there.
pub(super) fn operands(code: &[u8], start: Address) -> impl Iterator<Item = Address> + '_ {
    let mut pages: [Option<u64>; 32] = [None; 32];
    let (words, _) = code.as_chunks::<4>();
    let places = (0u64..).step_by(4);
    places.zip(words).filter_map(move |(offset, word)| {
        let word = u32::from_le_bytes(*word);
        let at = start.get().wrapping_add(offset);
        let register = |shift: u32| usize::try_from(word >> shift & 31).unwrap_or(31);
        if word & 0x9f00_0000 == 0x9000_0000 {
            let low = u64::from(word >> 29 & 3);
            let high = u64::from(word >> 5 & 0x7_ffff);
            let pages_on = (high << 2 | low) << 43;
            // The shift back keeps the sign of the 21 bits and leaves them times 4096.
            let distance = pages_on.cast_signed() >> 31;
            let page = (at & !0xfff).wrapping_add_signed(distance);
            if let Some(slot) = pages.get_mut(register(0)) {
                *slot = Some(page);
            }
            return None;
        }
        let immediate = u64::from(word >> 10 & 0xfff);
        let offset = if word & 0xffc0_0000 == 0x9100_0000 {
            immediate
        } else if word & 0x3b00_0000 == 0x3900_0000 {
            immediate << (word >> 30)
        } else {
            return None;
        };
        let page = (*pages.get(register(5))?)?;
        Some(Address::new(page.wrapping_add(offset)))
    })
}

#[cfg(test)]
mod tests {
    use super::operands;
    use ground::target::Address;

    #[test]
    fn pages_and_offsets_make_addresses() {
        // As GNU as makes them: adrp x0, 0x412000; add x0, x0, #0xb38; ldr w1, [x2, #4]; adrp x19, 0x3ff000; ldr x1, [x19, #0xff8]
        let code: Vec<u8> = [
            0xb000_0080u32,
            0x912c_e000,
            0xb940_0441,
            0xf0ff_fff3,
            0xf947_fe61,
        ]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
        let found: Vec<Address> = operands(&code, Address::new(0x40_1000)).collect();
        assert_eq!(found, [0x41_2b38, 0x40_0ff8].map(Address::new));
    }
}
