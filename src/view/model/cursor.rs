//! A place in a list of rows, and what of the list is on the screen.

/// A place in a pane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The row.
    pub row: usize,
    /// The row's address that is chosen.
    pub link: usize,
    /// The first row on the screen.
    pub top: usize,
    /// Columns that are moved out to the left.
    pub left: usize,
}

impl Cursor {
    /// Moves by so many rows.
    pub fn step(&mut self, by: isize, rows: usize, height: usize) {
        self.go(self.row.saturating_add_signed(by), rows, height);
    }

    /// Moves to a row, and the screen with it.
    pub fn go(&mut self, row: usize, rows: usize, height: usize) {
        let row = row.min(rows.saturating_sub(1));
        if row != self.row {
            self.link = 0;
        }
        self.row = row;
        self.top = self.shown(rows, height).top;
    }

    /// Moves what is on the screen by so many rows, and the place only as far as it must.
    pub fn scroll(&mut self, by: isize, rows: usize, height: usize) {
        let most = rows.saturating_sub(height);
        self.top = self.top.saturating_add_signed(by).min(most);
        let last = self.top.saturating_add(height.saturating_sub(1));
        let row = self.row.clamp(self.top, last.max(self.top));
        self.go(row, rows, height);
    }

    /// The same in a list of so many rows on a screen of such a height: the row is there and on it.
    pub fn shown(mut self, rows: usize, height: usize) -> Self {
        self.row = self.row.min(rows.saturating_sub(1));
        self.top = self.top.min(self.row);
        let height = height.max(1);
        if self.row >= self.top.saturating_add(height) {
            self.top = self.row.saturating_add(1).saturating_sub(height);
        }
        // No empty rows while there are others above.
        self.top = self.top.min(rows.saturating_sub(height));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_stays_on_the_screen() {
        let mut cursor = Cursor::default();
        cursor.step(5, 10, 3);
        assert_eq!((cursor.row, cursor.top), (5, 3));
        cursor.step(-4, 10, 3);
        assert_eq!((cursor.row, cursor.top), (1, 1));
        cursor.step(100, 10, 3);
        assert_eq!((cursor.row, cursor.top), (9, 7));
        cursor.scroll(-3, 10, 3);
        assert_eq!((cursor.row, cursor.top), (6, 4));
        cursor.scroll(100, 10, 3);
        assert_eq!((cursor.row, cursor.top), (7, 7));
        cursor.step(-1, 0, 0);
        assert_eq!((cursor.row, cursor.top), (0, 0));
        let small = Cursor {
            row: 9,
            top: 9,
            ..cursor
        };
        let shown = small.shown(10, 20);
        assert_eq!((shown.row, shown.top), (9, 0));
    }
}
