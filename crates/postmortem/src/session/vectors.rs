//! What vector registers hold: compilers keep pointers there, two and four at a time.
//!
//! ```text
//! x86-64   NT_FPREGSET     +160  16 registers of 16 bytes                    (arch/x86/include/asm/user_64.h, user_i387_struct)
//!          NT_X86_XSTATE   +576  upper halves of 16 registers of 32 bytes, then the rest in pieces whose places processors choose
//! aarch64  NT_FPREGSET     +0    32 registers of 16 bytes                    (arch/arm64/include/uapi/asm/ptrace.h, user_fpsimd_state)
//! ```

use ground::target::InstructionSet;

/// Words that are not zero, with their names: `xmm3[1]` is the second word of that register.
pub fn words(
    set: InstructionSet,
    basic: Option<&[u8]>,
    extended: Option<&[u8]>,
) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    match set {
        InstructionSet::X86_64 => {
            let lower = basic.or(extended).and_then(|bytes| bytes.get(160..416));
            add(&mut found, lower, |word| {
                format!("xmm{}[{}]", word / 2, word % 2)
            });
            let upper = extended.and_then(|bytes| bytes.get(576..832));
            add(&mut found, upper, |word| {
                format!("ymm{}[{}]", word / 2, (word % 2).saturating_add(2))
            });
            let rest = extended.and_then(|bytes| bytes.get(832..));
            add(&mut found, rest, |word| format!("zmm state [{word}]"));
        }
        InstructionSet::Aarch64 => {
            let all = basic.and_then(|bytes| bytes.get(..512));
            add(&mut found, all, |word| {
                format!("v{}[{}]", word / 2, word % 2)
            });
        }
    }
    found
}

fn add(found: &mut Vec<(String, u64)>, bytes: Option<&[u8]>, name: impl Fn(usize) -> String) {
    let (words, _) = bytes.unwrap_or_default().as_chunks::<8>();
    let words = words.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let words = words.enumerate().filter(|(_, word)| *word != 0);
    found.extend(words.map(|(index, word)| (name(index), word)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_registers_names() {
        let mut basic = vec![0; 512];
        basic[160 + 3 * 16 + 8] = 7;
        let mut extended = vec![0; 840];
        extended[576 + 16] = 9;
        extended[832] = 1;
        let found = words(InstructionSet::X86_64, Some(&basic), Some(&extended));
        let expected = [("xmm3[1]", 7), ("ymm1[2]", 9), ("zmm state [0]", 1)];
        assert_eq!(found, expected.map(|(name, word)| (name.to_owned(), word)));
        let found = words(InstructionSet::Aarch64, Some(&basic), None);
        assert_eq!(found, [("v13[1]".to_owned(), 7)]);
        assert_eq!(words(InstructionSet::X86_64, Some(&[1; 10]), None), []);
    }
}
