//! The tests. Nothing here depends on chance: the bootstrap's draws are the same in every run.

use schemars::JsonSchema;
use serde::Serialize;

/// Points below which nothing is said.
pub(super) const MIN_POINTS: usize = 5;
/// Points from which on a shape is said.
const SHAPE_POINTS: usize = 8;
/// Chance of an alarm in one series that does not grow.
const ALPHA: f64 = 0.01;
/// The same without the largest increment.
const ALPHA_WITHOUT_STEP: f64 = 0.05;
/// Share of the whole growth from which on one increment is a step.
const STEP: f64 = 0.6;
/// Spread around the fitted line, in shares of the growth, from which on a walk that happened to go up fits as well.
const LINE_SPREAD: f64 = 0.085;
/// The same around an exponential, which bends as a walk needs it.
const CURVE_SPREAD: f64 = 0.075;
/// Draws of the bootstrap.
const DRAWS: usize = 200;
/// Points up to which the distribution of Kendall's sum is exact.
const EXACT: usize = 60;

/// How a series grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// It does not.
    Constant,
    /// By the same amount in the same time.
    Linear,
    /// Faster and faster.
    Exponential,
    /// Slower and slower: a cache that fills, a logarithm.
    Flattening,
    /// All at once.
    Step,
    /// It grows; how cannot be said.
    Undecided,
    /// Fewer than five points.
    TooFew,
}

/// What was found out about one series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub shape: Shape,
    /// Chance of as much growth in a series that does not grow.
    pub p: f64,
    /// Slope of the late half, in units per second.
    pub slope: f64,
}

/// Judges points in order of time, as (seconds, value).
pub(super) fn judge(points: &[(f64, f64)]) -> Verdict {
    if points.len() < MIN_POINTS {
        return Verdict {
            shape: Shape::TooFew,
            p: 1.0,
            slope: 0.0,
        };
    }
    let p = mann_kendall(points);
    let half = points.len() / 2;
    let slope = theil_sen(points.get(half..).unwrap_or(points));
    let verdict = |shape| Verdict { shape, p, slope };
    if p >= ALPHA {
        return verdict(Shape::Constant);
    }
    if let Some(shape) = step(points) {
        return verdict(shape);
    }
    if points.len() < SHAPE_POINTS {
        return verdict(Shape::Undecided);
    }
    match shape(points) {
        Shape::Linear if spread_of_line(points) > LINE_SPREAD => verdict(Shape::Undecided),
        Shape::Exponential if spread_of_curve(points) > CURVE_SPREAD => verdict(Shape::Undecided),
        shape => verdict(shape),
    }
}

/// What a line leaves over, in shares of the growth along it.
#[expect(clippy::cast_precision_loss)]
fn spread_of_line(points: &[(f64, f64)]) -> f64 {
    let (slope, offset) = line(points);
    let squares: f64 = points
        .iter()
        .map(|(time, value)| (value - slope * time - offset).powi(2))
        .sum();
    let spread = (squares / points.len() as f64).sqrt();
    spread / (slope * span(points)).abs().max(f64::MIN_POSITIVE)
}

/// The same for the exponential of those of some bends that fits best, by least squares.
#[expect(clippy::cast_precision_loss)]
fn spread_of_curve(points: &[(f64, f64)]) -> f64 {
    const BENDS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0];
    let count = points.len() as f64;
    let last = points.last().map_or(0.0, |last| last.0);
    let span = span(points).max(f64::MIN_POSITIVE);
    let fit = |bend: f64| {
        let curve: Vec<f64> = points
            .iter()
            .map(|(time, _)| (bend * (time - last) / span).exp())
            .collect();
        let mean = curve.iter().sum::<f64>() / count;
        let height = points.iter().map(|(_, value)| value).sum::<f64>() / count;
        let along: f64 = curve.iter().map(|x| (x - mean).powi(2)).sum();
        let both = curve.iter().zip(points);
        let both: f64 = both
            .map(|(x, (_, value))| (x - mean) * (value - height))
            .sum();
        let scale = both / along.max(f64::MIN_POSITIVE);
        let squares: f64 = curve
            .iter()
            .zip(points)
            .map(|(x, (_, value))| (value - height - scale * (x - mean)).powi(2))
            .sum();
        let growth = scale * (1.0 - (-bend).exp());
        (squares / count).sqrt() / growth.abs().max(f64::MIN_POSITIVE)
    };
    BENDS.into_iter().map(fit).fold(f64::MAX, f64::min)
}

fn span(points: &[(f64, f64)]) -> f64 {
    points.last().map_or(0.0, |last| last.0) - points.first().map_or(0.0, |first| first.0)
}

/// The largest single increment is taken out: what is left must still grow. Points before and behind it are compared with it out.
fn step(points: &[(f64, f64)]) -> Option<Shape> {
    let increment = |at: &usize| points[at + 1].1 - points[*at].1;
    let largest = (0..points.len() - 1).max_by(|a, b| increment(a).total_cmp(&increment(b)))?;
    let size = increment(&largest);
    let first = points.first()?.1;
    let total = points.last()?.1 - first;
    if total > 0.0 && size > STEP * total {
        // The last of an exponential is most of it: there the increments before it grow, too.
        let before = points.get(..=largest)?;
        if largest + 2 == points.len() && before.len() >= MIN_POINTS && mann_kendall(before) < ALPHA
        {
            return None;
        }
        // The first of a cache that fills is most of it: there the increments behind it grow, too.
        if largest == 0 && points.len() > MIN_POINTS && mann_kendall(&points[1..]) < ALPHA {
            return None;
        }
        return Some(Shape::Step);
    }
    let without: Vec<(f64, f64)> = points
        .iter()
        .enumerate()
        .map(|(at, &(time, value))| (time, if at > largest { value - size } else { value }))
        .collect();
    (mann_kendall(&without) >= ALPHA_WITHOUT_STEP).then_some(if size > 0.3 * total {
        Shape::Step
    } else {
        Shape::Undecided
    })
}

/// The shape by the ratio of the late slope to the early one, between the 5th and the 95th of a hundred bootstrap draws.
#[expect(clippy::cast_precision_loss)]
fn shape(points: &[(f64, f64)]) -> Shape {
    let middle = points.len() / 2;
    let early = &points[..points.len() - middle];
    let late = &points[middle..];
    let lines = [line(early), line(late)];
    let mut residuals: Vec<f64> = Vec::with_capacity(points.len());
    for (half, (slope, offset)) in [early, late].iter().zip(lines) {
        // A line through few points takes part of the noise with it.
        let widen = (half.len() as f64 / (half.len() as f64 - 2.0)).sqrt();
        residuals.extend(
            half.iter()
                .map(|(time, value)| (value - slope * time - offset) * widen),
        );
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut ratios: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let [a, b] = [(early, lines[0]), (late, lines[1])].map(|(half, (slope, offset))| {
                let drawn: Vec<(f64, f64)> = half
                    .iter()
                    .map(|&(time, _)| {
                        (
                            time,
                            slope * time + offset + residuals[draw(&mut random, residuals.len())],
                        )
                    })
                    .collect();
                theil_sen(&drawn)
            });
            ratio(a, b)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[DRAWS / 20], ratios[DRAWS - 1 - DRAWS / 20]);
    let best = ratio(lines[0].0, lines[1].0);
    match () {
        () if high < 0.5 => Shape::Flattening,
        () if low > 2.0 => Shape::Exponential,
        () if low > 0.5 && high < 2.0 => Shape::Linear,
        // The interval reaches over an edge: the middle decides if the interval is on one side of what it must not be.
        () if best > 0.5 && best < 2.0 && low > 0.25 && high < 4.0 => Shape::Linear,
        () if best <= 0.5 && high < 1.0 => Shape::Flattening,
        () if best >= 2.0 && low > 1.0 => Shape::Exponential,
        () => Shape::Undecided,
    }
}

/// The late slope in units of the early one.
fn ratio(early: f64, late: f64) -> f64 {
    if early <= 0.0 {
        return if late > 0.0 { f64::MAX } else { 0.0 };
    }
    (late / early).max(0.0)
}

fn draw(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from((*state >> 33) % below.max(1) as u64).unwrap_or(0)
}

/// Slope and offset by Theil and Sen.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let slope = theil_sen(points);
    (
        slope,
        median(
            points
                .iter()
                .map(|(time, value)| value - slope * time)
                .collect(),
        ),
    )
}

/// The median of the slopes between all pairs.
pub(super) fn theil_sen(points: &[(f64, f64)]) -> f64 {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (at, (time, value)) in points.iter().enumerate() {
        for (later, higher) in points.iter().skip(at + 1) {
            if later > time {
                slopes.push((higher - value) / (later - time));
            }
        }
    }
    median(slopes)
}

fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        values[half]
    } else {
        f64::midpoint(values[half - 1], values[half])
    }
}

/// One-sided chance of as many rising pairs if the order meant nothing.
#[expect(clippy::cast_precision_loss)]
fn mann_kendall(points: &[(f64, f64)]) -> f64 {
    let n = points.len();
    let mut sum = 0_i64;
    for (at, (_, value)) in points.iter().enumerate() {
        for (_, later) in points.iter().skip(at + 1) {
            sum += i64::from(later > value) - i64::from(later < value);
        }
    }
    if n > EXACT {
        let n = n as f64;
        let variance = n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
        return upper_tail((sum as f64 - 1.0) / variance.sqrt());
    }
    // Permutations of n by their number of falling pairs.
    let mut counts = vec![1.0_f64];
    for length in 2..=n {
        let mut next = vec![0.0; counts.len() + length - 1];
        for (falls, count) in counts.iter().enumerate() {
            for more in 0..length {
                next[falls + more] += count / length as f64;
            }
        }
        counts = next;
    }
    let pairs = i64::try_from(n * (n - 1) / 2).unwrap_or(0);
    let falls = usize::try_from((pairs - sum) / 2).unwrap_or(usize::MAX);
    counts.iter().take(falls.saturating_add(1)).sum()
}

/// Chance of a standard normal value above `z` (Abramowitz and Stegun 26.2.17).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series
}

/// Which of the chances stay below 5 % false alarms among all alarms (Benjamini and Hochberg).
#[expect(clippy::cast_precision_loss)]
pub(super) fn discoveries(chances: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|&a, &b| chances[a].total_cmp(&chances[b]));
    let most = order
        .iter()
        .enumerate()
        .filter(|&(rank, &at)| chances[at] <= 0.05 * (rank + 1) as f64 / chances.len() as f64)
        .map(|(rank, _)| rank + 1)
        .max()
        .unwrap_or(0);
    let mut found = vec![false; chances.len()];
    order.into_iter().take(most).for_each(|at| found[at] = true);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(random: &mut fastrand::Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    type Curve = fn(f64, &mut fastrand::Rng) -> f64;

    /// Shares of each shape over 200 series of a curve.
    fn shares(n: usize, noise: f64, curve: Curve) -> std::collections::BTreeMap<String, f64> {
        let mut random = fastrand::Rng::with_seed(7 + n as u64);
        let mut found = std::collections::BTreeMap::new();
        for _ in 0..200 {
            let mut points: Vec<(f64, f64)> = (0..n)
                .map(|at| {
                    (
                        at as f64 * 60.0,
                        curve(at as f64 / (n - 1) as f64, &mut random),
                    )
                })
                .collect();
            let size = points.iter().map(|point| point.1).fold(f64::MIN, f64::max);
            points
                .iter_mut()
                .for_each(|point| point.1 += noise * size.abs() * normal(&mut random));
            let verdict = judge(&points);
            *found.entry(format!("{:?}", verdict.shape)).or_insert(0.0) += 1.0 / 200.0;
        }
        found
    }

    fn linear(x: f64, _: &mut fastrand::Rng) -> f64 {
        1.0 + 10.0 * x
    }
    fn exponential(x: f64, _: &mut fastrand::Rng) -> f64 {
        2.0_f64.powf(6.0 * x)
    }
    fn logarithm(x: f64, _: &mut fastrand::Rng) -> f64 {
        1.0 + (1.0 + 40.0 * x).ln()
    }
    fn cache(x: f64, _: &mut fastrand::Rng) -> f64 {
        1.0 + 10.0 * (1.0 - (-6.0 * x).exp())
    }
    fn constant(_: f64, _: &mut fastrand::Rng) -> f64 {
        10.0
    }
    fn step_up(x: f64, _: &mut fastrand::Rng) -> f64 {
        if x > 0.45 { 20.0 } else { 5.0 }
    }

    #[test]
    fn shares_of_simulated_curves() {
        let get = |found: &std::collections::BTreeMap<String, f64>, shape: &str| {
            found.get(shape).copied().unwrap_or(0.0)
        };
        for (n, noise, floor) in [
            (8, 0.01, [0.97, 0.97, 0.97, 0.97, 0.97]),
            (8, 0.05, [0.95, 0.93, 0.90, 0.65, 0.50]),
            (12, 0.05, [0.96, 0.96, 0.97, 0.75, 0.93]),
            (20, 0.05, [0.96, 0.97, 0.97, 0.90, 0.97]),
        ] {
            let curves: [(&str, Curve); 5] = [
                ("Constant", constant),
                ("Linear", linear),
                ("Exponential", exponential),
                ("Flattening", logarithm),
                ("Flattening", cache),
            ];
            for ((shape, curve), least) in curves.into_iter().zip(floor) {
                let found = shares(n, noise, curve);
                assert!(
                    get(&found, shape) >= least,
                    "{n} points, {noise} noise, {shape}: {found:?}"
                );
            }
            let caches = shares(n, noise, cache);
            assert!(
                get(&caches, "Linear") + get(&caches, "Exponential") <= 0.01,
                "{n} {noise} cache: {caches:?}"
            );
            let steps = shares(n, noise, step_up);
            assert!(
                get(&steps, "Linear") + get(&steps, "Exponential") <= 0.01,
                "{n} {noise} step: {steps:?}"
            );
        }
        assert!(get(&shares(5, 0.01, linear), "Undecided") > 0.95);
        assert!(get(&shares(4, 0.01, linear), "TooFew") > 0.99);
    }

    #[test]
    fn random_walks_are_rarely_leaks() {
        let mut random = fastrand::Rng::with_seed(11);
        for n in [8, 12, 24] {
            let mut alarms = 0;
            for _ in 0..2000 {
                let mut value = 100.0;
                let points: Vec<(f64, f64)> = (0..n)
                    .map(|at| {
                        value += normal(&mut random);
                        (f64::from(at), value)
                    })
                    .collect();
                alarms += usize::from(matches!(
                    judge(&points).shape,
                    Shape::Linear | Shape::Exponential
                ));
            }
            assert!(alarms <= 40, "{n}: {alarms} of 2000, 2 % is the bound");
        }
    }

    #[test]
    fn chances() {
        let points = |values: &[f64]| {
            values
                .iter()
                .enumerate()
                .map(|(at, &value)| (at as f64, value))
                .collect::<Vec<_>>()
        };
        assert!((mann_kendall(&points(&[1.0, 2.0, 3.0, 4.0, 5.0])) - 1.0 / 120.0).abs() < 1e-12);
        assert!((mann_kendall(&points(&[1.0, 2.0, 3.0, 5.0, 4.0])) - 5.0 / 120.0).abs() < 1e-12);
        assert!((upper_tail(1.96) - 0.025).abs() < 1e-4);
        assert_eq!(
            discoveries(&[0.001, 0.2, 0.01, 0.9]),
            [true, false, true, false]
        );
    }
}
