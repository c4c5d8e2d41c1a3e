//! One mutation of a good file a case; reports as people see them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_proto::ids::InstanceName;
use proptest::prelude::*;

use super::*;
use crate::model::file::{BundleSource, GroupAction, MinReady, OnFailure, ProviderKind};

const GOOD: &str = r#"cluster: hadoop
provider: ec2
region: us-west-2
launch: {min_ready: 90%, on_failure: rollback, timeout: 45m, replace: 2}
defaults:
  ami: debian-12
  ec2_size: m5.large
  ssh_key: orchestration
  security_groups: [default, $cluster_name]
  subnet: subnet-1bc5c46f
  owner: dkarapetyan
  user: admin
security_groups:
  - name: $cluster_name
    action: create
    allow_all_own_traffic: yes
    allow_ssh_from: 0.0.0.0/0
    allow_inbound: [{protocol: tcp, from_port: 8080, to_port: 8080, ip: 0.0.0.0/0}]
groups:
  edge: pool:hadoop and not name:hadoop2
instances:
  - name: manager
    ec2_size: [m5.2xlarge, m5a.2xlarge]
    auto_assign_ip: true
    ebs: [{device: /dev/sdf, size: 100, type: gp3, mount: /media/ebs, fs: ext4}]
    bootstrap_sequence:
      - tar: bundles/prerequisites.tar.gz
      - {dir: bundles/manager, args: [--level, "0"], timeout: 20m, silence_timeout: 5m}
pools:
  - name: hadoop
    size: 2
    extends: manager
    tags: {env: prod}
    bootstrap_sequence:
      - tar: bundles/prerequisites.tar.gz
      - {dir: bundles/node, needs: [manager/1, "pool:db/0"], env: {LEVEL: 007}}
  - name: db{id:02}
    ids: 2..4
    spot: {max_price: 0.05, fallback: true}
    hostname: database{id}
    bootstrap_sequence: [{dir: ./bundles/db, name: database}]
"#;

fn parse(text: &str) -> Result<Parsed, Report> {
    super::parse(text, Path::new("/clusters/cluster.yml"))
}

/// The good file with one text replaced.
fn mutated(from: &str, to: &str) -> String {
    assert_eq!(
        GOOD.matches(from).count(),
        1,
        "{from:?} stands once in the good file"
    );
    GOOD.replacen(from, to, 1)
}

fn names(spec: &ClusterSpec) -> Vec<&str> {
    spec.instances()
        .map(|(_, member)| member.name.as_str())
        .collect()
}

#[test]
fn a_good_file_gives_the_whole_cluster() {
    let Parsed { spec, notices } =
        parse(GOOD).unwrap_or_else(|report| panic!("{}", report.render(false)));
    assert_eq!(notices, Vec::<String>::new());
    assert_eq!(
        (spec.name.as_str(), spec.provider),
        ("hadoop", ProviderKind::Ec2)
    );
    assert_eq!(spec.region.as_deref(), Some("us-west-2"));
    assert_eq!(spec.base_dir, Path::new("/clusters"));
    assert_eq!(spec.launch.min_ready, MinReady::Percent(90));
    assert_eq!(spec.launch.on_failure, OnFailure::Rollback);
    assert_eq!(spec.launch.timeout, Duration::from_secs(45 * 60));
    assert_eq!(spec.launch.replace, 2);
    assert_eq!(
        names(&spec),
        ["manager", "hadoop1", "hadoop2", "db02", "db03", "db04"]
    );
    let group = &spec.security_groups[0];
    assert_eq!(
        (group.name.as_str(), group.action),
        ("hadoop", GroupAction::Create)
    );
    assert!(group.allow_all_own_traffic);
    assert_eq!(group.allow_ssh_from, ["0.0.0.0/0"]);
    assert_eq!(group.allow_inbound[0].to_port, Some(8080));
}

#[test]
fn a_code_of_icmp_is_no_last_port() {
    for (given, from, to) in [
        ("protocol: icmp, from_port: 8", Some(8), None),
        ("protocol: icmp, from_port: 3, to_port: 1", Some(3), Some(1)),
        ("protocol: tcp, from_port: 80", Some(80), Some(80)),
        ("protocol: udp", None, None),
    ] {
        let text = mutated("protocol: tcp, from_port: 8080, to_port: 8080", given);
        let spec = parse(&text).unwrap().spec;
        let rule = &spec.security_groups[0].allow_inbound[0];
        assert_eq!((rule.from_port, rule.to_port), (from, to), "{given}");
    }
}

#[test]
fn own_keys_go_before_those_of_what_is_extended_and_those_before_defaults() {
    let spec = parse(GOOD).expect("the good file").spec;
    let [manager, hadoop, db] = &spec.pools[..] else {
        panic!("three pools")
    };
    assert_eq!(manager.name, None);
    assert_eq!(manager.machine.types, ["m5.2xlarge", "m5a.2xlarge"]);
    assert_eq!(hadoop.machine.types, manager.machine.types, "from manager");
    assert_eq!(
        hadoop.machine.ami.as_deref(),
        Some("debian-12"),
        "from defaults"
    );
    assert_eq!(hadoop.machine.tags["env"], "prod", "its own");
    assert_eq!(hadoop.machine.volumes, manager.machine.volumes);
    assert_eq!(hadoop.machine.security_groups, ["default", "hadoop"]);
    assert_eq!(db.machine.types, ["m5.large"], "from defaults");
    let spot = db.machine.spot.as_ref().expect("spot");
    assert_eq!(
        (spot.max_price.as_deref(), spot.fallback),
        (Some("0.05"), true)
    );
    assert_eq!(db.members[0].hostname, "database2");
    assert_eq!(hadoop.members[0].hostname, "hadoop1");
}

#[test]
fn stages_have_absolute_paths_resolved_needs_and_the_texts_of_numbers() {
    let spec = parse(GOOD).expect("the good file").spec;
    let node = &spec.pools[1].stages[1];
    assert_eq!(
        node.source,
        BundleSource::Dir(PathBuf::from("/clusters/bundles/node"))
    );
    assert_eq!(
        (node.name.as_str(), node.env["LEVEL"].as_str()),
        ("node", "007")
    );
    assert_eq!((node.needs[0].of.len(), node.needs[0].stage), (1, 1));
    let of: Vec<&str> = node.needs[1].of.iter().map(InstanceName::as_str).collect();
    assert_eq!(
        (of, node.needs[1].text.as_str()),
        (vec!["db02", "db03", "db04"], "pool:db/0")
    );
    let database = &spec.pools[2].stages[0];
    assert_eq!(
        database.source,
        BundleSource::Dir(PathBuf::from("/clusters/bundles/db"))
    );
    assert_eq!(database.name, "database");
}

/// Every mutation and its report: what a person reads, so it is kept as text.
#[test]
fn every_mutation_is_told_where_it_stands() {
    let (mut all, mut wrong) = (String::new(), String::new());
    for (case, from, to) in MUTATIONS {
        let Err(report) = parse(&mutated(from, to)) else {
            writeln!(wrong, "{case}: was taken").expect("a string");
            continue;
        };
        if report.problems().len() != 1 {
            writeln!(wrong, "{case}: {report}").expect("a string");
        }
        writeln!(all, "## {case}\n{}", report.render(false)).expect("a string");
    }
    assert_eq!(wrong, "", "each has one problem");
    insta::assert_snapshot!("mutations", all);
}

const MUTATIONS: &[(&str, &str, &str)] = &[
    ("unknown key at the top", "provider: ec2", "providr: ec2"),
    (
        "unknown key of an instance",
        "    auto_assign_ip: true",
        "    auto_asign_ip: true",
    ),
    (
        "unknown key unlike any other",
        "    auto_assign_ip: true",
        "    wibble: true",
    ),
    (
        "unknown key of a volume",
        "type: gp3, mount",
        "typ: gp3, mount",
    ),
    (
        "duplicate key",
        "region: us-west-2",
        "region: us-west-2\nregion: us-west-1",
    ),
    (
        "a key and its other name",
        "  ami: debian-12",
        "  ami: debian-12\n  image: debian-12",
    ),
    ("duplicate tag", "{env: prod}", "{env: prod, env: dev}"),
    (
        "missing name",
        "  - name: manager\n    ec2_size",
        "  - ec2_size",
    ),
    (
        "wrong type: list for a number",
        "    size: 2\n",
        "    size: [2]\n",
    ),
    (
        "wrong type: text for a number",
        "    size: 2\n",
        "    size: two\n",
    ),
    (
        "wrong type: text for yes or no",
        "auto_assign_ip: true",
        "auto_assign_ip: perhaps",
    ),
    (
        "wrong type: text for a list",
        "args: [--level, \"0\"]",
        "args: --level 0",
    ),
    (
        "wrong type: text for a mapping",
        "launch: {min_ready: 90%, on_failure: rollback, timeout: 45m, replace: 2}",
        "launch: soon",
    ),
    ("no value", "  owner: dkarapetyan", "  owner:"),
    ("empty text", "  owner: dkarapetyan", "  owner: \"\""),
    ("negative size", "    size: 2\n", "    size: -2\n"),
    ("too large a pool", "    size: 2\n", "    size: 10001\n"),
    ("too many instances", "    size: 2\n", "    size: 10000\n"),
    (
        "size and ids",
        "    ids: 2..4",
        "    ids: 2..4\n    size: 3",
    ),
    ("neither size nor ids", "    ids: 2..4\n", ""),
    ("a range that is none", "ids: 2..4", "ids: 2-4"),
    ("a range upside down", "ids: 2..4", "ids: 4..2"),
    ("a bad cluster name", "cluster: hadoop", "cluster: Hadoop_1"),
    ("an unknown provider", "provider: ec2", "provider: ec3"),
    ("a bad pool name", "db{id:02}", "DB{id:02}"),
    ("a bad template", "db{id:02}", "db{nr}"),
    (
        "two instances of one name",
        "  - name: manager",
        "  - name: hadoop1\n    user: admin\n  - name: manager",
    ),
    (
        "a pool called as an instance",
        "  - name: db{id:02}",
        "  - name: manager",
    ),
    ("extends nobody", "extends: manager", "extends: manger"),
    (
        "extends in a circle",
        "    ids: 2..4",
        "    ids: 2..4\n    extends: db",
    ),
    ("a bad image", "ami: debian-12", "ami: ami-xyz"),
    ("a bad type", "ec2_size: m5.large", "ec2_size: large"),
    ("a duration without unit", "timeout: 45m", "timeout: 45"),
    ("a duration that is none", "timeout: 45m", "timeout: soon"),
    ("no time at all", "timeout: 45m", "timeout: 0s"),
    (
        "silence longer than the whole",
        "silence_timeout: 5m",
        "silence_timeout: 50m",
    ),
    (
        "min_ready that is none",
        "min_ready: 90%",
        "min_ready: 190%",
    ),
    ("min_ready above all", "min_ready: 90%", "min_ready: 7"),
    ("made again for ever", "replace: 2", "replace: 11"),
    (
        "an unknown word",
        "on_failure: rollback",
        "on_failure: rolback",
    ),
    ("a need of nobody", "manager/1", "manger/1"),
    ("a need of a pool as an instance", "\"pool:db/0\"", "db/0"),
    (
        "a need of a stage that is not there",
        "manager/1",
        "manager/2",
    ),
    ("a need of a stage without name", "manager/1", "manager/"),
    (
        "needs in a circle",
        "[{dir: ./bundles/db, name: database}]",
        "[{dir: ./bundles/db, needs: hadoop1/1}]",
    ),
    (
        "a stage without bundle",
        "{dir: ./bundles/db, name: database}",
        "{name: database}",
    ),
    (
        "a stage with two bundles",
        "{dir: ./bundles/db, name: database}",
        "{dir: a, tar: b.tar}",
    ),
    (
        "a bare stage",
        "{dir: ./bundles/db, name: database}",
        "bundles/db",
    ),
    ("a variable of ours", "{LEVEL: 007}", "{AOT_STAGE: 7}"),
    ("a variable that is none", "{LEVEL: 007}", "{LE-VEL: 7}"),
    ("a tag of AWS", "{env: prod}", "{\"aws:env\": prod}"),
    ("a tag of ours", "{env: prod}", "{\"aot:env\": prod}"),
    ("a tag that has a key", "{env: prod}", "{Owner: me}"),
    (
        "a price that is none",
        "max_price: 0.05",
        "max_price: cheap",
    ),
    (
        "spot that is neither",
        "spot: {max_price: 0.05, fallback: true}",
        "spot: maybe",
    ),
    (
        "billing against spot",
        "    ids: 2..4",
        "    ids: 2..4\n    billing: on-demand",
    ),
    (
        "one host name for all",
        "hostname: database{id}",
        "hostname: database",
    ),
    ("a volume too large", "size: 100", "size: 100000"),
    ("a volume without size", "size: 100, ", ""),
    ("a bad device", "device: /dev/sdf", "device: sdf"),
    ("an unknown volume type", "type: gp3", "type: gp4"),
    (
        "throughput where there is none",
        "type: gp3, mount",
        "type: st1, throughput: 250, mount",
    ),
    ("io2 without iops", "type: gp3, mount", "type: io2, mount"),
    (
        "a device twice",
        "fs: ext4}]",
        "fs: ext4}, {device: /dev/sdf, size: 1}]",
    ),
    ("mounted over the root", "mount: /media/ebs", "mount: /"),
    (
        "a bad network",
        "allow_ssh_from: 0.0.0.0/0",
        "allow_ssh_from: 0.0.0.0/40",
    ),
    (
        "a rule from nowhere",
        "to_port: 8080, ip: 0.0.0.0/0",
        "to_port: 8080",
    ),
    ("ports upside down", "to_port: 8080", "to_port: 80"),
    ("rules for a found group", "action: create", "action: find"),
    (
        "a bad saved target",
        "pool:hadoop and not name:hadoop2",
        "pool:hadoop and",
    ),
    (
        "a saved target of itself",
        "pool:hadoop and not name:hadoop2",
        "'@edge'",
    ),
    (
        "bad YAML",
        "[default, $cluster_name]",
        "[default, $cluster_name",
    ),
    (
        "two documents",
        "region: us-west-2",
        "region: us-west-2\n---\na: b",
    ),
    ("not a mapping", GOOD, "- a\n- b\n"),
    ("nothing at all", GOOD, ""),
];

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = GOOD
        .replace("provider: ec2", "providr: ec2")
        .replace("size: 2\n", "size: two\n")
        .replace("type: gp3", "type: gp4")
        .replace("manager/1", "manager/9");
    let report = parse(&text).expect_err("four mistakes");
    let lines: Vec<usize> = report
        .problems()
        .iter()
        .map(|problem| report.position(problem).0)
        .collect();
    assert_eq!(lines, [2, 25, 31], "{report}");
    insta::assert_snapshot!("all_at_once", report);
}

#[test]
fn a_report_can_be_coloured_and_can_be_data() {
    let report = parse(&mutated("size: 2\n", "size: two\n")).expect_err("a mistake");
    assert!(report.render(true).contains("\u{1b}["), "colours");
    assert!(!report.render(false).contains('\u{1b}'), "no colours");
    insta::assert_snapshot!(report.to_json().to_string());
}

#[test]
fn what_is_missing_is_told_for_every_entry() {
    let report = parse(&mutated("  ami: debian-12\n", "")).expect_err("no image");
    let paths: Vec<&str> = report
        .problems()
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(
        paths,
        ["instances[0].name", "pools[0].name", "pools[1].name"],
        "{report}"
    );
    assert!(
        report.to_string().contains("\"manager\" has no ami"),
        "{report}"
    );
}

#[test]
fn other_spellings_are_taken() {
    let text = "
cluster: c
region: us-east-1
pools:
  - name: p-1-
    instances_count: 2
    image: ami-0123456789abcdef0
    instance_type: c4.large
    key-pair: mine
    elastic_ip: yes
    billing: spot
    volumes: [{name: /dev/sdb, size: 100, volume_type: gp2, delete_on_termination: no}]
    stages: [{tar: a.tar}]
";
    let spec = parse(text)
        .unwrap_or_else(|report| panic!("{}", report.render(false)))
        .spec;
    let pool = &spec.pools[0];
    assert_eq!(names(&spec), ["p-1-1", "p-1-2"]);
    assert_eq!(pool.machine.ssh_key.as_deref(), Some("mine"));
    assert!(pool.machine.allocate_ip_address && pool.machine.spot.is_some());
    assert!(!pool.machine.volumes[0].delete_on_termination);
    assert_eq!(pool.stages.len(), 1);
}

#[test]
fn what_is_ignored_is_said_once_a_place() {
    let text = "
cluster: c
provider: local
region: us-east-1
defaults: {ami: debian-12, private_key_file: ~/.ssh/id_rsa}
pools: [{name: a, size: 1}, {name: b, size: 0}]
";
    let notices = parse(text).expect("a good file").notices;
    assert_eq!(
        notices,
        [
            "/clusters/cluster.yml:5: defaults.private_key_file: ignored: nothing is done over ssh",
            "/clusters/cluster.yml:4: region: ignored: provider is local",
            "/clusters/cluster.yml:5: defaults.ami: ignored: provider is local",
        ]
    );
}

#[test]
fn chains_of_extends_are_followed_whatever_their_order() {
    let text = "
cluster: c
provider: local
pools:
  - {name: a, extends: b}
  - {name: b, extends: x, owner: second}
instances:
  - {name: x, owner: third, user: core, hostname: only-mine}
";
    let report = parse(text).expect_err("no size anywhere");
    assert_eq!(report.problems().len(), 2, "{report}");
    let spec = parse(&text.replace("owner: second", "owner: second, size: 3"))
        .expect("a good file")
        .spec;
    assert_eq!(names(&spec), ["x", "a1", "a2", "a3", "b1", "b2", "b3"]);
    let a = &spec.pools[1];
    assert_eq!(
        (a.owner.as_deref(), a.user.as_deref()),
        (Some("second"), Some("core"))
    );
    assert_eq!(a.members[0].hostname, "a1", "a host name is not taken over");
}

#[test]
fn a_barrier_inside_of_a_pool_is_no_circle() {
    let text = "
cluster: c
provider: local
pools:
  - name: a
    size: 3
    stages: [{dir: x}, {dir: y, needs: pool:a/0}]
";
    assert_eq!(
        parse(text).expect("a good file").spec.pools[0].stages[1].needs[0]
            .of
            .len(),
        3
    );
    let same = parse(&text.replace("a/0", "a/1")).expect_err("it waits for itself");
    assert!(same.to_string().contains("circle"), "{same}");
}

#[test]
fn the_largest_cluster_is_read() {
    let text = "cluster: c\nprovider: local\npools: [{name: a, size: 10000, stages: [{dir: x}, {dir: y, needs: pool:a/0}]}]\n";
    assert_eq!(
        parse(text).expect("a good file").spec.instances().count(),
        MAX_INSTANCES
    );
}

#[test]
fn the_schema_knows_every_key_and_spelling() {
    let schema = schema();
    let pool = &schema["$defs"]["Pool"];
    for key in [
        "name",
        "size",
        "ids",
        "extends",
        "ami",
        "image",
        "key-pair",
        "bootstrap_sequence",
        "stages",
    ] {
        assert!(
            pool["properties"][key]["description"].is_string(),
            "{key}: {pool}"
        );
    }
    assert_eq!(pool["additionalProperties"], false);
    assert!(
        schema["$defs"]["Instance"]["properties"]
            .get("size")
            .is_none()
    );
    insta::assert_snapshot!("schema", format!("{schema:#}"));
}

#[test]
fn the_files_that_are_named_are_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("bundle");
    std::fs::create_dir(&bundle).expect("a folder");
    let text = "
cluster: c
provider: local
instances: [{name: a, cloud_config: cc.yml, stages: [{dir: bundle}, {tar: gone.tar}]}]
";
    let spec = super::parse(text, &folder.path().join("cluster.yml"))
        .expect("a good file")
        .spec;
    let problems: Vec<String> = check_files(&spec)
        .into_iter()
        .map(|problem| problem.message)
        .collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("has no bootstrap.sh"), "{problems:?}");
    assert!(
        problems[1].contains("cannot read") && problems[1].contains("gone.tar"),
        "{problems:?}"
    );
    assert!(problems[2].contains("cc.yml"), "{problems:?}");
    std::fs::write(bundle.join("bootstrap.sh"), "true\n").expect("a script");
    std::fs::write(folder.path().join("cc.yml"), "#cloud-config\n").expect("a file");
    let spec = super::parse(
        &text.replace(", {tar: gone.tar}", ""),
        &folder.path().join("cluster.yml"),
    );
    assert_eq!(check_files(&spec.expect("a good file").spec), []);
}

fn damaged() -> impl Strategy<Value = String> {
    let place = (
        0..GOOD.len(),
        0..40usize,
        "[-{}\\[\\]:,&*!|>'\"%@ \n\ta-z0-9$é]{0,6}",
    );
    prop::collection::vec(place, 1..4).prop_map(|changes| {
        let mut text = GOOD.to_owned();
        for (at, len, new) in changes {
            let at = at.min(text.len());
            let end = (at + len).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &new);
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let read = parse(&text).map_err(|report| report.render(false));
        prop_assert!(read.is_err(), "a cluster by accident: {text:?}");
    }

    #[test]
    fn no_damage_makes_it_panic(text in damaged()) {
        match parse(&text) {
            Ok(parsed) => prop_assert!(parsed.spec.instances().count() <= MAX_INSTANCES),
            Err(report) => prop_assert!(!report.render(true).is_empty() && !report.problems().is_empty()),
        }
    }
}
