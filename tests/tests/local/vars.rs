//! Variables and templates on clones of this machine: one file under two names, and stages that run again when a variable or
//! another instance changes a file of theirs, and only then.

use std::time::Duration;

use aot_tests::rig::Rig;

/// Time for a launch.
const LAUNCH: Duration = Duration::from_secs(180);

const FILE: &str = r#"
vars: {cluster: first, size: 1, port: 80, motto: hello, unused: 1}
cluster: ${cluster}
provider: local
pools:
  - name: web
    size: ${size}
    bootstrap_sequence:
      - {dir: plain, args: ["$cluster_name", "$${HOME}"]}
      - dir: site
      - dir: peers
"#;

/// Notes that it ran.
const LEDGER: &str = "mkdir -p /opt; echo $AOT_STAGE >> /opt/ledger\n";

fn rig() -> Rig {
    let rig = Rig::local();
    rig.bundle("plain", &format!("{LEDGER}echo \"$1 $2\" > /opt/args\n"));
    rig.bundle("site", &format!("{LEDGER}cp etc/site.conf /opt/\n"));
    rig.bundle("peers", &format!("{LEDGER}cp peers /opt/\n"));
    let site = "{{ instance }} of {{ pool }}: {{ vars.motto }} at {{ facts.ip_address }}:{{ vars.port }}\n";
    rig.file("site/etc/site.conf.j2", site);
    rig.file(
        "peers/peers.j2",
        "{% for name in cluster %}{{ name }}\n{% endfor %}",
    );
    rig.cluster(FILE);
    rig
}

#[track_caller]
fn launch(rig: &Rig, set: &[&str]) {
    let mut words = vec!["launch", "--json", "--yes", "cluster.yml"];
    words.extend(set.iter().flat_map(|one| ["--set", *one]));
    rig.cli_within(LAUNCH, words).expect(0);
}

fn ledger(rig: &Rig, instance: &str) -> String {
    rig.sh(instance, "tr -d '\\n' < /opt/ledger")
}

#[test]
fn a_template_runs_its_stage_again_only_when_its_file_changes() {
    let rig = rig();
    launch(&rig, &[]);
    let address = rig.status()["web1"]["private_ip"].clone();
    let address = address.as_str().expect("an address").to_owned();
    let conf = format!("web1 of web: hello at {address}:80");
    assert_eq!(rig.sh("web1", "cat /opt/site.conf"), conf);
    assert_eq!(rig.sh("web1", "cat /opt/args"), "first ${HOME}");
    assert_eq!(
        rig.sh("web1", "ls /var/lib/aot/stages/stage-1/etc"),
        "site.conf"
    );

    launch(&rig, &[]);
    launch(&rig, &["unused=2"]);
    assert_eq!(ledger(&rig, "web1"), "012", "no file is another");
    // The variables of the last launch are those of what comes after it.
    launch(&rig, &["port=81"]);
    assert_eq!(ledger(&rig, "web1"), "01212", "from the changed stage on");
    rig.cli_within(LAUNCH, ["apply", "--force"]).expect(0);
    assert_eq!(ledger(&rig, "web1"), "01212012");
    assert_eq!(
        rig.sh("web1", "cat /opt/site.conf"),
        conf.replace(":80", ":81")
    );

    launch(&rig, &["port=81", "size=2"]);
    assert_eq!(
        ledger(&rig, "web1"),
        "012120122",
        "who is there is in one file"
    );
    assert_eq!(ledger(&rig, "web2"), "012");
    assert_eq!(rig.sh("web1", "cat /opt/peers"), "web1\nweb2");
}

#[test]
fn a_mistake_in_a_template_fails_its_stage_by_file_and_line() {
    let rig = rig();
    rig.file("site/etc/site.conf.j2", "fine\n{{ vars.prot }}\n");
    let output = rig.launch();
    output.expect(1);
    let failed = output.one(|line| line["event"] == "stage-ended" && line["stage"] == 1);
    let said = failed["detail"].as_str().unwrap_or_default();
    assert!(
        said.contains("etc/site.conf.j2:2: undefined value: vars.prot"),
        "{}",
        output.shown()
    );
    rig.file("site/etc/site.conf.j2", "{{ vars.port }}\n");
    launch(&rig, &[]);
    assert_eq!(ledger(&rig, "web1"), "012");
}

#[test]
fn one_file_is_two_clusters() {
    let mut rig = rig();
    launch(&rig, &[]);
    rig.set_env("MOTTO", "from the shell");
    launch(&rig, &["cluster=second", "size=2", "motto=${env:MOTTO}"]);
    let of = |cluster: &str, instance: &str| {
        let words = [
            "--cluster",
            cluster,
            "exec",
            "--json",
            instance,
            "--",
            "cat",
            "/opt/site.conf",
            "/opt/args",
        ];
        let output = rig.cli(words);
        let ended = output.one(|line| line["instance"] == instance);
        ended["stdout"].as_str().unwrap_or_default().to_owned()
    };
    assert!(of("first", "web1").contains("hello"));
    let second = of("second", "web2");
    assert!(
        second.contains("from the shell") && second.contains("second ${HOME}"),
        "{second}"
    );

    let wrong = rig.cli(["check", "cluster.yml", "--set", "motto=${moto}"]);
    wrong.expect(2);
    assert!(
        wrong.stderr.contains("did you mean ${motto}?"),
        "{}",
        wrong.shown()
    );
    let expanded = rig.cli([
        "check",
        "cluster.yml",
        "--expanded",
        "--json",
        "--set",
        "size=5",
    ]);
    expanded.expect(0);
    assert_eq!(expanded.json()[0]["pools"][0]["size"], 5);
}
