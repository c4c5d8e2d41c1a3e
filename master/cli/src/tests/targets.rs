//! What narrows a target, and what is told of live machines to other programs.

use super::look::two_clusters;
use super::*;
use crate::hosts::tests::key_of;

fn script() -> Script {
    let facts = |instance: &str, facts_json: String| facts_reply::Entry {
        instance: instance.into(),
        facts_json,
    };
    let keys = serde_json::json!([key_of("ssh-ed25519"), "ssh-rsa x\n* y"]);
    Script {
        status: two_clusters(),
        facts: vec![
            facts(
                "manager",
                format!(r#"{{"main_user":"admin","ssh_host_keys":{keys}}}"#),
            ),
            facts("web1", r#"{"main_user":"a b","node":{"cpus":2}}"#.into()),
            facts("web2", "null".into()),
        ],
        ..Script::default()
    }
}

#[tokio::test]
async fn every_command_hands_on_what_narrows_its_target() {
    let fake = Fake::start(Script {
        events: vec![last("wait-progress", 0, "", "")],
        exec: vec![Body::Summary(JobSummary::default())],
        ..script()
    });
    for words in [
        &["list", "web*"][..],
        &["dns", "web*"],
        &["ip", "web*"],
        &["update", "web*"],
        &["facts", "web*"],
        &["wait", "web*", "--state", "ready"],
        &["exec", "web*", "ping"],
        &["exec", "web*", "uptime"],
        &["apply", "web*"],
        &["logs", "web*"],
        &["start", "web*"],
        &["stop", "-y", "web*"],
        &["reboot", "-y", "web*"],
        &["terminate", "-y", "web*"],
        &["agents", "revoke", "-y", "web*"],
    ] {
        let before = fake.asked().len();
        let all = [words, &["--exclude", "web3", "--limit", "2"]].concat();
        let ran = run(&fake, &all).await;
        assert_eq!(ran.exit, Exit::Well, "{words:?}: {}", ran.err);
        let asked = &fake.asked()[before..];
        let said = ["\"web*\"", "exclude: Some(\"web3\")", "limit: 2"];
        assert!(
            asked
                .iter()
                .any(|it| said.iter().all(|part| it.contains(part))),
            "{words:?}: {asked:?}"
        );
    }
}

#[tokio::test]
async fn a_question_names_what_is_left_of_the_target() {
    let fake = Fake::start(script());
    let ran = run(
        &fake,
        &["terminate", "*", "--exclude", "db*", "--limit", "3"],
    )
    .await;
    assert_eq!(ran.exit, Exit::Usage);
    let asked = fake.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].contains("exclude: Some(\"db*\"), limit: 3"),
        "{asked:?}"
    );
}

#[test]
fn a_limit_is_at_least_one() {
    for limit in ["0", "-1", "x"] {
        let words = ["aot-master", "list", "--limit", limit];
        let error = parse(words.map(Into::into)).expect_err(limit);
        assert_eq!(error.exit_code(), 2, "{limit}");
    }
}

#[tokio::test]
async fn revoke_asks_and_says_whom() {
    let fake = Fake::start(Script {
        agents: vec![aot_proto::v1::agents_reply::Entry {
            cluster: "hadoop".into(),
            instance: "web1".into(),
            machine_id: "i-0abc4".into(),
            revoked_unix_ms: 1_767_225_784_000,
            revoked_by: "uid 0".into(),
            ..Default::default()
        }],
        ..script()
    });
    let ran = run(&fake, &["agents", "revoke", "*"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    let question = "revoke the identities of 3 instances of cluster hadoop: manager, web1, web2";
    assert!(ran.err.contains(question), "{}", ran.err);
    let env = CliEnv {
        interactive: true,
        ..env_in(fake.dir.path())
    };
    let no = run_in(&env, "no\n", &["agents", "revoke", "web1"]).await;
    assert_eq!(no.exit, Exit::Failed);
    assert!(
        !fake
            .asked()
            .iter()
            .any(|it| it.starts_with("TargetRequest"))
    );
    let yes = run_in(&env, "y\n", &["agents", "revoke", "web1"]).await;
    assert_eq!(
        (yes.exit, &*yes.out),
        (Exit::Well, "web1  i-0abc4  revoked\n")
    );
    let json = run(&fake, &["agents", "revoke", "web1", "--yes", "--json"]).await;
    let line: serde_json::Value = serde_json::from_str(&json.out).expect("one line");
    assert_eq!(
        (&line["revoked"], &line["revoked_by"]),
        (&"2026-01-01T00:03:04.000Z".into(), &"uid 0".into())
    );
}

#[tokio::test]
async fn ssh_config_prints_blocks_and_writes_the_keys_of_all() {
    let fake = Fake::start(script());
    let file = fake.dir.path().join("hosts");
    let name = file.to_str().expect("UTF-8");
    let ran = run(&fake, &["ssh-config", "web1", "--known-hosts", name]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    let socket = fake.dir.path().join("master.sock");
    let way = format!("--socket {} connect web1 %p", socket.display());
    let is_led = |line: &str| {
        let command = line.strip_prefix("  ProxyCommand ");
        command.is_some_and(|it| it.contains("--cluster hadoop ") && it.ends_with(&way))
    };
    assert!(ran.out.lines().any(is_led), "{}", ran.out);
    let direct = ["ssh-config", "web*", "--direct", "--known-hosts", name];
    let ran = run(&fake, &direct).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    let shown = format!("{}---\n{}", ran.out, ran.err).replace(name, "HOSTS");
    insta::assert_snapshot!("ssh_config", shown);
    let hosts = std::fs::read_to_string(&file).expect("written");
    assert_eq!(hosts, format!("manager {}\n", key_of("ssh-ed25519")));

    let missing = fake.dir.path().join("no/where");
    let name = missing.to_str().expect("UTF-8");
    let ran = run(&fake, &["ssh-config", "--known-hosts", name]).await;
    assert_eq!((ran.exit, &*ran.out), (Exit::Failed, ""));
    assert!(ran.err.contains("cannot write"), "{}", ran.err);
}

#[tokio::test]
async fn inventory_is_what_ansible_asks_a_script_for() {
    let fake = Fake::start(script());
    let list = run(&fake, &["inventory", "--ansible", "--list"]).await;
    assert_eq!(list.exit, Exit::Well, "{}", list.err);
    let list: serde_json::Value = serde_json::from_str(&list.out).expect("JSON");
    let plain = run(&fake, &["inventory", "--json"]).await;
    assert_eq!(
        list.to_string(),
        plain.out.trim_end(),
        "one line, always the same"
    );
    let vars = &list["_meta"]["hostvars"]["manager"];
    assert_eq!(vars["ansible_user"], "admin", "{list}");
    let host = run(&fake, &["inventory", "--host", "manager"]).await;
    let host: serde_json::Value = serde_json::from_str(&host.out).expect("JSON");
    assert_eq!(host, *vars);
    let nobody = run(&fake, &["inventory", "--host", "nobody"]).await;
    assert_eq!(nobody.exit, Exit::NoMatch);
    assert!(
        list["_meta"]["hostvars"].get("web2").is_none(),
        "it has no machine"
    );
}
