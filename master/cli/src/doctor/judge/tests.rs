use std::path::Path;

use super::*;
use crate::view::samples;

fn level(finding: &Finding) -> &'static str {
    FindingLevel::name_of(finding.level)
}

fn levels(findings: &[Finding]) -> Vec<String> {
    let text = |it: &Finding| format!("{} {}", level(it), it.check);
    findings.iter().map(text).collect()
}

fn good() -> HostFacts {
    HostFacts {
        state_dir: "/var/lib/aot".into(),
        state_mode: Some(0o700),
        disk: Some((10 << 30, 100 << 30)),
        open_files: Some((1024, 524_288)),
        listen: Some(Ok(())),
        agents: vec!["aot-agent-x86_64".to_owned()],
        daemon: true,
        clock: Some(true),
        kernel: KernelFacts {
            root: true,
            cgroup2: true,
            overlay: true,
            namespaces: true,
            no_userns: None,
        },
    }
}

fn plan() -> ServePlan {
    ServePlan {
        listen: "0.0.0.0:7440".to_owned(),
        agent_dir: None,
    }
}

#[test]
fn a_good_host_is_well_with_and_without_a_master() {
    let alone = host(&good(), None, Some(&plan()));
    let all = [
        "state",
        "disk",
        "open files",
        "agent files",
        "kernel",
        "clock",
    ];
    assert_eq!(levels(&alone), all.map(|name| format!("ok {name}")));
    let served = host(&good(), Some(&InfoReply::default()), Some(&plan()));
    let all = ["state", "open files", "clock"];
    assert_eq!(levels(&served), all.map(|name| format!("ok {name}")));
}

#[test]
fn each_fault_of_a_host_is_named_with_its_way_out() {
    type Break = fn(&mut HostFacts);
    let table: [(Break, &str); 13] = [
        (|it| it.state_mode = Some(0o755), "fail state"),
        (|it| it.disk = Some((100 << 20, 100 << 30)), "fail disk"),
        (|it| it.disk = Some((300 << 20, 100 << 30)), "warn disk"),
        // A tenth of a small disk is kept, not more.
        (|it| it.disk = Some((60 << 20, 1 << 30)), "fail disk"),
        (|it| it.open_files = Some((1024, 1024)), "warn open files"),
        (|it| it.listen = Some(Err("taken".to_owned())), "fail ports"),
        (|it| it.agents.clear(), "fail agent files"),
        (|it| it.daemon = false, "fail programs"),
        (|it| it.clock = Some(false), "warn clock"),
        (|it| it.kernel.overlay = false, "warn kernel"),
        (|it| it.kernel.cgroup2 = false, "warn kernel"),
        (|it| it.kernel.namespaces = false, "warn kernel"),
        (
            |it| {
                it.kernel.root = false;
                it.kernel.no_userns = Some(("user/max_user_namespaces", "0".to_owned()));
            },
            "warn kernel",
        ),
    ];
    for (damage, wanted) in table {
        let mut facts = good();
        damage(&mut facts);
        let findings = host(&facts, None, Some(&plan()));
        let wrong: Vec<&Finding> = findings.iter().filter(|it| level(it) != "ok").collect();
        assert_eq!(wrong.len(), 1, "{wanted}: {findings:?}");
        assert_eq!(levels(&[wrong[0].clone()]), [wanted]);
        assert!(!wrong[0].hint.is_empty(), "{wanted} has no way out");
    }
    let mut root = good();
    root.kernel.no_userns = Some(("user/max_user_namespaces", "0".to_owned()));
    assert_eq!(level(&host(&root, None, None)[4]), "ok", "root needs none");
    let unknown = HostFacts {
        clock: None,
        ..good()
    };
    let findings = host(&unknown, None, None);
    assert_eq!(levels(&findings).last().expect("a clock"), "skipped clock");
}

#[test]
fn agents_that_should_be_connected_and_are_not_are_named_by_cluster() {
    let now_ms = 1_767_225_900_000;
    let one = |name: &str, connected, seen_before_ms| {
        let mut view = samples::view(name, "ready", &["succeeded"]);
        view.set_state(MachineState::Running);
        view.connected = connected;
        view.last_seen_unix_ms = now_ms - seen_before_ms;
        view.agent_version = "0.1.0".to_owned();
        view
    };
    let of = |instances: Vec<InstanceView>| {
        let status = StatusReply {
            instances,
            ..StatusReply::default()
        };
        agents(&status, "0.1.0", now_ms, UtcOffset::UTC)
    };
    let well = of(vec![one("web1", true, 1), one("web2", true, 1)]);
    assert_eq!(levels(&well), ["ok agents"]);
    assert_eq!(well[0].message, "2 agents connected");
    let away = of(vec![
        one("web1", true, 1),
        one("web2", false, 5_000),
        one("web3", false, 3_600_000),
    ]);
    assert_eq!(levels(&away), ["fail agents"]);
    let wanted = "2 agents whose machines run are not connected: web[2-3]; the longest since 2025-12-31 23:05:00Z";
    assert_eq!(away[0].message, wanted);
    assert_eq!(
        levels(&of(vec![one("web2", false, 5_000)])),
        ["warn agents"]
    );
    let mut stopped = one("web4", false, 3_600_000);
    stopped.set_state(MachineState::Stopped);
    let mut new = one("web5", false, 0);
    new.last_seen_unix_ms = 0;
    assert_eq!(levels(&of(vec![stopped, new])), ["ok agents"]);
    let mut old = one("web6", true, 1);
    old.agent_version = "0.0.9".to_owned();
    let old = of(vec![old, one("web7", true, 1)]);
    assert_eq!(levels(&old), ["ok agents", "warn versions"]);
    assert!(
        old[1].message.ends_with("1 of version 0.0.9: web6"),
        "{old:?}"
    );
}

#[test]
fn builds_that_differ_are_a_warning() {
    let info = |master: &str, build: &str| InfoReply {
        version: "0.1.0".to_owned(),
        build: build.to_owned(),
        master: master.to_owned(),
        ..InfoReply::default()
    };
    let mut own = info("a", "0.1.0 (1)");
    own.others = vec![info("b", "0.1.0 (1)")];
    assert_eq!(level(&builds("0.1.0 (1)", &own)), "ok");
    assert_eq!(level(&builds("", &own)), "ok", "not known is not compared");
    let differs = builds("0.1.0 (2)", &own);
    assert_eq!(level(&differs), "warn");
    own.others.push(info("c", "0.1.0 (3)"));
    let differs = builds("0.1.0 (1)", &own);
    let wanted = "the master is 0.1.0 (1), c is 0.1.0 (3)";
    assert_eq!((level(&differs), &*differs.message), ("warn", wanted));
}

#[test]
fn that_no_master_runs_is_no_fault_but_that_one_is_shut_is() {
    let error = |kind| Error::NoMaster {
        socket: Path::new("/run/aot/master.sock").into(),
        source: std::io::Error::from(kind),
    };
    let none = unreached(&error(std::io::ErrorKind::NotFound));
    assert_eq!(level(&none), "skipped");
    let shut = unreached(&error(std::io::ErrorKind::PermissionDenied));
    assert_eq!(level(&shut), "fail");
    assert!(shut.hint.contains("only root"), "{shut:?}");
}
