//! Columns for people.

use super::human;

/// Rows under headings, two spaces between columns, the last one as long as it is.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let one_line = |row: &Vec<String>| row.iter().map(|cell| human::one_line(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(one_line).collect();
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&heading).chain(&rows) {
        text.push_str(line(&widths, row).trim_end());
        text.push('\n');
    }
    text
}

fn line(widths: &[usize], row: &[String]) -> String {
    widths
        .iter()
        .zip(row)
        .map(|(width, cell)| format!("{cell:width$}   "))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["a".into(), "long cell".into()],
            vec!["bbbb".into(), "c\u{1b}\n".into()],
        ];
        assert_eq!(
            super::render(&["ID", "NAME"], &rows),
            "ID     NAME\na      long cell\nbbbb   c\n"
        );
    }
}
