//! Stages: their bundles are fetched, verified, unpacked and run.

use aot_proto::limits::EXIT_REBOOT;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{EndKind, StartRun};

use super::fake::{Rig, bundle, bundle_of, run_id, stage};

/// A run of a bundle with templates.
fn rendered(n: u128, sha: &str, bytes: u64, vars: &str, unless: &str) -> StartRun {
    let mut start = stage(n, sha, bytes);
    if let Some(What::Stage(mut stage)) = start.what.take() {
        stage.vars_json = vars.into();
        stage.unless_rendered = unless.into();
        start.what = Some(What::RenderedStage(stage));
    }
    start
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_with_templates_is_run_unless_they_become_what_they_were() {
    let mut rig = Rig::new().await;
    let (sha, bytes) = bundle_of(&[
        ("bootstrap.sh", b"ls etc; cat etc/x.conf"),
        ("etc/x.conf.j2", b"port {{ vars.port }}\n"),
    ]);
    let len = bytes.len() as u64;
    rig.master.lock().bundles.insert(sha.clone(), bytes);
    rig.start_agent();
    let mut last = String::new();
    for (n, vars, runs) in [
        (1, r#"{"port": 1}"#, true),
        (2, r#"{"port": 1, "other": 2}"#, false),
        (3, r#"{"port": 2}"#, true),
    ] {
        let start = rendered(n, &sha, len, vars, &last);
        assert!(rig.master.start(start).await.accepted);
        let result = rig.master.result(&run_id(n)).await;
        let ended = &result.ended;
        assert_eq!((ended.kind(), ended.exit_code), (EndKind::Exited, 0));
        assert_eq!(
            (ended.unchanged, result.started),
            (!runs, usize::from(runs)),
            "{vars}"
        );
        assert_eq!(ended.rendered_sha256 != last, runs, "{vars}");
        let port = if n == 3 { 2 } else { 1 };
        let wanted = format!("x.conf\nport {port}\n");
        assert_eq!(result.stdout(), if runs { wanted } else { String::new() });
        last.clone_from(&ended.rendered_sha256);
    }
    let conf = std::fs::read_to_string(rig.path("state/stages/stage-1/etc/x.conf"));
    assert_eq!(conf.expect("is there"), "port 2\n");
    rig.master.start(rendered(4, &sha, len, "{}", &last)).await;
    let result = rig.master.result(&run_id(4)).await;
    assert_eq!(
        (result.ended.kind(), result.started),
        (EndKind::NotStarted, 0)
    );
    let detail = &result.ended.detail;
    assert!(
        detail.contains("etc/x.conf.j2:1: undefined value"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_is_fetched_over_cuts_and_runs_in_its_folder() {
    let mut rig = Rig::new().await;
    let (sha, bytes) = bundle(
        "echo \"$1|$2\"; echo $AOT_STAGE $AOT_ATTEMPT $AOT_REBOOTS; echo $AOT_CLUSTER_FACTS; pwd; wc -c < data; exit 194",
    );
    let len = bytes.len() as u64;
    {
        let mut state = rig.master.lock();
        state.bundles.insert(sha.clone(), bytes);
        state.cut_fetches = 1;
    }
    rig.start_agent();
    assert!(rig.master.start(stage(1, &sha, len)).await.accepted);
    let result = rig.master.result(&run_id(1)).await;
    let (facts, folder) = (
        rig.path("etc/cluster_facts.json"),
        rig.path("state/stages/stage-1"),
    );
    assert_eq!(
        result.stdout(),
        format!(
            "--level|a b\n1 2 1\n{}\n{}\n20000\n",
            facts.display(),
            folder.display()
        )
    );
    assert_eq!(
        (result.ended.kind(), result.ended.exit_code),
        (EndKind::Exited, EXIT_REBOOT)
    );
    let offsets = rig.master.lock().fetch_offsets.clone();
    assert!(
        offsets.len() == 2 && offsets[0] == 0 && offsets[1] > 0,
        "{offsets:?}"
    );
    rig.master.start(stage(2, &sha, len)).await;
    rig.master.result(&run_id(2)).await;
    assert_eq!(
        rig.master.lock().fetch_offsets.len(),
        2,
        "a bundle that is there was fetched again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_not_what_was_promised_is_not_run() {
    let mut rig = Rig::new().await;
    let (_, bytes) = bundle("echo ran");
    let (bad, none) = ("a".repeat(64), "b".repeat(64));
    let len = bytes.len() as u64;
    rig.master.lock().bundles.insert(bad.clone(), bytes);
    let junk = b"not a tar at all, but long enough to be read as one".repeat(20);
    let junk_sha = aot_host::hash::sha256_hex(&junk);
    rig.master
        .lock()
        .bundles
        .insert(junk_sha.clone(), junk.clone());
    rig.start_agent();
    for (n, sha, bytes, reason) in [
        (1, bad, len, "SHA-256"),
        (2, none, len, "no such bundle"),
        (3, junk_sha, junk.len() as u64, "unpack"),
    ] {
        rig.master.start(stage(n, &sha, bytes)).await;
        let result = rig.master.result(&run_id(n)).await;
        assert_eq!(
            (result.ended.kind(), result.started),
            (EndKind::NotStarted, 0),
            "{reason}"
        );
        assert!(
            result.ended.detail.contains(reason),
            "{}",
            result.ended.detail
        );
    }
}
