//! Tests of the views of jobs.

use std::collections::BTreeMap;

use super::*;
use crate::view::samples;

const PLAIN: Style = Style { colour: false };

fn entries() -> JobsReply {
    let jobs = vec![
        jobs_reply::Entry {
            job_id: "job-01".into(),
            kind: samples::kind("exec"),
            cluster: "hadoop".into(),
            what: "exec '*' -- uptime\nmore".into(),
            started_unix_ms: 1_767_225_784_000,
            ended_unix_ms: 1_767_225_785_500,
            outcomes: samples::counts(&[("succeeded", 3), ("timed_out", 1)]),
            operator: "root".into(),
            targets: 4,
            output_bytes: 12_900_000,
            ..jobs_reply::Entry::default()
        },
        jobs_reply::Entry {
            job_id: "job-02".into(),
            kind: samples::kind("exec"),
            started_unix_ms: 1_767_225_784_000,
            outcomes: samples::counts(&[("failed", 1)]),
            targets: 50,
            output_dropped: true,
            output_bytes: 3,
            ..jobs_reply::Entry::default()
        },
        jobs_reply::Entry {
            job_id: "job-03".into(),
            kind: samples::kind("launch"),
            started_unix_ms: 1_767_225_784_000,
            ..jobs_reply::Entry::default()
        },
    ];
    JobsReply { jobs }
}

fn started(ended_unix_ms: u64) -> JobStarted {
    JobStarted {
        job_id: "job-01".into(),
        instances: ["web10", "web2", "web1", "db1"].map(Into::into).into(),
        kind: samples::kind("exec"),
        what: "exec '*' 'echo one\necho two'".into(),
        operator: "root".into(),
        cluster: "hadoop".into(),
        started_unix_ms: 1_767_225_784_000,
        ended_unix_ms,
        output_dropped: ended_unix_ms > 0,
    }
}

#[test]
fn a_list_of_jobs() {
    let jobs = entries();
    let one = JobsReply {
        jobs: jobs.jobs[..1].to_vec(),
    };
    let lines: Vec<String> = jobs
        .jobs
        .iter()
        .map(|job| job_json(job).to_string())
        .collect();
    insta::assert_snapshot!(format!(
        "{}\n\n{}\n\n{}\n\n{}",
        jobs_table(&jobs, UtcOffset::UTC, PLAIN, None),
        jobs_table(&one, UtcOffset::UTC, PLAIN, Some(60)),
        jobs_table(&one, UtcOffset::UTC, PLAIN, Some(94)),
        lines.join("\n")
    ));
}

#[test]
fn short_ids_are_as_long_as_they_must_be() {
    let short = |ids: &[&str]| short_ids(ids).join(" ");
    assert_eq!(
        short(&[
            "job-01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "job-01ARZ3NDELTSV4RRFFQ69G5FAV"
        ]),
        "01ARZ3NDEK 01ARZ3NDEL"
    );
    assert_eq!(
        short(&[
            "job-01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "job-01ARZ3NDEKTTV4RRFFQ69G5FAV"
        ]),
        "01ARZ3NDEKTS 01ARZ3NDEKTT"
    );
    assert_eq!(short(&["job-02X"]), "02X");
    assert_eq!(short(&[]), "");
}

#[test]
fn the_heading_of_a_job_says_whether_it_goes_on() {
    let now = 1_767_225_784_000 + 65_000;
    insta::assert_snapshot!(format!(
        "{}\n\n{}",
        job_heading(&started(0), now, UtcOffset::UTC, PLAIN),
        job_heading(&started(1_767_225_785_500), now, UtcOffset::UTC, PLAIN)
    ));
}

#[test]
fn every_target_has_a_line_with_its_end() {
    let end = |name: &str, outcome: &str, code: Option<i32>, detail: &str, cut_bytes| JobEnded {
        instance: name.into(),
        outcome: samples::outcome(outcome),
        exit_code: code,
        seconds: 1.5,
        detail: detail.into(),
        truncated: cut_bytes > 0,
        cut_bytes,
        ..JobEnded::default()
    };
    let ends: BTreeMap<&str, JobEnded> = [
        ("web1", end("web1", "succeeded", Some(0), "", 2_200_000)),
        ("web10", end("web10", "failed", Some(17), "", 0)),
        (
            "db1",
            end("db1", "lost_contact", None, "its session ended", 5),
        ),
    ]
    .into();
    let started = started(0);
    insta::assert_snapshot!(outcomes_table(&started, |name| ends.get(name), PLAIN, None));
    let coloured = outcomes_table(
        &started,
        |name| ends.get(name),
        Style { colour: true },
        None,
    );
    let coloured = crate::view::style::drawn(&coloured, true);
    assert!(coloured.contains("\x1b["), "{coloured}");
}
