//! Tests of the exec views.

use aot_proto::v1::{BuiltinName, JobSummary};
use proptest::prelude::*;

use super::*;
use crate::view::out::tests::Kept as Shared;
use crate::view::samples;
use crate::view::{Out, StreamKind, Style};

/// Streams, and what was written to standard output and standard error.
fn streams() -> (Streams, Shared, Shared) {
    let (out, err) = (Shared::default(), Shared::default());
    let io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Out::new(out.clone()),
        stderr: Out::new(err.clone()),
    };
    (io, out, err)
}

fn text(shared: &Shared) -> String {
    shared.text()
}

fn output(instance: &str, stderr: bool, data: &[u8]) -> JobOutput {
    JobOutput {
        instance: instance.into(),
        stderr,
        data: data.to_vec().into(),
    }
}

fn started(names: &[&str]) -> JobStarted {
    JobStarted {
        job_id: "job-1".into(),
        instances: names.iter().map(|name| (*name).to_owned()).collect(),
        ..JobStarted::default()
    }
}

fn note(instance: &str, text: &str) -> JobNotice {
    JobNotice {
        instance: instance.into(),
        text: text.into(),
    }
}

const TERMINAL: StreamKind = StreamKind {
    terminal: true,
    colour: false,
    json: false,
};

const COLOURED: StreamKind = StreamKind {
    terminal: true,
    colour: true,
    json: false,
};

/// As both streams are seen.
fn streams_seen(seen: StreamKind) -> (Streams, Shared, Shared) {
    let (io, out, err) = streams();
    io.stdout.set_seen(seen);
    io.stderr.set_seen(seen);
    (io, out, err)
}

fn style(seen: StreamKind) -> Style {
    Style {
        colour: seen.colour,
    }
}

/// What is printed of a built-in.
fn builtin(name: BuiltinName, ends: &[JobEnded]) -> String {
    let (io, out, _) = streams();
    show_builtin(name, ends, Style::default(), &io.stdout).expect("written");
    text(&out)
}

fn ended(instance: &str, outcome: &str, code: Option<i32>) -> JobEnded {
    JobEnded {
        instance: instance.into(),
        outcome: samples::outcome(outcome),
        exit_code: code,
        seconds: 0.5,
        ..JobEnded::default()
    }
}

#[test]
fn lines_of_many_instances_never_mix_and_the_last_is_flushed() {
    let (mut io, out, err) = streams();
    let mut view = JobLines::default();
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
    view.ended(&ended("a", "succeeded", Some(0)), &mut io)
        .expect("written");
    assert_eq!(text(&out), "a | one\na | two\na | \na | last\n");
    assert_eq!(text(&err), "a | oops\n");
    view.close(&mut io).expect("written");
    assert_eq!(text(&out), "a | one\na | two\na | \na | last\nb | xy\n");
}

#[test]
fn a_line_without_end_is_broken() {
    let (mut io, out, _) = streams();
    let mut view = JobLines::default();
    for _ in 0..3 {
        view.output(&output("a", false, &[b'x'; 40 << 10]), &mut io)
            .expect("written");
    }
    assert_eq!(text(&out).lines().count(), 1);
    assert_eq!(view.held_bytes(), 40 << 10);
}

#[test]
fn json_has_the_keys_of_the_interface_and_null_for_no_exit_code() {
    let (mut io, out, _) = streams();
    let mut view = JobJson::default();
    view.started(&started(&["a", "b"]), &mut io).expect("known");
    view.output(&output("a", false, b"hi\n"), &mut io)
        .expect("kept");
    view.output(&output("a", true, b"\xff"), &mut io)
        .expect("kept");
    view.ended(&ended("a", "failed", Some(17)), &mut io)
        .expect("written");
    view.ended(&ended("b", "absent", None), &mut io)
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
    let mut view = JobJson::default();
    for _ in 0..3 {
        view.output(&output("a", false, &vec![b'x'; 8 << 20]), &mut io)
            .expect("kept");
    }
    view.ended(&ended("a", "succeeded", Some(0)), &mut io)
        .expect("written");
    let json: Value = serde_json::from_str(&text(&out)).expect("json");
    assert_eq!(
        json["stdout"].as_str().map(str::len),
        Some(super::json::MAX_BUFFERED)
    );
    assert_eq!(json["truncated"], true);
    assert_eq!(json["cut_bytes"], 8 << 20);
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
    let summary = JobSummary {
        outcomes: samples::counts(&[("succeeded", 4), ("failed", 1), ("timed_out", 1)]),
        ..JobSummary::default()
    };
    assert_eq!(
        job_summary(&summary, &ends),
        "4 succeeded, 1 failed, 1 timed out: web2 (timed out), web10 (exit code 17)"
    );
    let many: Vec<_> = (0..13)
        .map(|n| ended(&format!("n{n}"), "absent", None))
        .collect();
    assert!(job_summary(&summary, &many).ends_with(": n[0-12] (absent)"));
    let many: Vec<_> = (0..13)
        .map(|n| ended(&format!("n{n}"), "failed", Some(n + 1)))
        .collect();
    assert!(
        job_summary(&summary, &many).ends_with("n9 (exit code 10) and 3 more"),
        "{}",
        job_summary(&summary, &many)
    );
}

#[test]
fn every_outcome_has_its_words_in_the_summary() {
    let with = |name: &str, outcome: &str, detail: &str| JobEnded {
        detail: detail.into(),
        ..ended(name, outcome, None)
    };
    let mut ends = vec![
        with("a1", "absent", ""),
        with("a2", "absent", ""),
        with("b", "lost_contact", "its session ended"),
        with("c", "rejected", "no such user"),
        with("d", "timed_out", "its time was up"),
        with("e", "cancelled", ""),
        with("f", "failed", "ended by signal 9"),
        ended("g", "succeeded", Some(0)),
        ended("h", "failed", Some(3)),
    ];
    ends[7].truncated = true;
    ends[7].cut_bytes = 3 << 20;
    ends[8].detail = "a process that it left behind still holds its output".into();
    insta::assert_snapshot!(job_summary(&JobSummary::default(), &ends));
    ends[8].cut_bytes = 1 << 20;
    let text = job_summary(&JobSummary::default(), &ends);
    assert!(text.ends_with("; output was cut: g,h (4.0 MiB)"), "{text}");
}

#[test]
fn names_stand_in_a_column_and_errors_are_told_apart_on_a_terminal() {
    let feed = |seen| {
        let (mut io, out, err) = streams_seen(seen);
        let mut view = JobLines::new(style(seen));
        let long = "a-name-that-is-much-too-long-for-any-column";
        view.started(&started(&["web1", "manager", long]), &mut io)
            .expect("known");
        for (name, stderr, data) in [
            ("web1", false, "one\n"),
            ("manager", true, "two\x1b[2J\n"),
            (long, false, "three\n"),
        ] {
            view.output(&output(name, stderr, data.as_bytes()), &mut io)
                .expect("written");
        }
        view.notice(&note("web1", "waits for its turn"), &mut io)
            .expect("written");
        view.notice(&note("", "no more targets are started"), &mut io)
            .expect("written");
        view.close(&mut io).expect("written");
        format!("{}{}", text(&out), text(&err))
    };
    let all = [feed(StreamKind::default()), feed(TERMINAL), feed(COLOURED)];
    insta::assert_snapshot!(all.join("\n").replace('\x1b', "ESC"));
}

#[test]
fn what_is_held_back_of_all_lines_is_bounded() {
    let (mut io, out, _) = streams();
    let mut view = JobLines::default();
    for n in 0..1000 {
        view.output(&output(&format!("n{n}"), false, &[b'x'; 60 << 10]), &mut io)
            .expect("written");
    }
    assert!(view.held_bytes() <= 16 << 20);
    view.close(&mut io).expect("written");
    assert_eq!(view.held_bytes(), 0);
    assert_eq!(text(&out).lines().count(), 1000);
}

/// Fifty instances: most say the same, one says something else, one fails, one says nothing, two are not there.
fn fold(seen: StreamKind) -> String {
    let (mut io, out, err) = streams_seen(seen);
    let mut view = JobFold::new(style(seen));
    for n in 1..=50 {
        let name = format!("web{n}");
        match n {
            7 => {
                view.output(&output(&name, false, b"Linux 5.10"), &mut io)
                    .expect("kept");
            }
            12 => {
                view.output(&output(&name, false, b"Lin"), &mut io)
                    .expect("kept");
                view.output(&output(&name, true, b"uname: bad\x07\n\nbad\n"), &mut io)
                    .expect("kept");
                view.output(&output(&name, false, b"ux\n"), &mut io)
                    .expect("kept");
            }
            20 | 30 | 31 => {}
            _ if n % 2 == 0 => {
                view.output(&output(&name, false, b"Linux 6.1\n"), &mut io)
                    .expect("kept");
            }
            _ => {
                for part in [&b"Lin"[..], b"ux 6", b".1\n"] {
                    view.output(&output(&name, false, part), &mut io)
                        .expect("kept");
                }
            }
        }
        let end = match n {
            12 => ended(&name, "failed", Some(17)),
            30 | 31 => JobEnded {
                detail: "not connected".into(),
                ..ended(&name, "absent", None)
            },
            _ => ended(&name, "succeeded", Some(0)),
        };
        view.ended(&end, &mut io).expect("folded");
    }
    view.notice(&note("", "no more targets are started"), &mut io)
        .expect("written");
    view.close(&mut io).expect("written");
    assert_eq!(text(&err).lines().count(), 1);
    text(&out)
}

#[test]
fn equal_outputs_are_folded_and_the_odd_ones_come_first() {
    insta::assert_snapshot!(fold(TERMINAL));
    let coloured = fold(COLOURED);
    assert!(
        coloured.contains("\x1b[31mfailed (exit code 17)\x1b[0m"),
        "{coloured}"
    );
}

#[test]
fn a_line_of_one_instance_stands_beside_its_name() {
    let (mut io, out, _) = streams();
    let mut view = JobFold::default();
    for (name, line) in [
        ("web1", "up 1 day\n"),
        ("web2", "up 2 days\n"),
        ("web3", "two\nlines\n"),
        ("web4", "up 4 days\n"),
    ] {
        view.output(&output(name, false, line.as_bytes()), &mut io)
            .expect("kept");
        view.ended(&ended(name, "succeeded", Some(0)), &mut io)
            .expect("folded");
    }
    view.close(&mut io).expect("written");
    assert_eq!(
        text(&out),
        "web1 | up 1 day\nweb2 | up 2 days\n\nweb3: succeeded\n  two\n  lines\n\nweb4 | up 4 days\n"
    );
}

#[test]
fn what_is_cut_in_a_fold_is_marked_and_still_compared() {
    let (mut io, out, _) = streams();
    let mut view = JobFold::default();
    for name in ["a1", "a2", "a3"] {
        for _ in 0..600 {
            view.output(&output(name, false, &[b'x'; 1023]), &mut io)
                .expect("kept");
            view.output(&output(name, false, b"\n"), &mut io)
                .expect("kept");
        }
        let end: &[u8] = if name == "a2" { b"other" } else { b"same" };
        view.output(&output(name, false, end), &mut io)
            .expect("kept");
        view.ended(&ended(name, "succeeded", Some(0)), &mut io)
            .expect("folded");
    }
    assert_eq!(view.kept_bytes(), 2 * (256 << 10));
    let mut cut = ended("b", "succeeded", Some(0));
    (cut.truncated, cut.cut_bytes) = (true, 5 << 20);
    view.ended(&cut, &mut io).expect("folded");
    view.close(&mut io).expect("written");
    let marks: Vec<String> = text(&out)
        .lines()
        .filter(|line| !line.contains("xxx"))
        .map(str::to_owned)
        .collect();
    insta::assert_snapshot!(marks.join("\n"));
}

#[test]
fn a_fold_keeps_a_bounded_amount_of_very_many_different_outputs() {
    let (mut io, _, _) = streams();
    let mut view = JobFold::default();
    for n in 0..700 {
        let name = format!("n{n}");
        let data = vec![b'x'; (256 << 10) + n];
        view.output(&output(&name, false, &data), &mut io)
            .expect("kept");
        view.ended(&ended(&name, "succeeded", Some(0)), &mut io)
            .expect("folded");
    }
    assert_eq!(view.kept_bytes(), 128 << 20);
}

#[test]
fn a_fold_that_is_broken_off_shows_what_there_is() {
    let (mut io, out, _) = streams();
    let mut view = JobFold::default();
    view.output(&output("a", false, b"half"), &mut io)
        .expect("kept");
    view.close(&mut io).expect("written");
    view.close(&mut io).expect("written");
    assert_eq!(text(&out), "a: running\n  half\n");
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
        builtin(BuiltinName::Ping, &ends),
        "a      absent  not connected\nweb9   pong  500 ms\nweb10  pong  0.8 ms\n"
    );
    ends[0].json = r#"{"version":"0.1.0","commit":"x"}"#.into();
    ends[1].json = r#""0.2.0""#.into();
    assert_eq!(
        builtin(BuiltinName::Version, &ends),
        "a      absent  not connected\nweb9   0.2.0\nweb10  0.1.0\n"
    );
    assert_eq!(builtin(BuiltinName::Facts, &ends[2..]), "");
    assert!(builtin(BuiltinName::Facts, &ends).starts_with("{\n  \"web9\": \"0.2.0\""));
}

#[test]
fn files_are_looked_at_in_a_line_each() {
    let answered = |name: &str, json: &str| JobEnded {
        json: json.into(),
        ..ended(name, "succeeded", None)
    };
    let mut missing = ended("web3", "failed", None);
    missing.detail = "cannot read /etc/hosts: No such file or directory".into();
    let file = r#"{"path":"/etc/hosts","kind":"file","size":1536,"mode":"0644","uid":0,"gid":7,"user":"root",
        "group":null,"mtime":"2026-01-01T00:03:04Z","target":null,"leads_to":null}"#;
    let link = r#"{"path":"/bin","kind":"symlink","size":7,"mode":"0777","uid":0,"gid":0,"user":"root","group":"root",
        "mtime":null,"target":"usr/bin","leads_to":{"error":"gone"}}"#;
    let stat = [
        answered("web10", link),
        answered("web1", file),
        missing.clone(),
    ];
    let tail = [
        answered(
            "web10",
            r#"{"lines":["one","two\u001b[2J"],"truncated":true}"#,
        ),
        answered("web1", r#"{"lines":[],"truncated":false}"#),
        missing,
    ];
    let shown = |name: BuiltinName, ends: &[JobEnded]| {
        let (io, out, _) = streams_seen(TERMINAL);
        show_builtin(name, ends, Style::default(), &io.stdout).expect("written");
        text(&out)
    };
    insta::assert_snapshot!(format!(
        "{}\n{}",
        shown(BuiltinName::Stat, &stat),
        shown(BuiltinName::Tail, &tail)
    ));
}

proptest! {
    #[test]
    fn however_output_is_cut_the_lines_are_the_same(text_in in "[a-c\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
        let (mut io, out, _) = streams();
        let mut view = JobLines::default();
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
