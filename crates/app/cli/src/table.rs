//! Columns that line up, however wide the letters are.

use crate::{
    output::{Output, Tone},
    text,
};

/// A cell: its text, already clean, and how it is coloured.
pub type Cell = (String, Tone);

/// The largest width of a column in characters, except of the last.
const MAX_COLUMN_WIDTH: usize = 40;

/// Rows below a header, each column as wide as its widest cell, without trailing blanks.
pub fn render(output: &Output, header: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
    let header: Vec<Cell> = header.iter().map(|title| ((*title).to_owned(), Tone::Dim)).collect();
    let rows: Vec<&Vec<Cell>> = std::iter::once(&header).chain(rows).collect();
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|(cell, _)| text::width(cell)).max()
    };
    let limit = |column: usize| if column + 1 < header.len() { MAX_COLUMN_WIDTH } else { usize::MAX };
    let widths: Vec<usize> =
        (0..header.len()).map(|column| widest(column).unwrap_or(0).min(limit(column))).collect();
    rows.iter().map(|row| line(output, row, &widths)).collect()
}

fn line(output: &Output, row: &[Cell], widths: &[usize]) -> String {
    let mut line = String::new();
    for ((cell, tone), columns) in row.iter().zip(widths) {
        let cell = text::fitted(cell, *columns);
        let padding = columns.saturating_sub(text::width(&cell)) + 2;
        line.push_str(&output.paint(&cell, *tone));
        line.extend(std::iter::repeat_n(' ', padding));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_wide_letters() {
        let cell = |text: &str| (text.to_owned(), Tone::Plain);
        let rows = [
            vec![cell("雪の女王"), cell("1")],
            vec![cell("Zoë"), cell("2")],
            vec![cell(&"x".repeat(60)), cell("3")],
        ];
        let lines = render(&Output::plain(), &["NAME", "N"], &rows);
        let column = |line: &str| text::width(&line[..line.len() - 1]);
        assert!(lines.iter().all(|line| column(line) == MAX_COLUMN_WIDTH + 2), "{lines:#?}");
        assert!(lines[3].contains('…'));
    }
}
