//! Whether bytes are one write's: text, one value over and over, the elements of an array that were counted up.

/// Text without an end.
pub fn is_text(run: &[u8]) -> bool {
    run.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// One value of eight bytes over and over, which is not zero.
pub fn is_one_value(run: &[u8]) -> bool {
    let (words, rest) = run.as_chunks::<8>();
    let Some(first) = words.first() else {
        return false;
    };
    *first != [0; 8] && words.iter().all(|word| word == first) && first.starts_with(rest)
}

/// Numbers with one step between them, of four or eight bytes, whole or with a point; at least four of them.
pub fn is_series(run: &[u8]) -> bool {
    let (words, rest) = run.as_chunks::<8>();
    let (halves, odd) = run.as_chunks::<4>();
    let wide = || steps(words, |word| i128::from(i64::from_le_bytes(*word)));
    let small = || steps(halves, |half| i128::from(i32::from_le_bytes(*half)));
    let floats: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
    let (singles, is_everyday) = (
        halves
            .iter()
            .map(|half| f64::from(f32::from_le_bytes(*half)))
            .collect::<Vec<f64>>(),
        |value: &f64| value.is_finite() && (1e-6..1e15).contains(&value.abs()),
    );
    let exact = |values: &[f64]| {
        let mut pairs = values
            .windows(2)
            .filter_map(|pair| Some(pair.last()? - pair.first()?));
        let first = pairs.next();
        values.len() >= 4
            && values.iter().all(is_everyday)
            && first.is_some_and(|first| first != 0.0 && pairs.all(|step| step == first))
    };
    rest.is_empty() && (wide() || exact(&floats)) || odd.is_empty() && (small() || exact(&singles))
}

/// Whether there is one step between all of the values, which is not zero.
fn steps<T>(values: &[T], number: impl Fn(&T) -> i128) -> bool {
    let mut pairs = values.windows(2).filter_map(|pair| match pair {
        [one, other] => Some(number(other) - number(one)),
        _ => None,
    });
    let first = pairs.next();
    values.len() >= 4 && first.is_some_and(|first| first != 0 && pairs.all(|step| step == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(values: &[[u8; N]]) -> Vec<u8> {
        values.concat()
    }

    #[test]
    fn a_series_has_one_step() {
        let ints: Vec<[u8; 4]> = (7..15i32).map(i32::to_le_bytes).collect();
        assert!(is_series(&bytes(&ints)));
        let doubles: Vec<[u8; 8]> = (0..4).map(|n| (0.5 + f64::from(n)).to_le_bytes()).collect();
        assert!(is_series(&bytes(&doubles)));
        assert!(!is_series(&bytes(&doubles[..3])));
        let longs: Vec<[u8; 8]> = [1i64, 2, 3, 5].map(i64::to_le_bytes).into();
        assert!(!is_series(&bytes(&longs)));
        assert!(!is_series(&[0; 64]));
        assert!(is_one_value(&[0xee; 24]) && !is_one_value(&[0; 24]));
        assert!(is_text(b"/a/part/of/a/path/that/went/on") && !is_text(b"an end\0and more"));
    }
}
