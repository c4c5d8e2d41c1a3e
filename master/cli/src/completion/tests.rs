//! What is offered where, with a master and without one.

use std::time::Instant;

use aot_proto::v1::{ClusterView, InstanceView, StageView, StatusReply, jobs_reply};

use super::*;
use crate::fake::{Fake, Script};
use crate::tests::env_in;

fn fake() -> Fake {
    let view = |name: &str, pool: &str| InstanceView {
        cluster: "shop".into(),
        name: name.into(),
        pool: pool.into(),
        stage_views: vec![StageView {
            name: "base".into(),
            ..StageView::default()
        }],
        ..InstanceView::default()
    };
    let job = |id: &str| jobs_reply::Entry {
        job_id: id.into(),
        what: "exec web -- uptime".into(),
        ..jobs_reply::Entry::default()
    };
    Fake::start(Script {
        status: StatusReply {
            instances: vec![view("lead", ""), view("web1", "web"), view("web2", "web")],
            clusters: vec![ClusterView {
                name: "shop".into(),
                groups: [("edge".to_owned(), "pool:web".to_owned())].into(),
                ..ClusterView::default()
            }],
            ..StatusReply::default()
        },
        jobs: ["job-01ABC", "job-02X"].map(job).into(),
        ..Script::default()
    })
}

/// What is offered for the last of these words.
fn offered(fake: Option<&Fake>, line: &str) -> Vec<String> {
    let mut command = command(fake.map(|fake| (env_in(fake.dir.path()), None)));
    let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
    let last = words.len() - 1;
    let found = clap_complete::engine::complete(&mut command, words, last, None);
    let found = found.expect("completes").into_iter();
    found
        .map(|it| it.get_value().to_string_lossy().into_owned())
        .filter(|word| !word.starts_with('-'))
        .collect()
}

#[test]
fn names_are_offered_where_names_are_wanted() {
    let fake = fake();
    for (line, wanted) in [
        (
            "aot-master exec ",
            &["lead", "web1", "web2", "web", "@edge"][..],
        ),
        ("aot-master exec we", &["web1", "web2", "web"]),
        (
            "aot-master exec lead,web1,w",
            &["lead,web1,web1", "lead,web1,web2", "lead,web1,web"],
        ),
        ("aot-master exec pool:w", &["pool:web"]),
        ("aot-master exec web p", &["ping"]),
        ("aot-master list --exclude l", &["lead"]),
        ("aot-master --cluster s", &["shop"]),
        ("aot-master cleanup s", &["shop"]),
        ("aot-master apply --from b", &["base"]),
        ("aot-master shell w", &["web1", "web2"]),
        ("aot-master jobs show ", &["last", "job-01ABC", "job-02X"]),
        ("aot-master jobs cancel 02", &["02X"]),
        ("aot-master cp x w", &["web1:/", "web2:/", "web:/"]),
        ("aot-master wait web1 --state fa", &["failed"]),
        ("aot-master comp", &["completion"]),
    ] {
        assert_eq!(offered(Some(&fake), line), wanted, "{line}");
    }
}

#[test]
fn no_name_plays_with_the_terminal() {
    let job = |id: &str, what: &str| jobs_reply::Entry {
        job_id: id.into(),
        what: what.into(),
        ..jobs_reply::Entry::default()
    };
    let fake = Fake::start(Script {
        jobs: vec![
            job("job-01\x1b[2J", ""),
            job("job-02", "exec a -- \x1b]0;x\x07"),
        ],
        ..Script::default()
    });
    let mut command = command(Some((env_in(fake.dir.path()), None)));
    let words = ["aot-master", "jobs", "show", ""]
        .map(OsString::from)
        .to_vec();
    let found = clap_complete::engine::complete(&mut command, words, 3, None);
    let shown = |it: &clap_complete::CompletionCandidate| {
        let about = it.get_help().map(ToString::to_string).unwrap_or_default();
        format!("{} {about}", it.get_value().to_string_lossy())
    };
    let all: Vec<String> = found.expect("completes").iter().map(shown).collect();
    assert!(
        all.contains(&"job-02 exec a -- ?]0;x?".to_owned()),
        "{all:?}"
    );
    assert!(!all.iter().any(|it| it.contains('\x1b')), "{all:?}");
}

#[test]
fn without_a_master_commands_are_offered_and_nothing_is_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let begun = Instant::now();
    let env = env_in(dir.path());
    let mut command = command(Some((env, None)));
    let words = ["aot-master", "exec", ""].map(OsString::from).to_vec();
    let found = clap_complete::engine::complete(&mut command, words, 2, None);
    let found = found.expect("completes");
    let is_flag =
        |it: &clap_complete::CompletionCandidate| it.get_value().to_string_lossy().starts_with('-');
    assert!(found.iter().all(is_flag), "{found:?}");
    assert!(
        begun.elapsed() < names::WITHIN * 10,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(offered(None, "aot-master lau"), ["launch"]);
}

#[test]
fn a_master_that_says_nothing_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let _silent = std::os::unix::net::UnixListener::bind(dir.path().join("master.sock"));
    let begun = Instant::now();
    let names = LiveNames::new(env_in(dir.path()), None);
    assert_eq!(names.instances(), []);
    let took = begun.elapsed();
    assert!(
        took >= names::WITHIN && took < names::WITHIN * 10,
        "{took:?}"
    );
}

#[test]
fn the_master_of_the_line_is_asked() {
    let line = |line: &str| {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let found = of_master(&words);
        let found: Vec<_> = found.iter().map(|word| word.to_string_lossy()).collect();
        found.join(" ")
    };
    for (given, wanted) in [
        ("aot-master exec ", "aot-master status"),
        (
            "aot-master --socket /a exec --cluster=c web",
            "aot-master status --socket /a --cluster=c",
        ),
        ("aot-master list --cluster ", "aot-master status"),
        ("aot-master exec x -- ls --socket /b", "aot-master status"),
    ] {
        assert_eq!(line(given), wanted, "{given}");
    }
}

#[test]
fn each_shell_has_a_script_that_asks_this_program() {
    for shell in [
        CompletionShell::Bash,
        CompletionShell::Zsh,
        CompletionShell::Fish,
    ] {
        let script = script(shell).expect("a script");
        assert!(
            script.contains("AOT_COMPLETE") && script.contains("aot-master"),
            "{script}"
        );
    }
}
