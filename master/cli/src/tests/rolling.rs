//! Changes at a pace: what is asked of the master, and of whoever sits at the terminal.

use super::*;

fn in_terminal(fake: &Fake) -> CliEnv {
    CliEnv {
        interactive: true,
        ..env_in(fake.dir.path())
    }
}

fn rerun(instance: &str, at_once: bool) -> PlanLine {
    PlanLine {
        stage: "base".to_owned(),
        has: "a".repeat(64),
        wants: "b".repeat(64),
        at_once,
        ..plan("rerun", instance)
    }
}

fn script(at_once: bool) -> Script {
    Script {
        plan: vec![rerun("web1", at_once), rerun("web2", at_once)],
        events: vec![last("launch-ended", 0, "2 instances are ready", "{}")],
        ..Script::default()
    }
}

const QUESTION: &str = "rerun `base` on 2 instances at once? [y/N]";

#[tokio::test]
async fn many_at_once_are_asked_about_in_a_terminal() {
    for command in ["launch", "apply"] {
        let fake = Fake::start(script(true));
        let path = file(&fake);
        let words = |more: &[&'static str]| -> Vec<String> {
            let of = (command == "launch").then_some(&*path);
            let words = std::iter::once(command)
                .chain(of)
                .chain(more.iter().copied());
            words.map(str::to_owned).collect()
        };
        let go = async |env: &CliEnv, stdin: &str, more: &[&'static str]| {
            let words = words(more);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            run_in(env, stdin, &words).await
        };
        let (terminal, none) = (in_terminal(&fake), env_in(fake.dir.path()));
        let no = go(&terminal, "n\n", &[]).await;
        assert_eq!(no.exit, Exit::Failed, "{command}");
        assert!(no.err.contains(QUESTION), "{command}: {}", no.err);
        let asked = fake.asked().len();
        assert_eq!(asked, 1, "only a plan was asked for: {command}");
        for (env, stdin, more) in [
            (&terminal, "y\n", &[][..]),
            (&terminal, "", &["--yes"]),
            (&terminal, "", &["--concurrency", "1"]),
            (&none, "", &[]),
        ] {
            let ran = go(env, stdin, more).await;
            assert_eq!(ran.exit, Exit::Well, "{command} {more:?}: {}", ran.err);
            let was_asked = ran.err.contains(QUESTION);
            assert_eq!(was_asked, stdin == "y\n", "{command} {more:?}: {}", ran.err);
        }
    }
}

#[tokio::test]
async fn a_pace_in_the_file_is_asked_about_by_nobody() {
    let fake = Fake::start(script(false));
    let path = file(&fake);
    for words in [&["launch", &path][..], &["apply"]] {
        let ran = run_in(&in_terminal(&fake), "", words).await;
        assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
        assert!(!ran.err.contains("[y/N]"), "{}", ran.err);
    }
}

#[tokio::test]
async fn the_flags_of_a_pace_reach_the_master() {
    let fake = Fake::start(script(false));
    let path = file(&fake);
    let flags = [
        "--concurrency",
        "25%",
        "--canary",
        "0",
        "--max-errors",
        "2",
        "--batch-wait",
        "90s",
    ];
    for words in [&["launch", &*path][..], &["apply", "web"]] {
        run(&fake, &[words, &flags[..]].concat()).await;
        let asked = fake.asked();
        let last = asked.last().expect("it was asked");
        let wanted = "update: Some(UpdatePace { concurrency: Some(\"25%\"), max_errors: Some(\"2\"), canary: Some(0), batch_wait_ms: Some(90000) })";
        assert!(last.contains(wanted), "{last}");
    }
    run(&fake, &["apply", "web"]).await;
    let asked = fake.asked();
    let last = asked.last().expect("it was asked");
    assert!(last.contains("update: None"), "{last}");
}

#[tokio::test]
async fn a_plan_of_a_target_is_one_of_an_apply() {
    let fake = Fake::start(script(false));
    let ran = run(&fake, &["plan", "web"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    let asked = fake.asked();
    assert!(
        asked[0].contains("apply: Some(ApplyRequest {")
            && asked[0].contains("target: Some(\"web\")"),
        "{asked:?}"
    );
    insta::assert_snapshot!(format!("{}-----\n{}", ran.err, ran.out));
    let json = run(&fake, &["plan", "web", "--json"]).await;
    insta::assert_snapshot!("a_plan_with_versions_in_json", json.out);
    let path = file(&fake);
    for words in [
        &["plan", &*path][..],
        &["plan", "gone.yml"],
        &["plan", "./web"],
    ] {
        run(&fake, words).await;
    }
    let asked = fake.asked();
    assert_eq!(
        asked.len(),
        3,
        "files that are not there are not asked about: {asked:?}"
    );
    assert!(asked[2].contains("apply: None"), "{asked:?}");
    let mixed = run(&fake, &["plan", "web", "--prune"]).await;
    assert_eq!(mixed.exit, Exit::Usage);
    assert!(mixed.err.contains("--prune is for a file"), "{}", mixed.err);
}

#[tokio::test]
async fn a_status_says_who_has_which_version() {
    let mut status = super::look::two_clusters();
    let (first, second) = ("a".repeat(64), "b".repeat(64));
    for (number, view) in status.instances.iter_mut().enumerate() {
        view.pool = "web".to_owned();
        view.stage_views = vec![aot_proto::v1::StageView {
            name: "base".to_owned(),
            bundle_sha256: if number == 0 {
                first.clone()
            } else {
                second.clone()
            },
            state: aot_proto::v1::StageState::Succeeded.into(),
            ..Default::default()
        }];
    }
    let fake = Fake::start(Script {
        status,
        ..Script::default()
    });
    let ran = run(&fake, &["status"]).await;
    assert!(
        ran.out.contains("web, stage base: aaaaaaaaaaaa on "),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn variables_of_an_apply_go_with_the_file_and_its_plan() {
    let fake = Fake::start(script(true));
    let path = file(&fake);
    let given = ["--file", &path, "--set", "version=2"];
    let plan = run(&fake, &[&["plan", "web"], &given[..]].concat()).await;
    assert_eq!(plan.exit, Exit::Well, "{}", plan.err);
    let terminal = in_terminal(&fake);
    let words = [&["apply", "web", "--from", "1"], &given[..]].concat();
    let ran = run_in(&terminal, "y\n", &words).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert!(ran.err.contains(QUESTION), "{}", ran.err);
    let asked = fake.asked();
    for (asked, kind) in asked
        .iter()
        .zip(["PlanRequest", "PlanRequest", "ApplyFileRequest"])
    {
        assert!(asked.starts_with(kind), "{asked}");
        assert!(asked.contains("text: \"cluster: hadoop\\n\""), "{asked}");
        assert!(asked.contains("set: [\"version=2\"]"), "{asked}");
        assert!(asked.contains("target: Some(\"web\")"), "{asked}");
    }
    assert!(asked[2].contains("from: Some(1)"), "{asked:?}");
}

#[tokio::test]
async fn variables_without_a_file_and_a_file_without_variables_are_refused() {
    let fake = Fake::start(script(false));
    let path = file(&fake);
    for (words, said) in [
        (
            &["apply", "--set", "version=2"][..],
            "need the cluster's file, and there is no cluster.yml here\n  hint: name it with --file FILE",
        ),
        (
            &["plan", "web", "--set", "version=2"],
            "there is no cluster.yml here",
        ),
        (
            &["apply", "--file", &path],
            "--file is for --set and --vars",
        ),
        (&["plan", &path, "--file", &path], "two files"),
        (
            &["apply", "--file", "/none.yml", "--set", "a=1"],
            "cannot read /none.yml",
        ),
    ] {
        let ran = run(&fake, words).await;
        assert_eq!(ran.exit, Exit::Usage, "{words:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{words:?}: {}", ran.err);
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}
