//! A stack as rows: runs of repeated frames become one row each, so that a runaway recursion is a line.

use crate::report::schema::{Frame, Hex, Thread};

/// Functions that call each other in turn: the longest round that is seen.
const MAX_PERIOD: usize = 16;
/// Rounds below which frames are simply listed.
const MIN_ROUNDS: usize = 4;

/// A row of a shown stack.
#[derive(Clone, Copy, Debug)]
pub enum Row<'r> {
    /// A frame.
    Frame(&'r Frame),
    /// The frames above come again.
    Repeat {
        /// How many of them.
        period: usize,
        /// How often.
        times: u64,
        /// The number of the last frame of the last round.
        last: usize,
    },
    /// Frames that are not in the report.
    Omitted(u64),
}

/// The rows of a thread's stack.
pub fn rows(thread: &Thread) -> Vec<Row<'_>> {
    let cut = thread
        .omitted_frames
        .map_or(thread.frames.len(), |omitted| {
            omitted.before.min(thread.frames.len())
        });
    let (inner, outer) = thread.frames.split_at(cut);
    let mut rows = Vec::new();
    collapse(inner, &mut rows);
    if let Some(omitted) = thread.omitted_frames {
        rows.push(Row::Omitted(omitted.count));
        collapse(outer, &mut rows);
    }
    rows
}

/// What makes two frames the same: where they stand in the code.
fn key(frame: &Frame) -> (Hex, &str) {
    (frame.offset, frame.trust.as_str())
}

fn collapse<'r>(mut frames: &'r [Frame], rows: &mut Vec<Row<'r>>) {
    while let Some((first, rest)) = frames.split_first() {
        let round = (1..=MAX_PERIOD)
            .map(|period| (period, rounds(frames, period)))
            .find(|&(_, rounds)| rounds >= MIN_ROUNDS);
        let Some((period, rounds)) = round else {
            rows.push(Row::Frame(first));
            frames = rest;
            continue;
        };
        let (run, after) = frames.split_at(period.saturating_mul(rounds).min(frames.len()));
        rows.extend(run.iter().take(period).map(Row::Frame));
        rows.push(Row::Repeat {
            period,
            times: rounds.saturating_sub(1) as u64,
            last: run.last().map_or(0, |frame| frame.frame),
        });
        frames = after;
    }
}

/// How often the first `period` frames stand one after the other.
fn rounds(frames: &[Frame], period: usize) -> usize {
    let mut rounds = frames.chunks_exact(period);
    let Some(first) = rounds.next() else { return 0 };
    let same = |round: &&[Frame]| round.iter().map(key).eq(first.iter().map(key));
    1 + rounds.take_while(same).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::schema::OmittedFrames;

    fn check(pcs: &[u64], omitted: Option<OmittedFrames>, expected: &str) {
        let frames: Vec<Frame> = (0..)
            .zip(pcs)
            .map(|(frame, &pc)| Frame {
                frame,
                offset: Hex(pc),
                ..Frame::default()
            })
            .collect();
        let thread = Thread {
            frames,
            omitted_frames: omitted,
            ..Thread::default()
        };
        let shown: Vec<String> = rows(&thread)
            .iter()
            .map(|row| match row {
                Row::Frame(frame) => frame.offset.0.to_string(),
                Row::Repeat {
                    period,
                    times,
                    last,
                } => format!("{period}x{times}<{last}"),
                Row::Omitted(count) => format!("-{count}"),
            })
            .collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn rounds_of_frames_become_one_row() {
        check(&[], None, "");
        check(&[1, 2, 3], None, "1 2 3");
        check(&[1, 1, 1], None, "1 1 1");
        check(&[9, 1, 1, 1, 1, 2], None, "9 1 1x3<4 2");
        check(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 3], None, "1 2 2x3<7 1 3");
        check(&[1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2], None, "1 1 2 3x3<11");
        let omitted = OmittedFrames {
            before: 4,
            count: 70,
        };
        check(&[1, 1, 1, 1, 1, 1, 2], Some(omitted), "1 1x3<3 -70 1 1 2");
    }
}
