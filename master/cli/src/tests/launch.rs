//! Launch, plan and wait.

use aot_proto::fault;
use aot_proto::v1::{ApplyRequest, TargetFault};

use super::*;
use crate::cluster_source::{ClusterAsk, ClusterSource};
use crate::connect::Start;
use crate::follow_cluster::follow;
use crate::interrupt::Interrupt;
use crate::{OperatorSecret, SecretOrigin};

#[tokio::test]
async fn a_launch_shows_its_events_and_ends_with_the_table_and_the_log() {
    let fake = Fake::start(Script {
        plan: vec![plan("create", "web2")],
        events: samples::launch(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--timeout", "90s"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    insta::assert_snapshot!(format!("{}-----\n{}", ran.err, ran.out));
    let asked = fake.asked();
    assert!(
        asked[1].contains("timeout_ms: 90000") && asked[1].contains("cluster: hadoop"),
        "{asked:?}"
    );
}

/// Follows an apply with Ctrl-C at these times after it was begun. Its end comes once the master has been asked to cancel it.
async fn interrupted(fake: &Fake, presses_ms: &[u64], answers: Option<Vec<&'static str>>) -> Ran {
    let (env, out, err) = (
        env_in(fake.dir.path()),
        Shared::default(),
        Shared::default(),
    );
    let mut io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Out::new(out.clone()),
        stderr: Out::new(err.clone()),
    };
    let mut ctx = crate::Ctx {
        env: &env,
        io: &mut io,
        json: false,
        quiet: false,
        cluster: None,
        greets: true,
        compared: false,
        keeps_requests: false,
        background: false,
        has_shown: false,
        verbose: None,
    };
    let client = crate::dial::dial(&env, None).await.expect("a master");
    let ask = ClusterAsk::Apply(ApplyRequest::default());
    let source = ClusterSource::new(&ctx, client, ask, Start::Never, "it continues");
    let mut source = source.expect("there are random numbers");
    source.begin(&mut ctx).await.expect("begun");
    let cancelled = async {
        while !fake.asked().iter().any(|it| it.starts_with("CancelJob")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(last("launch-ended", 1, "cancelled by alice", ""))
    };
    let events = futures::stream::once(cancelled);
    let interrupt = Interrupt::scripted(presses_ms, answers);
    let each = &mut |_: &Event| ();
    let followed = follow(&mut ctx, &mut source, events, interrupt, each).await;
    let exit = match followed {
        Ok(followed) => Exit::from_wire(followed.last.expect("its end").exit_code),
        Err(error) => {
            let report = error.report(crate::view::Style::default());
            ctx.message(&report.expect("it says something"))
                .expect("written");
            error.exit()
        }
    };
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

#[tokio::test]
async fn ctrl_c_asks_as_it_does_elsewhere_whether_to_detach_or_to_cancel() {
    const QUESTION: &str = "detach (the job continues) or cancel it? [d/c]";
    for (presses, answers, exit, cancels, said) in [
        (
            &[5][..],
            Some(vec!["c"]),
            Exit::Failed,
            1,
            "cancelling; Ctrl-C once more detaches",
        ),
        (
            &[5],
            Some(vec!["d"]),
            Exit::Interrupted,
            0,
            "jobs cancel job-1 ends it",
        ),
        (
            &[5, 30],
            Some(vec![]),
            Exit::Interrupted,
            0,
            "jobs cancel job-1 ends it",
        ),
        (
            &[5],
            None,
            Exit::Interrupted,
            0,
            "jobs cancel job-1 ends it",
        ),
    ] {
        let fake = Fake::start(Script {
            job: "job-1".into(),
            ..Script::default()
        });
        let asks = answers.is_some();
        let ran = interrupted(&fake, presses, answers).await;
        assert_eq!(ran.exit, exit, "{}", ran.err);
        assert_eq!(ran.err.contains(QUESTION), asks, "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
        let asked = fake.asked();
        let of_cancel = asked
            .iter()
            .filter(|it| it.starts_with("CancelJobRequest { job_id: \"job-1\""));
        assert_eq!(of_cancel.count(), cancels, "{asked:?}");
    }
}

#[tokio::test]
async fn variables_go_with_the_plan_and_the_launch() {
    let fake = Fake::start(Script {
        events: samples::launch(),
        ..Script::default()
    });
    let (path, vars) = (file(&fake), fake.dir.path().join("v.yml"));
    std::fs::write(&vars, "size: 2\n").expect("written");
    let vars = vars.to_str().expect("UTF-8");
    let given = ["--set", "a=1", "--vars", vars, "--set", "b=x y"];
    for command in ["plan", "launch"] {
        let words = [&[command, &path][..], &given].concat();
        run(&fake, &words).await;
    }
    let asked = fake.asked();
    assert_eq!(asked.len(), 3, "a launch plans first: {asked:?}");
    for request in asked {
        assert!(request.contains(r#"set: ["a=1", "b=x y"]"#), "{request}");
        assert!(request.contains(r#"text: "size: 2\n""#), "{request}");
    }
    let ran = run(&fake, &["plan", &path, "--vars", "/nonexistent/v.yml"]).await;
    assert_eq!((ran.exit, fake.asked().len()), (Exit::Usage, 3));
    assert!(
        ran.err.contains("cannot read /nonexistent/v.yml"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn secrets_are_read_here_and_go_with_the_plan_and_the_launch() {
    let fake = Fake::start(Script {
        events: samples::launch(),
        ..Script::default()
    });
    let key = fake.dir.path().join("key");
    std::fs::write(&key, "hunter2").expect("written");
    let mut env = env_in(fake.dir.path());
    env.secrets = |_, path, _| {
        vec![OperatorSecret {
            name: "db".to_owned(),
            origin: SecretOrigin::File(path.with_file_name("key")),
        }]
    };
    let file = file(&fake);
    for words in [["plan", &*file], ["launch", &*file]] {
        let ran = run_in(&env, "", &words).await;
        let shown = format!("{}{}", ran.out, ran.err);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let asked = fake.asked();
    assert_eq!(asked.len(), 3, "a launch plans first: {asked:?}");
    for request in asked {
        assert!(request.contains(r#"SecretValue { name: "db""#), "{request}");
        assert!(!request.contains("hunter2"), "{request}");
    }
    std::fs::remove_file(key).expect("removed");
    let ran = run_in(&env, "", &["launch", &file]).await;
    assert_eq!((ran.exit, fake.asked().len()), (Exit::Usage, 3));
    assert!(
        ran.err.contains("cannot read the secret \"db\""),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_launch_in_json_ends_with_its_summary() {
    let fake = Fake::start(Script {
        events: samples::launch(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--json"]).await;
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect();
    assert_eq!(lines.len(), samples::launch().len() + 1);
    assert_eq!(
        lines[lines.len() - 1].to_string(),
        r#"{"cluster":"hadoop","summary":{"ready":2,"failed":1}}"#
    );
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Failed, ""));
}

#[tokio::test]
async fn a_launch_that_changes_nothing_says_so() {
    let end = last(
        "launch-ended",
        0,
        "",
        r#"{"summary":{"ready":4,"failed":0},"changed":false}"#,
    );
    let fake = Fake::start(Script {
        events: vec![end],
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake)]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Well, "nothing to do: 4 instances are ready\n")
    );
}

#[tokio::test]
async fn a_detached_launch_returns_after_the_first_event() {
    let fake = Fake::start(Script {
        events: samples::launch()[..1].to_vec(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--detach"]).await;
    assert_eq!(ran.exit, Exit::Well);
    assert!(
        ran.err.contains("the launch is still running"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_launch_that_destroys_asks_first() {
    let script = Script {
        plan: vec![plan("terminate", "web3"), plan("keep", "web1")],
        events: samples::launch(),
        ..Script::default()
    };
    let fake = Fake::start(script);
    let path = file(&fake);
    let refused = run(&fake, &["launch", &path, "--prune"]).await;
    assert_eq!((refused.exit, fake.asked().len()), (Exit::Usage, 1));
    assert!(
        refused.err.contains("1 instance: web3") && refused.err.contains("--yes"),
        "{}",
        refused.err
    );
    let taken = run(&fake, &["launch", &path, "--prune", "--yes"]).await;
    assert_eq!((taken.exit, fake.asked().len()), (Exit::Failed, 3));
}

#[tokio::test]
async fn a_master_that_dies_mid_launch_is_said_to_be_lost() {
    let mut fake = Fake::start(Script {
        events: samples::launch()[..3].to_vec(),
        then: Then::Die,
        ..Script::default()
    });
    let (env, path) = (env_in(fake.dir.path()), file(&fake));
    let words = ["launch", &path];
    let (ran, ()) = tokio::join!(run_in(&env, "", &words), fake.die_in_time());
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(
        ran.err
            .contains("error: lost the master; the launch is still running"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_stream_that_ends_too_soon_is_no_success() {
    let fake = Fake::start(Script {
        events: samples::launch()[..3].to_vec(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake)]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("lost the master"), "{}", ran.err);
}

#[tokio::test]
async fn wait_says_how_it_ended() {
    let fake = Fake::start(Script {
        events: vec![last(
            "wait-ended",
            1,
            "web2 is still booting after 30 s",
            "",
        )],
        ..Script::default()
    });
    let ran = run(
        &fake,
        &["wait", "*", "--state", "ready", "--timeout", "30s"],
    )
    .await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.err,
        "00:03:04Z hadoop web2 is still booting after 30 s\n"
    );
    assert!(fake.asked()[0].contains("timeout_ms: 30000"));
}

fn problem(message: &str, hint: &str) -> Problem {
    Problem {
        message: message.into(),
        hint: hint.into(),
        file: false,
    }
}

#[tokio::test]
async fn a_plan_shows_what_it_stands_on_and_what_is_in_its_way() {
    let script = Script {
        plan: vec![plan("create", "web1")],
        things: vec![PlanThing {
            action: ThingAction::Create.into(),
            kind: ThingKind::SecurityGroup.into(),
            name: "hadoop".into(),
            detail: "in vpc-1".into(),
        }],
        ..Script::default()
    };
    let fake = Fake::start(script.clone());
    let good = run(&fake, &["plan", &file(&fake)]).await;
    assert_eq!(
        (good.exit, good.out.as_str(), good.err.as_str()),
        (
            Exit::Well,
            "+ hadoop  create     security-group  in vpc-1\n+ web1    create     because\n",
            "plan: 1 create; besides: 1 security group\n"
        )
    );
    let fake = Fake::start(Script {
        problems: vec![problem("no image", "name one"), problem("no subnet", "")],
        ..script
    });
    let bad = run(&fake, &["plan", &file(&fake)]).await;
    assert_eq!(bad.exit, Exit::Failed);
    assert!(
        bad.out
            .ends_with("  1. no image\n     hint: name one\n  2. no subnet\n"),
        "{}",
        bad.out
    );
    let wrong = Problem {
        file: true,
        ..problem("bundle x: it is not there", "make it")
    };
    let of_file = Fake::start(Script {
        problems: vec![problem("no image", ""), wrong],
        ..Script::default()
    });
    for word in ["plan", "launch"] {
        let ran = run(&of_file, &[word, &file(&of_file)]).await;
        assert_eq!(ran.exit, Exit::Usage, "a bad file is exit 2: {word}");
    }
    let json = run(&fake, &["plan", &file(&fake), "--json"]).await;
    assert_eq!((json.exit, json.err.as_str()), (Exit::Failed, ""));
    assert_eq!(json.out.lines().count(), 5, "{}", json.out);
}

#[tokio::test]
async fn a_launch_with_problems_makes_nothing_and_lists_them() {
    let want = "error: not launched: 2 problems\n  1. no image\n     hint: name one\n  2. no \
                subnet\n     in us-west-2a\n     hint: make one\n";
    let planned = Fake::start(Script {
        problems: vec![
            problem("no image", "name one"),
            problem("no subnet\nin us-west-2a", "make one"),
        ],
        ..Script::default()
    });
    let ran = run(&planned, &["launch", &file(&planned)]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Failed, want));
    assert_eq!(planned.asked().len(), 1, "only the plan was asked for");
    // What the launch itself finds reads the same.
    let found = [
        problem("no image", "name one"),
        problem("no subnet\nin us-west-2a", "make one"),
    ];
    let refused = Fake::start(Script {
        refuse: Some(fault::problems(tonic::Code::FailedPrecondition, &found)),
        ..Script::default()
    });
    let ran = run(&refused, &["launch", &file(&refused)]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Failed, want));
}

#[tokio::test]
async fn however_many_problems_a_launch_has_it_is_refused_with_as_many_as_fit() {
    let found: Vec<Problem> = (0..400)
        .map(|n| problem(&format!("{n}: {}", "é".repeat(200)), "make one"))
        .collect();
    let refused = Fake::start(Script {
        refuse: Some(fault::problems(tonic::Code::FailedPrecondition, &found)),
        ..Script::default()
    });
    let ran = run(&refused, &["launch", &file(&refused)]).await;
    assert_eq!(ran.exit, Exit::Failed, "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines[0], "error: not launched: 400 problems");
    assert!(
        lines[1].trim_start().starts_with("1. 0: éé"),
        "{}",
        lines[1]
    );
    let shown = (lines.len() - 2) / 2;
    let more = format!("  and {} more", 400 - shown);
    assert!(
        shown > 10 && lines.last() == Some(&more.as_str()),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_fault_in_a_target_is_pointed_at() {
    let message = "a ] is missing".to_owned();
    let wrong = TargetFault {
        what: "target".to_owned(),
        message,
        hint: "write web*".to_owned(),
        ..TargetFault::default()
    };
    let refused = Fake::start(Script {
        refuse: Some(fault::target("é,web[", 6, wrong)),
        ..Script::default()
    });
    let ran = run(&refused, &["list", "é,web["]).await;
    let want = "error: target: a ] is missing\n  é,web[\n       ^\n  hint: write web*\n";
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Usage, want));
}

#[tokio::test]
async fn a_wait_tells_a_change_once() {
    let progress = |message: &str| Event {
        last: false,
        ..last("wait-progress", 0, message, "")
    };
    let waiting = "[1/2] instances 'running', waiting...";
    let fake = Fake::start(Script {
        events: vec![
            progress(waiting),
            progress(waiting),
            last("wait-progress", 0, "[2/2] instances 'running'", ""),
        ],
        ..Script::default()
    });
    let ran = run(&fake, &["wait", "*", "--state", "running"]).await;
    assert_eq!(
        (ran.exit, ran.err.as_str()),
        (
            Exit::Well,
            "00:03:04Z hadoop [1/2] instances 'running', waiting...\n00:03:04Z hadoop [2/2] instances 'running'\n"
        )
    );
}

#[tokio::test]
async fn another_file_with_the_same_clusters_name_asks_first() {
    let script = Script {
        plan: vec![plan("create", "web9"), plan("orphan", "web1")],
        other_file: "/srv/shop/cluster.yml".into(),
        events: vec![last("launch-ended", 0, "{}", "")],
        ..Script::default()
    };
    let fake = Fake::start(script.clone());
    let refused = run(&fake, &["launch", &file(&fake)]).await;
    assert_eq!((refused.exit, fake.asked().len()), (Exit::Usage, 1));
    assert!(
        refused.err.contains(
            "this cluster was launched from /srv/shop/cluster.yml, and this file leaves out 1 instance of it (web1)"
        ),
        "{}",
        refused.err
    );
    let fake = Fake::start(script);
    let taken = run(&fake, &["launch", "--yes", &file(&fake)]).await;
    assert_eq!(fake.asked().len(), 2, "{}", taken.err);
}
