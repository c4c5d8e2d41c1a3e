//! What a launch or an apply leaves, as a table: instances that are alike in what is not well have one row. Pure.

use std::collections::HashMap;

use aot_proto::v1::Phase;

use super::grid::or_dash;
use super::grid::{Cell, Grid};
use super::launch_board::{Board, Row};
use super::ranges::ranges;
use super::style::{Style, phase_paint};

/// Up to so many instances each that is well has a row of its own.
const MAX_ROWS: usize = 40;

/// Longest list of names: columns are as wide as what is in them.
const MAX_NAMES_CHARS: usize = 32;

/// Instances in one row.
struct ClosingRow<'b> {
    rows: Vec<&'b Row>,
    note: String,
}

/// What a launch or an apply leaves.
pub(crate) fn closing_table(board: &Board, style: Style, columns: Option<usize>) -> String {
    let mut table = Grid::new(&[
        "instance", "pool", "phase", "machine", "address", "stages", "note",
    ]);
    for ClosingRow { rows, note } in closing_rows(board) {
        let row = rows[0];
        let of_one = |text: &str| match rows.len() {
            1 => Cell::or_dash(text),
            _ => Cell::or_dash(""),
        };
        table.row([
            Cell::new(names(&rows)),
            Cell::or_dash(&row.pool),
            Cell::painted(or_dash(Phase::name_of(row.phase)), phase_paint(row.phase)),
            of_one(&row.machine_id),
            of_one(&row.address),
            Cell::new(format!("{}/{}", row.stages_ok, row.stages)),
            Cell::new(note),
        ]);
    }
    table.fitted(style, columns, &["machine", "address", "pool"])
}

/// `web[1-4]`, or `web1 and 326 more` where that would be long.
fn names(rows: &[&Row]) -> String {
    let text = ranges(rows.iter().map(|row| &*row.name));
    match text.chars().count() <= MAX_NAMES_CHARS || rows.len() == 1 {
        true => text,
        false => format!("{} and {} more", rows[0].name, rows.len() - 1),
    }
}

/// In the order of the first of each.
fn closing_rows(board: &Board) -> Vec<ClosingRow<'_>> {
    let all = board.rows();
    let is_long = all.len() > MAX_ROWS;
    let mut out: Vec<ClosingRow<'_>> = Vec::new();
    let mut places = HashMap::new();
    for row in all {
        let is_well = row.phase() == Phase::Ready;
        let note = board.note_of(row);
        if is_well && !is_long {
            out.push(ClosingRow {
                rows: vec![row],
                note,
            });
            continue;
        }
        let alike = (
            &row.pool,
            row.phase,
            row.stages_ok,
            row.stages,
            note.clone(),
        );
        let place = *places.entry(alike).or_insert(out.len());
        match out.get_mut(place) {
            Some(line) => line.rows.push(row),
            None => out.push(ClosingRow {
                rows: vec![row],
                note,
            }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    const PLAIN: Style = Style { colour: false };

    #[test]
    fn the_closing_table_of_a_launch() {
        let mut board = Board::default();
        samples::launch().iter().for_each(|event| board.step(event));
        insta::assert_snapshot!(closing_table(&board, PLAIN, None));
        let coloured = closing_table(&board, Style { colour: true }, None);
        assert!(crate::view::style::drawn(&coloured, true).contains("\x1b[32mready"));
    }

    #[test]
    fn those_that_failed_alike_have_one_row_and_a_large_cluster_has_few() {
        let table =
            |instances, failed| closing_table(&samples::board(instances, failed), PLAIN, Some(80));
        let why = "  failed in mount (exit 17)\n";
        let small = format!("{}\n", table(12, 6));
        assert_eq!(small.lines().count(), 1 + 8, "two that are ready:\n{small}");
        assert_eq!(small.matches(why).count(), 2, "in two pools:\n{small}");
        assert!(small.contains("\ndb[8-11]  "), "{small}");
        let large = format!("{}\n", table(1000, 20));
        assert_eq!(large.lines().count(), 1 + 3 * 3 + 1, "{large}");
        assert_eq!(large.matches(why).count(), 1, "{large}");
        assert!(large.contains("\nweb0 and 111 more  "), "{large}");
    }
}
