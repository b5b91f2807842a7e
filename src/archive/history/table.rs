//! Go's `text/tabwriter` as the docker command line sets it up: columns of at least 10 characters,
//! 3 spaces between them.
//!
//! A column is a run of neighbouring lines that have a cell there and another after it. So a line
//! that a command's own newline breaks off starts columns anew, as in Docker.

use std::iter;

/// Characters of a cell with its padding, at least.
const MIN_WIDTH: usize = 10;

/// Spaces between a column's widest cell and the next column.
const PADDING: usize = 3;

/// Cells of a line; what stands after that many tabs stays in the last one.
const MAX_CELLS: usize = 64;

/// `text` with its columns aligned: cells end at a tab, lines at a newline. `None` where that takes
/// more than `limit` bytes.
pub(super) fn align(text: &str, limit: usize) -> Option<String> {
    let mut table = Table { lines: Vec::new(), aligned: String::new(), limit };
    for (index, part) in text.split('\u{c}').enumerate() {
        // A form feed ends the line and all columns.
        if index > 0 {
            table.aligned.push('\n');
        }
        table.lines = part
            .split('\n')
            .map(|line| line.splitn(MAX_CELLS, ['\t', '\u{b}']).collect())
            .collect();
        table.block(&mut Vec::new(), 0, table.lines.len())?;
    }
    Some(table.aligned)
}

struct Table<'a> {
    lines: Vec<Vec<&'a str>>,
    aligned: String,
    limit: usize,
}

impl Table<'_> {
    /// Writes the lines `from..to`, which have the columns `widths` in common.
    fn block(&mut self, widths: &mut Vec<usize>, from: usize, to: usize) -> Option<()> {
        let column = widths.len();
        let (mut written, mut line) = (from, from);
        while line < to {
            if self.cell(line, column).is_none() {
                line += 1;
                continue;
            }
            self.write(widths, written, line)?;
            let cells = (line..to).map_while(|line| self.cell(line, column));
            let (count, widest) = cells.fold((0, 0), |(count, widest), cell| {
                (count + 1, cell.chars().count().max(widest))
            });
            widths.push(MIN_WIDTH.max(widest + PADDING));
            self.block(widths, line, line + count)?;
            widths.pop();
            line += count;
            written = line;
        }
        self.write(widths, written, to)
    }

    /// The cell of a line in a column; the last cell of a line is in none.
    fn cell(&self, line: usize, column: usize) -> Option<&str> {
        let cells = self.lines.get(line)?;
        cells.get(column).filter(|_| column + 1 < cells.len()).copied()
    }

    /// Writes lines as they are, with their first cells padded to `widths`.
    fn write(&mut self, widths: &[usize], from: usize, to: usize) -> Option<()> {
        for index in from..to {
            let line = self.lines.get(index)?;
            for (column, cell) in line.iter().enumerate() {
                let width = widths.get(column).copied().unwrap_or(0);
                let padding = width.saturating_sub(cell.chars().count());
                if self.aligned.len() + cell.len() + padding >= self.limit {
                    return None;
                }
                self.aligned.push_str(cell);
                self.aligned.extend(iter::repeat_n(' ', padding));
            }
            if index + 1 < self.lines.len() {
                self.aligned.push('\n');
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(text: &str) -> String {
        align(text, 1 << 20).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(aligned("a\tb\n1234567890\tc\n"), "a            b\n1234567890   c\n");
        assert_eq!(aligned("a\t\n\tb\n"), "a         \n          b\n");
        assert_eq!(aligned("\u{e9}\u{e9}\tb"), "\u{e9}\u{e9}        b");
    }

    #[test]
    fn a_line_without_the_cell_ends_the_column() {
        assert_eq!(aligned("1234567890\tb\nx\na\tb\n"), "1234567890   b\nx\na         b\n");
        assert_eq!(aligned("1234567890\tb\u{c}a\tb\n"), "1234567890   b\na         b\n");
    }

    #[test]
    fn hostile_tables_are_bounded() {
        assert_eq!(align("1234\t5678\n", 12), None);
        assert!(align(&"\t".repeat(1 << 16), 1 << 20).is_some());
        let steps = "a\tb\u{b}c\n".repeat(1 << 12);
        assert!(align(&steps, 1 << 20).is_some());
    }
}
