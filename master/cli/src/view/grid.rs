//! Tables: text in columns, two blanks between them, no blanks at the ends of lines. Pure.

use unicode_width::UnicodeWidthStr;

use super::harmless;
use super::style::{Paint, Style};

/// The narrowest that a last column is cut to, so that something of it is read.
const MIN_LAST_COLUMNS: usize = 12;

/// For so much of a last column others are left out; what is longer is cut.
const LAST_COLUMNS: usize = 24;

/// One cell. Text of several lines stays in its column.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// As it is.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::painted(text, Style::plain)
    }

    /// In a colour.
    pub(super) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }

    /// A dash for an empty text: a column is never empty.
    pub(super) fn or_dash(text: &str) -> Self {
        Self::new(or_dash(text))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// A dash for an empty text.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Rows under heads.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// Without rows yet.
    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row: a cell for each head.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Without the columns of this head.
    fn without(&mut self, head: &str) {
        let Some(place) = self.heads.iter().position(|it| *it == head) else {
            return;
        };
        self.heads.remove(place);
        for row in &mut self.rows {
            row.remove(place);
        }
    }

    /// In lines of at most `columns` characters, if that is known: the columns named in `spare` are left out, the first
    /// first, while a line is too long; then the last column is cut, which is marked.
    pub(super) fn fitted(mut self, style: Style, columns: Option<usize>, spare: &[&str]) -> String {
        let Some(columns) = columns else {
            return self.text(style);
        };
        for head in spare {
            if self.width() <= columns {
                break;
            }
            self.without(head);
        }
        let widths = self.widths();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
        let room = columns.saturating_sub(before).max(MIN_LAST_COLUMNS);
        for cell in self.rows.iter_mut().filter_map(|row| row.last_mut()) {
            cell.text = lines(&cell.text, |line| cut(line, room));
        }
        self.text(style)
    }

    /// As wide as it is.
    pub(super) fn text(&self, style: Style) -> String {
        let widths = self.widths();
        let heads = self.heads.iter().map(|head| head.to_uppercase());
        let heads: Vec<Cell> = heads.map(Cell::new).collect();
        let rows = std::iter::once(&heads).chain(&self.rows);
        let lines = rows.flat_map(|row| row_lines(row, &widths, style));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn width(&self) -> usize {
        let mut widths = self.widths();
        if let Some(last) = widths.last_mut() {
            *last = (*last).min(LAST_COLUMNS);
        }
        widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
    }

    fn widths(&self) -> Vec<usize> {
        let column = |place: usize, head: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(place));
            let lines = cells.flat_map(|cell| cell.text.lines()).map(width);
            lines.chain([width(head)]).max().unwrap_or_default()
        };
        let heads = self.heads.iter().enumerate();
        heads.map(|(place, head)| column(place, head)).collect()
    }
}

fn row_lines(row: &[Cell], widths: &[usize], style: Style) -> Vec<String> {
    let height = row.iter().map(|cell| cell.text.lines().count()).max();
    let line = |at: usize| {
        let mut out = String::new();
        let mut blanks = 0;
        for (cell, wide) in row.iter().zip(widths) {
            let text = cell.text.lines().nth(at).unwrap_or_default();
            if !text.is_empty() {
                out.push_str(&" ".repeat(blanks));
                out.push_str(&(cell.paint)(style, text));
                blanks = 0;
            }
            blanks += wide.saturating_sub(width(text)) + 2;
        }
        out.trim_end().to_owned()
    };
    (0..height.unwrap_or_default().max(1)).map(line).collect()
}

/// How wide a line is shown.
fn width(line: &str) -> usize {
    harmless::one_line(line).width()
}

fn lines(text: &str, change: impl Fn(&str) -> String) -> String {
    text.lines().map(change).collect::<Vec<_>>().join("\n")
}

/// At most so wide; what is cut is marked.
pub(super) fn cut(line: &str, room: usize) -> String {
    if width(line) <= room {
        return line.to_owned();
    }
    let mut kept = String::new();
    for c in line.chars() {
        kept.push(c);
        if width(&kept) >= room {
            kept.pop();
            break;
        }
    }
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&["name", "phase", "machine", "note"]);
        let note = "stage one\nasks for more room than there is";
        grid.row([
            Cell::new("web1"),
            Cell::painted("ready", Style::good),
            Cell::or_dash(""),
            Cell::new(note),
        ]);
        grid.row(["w\u{1b}[2J漢", "gone", "i-0123", ""]);
        grid
    }

    #[test]
    fn columns_stand_under_one_another_however_wide_a_character_is() {
        assert_eq!(
            grid().text(Style::default()),
            "NAME      PHASE  MACHINE  NOTE\n\
             web1      ready  -        stage one\n\
             \u{20}                         asks for more room than there is\n\
             w\u{1b}[2J漢  gone   i-0123"
        );
        let coloured = grid().text(Style { colour: true });
        let drawn = super::super::style::drawn(&coloured, true).into_owned();
        assert!(
            drawn.contains("web1      \x1b[32mready\x1b[0m  -  "),
            "{drawn:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_or_cut() {
        let spare = ["machine", "phase"];
        assert_eq!(
            grid().fitted(Style::default(), Some(45), &spare),
            "NAME      PHASE  NOTE\n\
             web1      ready  stage one\n\
             \u{20}                asks for more room than the…\n\
             w\u{1b}[2J漢  gone"
        );
        let wide = grid().fitted(Style::default(), Some(200), &spare);
        assert_eq!(wide, grid().text(Style::default()));
        assert_eq!(wide, grid().fitted(Style::default(), None, &spare));
        let least = grid().fitted(Style::default(), Some(5), &spare);
        assert!(
            least.contains("stage one") && least.contains("asks for mo…"),
            "{least}"
        );
    }

    #[test]
    fn a_cut_never_makes_a_line_longer() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("漢字漢", 4), "漢…");
    }
}
