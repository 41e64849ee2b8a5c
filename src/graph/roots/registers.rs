//! Registers as sources.

use heaps::graph::roots::{Register, Strength};

use super::{FIRST_VECTOR, innermost};
use postmortem::session::Session;

/// Registers of all threads, and the names of those that are not general ones.
pub(super) fn all(
    session: &Session,
    innermost: &innermost::Reader<'_>,
) -> (Vec<Register>, Vec<String>) {
    /// Names that are told apart.
    const MAX_NAMES: usize = 4096;
    let mut found = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let worth = |is_read| match is_read {
        true => Strength::Strong,
        false => Strength::Weak,
    };
    for (index, thread) in session.threads().list().iter().enumerate() {
        let Ok(number) = u32::try_from(index) else {
            break;
        };
        let innermost = innermost.of(index);
        let general = thread.registers.iter();
        found.extend(general.map(|(register, value)| Register {
            thread: number,
            number: register,
            value,
            strength: worth(innermost.reads(register)),
        }));
        for (name, value) in session.vector_words(index) {
            let strength = worth(innermost.reads_vector(&name));
            let known = names.iter().position(|known| *known == name);
            let place = known.unwrap_or_else(|| {
                if names.len() < MAX_NAMES {
                    names.push(name);
                }
                names.len() - 1
            });
            if let Ok(place) = u16::try_from(place) {
                found.push(Register {
                    thread: number,
                    number: FIRST_VECTOR.saturating_add(place),
                    value,
                    strength,
                });
            }
        }
    }
    (found, names)
}
