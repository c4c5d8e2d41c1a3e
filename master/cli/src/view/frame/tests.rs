//! Tests of the picture of a launch.

use super::*;
use crate::view::samples;
use crate::view::style::drawn;

const PLAIN: Style = Style { colour: false };

/// As a terminal of this size shows it below what was printed: its last line is the cursor's.
fn picture(board: &Board, rows: usize, columns: usize) -> String {
    let lines = frame(board, samples::NOW_MS, PLAIN, rows - 1);
    assert!(lines.len() < rows, "{} lines in {rows}", lines.len());
    let cut = lines
        .iter()
        .map(|line| line.chars().take(columns).collect::<String>());
    cut.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_board_of_three() {
    let board = samples::board(3, 1);
    insta::assert_snapshot!(picture(&board, 24, 80));
}

#[test]
fn a_board_of_forty() {
    let board = samples::board(40, 4);
    insta::assert_snapshot!("forty_80x24", picture(&board, 24, 80));
    insta::assert_snapshot!("forty_200x50", picture(&board, 50, 200));
}

#[test]
fn a_board_of_a_thousand() {
    let board = samples::board(1000, 20);
    insta::assert_snapshot!("thousand_80x24", picture(&board, 24, 80));
    insta::assert_snapshot!("thousand_200x50", picture(&board, 50, 200));
}

#[test]
fn no_picture_has_more_lines_than_it_may() {
    for (instances, failed) in [(1, 0), (30, 30), (300, 0), (10_000, 9_000)] {
        let board = samples::board(instances, failed);
        for most in 0..60 {
            let lines = frame(&board, samples::NOW_MS, PLAIN, most);
            let bound = most.max(MIN_LINES);
            assert!(
                lines.len() <= bound,
                "{instances} instances in {most}: {}",
                lines.len()
            );
            assert!(!lines.is_empty());
        }
    }
}

#[test]
fn ten_thousand_that_fail_otherwise_are_few_lines_that_count_all() {
    let mut board = Board::default();
    for n in 0..10_000 {
        board.step(&samples::failed_event(
            &format!("n{n}"),
            "web",
            &format!("why {n}"),
        ));
    }
    let lines = frame(&board, samples::NOW_MS, PLAIN, 23);
    assert!(lines.len() <= 23);
    assert!(
        lines[0].contains("0 of 10000 ready, 10000 failed"),
        "{}",
        lines[0]
    );
    let rest = lines.last().expect("lines");
    assert!(rest.ends_with("more failed otherwise"), "{rest}");
    assert!(lines.iter().all(|line| line.chars().count() < 400));
}

#[test]
fn what_takes_longest_is_asked_about_and_shown_first() {
    let board = samples::board(1000, 0);
    let asked = running(&board, 5);
    assert_eq!(asked.len(), 5);
    let lines = frame(&board, samples::NOW_MS, PLAIN, 23);
    let first = lines
        .iter()
        .position(|line| line.contains("bootstrapping  "));
    let first = first.expect("one runs");
    assert!(lines[first].contains(&asked[0]), "{lines:#?}");
    assert!(running(&board, 0).is_empty());
}

#[test]
fn the_bar_shows_that_one_failed_however_many_there_are() {
    let board = samples::board(1000, 1);
    let line = drawn(&frame(&board, samples::NOW_MS, PLAIN, 23)[0], false).into_owned();
    assert!(line.contains("=!"), "{line}");
}
