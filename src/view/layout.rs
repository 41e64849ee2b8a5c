//! Where the panes are on a screen of any size.

use ratatui_core::layout::Rect;

use super::model::Pane;

/// Below this the chosen pane has the whole screen.
const LEAST: (u16, u16) = (60, 16);

/// The screen, cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The line at the top.
    pub title: Rect,
    /// The panes that are on the screen.
    pub panes: Vec<(Pane, Rect)>,
    /// The line at the bottom.
    pub status: Rect,
}

/// Cuts a screen. `only`: this pane has it all.
pub fn cut(width: u16, height: u16, focus: Pane, is_zoomed: bool) -> Layout {
    let line = |y: u16| Rect::new(0, y, width, u16::from(y < height));
    let bottom = height.saturating_sub(1);
    let body = height.saturating_sub(2);
    let mut layout = Layout {
        title: if height > 2 { line(0) } else { Rect::ZERO },
        panes: Vec::new(),
        status: if height > 1 { line(bottom) } else { Rect::ZERO },
    };
    let top = layout.title.height;
    let body = match height {
        0..=2 => height.saturating_sub(layout.status.height),
        _ => body,
    };
    if is_zoomed || width < LEAST.0 || height < LEAST.1 {
        layout.panes.push((focus, Rect::new(0, top, width, body)));
        return layout;
    }
    // At 24 rows every pane shows something; what is more goes to the middle first.
    let heap = (body / 5).clamp(5, 12);
    let upper = body.saturating_sub(heap);
    let left = (width / 3).clamp(28, 60);
    let right = width.saturating_sub(left);
    let threads = (upper / 4).max(4);
    let frames = (upper.saturating_sub(threads)) / 2;
    let contents = upper.saturating_sub(threads).saturating_sub(frames);
    let findings = (upper / 4).clamp(4, 8);
    let mut y = top;
    for (pane, rows) in [
        (Pane::Threads, threads),
        (Pane::Frames, frames),
        (Pane::Frame, contents),
    ] {
        layout.panes.push((pane, Rect::new(0, y, left, rows)));
        y = y.saturating_add(rows);
    }
    layout
        .panes
        .push((Pane::Findings, Rect::new(left, top, right, findings)));
    layout.panes.push((
        Pane::Main,
        Rect::new(
            left,
            top.saturating_add(findings),
            right,
            upper.saturating_sub(findings),
        ),
    ));
    layout.panes.push((
        Pane::Heap,
        Rect::new(0, top.saturating_add(upper), width, heap),
    ));
    layout
}

impl Layout {
    /// The rows and columns inside a pane's frame; nothing if it is not on the screen.
    pub fn inside(&self, pane: Pane) -> Rect {
        let found = self.panes.iter().find(|(other, _)| *other == pane);
        found.map_or(Rect::ZERO, |(_, area)| inside(*area))
    }

    /// The pane at a column and row.
    pub fn at(&self, x: u16, y: u16) -> Option<(Pane, Rect)> {
        let is_there =
            |area: &Rect| area.x <= x && x < area.right() && area.y <= y && y < area.bottom();
        let found = self.panes.iter().find(|(_, area)| is_there(area));
        found.copied()
    }
}

/// What a frame leaves of an area; all of one that is too small for a frame.
pub fn inside(area: Rect) -> Rect {
    if !has_frame(area) {
        return area;
    }
    Rect::new(
        area.x.saturating_add(1),
        area.y.saturating_add(1),
        area.width.saturating_sub(2),
        area.height.saturating_sub(2),
    )
}

/// Whether there is room for a frame.
pub fn has_frame(area: Rect) -> bool {
    area.width >= 8 && area.height >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_lie_on_the_screen_and_beside_each_other() {
        for width in [0, 1, 2, 7, 40, 59, 60, 80, 120, 300, 2000] {
            for height in [0, 1, 2, 3, 5, 15, 16, 24, 40, 100, 1000] {
                for zoomed in [false, true] {
                    let layout = cut(width, height, Pane::Main, zoomed);
                    let mut areas: Vec<Rect> = layout.panes.iter().map(|(_, area)| *area).collect();
                    areas.extend([layout.title, layout.status]);
                    let screen = Rect::new(0, 0, width, height);
                    let mut covered = 0u32;
                    for (index, area) in areas.iter().enumerate() {
                        assert_eq!(area.intersection(screen).area(), area.area());
                        covered += area.area();
                        for other in areas.iter().skip(index + 1) {
                            assert_eq!(area.intersection(*other).area(), 0, "{layout:?}");
                        }
                    }
                    assert_eq!(covered, screen.area(), "{width} x {height}: {layout:?}");
                }
            }
        }
    }
}
