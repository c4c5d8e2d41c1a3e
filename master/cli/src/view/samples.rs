//! Events as a master sends them in a launch of three instances, one of which fails: what the views' tests are fed.

use aot_proto::v1::{
    Event, InstanceView, JobKind, MachineState, Outcome, OutcomeCount, Phase, StageOutcome,
    StageState, StageView,
};

const START_MS: u64 = 1_767_225_784_000; // 2026-01-01T00:03:04Z

/// The number of an outcome.
pub(crate) fn outcome(name: &str) -> i32 {
    Outcome::from_name(name).expect("an outcome").into()
}

/// How many targets ended how.
pub(crate) fn counts(all: &[(&str, u32)]) -> Vec<OutcomeCount> {
    let count = |(name, count): &(&str, u32)| OutcomeCount {
        outcome: outcome(name),
        count: *count,
    };
    all.iter().map(count).collect()
}

/// The number of a kind of jobs.
pub(crate) fn kind(name: &str) -> i32 {
    JobKind::from_name(name).expect("a kind of jobs").into()
}

/// An instance in a phase.
pub(crate) fn view(name: &str, phase: &str, stages: &[&str]) -> InstanceView {
    let place = name.len() as u32;
    let booted = !matches!(phase, "planned" | "requested");
    let some = |text: String| if booted { text } else { String::new() };
    InstanceView {
        cluster: "hadoop".into(),
        name: name.into(),
        pool: if name == "manager" {
            String::new()
        } else {
            "web".into()
        },
        machine_id: some(format!("i-0abc{place}")),
        state: match booted {
            true => MachineState::Running.into(),
            false => 0,
        },
        phase: Phase::from_name(phase).expect("a phase").into(),
        stage: stages.len().saturating_sub(1) as u32,
        stages: if name == "manager" { 2 } else { 1 },
        private_ip: some(format!("10.0.0.{place}")),
        connected: booted,
        last_seen_unix_ms: if booted { START_MS } else { 0 },
        agent_version: some("0.1.0".into()),
        private_dns: some(format!("ip-10-0-0-{place}.ec2.internal")),
        properties_json: r#"{"ami":"ami-1","ec2_size":"m5.large"}"#.into(),
        provider: "ec2".into(),
        stage_views: stages
            .iter()
            .enumerate()
            .map(|(index, state)| StageView {
                index: index as u32,
                name: format!("bundle-{index}"),
                state: StageState::from_name(state).expect("a state").into(),
                attempt: 1,
                exit_code: match *state {
                    "failed" => Some(17),
                    "succeeded" => Some(0),
                    _ => None,
                },
                outcome: StageOutcome::from_name(state).unwrap_or_default().into(),
                seconds: 3,
                ms: 3000,
                ..StageView::default()
            })
            .collect(),
        ..InstanceView::default()
    }
}

fn event(at: u64, word: &str, view: Option<InstanceView>, fields: &str, message: &str) -> Event {
    Event {
        unix_ms: START_MS + at * 1000,
        cluster: "hadoop".into(),
        instance: view
            .as_ref()
            .map(|view| view.name.clone())
            .unwrap_or_default(),
        event: word.into(),
        message: message.into(),
        fields_json: fields.into(),
        view,
        ..Event::default()
    }
}

/// The whole launch.
pub(crate) fn launch() -> Vec<Event> {
    let mut failed = view("web2", "failed", &["failed"]);
    failed.note = "stage prereq failed (exit 17, 4.0 s)".into();
    let mut all = vec![event(
        0,
        "launch-started",
        None,
        r#"{"job":"job-01"}"#,
        "launching 3 instances",
    )];
    for name in ["manager", "web1", "web2"] {
        all.push(event(
            0,
            "instance-planned",
            Some(view(name, "planned", &[])),
            "",
            "",
        ));
    }
    all.extend([
        event(1, "instance-requested", Some(view("manager", "requested", &[])), "", ""),
        event(2, "instance-launched", Some(view("manager", "booting", &[])), r#"{"machine_id":"i-0abc7"}"#, "launched as i-0abc7"),
        event(20, "instance-enrolled", Some(view("manager", "enrolled", &[])), "", ""),
        event(21, "snapshot", Some(view("web1", "ready", &["succeeded"])), "", ""),
        event(22, "stage-started", Some(view("manager", "bootstrapping", &["running"])), r#"{"stage":0,"stages":2,"name":"prereq","attempt":1}"#, ""),
        event(25, "stage-ended", Some(view("manager", "bootstrapping", &["succeeded"])),
            r#"{"stage":0,"name":"prereq","attempt":1,"outcome":"succeeded","exit_code":0,"seconds":3.21}"#, ""),
        event(26, "stage-ended", Some(failed.clone()),
            r#"{"stage":0,"stages":1,"name":"prereq","attempt":1,"outcome":"failed","exit_code":17,"seconds":4.0,"tail":["no disk","one","two"],"tail_stderr":1}"#,
            "stage prereq failed (exit 17, 4.0 s)"),
        event(26, "instance-failed", Some(failed), r#"{"stage":0}"#, "stage prereq failed (exit 17, 4.0 s)"),
        event(27, "instance-ready", Some(view("manager", "ready", &["succeeded", "succeeded"])), "", ""),
        Event {
            last: true,
            exit_code: 1,
            ..event(27, "launch-ended", None, r#"{"summary":{"ready":2,"failed":1},"changed":true,"log":"/var/lib/aot/logs/job-01"}"#, "2 of 3 are ready")
        },
    ]);
    all
}

/// When the boards of [`board`] are looked at.
pub(crate) const NOW_MS: u64 = START_MS + 125_000;

/// The end of a stage that failed, having printed one line.
pub(crate) fn failed_event(name: &str, pool: &str, line: &str) -> Event {
    let mut view = view(name, "failed", &["failed"]);
    view.pool = pool.into();
    view.stage_views[0].name = "mount".into();
    let fields = serde_json::json!({
        "stage": 0, "stages": 1, "name": "mount", "attempt": 1, "outcome": "failed", "exit_code": 17,
        "seconds": 4.0, "tail": [line], "tail_stderr": 1,
    });
    event(0, "stage-ended", Some(view), &fields.to_string(), "")
}

/// A launch of so many in three pools, of which the last ones failed in three ways, a third is ready and a third runs.
pub(crate) fn board(instances: usize, failed: usize) -> super::Board {
    let mut board = super::Board::default();
    let why = [
        "no disk /dev/xvdz",
        "cannot reach 10.0.0.1",
        "no space left",
    ];
    for n in 0..instances {
        let pool = ["web", "worker", "db"][n * 3 / instances.max(1)];
        let name = format!("{pool}{n}");
        if n >= instances - failed {
            board.step(&failed_event(&name, pool, why[n * n % 3]));
            continue;
        }
        let (phase, states): (&str, &[&str]) = match n % 3 {
            0 => ("ready", &["succeeded", "succeeded"]),
            1 => ("bootstrapping", &["succeeded", "running"]),
            _ => ("booting", &[]),
        };
        let mut view = view(&name, phase, states);
        (view.pool, view.stages) = (pool.into(), 2);
        if let Some(stage) = view.stage_views.get_mut(1) {
            (stage.name, stage.ms) = ("peers".into(), (n as u64 * 37) % 100_000);
        }
        board.step(&event(0, "snapshot", Some(view), "", ""));
        board.set_last_line(&name, 1, &format!("fetching package {n} of many"));
    }
    board
}
