//! What the mouse does.

use super::{Act, GUTTER, Model, Pane};
use crate::view::layout;

/// Rows that the wheel moves.
const ROWS: isize = 3;

impl Model {
    /// Chooses the pane and the row there; the address that is under the mouse, or a row that was chosen already, is followed.
    pub(super) fn click(&mut self, x: u16, y: u16) {
        self.message = None;
        if std::mem::take(&mut self.is_help) {
            return;
        }
        self.prompt = None;
        let Some((pane, area)) = self.layout().at(x, y) else {
            return;
        };
        let was_focus = std::mem::replace(&mut self.focus, pane) == pane;
        let inside = layout::inside(area);
        if pane == Pane::Main && y == area.y && layout::has_frame(area) {
            if let Some(view) = self.tab_at(x.saturating_sub(area.x)) {
                self.go_view(view);
            }
            return;
        }
        let content = self.content(pane);
        let cursor = self.cursor(pane, &content);
        let first = inside.y.saturating_add(u16::from(content.head.is_some()));
        let (Some(down), Some(right)) = (y.checked_sub(first), x.checked_sub(inside.x)) else {
            return;
        };
        let index = cursor.top.saturating_add(usize::from(down));
        let Some(row) = content.rows.get(index) else {
            return;
        };
        let column = usize::from(right.saturating_sub(GUTTER)).saturating_add(cursor.left);
        let link = row
            .links
            .iter()
            .position(|link| link.columns.contains(&column));
        let is_again = was_focus && index == cursor.row;
        self.move_cursor(pane, |cursor, rows, height| cursor.go(index, rows, height));
        if let Some(link) = link {
            self.cursor_mut(pane).link = link;
        }
        match (&row.act, link) {
            (Act::None, Some(_)) => self.enter(),
            (Act::None, None) => {}
            // On the mark of a branch.
            (Act::Node(node), _)
                if usize::from(right) < usize::from(GUTTER) + 2 * node.path.len() =>
            {
                let node = node.clone();
                if !self.open.remove(&node) {
                    self.open.insert(node);
                }
            }
            _ if is_again => self.enter(),
            _ => {}
        }
    }

    /// Moves what is under the mouse.
    pub(super) fn wheel(&mut self, x: u16, y: u16, by: isize) {
        let Some((pane, _)) = self.layout().at(x, y) else {
            return;
        };
        let rows_by = by.saturating_mul(ROWS);
        // In a list what the cursor is on is chosen, so only the screen moves.
        let content = self.content(pane);
        let height = self.room(pane, Some(&content)).1;
        let mut cursor = self.cursor(pane, &content);
        cursor.scroll(rows_by, content.rows.len(), height);
        *self.cursor_mut(pane) = cursor;
        if let Some(row) = content.rows.get(cursor.row) {
            self.choose(&row.act.clone());
        }
    }

    /// The view whose name stands at this column of the frame of the pane in the middle.
    fn tab_at(&self, column: u16) -> Option<super::View> {
        let tabs = crate::view::draw::tabs(self.place.view);
        let found = tabs
            .iter()
            .find(|(_, columns, _)| columns.contains(&usize::from(column)));
        found.map(|(view, ..)| *view)
    }
}
