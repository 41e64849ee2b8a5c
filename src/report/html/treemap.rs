//! Treemaps: rectangles whose areas are bytes, the largest first, each split by what it is made of.

use super::heap::rect;
use super::markup::Markup;
use super::table::scroll;
use crate::report::text::number::{percent, short, thousands};

/// Units of the picture.
const SIZE: (u64, u64) = (960, 420);
/// Tiles of one level; what is beyond is one tile.
const MAX_TILES: usize = 120;
/// Units of a letter of a label, and of a line.
const LETTER: u64 = 7;
const LINE: u64 = 15;
/// Smaller tiles have no label, and are not split.
const LEAST: (u64, u64) = (34, 18);

/// A part of the memory.
#[derive(Clone, Debug, Default)]
pub struct Tile {
    /// What it is.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Nobody has it.
    pub is_lost: bool,
    /// What it is made of, as far as that is known.
    pub parts: Vec<Tile>,
}

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// Draws the parts of a whole. Nothing if there are no bytes or no parts. A table on the page has the same.
pub fn draw(heading: &str, tiles: Vec<Tile>, page: &mut Markup) {
    let tiles = sorted(tiles);
    let all = sum(&tiles);
    let is_one = matches!(tiles.as_slice(), [one] if one.parts.is_empty());
    if all == 0 || is_one || page.is_full() {
        return;
    }
    let label = format!("{heading}: a treemap; the table below has the same");
    scroll(&label, page, |page| {
        let view = format!("0 0 {} {}", SIZE.0, SIZE.1);
        let first: Vec<String> = tiles.iter().take(3).map(|tile| said(tile, all)).collect();
        let attributes = [
            ("class", "tree"),
            ("viewBox", &*view),
            ("role", "img"),
            ("aria-label", &*first.join("; ")),
        ];
        page.element("svg", &attributes, |page| {
            let area = Area {
                x: 0.0,
                y: 0.0,
                width: SIZE.0 as f64,
                height: SIZE.1 as f64,
            };
            for (tile, area) in tiles.iter().zip(squarified(&tiles, area)) {
                if page.is_full() {
                    return;
                }
                write(tile, all, area, page);
            }
        });
    });
}

/// The largest first; those that are too many as one.
fn sorted(mut tiles: Vec<Tile>) -> Vec<Tile> {
    tiles.retain(|tile| tile.bytes > 0);
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.bytes));
    if tiles.len() > MAX_TILES {
        let rest = tiles.split_off(MAX_TILES);
        tiles.push(Tile {
            name: format!("{} more", thousands(rest.len() as u64)),
            bytes: sum(&rest),
            ..Tile::default()
        });
    }
    tiles
}

fn sum(tiles: &[Tile]) -> u64 {
    tiles
        .iter()
        .fold(0, |sum, tile| sum.saturating_add(tile.bytes))
}

fn said(tile: &Tile, all: u64) -> String {
    let bytes = short(tile.bytes).unwrap_or_else(|| thousands(tile.bytes));
    let share = percent(tile.bytes, all);
    format!("{}: {bytes}, {}", tile.name, share.trim_start())
}

/// Where and how large an area is in whole units: neighbours share an edge.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(area: Area) -> ((u64, u64), (u64, u64)) {
    let unit = |edge: f64| edge.round().max(0.0) as u64;
    let at = (unit(area.x), unit(area.y));
    let end = (unit(area.x + area.width), unit(area.y + area.height));
    (at, (end.0.saturating_sub(at.0), end.1.saturating_sub(at.1)))
}

fn write(tile: &Tile, all: u64, area: Area, page: &mut Markup) {
    let (at, size) = whole(area);
    let parts = sorted(tile.parts.clone());
    let is_split = !parts.is_empty() && size.0 >= 2 * LEAST.0 && size.1 >= 3 * LEAST.1;
    let class = match (is_split, tile.is_lost) {
        (true, _) => "group",
        (false, true) => "lost tile",
        (false, false) => "used tile",
    };
    page.element("g", &[], |page| {
        page.leaf("title", &[], &said(tile, all));
        rect(class, at, size, page);
        let text = if is_split { "on-page" } else { "on-tile" };
        label(text, tile, all, is_split, (at, size), page);
        if !is_split {
            return;
        }
        // What the parts leave is not drawn: the group's own area shows it.
        let inside = Area {
            x: area.x + 2.0,
            y: area.y + LINE as f64 + 2.0,
            width: area.width - 4.0,
            height: area.height - LINE as f64 - 4.0,
        };
        let known = sum(&parts).min(tile.bytes) as f64 / tile.bytes as f64;
        let inside = Area {
            height: inside.height * known,
            ..inside
        };
        for (part, area) in parts.iter().zip(squarified(&parts, inside)) {
            let (at, size) = whole(area);
            page.element("g", &[], |page| {
                page.leaf("title", &[], &said(part, all));
                rect("used tile", at, size, page);
                label("on-tile", part, all, false, (at, size), page);
            });
        }
    });
}

/// The name, and below it the bytes, as far as there is room.
fn label(
    class: &'static str,
    tile: &Tile,
    all: u64,
    in_a_line: bool,
    (at, size): ((u64, u64), (u64, u64)),
    page: &mut Markup,
) {
    if size.0 < LEAST.0 || size.1 < LEAST.1 {
        return;
    }
    let letters = usize::try_from(size.0.saturating_sub(6) / LETTER).unwrap_or(0);
    let name = match in_a_line {
        true => said(tile, all),
        false => tile.name.clone(),
    };
    let bytes = short(tile.bytes).unwrap_or_else(|| thousands(tile.bytes));
    // Half a name is a hint, half a number is wrong.
    let bytes = Some(bytes).filter(|bytes| !in_a_line && bytes.chars().count() <= letters);
    let lines = [Some(name), bytes];
    let mut y = at.1;
    for line in lines.into_iter().flatten() {
        y += LINE;
        if y > at.1 + size.1 {
            return;
        }
        let cut: String = match line.chars().count() > letters {
            true => {
                line.chars()
                    .take(letters.saturating_sub(1))
                    .collect::<String>()
                    + "…"
            }
            false => line,
        };
        let (x, y) = ((at.0 + 3).to_string(), (y - 3).to_string());
        page.leaf("text", &[("class", class), ("x", &x), ("y", &y)], &cut);
    }
}

/// An area for each tile, as square as may be (Bruls, Huizing, van Wijk): rows along the shorter side, each as long as its worst tile
/// becomes no thinner. `tiles` fall in size.
fn squarified(tiles: &[Tile], area: Area) -> Vec<Area> {
    let sizes: Vec<f64> = tiles.iter().map(|tile| tile.bytes as f64).collect();
    let mut left = sizes.iter().sum::<f64>();
    let mut free = area;
    let mut places = Vec::with_capacity(sizes.len());
    let mut rest = sizes.as_slice();
    while let [largest, ..] = rest {
        let side = free.width.min(free.height);
        let scale = free.width * free.height / left.max(1.0);
        // The worst ratio of a row: of its largest and of its smallest tile.
        let worst = |sum: f64, least: f64| {
            let (sum, square) = (sum * scale, side * side);
            let most = largest * scale * square / (sum * sum);
            most.max(sum * sum / (square * least * scale))
        };
        let (mut count, mut row) = (0, 0.0);
        let mut best = f64::INFINITY;
        for size in rest {
            let next = worst(row + size, *size);
            if next > best {
                break;
            }
            (best, row, count) = (next, row + size, count + 1);
        }
        let count = count.max(1);
        let row = if row > 0.0 { row } else { *largest };
        let (here, after) = rest.split_at(count.min(rest.len()));
        let is_wide = free.width >= free.height;
        let long = if is_wide { free.height } else { free.width };
        let thick = row * scale / long.max(f64::MIN_POSITIVE);
        let mut along = 0.0;
        for size in here {
            let length = long * size / row;
            places.push(match is_wide {
                true => Area {
                    x: free.x,
                    y: free.y + along,
                    width: thick,
                    height: length,
                },
                false => Area {
                    x: free.x + along,
                    y: free.y,
                    width: length,
                    height: thick,
                },
            });
            along += length;
        }
        match is_wide {
            true => (free.x, free.width) = (free.x + thick, (free.width - thick).max(0.0)),
            false => (free.y, free.height) = (free.y + thick, (free.height - thick).max(0.0)),
        }
        left -= row;
        rest = after;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiles(sizes: &[u64]) -> Vec<Tile> {
        let tile = |bytes: &u64| Tile {
            name: format!("of {bytes}"),
            bytes: *bytes,
            ..Tile::default()
        };
        sizes.iter().map(tile).collect()
    }

    const WHOLE: Area = Area {
        x: 0.0,
        y: 0.0,
        width: 600.0,
        height: 400.0,
    };

    #[test]
    fn areas_are_the_bytes_and_fill_the_whole() {
        // The example of the method's authors.
        let tiles = tiles(&[6, 6, 4, 3, 2, 2, 1]);
        let areas = squarified(&tiles, WHOLE);
        assert_eq!(areas.len(), tiles.len());
        for (tile, area) in tiles.iter().zip(&areas) {
            let expected = tile.bytes as f64 * 10_000.0;
            assert!(
                (area.width * area.height - expected).abs() < 1.0,
                "{area:?}"
            );
            assert!(area.x >= 0.0 && area.x + area.width < 600.01, "{area:?}");
            assert!(area.y >= 0.0 && area.y + area.height < 400.01, "{area:?}");
            let ratio = (area.width / area.height).max(area.height / area.width);
            assert!(ratio < 3.0, "{area:?}");
        }
        let disjoint = |one: &Area, other: &Area| {
            one.x + one.width <= other.x + 0.01
                || other.x + other.width <= one.x + 0.01
                || one.y + one.height <= other.y + 0.01
                || other.y + other.height <= one.y + 0.01
        };
        for (index, one) in areas.iter().enumerate() {
            assert!(areas[index + 1..].iter().all(|other| disjoint(one, other)));
        }
    }

    #[test]
    fn sizes_beyond_reason_are_drawn() {
        for sizes in [
            vec![u64::MAX, u64::MAX, 1],
            vec![1; 100_000],
            vec![0, 0],
            vec![1 << 60, 1],
            vec![],
        ] {
            let mut page = Markup::default();
            draw("Parts", tiles(&sizes), &mut page);
            let text = page.into_text();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            assert!(text.matches("<rect").count() <= MAX_TILES + 1);
            assert_eq!(text.is_empty(), sizes.iter().all(|size| *size == 0));
        }
    }

    #[test]
    fn parts_stand_in_their_whole() {
        let whole = Tile {
            parts: tiles(&[300, 200]),
            ..tiles(&[1000]).remove(0)
        };
        let mut page = Markup::default();
        draw("Parts", vec![whole], &mut page);
        let text = page.into_text();
        assert!(text.contains("of 1000: 1,000, 100.0 %"), "{text}");
        assert!(
            text.contains("<title>of 300: 300, 30.0 %</title>"),
            "{text}"
        );
        assert_eq!(text.matches("<rect").count(), 3);
    }
}
