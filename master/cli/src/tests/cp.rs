//! Copies: what is asked of the master, and what is believed of instances.

use aot_archive::{Digest, Digesting};
use futures::StreamExt;
use tokio::sync::Notify;

use super::*;
use crate::cp;
use crate::interrupt::Interrupt;

fn output(instance: &str, stderr: bool, data: &[u8]) -> Body {
    Body::Output(JobOutput {
        instance: instance.into(),
        stderr,
        data: data.to_vec().into(),
    })
}

fn ended(instance: &str, outcome: &str, exit_code: i32) -> Body {
    Body::Ended(JobEnded {
        instance: instance.into(),
        outcome: samples::outcome(outcome),
        exit_code: Some(exit_code),
        seconds: 1.5,
        ..JobEnded::default()
    })
}

fn started(instances: &[&str]) -> Body {
    Body::Started(JobStarted {
        job_id: "job-1".into(),
        instances: instances.iter().map(|name| (*name).into()).collect(),
        ..JobStarted::default()
    })
}

fn summary(count: u32) -> Body {
    Body::Summary(JobSummary {
        job_id: "job-1".into(),
        outcomes: samples::counts(&[("succeeded", count)]),
        exit_code: 0,
        ..JobSummary::default()
    })
}

/// The archive of a file `log` with this text, and its SHA-256 as an instance prints it.
fn packed(text: &str) -> (Vec<u8>, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("log");
    std::fs::write(&path, text).expect("writes");
    let mut out = Digesting::new(Vec::new());
    let sources = aot_archive::sources(&[path]).expect("sources");
    aot_archive::pack(&sources, &mut out, &mut |_| {}).expect("packs");
    let (bytes, sha256) = out.finish();
    (bytes, format!("{sha256}\n"))
}

/// One entry that would be written beside the folder.
fn hostile() -> (Vec<u8>, String) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..6].copy_from_slice(b"../out");
    header.set_size(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(2048, 0);
    let mut digest = Digest::default();
    digest.update(&bytes);
    (bytes, digest.hex())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_instances_send_is_believed_only_when_it_is_right() {
    let (good, sha256) = packed("text");
    let (bad, of_bad) = hostile();
    let names_of_all = ["web1", "web2", "web3", "web4", "web5"];
    let fake = Fake::start(Script {
        exec: vec![
            started(&names_of_all),
            output("web1", false, &good[..700]),
            output("web2", false, &bad),
            output("web1", false, &good[700..]),
            output("web1", true, b"/dev/x was left out\n"),
            output("web1", true, sha256.as_bytes()),
            output("web2", true, of_bad.as_bytes()),
            output("web3", false, &good),
            output("web3", true, "0".repeat(64).as_bytes()),
            output("web4", false, &good[..600]),
            output("web4", true, b"/log: Permission denied\n"),
            ended("web1", "succeeded", 0),
            ended("web2", "succeeded", 0),
            ended("web3", "succeeded", 0),
            ended("web4", "failed", 1),
            ended("web5", "succeeded", 0),
            summary(4),
        ],
        ..Script::default()
    });
    let to = fake.dir.path().join("to");
    let to_text = to.to_str().expect("UTF-8");

    let ran = run(&fake, &["cp", "--json", "web*:/log", to_text]).await;

    assert_eq!(ran.exit, Exit::Failed, "{}", ran.err);
    assert_eq!(names(&to), ["web1"]);
    assert_eq!(
        std::fs::read_to_string(to.join("web1/log")).expect("reads"),
        "text"
    );
    assert!(!fake.dir.path().join("out").exists());
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let said: Vec<(&str, bool)> = lines[1..5]
        .iter()
        .zip(["refused", "SHA-256", "Permission denied", "nothing came"])
        .map(|(line, why)| {
            let detail = line["detail"].as_str().expect("a detail");
            (
                line["outcome"].as_str().expect("a word"),
                detail.contains(why),
            )
        })
        .collect();
    assert_eq!(said, [("failed", true); 4], "{}", ran.out);
    assert_eq!(lines[0]["stderr"], "/dev/x was left out");
    assert_eq!(
        lines[5].to_string(),
        r#"{"job":"job-1","summary":{"failed":4,"succeeded":1}}"#
    );
}

#[tokio::test]
async fn one_that_is_named_goes_straight_to_its_place() {
    let (good, sha256) = packed("text");
    let fake = Fake::start(Script {
        exec: vec![
            started(&["web1"]),
            output("web1", false, &good),
            output("web1", true, sha256.as_bytes()),
            ended("web1", "succeeded", 0),
            summary(1),
        ],
        ..Script::default()
    });
    let to = fake.dir.path().join("copy");
    let ran = run(&fake, &["cp", "web1:/log", to.to_str().expect("UTF-8")]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert_eq!(ran.out, "");
    let begins = "1 succeeded; 2.0 KiB in ";
    assert!(ran.err.starts_with(begins), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(to).expect("reads"), "text");
    assert!(
        fake.asked()[0].contains("paths: [\"/log\"]"),
        "{:?}",
        fake.asked()
    );
}

#[tokio::test]
async fn a_copy_to_many_is_uploaded_and_asked_for_by_its_digest() {
    let fake = Fake::start(Script {
        exec: vec![
            started(&["web1", "web2"]),
            output("web2", true, b"/srv: Read-only file system\n"),
            ended("web2", "failed", 1),
            ended("web1", "succeeded", 0),
            summary(1),
        ],
        ..Script::default()
    });
    let source = fake.dir.path().join("x");
    std::fs::write(&source, "text").expect("writes");
    let source = source.to_str().expect("UTF-8");
    let ran = run(
        &fake,
        &[
            "cp",
            source,
            "web*:/srv/",
            "--concurrency",
            "1",
            "--limit",
            "2",
        ],
    )
    .await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.err,
        "1 failed, 1 succeeded: web2 (/srv: Read-only file system)\n"
    );
    let asked = &fake.asked()[0];
    for part in [
        "into: true",
        "path: \"/srv/\"",
        "concurrency: Some(\"1\")",
        "limit: 2",
        "sha256: \"",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
}

/// A copy to an instance, with Ctrl-C at these times after it began, answered so. It ends once the master has been asked to
/// cancel it; never when there is another Ctrl-C.
async fn interrupted(
    presses_ms: &[u64],
    answers: Vec<&'static str>,
) -> (Exit, String, Vec<String>) {
    let fake = Fake::start(Script::default());
    let (env, err) = (env_in(fake.dir.path()), Shared::default());
    let mut io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Out::new(Shared::default()),
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
    let rest = [ended("web1", "cancelled", 0), summary(0)];
    let (shown, goes_on) = (Arc::new(Notify::new()), presses_ms.len() == 1);
    let begun = Arc::clone(&shown);
    let later = futures::stream::once(async {
        shown.notify_one();
        match goes_on {
            true => super::exec::was_asked(&fake).await,
            false => std::future::pending().await,
        }
    });
    let rest = later.flat_map(move |()| futures::stream::iter(rest.clone()));
    let events = futures::stream::iter([started(&["web1"])]).chain(rest);
    let events = events.map(|body| Ok(aot_proto::v1::JobEvent { body: Some(body) }));
    let begun = async move { begun.notified().await };
    let interrupt = Interrupt::scripted_from(begun, presses_ms, Some(answers));
    let (job, view) = (
        cp::CopyJob::default(),
        crate::view::CopyView::new(false, false),
    );
    let (ran, id) = cp::follow(&mut ctx, Some(client), view, job, events, interrupt).await;
    assert_eq!(id, "job-1");
    let exit = ran.unwrap_or_else(|error| error.exit());
    (exit, err.text(), fake.asked())
}

#[tokio::test]
async fn ctrl_c_in_a_terminal_asks_whether_a_copy_is_to_be_cancelled() {
    let (exit, err, asked) = interrupted(&[20], vec!["c"]).await;
    assert_eq!(exit, Exit::Failed);
    assert_eq!(
        err,
        "\ndetach (the job continues) or cancel it? [d/c] cancelling; Ctrl-C once more detaches\n\
         1 cancelled: web1 (cancelled)\n"
    );
    assert_eq!(
        asked,
        [r#"CancelJobRequest { job_id: "job-1", grace_ms: 0 }"#]
    );
    for (presses, answers, cancelled) in [
        (&[20][..], vec!["d"], 0),
        (&[20, 40], vec![], 0),
        (&[20, 60], vec!["c"], 1),
    ] {
        let (exit, _, asked) = interrupted(presses, answers).await;
        assert_eq!((exit, asked.len()), (Exit::Interrupted, cancelled));
    }
}
