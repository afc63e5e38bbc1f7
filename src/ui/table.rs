//! Plain tables: columns as wide as their widest cell, three spaces between, as docker prints them.

use crate::ui::text;

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Align {
    Left,
    Right,
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table with these headings.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self { columns: columns.iter().map(|(c, a)| ((*c).into(), *a)).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the headings are left out, missing ones are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(|c| text::one_line(&c.into())).collect());
    }

    /// Returns the table's text: a line of headings, then a line a row.
    pub fn render(&self) -> String {
        let heads: Vec<String> = self.columns.iter().map(|(c, _)| c.clone()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(&self.rows).collect();
        let cell = |line: &'_ Vec<String>, i: usize| line.get(i).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..heads.len()).map(|i| lines.iter().map(|l| text::width(&cell(l, i))).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for line in lines {
            let mut shown = String::new();
            for (i, (_, align)) in self.columns.iter().enumerate() {
                let cell = cell(line, i);
                let pad = " ".repeat(widths[i] - text::width(&cell));
                let gap = if i == 0 { "" } else { "   " };
                match align {
                    Align::Left => shown.extend([gap, &cell, &pad]),
                    Align::Right => shown.extend([gap, &pad, &cell]),
                }
            }
            out.push_str(shown.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("X", Align::Left)]);
        table.row(["漢", "1kB", "a\nb"]);
        table.row(["longer", "120MB", ""]);
        assert_eq!(table.render(), "NAME      SIZE   X\n漢         1kB   a b\nlonger   120MB\n");
    }
}
