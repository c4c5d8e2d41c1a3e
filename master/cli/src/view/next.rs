//! What to type after a launch, by how it went. Pure.

use aot_proto::v1::Phase;

use super::launch_board::{Board, Row};

/// Lines that begin with `next:`; none where there is nothing to do. `cluster` is what `--cluster` said, which the next
/// command needs too.
pub(crate) fn next_lines(board: &Board, cluster: Option<&str>, is_well: bool) -> Vec<String> {
    let rows = board.rows();
    let of = |phase: Phase| rows.iter().find(|row| row.phase() == phase);
    let option = cluster.map_or_else(String::new, |name| format!(" --cluster {name}"));
    let command = |words: String| format!("aot-master{option} {words}");
    let commands = match (is_well, of(Phase::Failed), of(Phase::Ready)) {
        (false, Some(failed), _) => {
            vec![command(logs(failed)), command("apply --failed".to_owned())]
        }
        (false, None, _) => vec![command("status".to_owned())],
        (true, _, Some(ready)) => vec![
            command("exec '*' ping".to_owned()),
            command(format!("shell {}", ready.name)),
            command(logs(ready)),
            format!("aot-master cleanup {}", board.cluster),
        ],
        (true, _, None) => Vec::new(),
    };
    let lines = commands.into_iter().enumerate();
    lines
        .map(|(place, command)| match place {
            0 => format!("next: {command}"),
            _ => format!("      {command}"),
        })
        .collect()
}

/// What its stages printed.
fn logs(row: &Row) -> String {
    format!("logs {}", row.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn what_comes_next_depends_on_how_it_went() {
        let mut board = Board::default();
        assert_eq!(next_lines(&board, None, true), Vec::<String>::new());
        for event in samples::launch() {
            board.step(&event);
        }
        assert_eq!(
            next_lines(&board, None, true).join("\n"),
            "next: aot-master exec '*' ping\n      aot-master shell manager\n      aot-master logs manager\n      aot-master \
             cleanup hadoop"
        );
        assert_eq!(
            next_lines(&board, Some("hadoop"), false).join("\n"),
            "next: aot-master --cluster hadoop logs web2\n      aot-master --cluster hadoop apply --failed"
        );
    }
}
