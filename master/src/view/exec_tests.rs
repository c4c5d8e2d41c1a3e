//! Tests of the exec views.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Streams, and what was written to standard output and standard error.
fn streams() -> (Streams, Shared, Shared) {
    let (out, err) = (Shared::default(), Shared::default());
    let io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Box::new(out.clone()),
        stderr: Box::new(err.clone()),
    };
    (io, out, err)
}

fn text(shared: &Shared) -> String {
    String::from_utf8_lossy(&shared.0.borrow()).into_owned()
}

fn output(instance: &str, stderr: bool, data: &[u8]) -> ExecOutput {
    ExecOutput {
        instance: instance.into(),
        stderr,
        data: data.to_vec().into(),
    }
}

fn ended(instance: &str, outcome: &str, code: Option<i32>) -> ExecEnded {
    ExecEnded {
        instance: instance.into(),
        outcome: outcome.into(),
        exit_code: code.unwrap_or_default(),
        has_exit_code: code.is_some(),
        seconds: 0.5,
        ..ExecEnded::default()
    }
}

#[test]
fn lines_of_many_instances_never_mix_and_the_last_is_flushed() {
    let (mut io, out, err) = streams();
    let mut view = ExecLines::default();
    for (name, stderr, data) in [
        ("a", false, &b"one\ntw"[..]),
        ("b", false, b"x"),
        ("a", true, b"oops\n"),
        ("a", false, b"o\n\nlast"),
        ("b", false, b"y"),
    ] {
        view.output(&output(name, stderr, data), &mut io)
            .expect("written");
    }
    view.ended("job", &ended("a", "succeeded", Some(0)), &mut io)
        .expect("written");
    assert_eq!(text(&out), "a | one\na | two\na | \na | last\n");
    assert_eq!(text(&err), "a | oops\n");
    view.close(&mut io).expect("written");
    assert_eq!(text(&out), "a | one\na | two\na | \na | last\nb | xy\n");
}

#[test]
fn a_line_without_end_is_broken() {
    let (mut io, out, _) = streams();
    let mut view = ExecLines::default();
    for _ in 0..3 {
        view.output(&output("a", false, &[b'x'; 40 << 10]), &mut io)
            .expect("written");
    }
    assert_eq!(text(&out).lines().count(), 1);
    assert!(
        view.partial
            .values()
            .all(|held| held.len() < MAX_LINE_BYTES)
    );
}

#[test]
fn json_has_the_keys_of_the_interface_and_null_for_no_exit_code() {
    let (mut io, out, _) = streams();
    let mut view = ExecJson::default();
    view.output(&output("a", false, b"hi\n"), &mut io)
        .expect("kept");
    view.output(&output("a", true, b"\xff"), &mut io)
        .expect("kept");
    view.ended("job-1", &ended("a", "failed", Some(17)), &mut io)
        .expect("written");
    view.ended("job-1", &ended("b", "absent", None), &mut io)
        .expect("written");
    assert_eq!(
        text(&out),
        concat!(
            r#"{"job":"job-1","instance":"a","outcome":"failed","exit_code":17,"stdout":"hi\n","stderr_base64":"/w==","seconds":0.5}"#,
            "\n",
            r#"{"job":"job-1","instance":"b","outcome":"absent","exit_code":null,"stdout":"","stderr":"","seconds":0.5}"#,
            "\n",
        )
    );
}

#[test]
fn json_cuts_what_is_too_much_and_says_so() {
    let (mut io, out, _) = streams();
    let mut view = ExecJson::default();
    for _ in 0..3 {
        view.output(&output("a", false, &vec![b'x'; 8 << 20]), &mut io)
            .expect("kept");
    }
    view.ended("j", &ended("a", "succeeded", Some(0)), &mut io)
        .expect("written");
    let json: Value = serde_json::from_str(&text(&out)).expect("json");
    assert_eq!(json["stdout"].as_str().map(str::len), Some(MAX_KEPT_BYTES));
    assert_eq!(json["truncated"], true);
}

#[test]
fn the_summary_names_the_failed_in_order() {
    let ends: Vec<_> = [
        ("web10", "failed", Some(17)),
        ("web2", "timed_out", None),
        ("web1", "succeeded", Some(0)),
    ]
    .map(|(name, outcome, code)| ended(name, outcome, code))
    .into();
    let summary = ExecSummary {
        outcomes: [
            ("succeeded".into(), 4),
            ("failed".into(), 1),
            ("timed_out".into(), 1),
        ]
        .into(),
        ..ExecSummary::default()
    };
    assert_eq!(
        exec_summary(&summary, &ends),
        "4 succeeded, 1 failed, 1 timed out: web2 (timed out), web10 (exit code 17)"
    );
    let many: Vec<_> = (0..13)
        .map(|n| ended(&format!("n{n}"), "absent", None))
        .collect();
    assert!(exec_summary(&summary, &many).ends_with("n9 (absent) and 3 more"));
}

#[test]
fn builtins_are_sorted_by_number() {
    let mut ends = vec![
        ended("web10", "succeeded", None),
        ended("web9", "succeeded", None),
        ended("a", "absent", None),
    ];
    ends[0].seconds = 0.0008;
    ends[2].detail = "not connected".into();
    assert_eq!(
        builtin_table("ping", &ends),
        "a      absent  not connected\nweb9   pong  500 ms\nweb10  pong  0.8 ms"
    );
    ends[0].json = r#"{"version":"0.1.0","commit":"x"}"#.into();
    ends[1].json = r#""0.2.0""#.into();
    assert_eq!(
        builtin_table("version", &ends),
        "a      absent  not connected\nweb9   0.2.0\nweb10  0.1.0"
    );
    assert_eq!(builtin_table("facts", &ends[2..]), "");
    assert!(builtin_table("facts", &ends).starts_with("{\n  \"web9\": \"0.2.0\""));
}

proptest! {
    #[test]
    fn however_output_is_cut_the_lines_are_the_same(text_in in "[a-c\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
        let (mut io, out, _) = streams();
        let mut view = ExecLines::default();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text_in.len())).collect();
        cuts.extend([0, text_in.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            view.output(&output("n", false, &text_in.as_bytes()[pair[0]..pair[1]]), &mut io).expect("written");
        }
        view.close(&mut io).expect("written");
        let want: String = text_in.lines().map(|line| format!("n | {line}\n")).collect();
        prop_assert_eq!(text(&out), want);
    }
}
