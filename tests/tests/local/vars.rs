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

#[test]
fn an_apply_gives_variables_to_those_that_are_meant_and_the_cluster_knows_them() {
    let rig = Rig::local();
    rig.bundle("plain", &format!("{LEDGER}echo \"$1\" > /opt/args\n"));
    rig.bundle("site", &format!("{LEDGER}cp site.conf /opt/\n"));
    rig.file(
        "site/site.conf.j2",
        "version {{ vars.version }} of {{ vars.name }}\n",
    );
    rig.cluster(
        r#"
vars: {version: 1, name: "app-${version}", size: 2}
cluster: first
provider: local
pools:
  - name: web
    size: ${size}
    bootstrap_sequence:
      - {dir: plain, args: ["${name}"]}
      - dir: site
"#,
    );
    launch(&rig, &[]);
    let seen = |name: &str| {
        let args = rig.sh(name, "cat /opt/args");
        (args, rig.sh(name, "cat /opt/site.conf"))
    };
    let version = |number: u32| {
        (
            format!("app-{number}"),
            format!("version {number} of app-{number}"),
        )
    };
    let actions = |words: &[&str]| {
        let words = [&["--json", "plan"], words].concat();
        let output = rig.cli(words);
        output.expect(0);
        let lines = output.json().into_iter();
        let lines = lines.filter(|line| line["instance"].is_string());
        let action = |line: &serde_json::Value| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("instance"), text("action"))
        };
        lines.map(|line| action(&line)).collect::<Vec<_>>()
    };

    let set = ["--set", "version=2"];
    assert_eq!(actions(&[&["web1"], &set[..]].concat()), ["web1 rerun"]);
    assert_eq!(actions(&["web1"]), ["web1 keep"], "a plan changes nothing");
    rig.cli_within(LAUNCH, [&["apply", "web1"], &set[..]].concat())
        .expect(0);
    // What values and templates see is the same, on each of them.
    assert_eq!((seen("web1"), seen("web2")), (version(2), version(1)));
    assert_eq!(actions(&["*"]), ["web1 keep", "web2 rerun"]);
    let file = actions(&[&["cluster.yml"], &set[..]].concat());
    assert_eq!(file, ["web1 keep", "web2 rerun"], "as a launch has it");
    rig.cli_within(LAUNCH, ["apply"]).expect(0);
    assert_eq!((seen("web1"), seen("web2")), (version(2), version(2)));
    assert_eq!(ledger(&rig, "web1"), "0101");
    let jobs = rig.cli(["jobs", "--json"]);
    let is_it = |line: &serde_json::Value| {
        let what = line["what"].as_str().unwrap_or_default();
        what.starts_with("apply web1 --set version=2 --file /")
    };
    assert!(jobs.json().iter().any(is_it), "{}", jobs.shown());

    // A pace goes over them as with a launch; from another folder the file is named.
    let path = rig.dir().join("cluster.yml");
    let path = path.to_str().expect("text");
    let words = [
        "apply",
        "--set",
        "version=3",
        "--file",
        path,
        "--concurrency",
        "1",
    ];
    rig.cli_within(LAUNCH, words).expect(0);
    assert_eq!((seen("web1"), seen("web2")), (version(3), version(3)));

    for (words, code, said) in [
        (&["--set", "size=3"][..], 1, "web3 would be made"),
        (&["--set", "version=${nme}"], 2, "did you mean ${name}?"),
        (&["--set", "version=4", "--file", "none.yml"], 2, "none.yml"),
        (
            &["--cluster", "other", "--set", "version=4"],
            2,
            "is the file of cluster first",
        ),
    ] {
        let refused = rig.cli([&["apply"], words].concat());
        refused.expect(code);
        assert!(refused.stderr.contains(said), "{}", refused.shown());
    }
    let unknown = rig.cli(["apply", "--set", "version=3", "--set", "verson=4"]);
    unknown.expect(0);
    assert!(
        unknown.stderr.contains("did you mean \"version\"?"),
        "{}",
        unknown.shown()
    );
    assert_eq!((seen("web1"), seen("web2")), (version(3), version(3)));
    // Without any, the file's own are the next launch's.
    launch(&rig, &[]);
    assert_eq!((seen("web1"), seen("web2")), (version(1), version(1)));
}

#[test]
fn what_is_not_text_in_the_shell_is_wrong_where_the_file_names_it() {
    use std::os::unix::ffi::OsStrExt as _;

    let rig = rig();
    let mut command = rig.command(["check", "cluster.yml", "--set", "motto=${env:MOTTO}"]);
    command.env("MOTTO", std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("the environment variable \"MOTTO\" is not UTF-8"),
        "{said}"
    );
}
