//! Every mistake has its report, at its position.

use std::fmt::Write as _;

use super::*;

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
    ("too large a pool", "    size: 2\n", "    size: 20001\n"),
    ("too many instances", "    size: 2\n", "    size: 20000\n"),
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
        "dependency cycle in extends",
        "    ids: 2..4",
        "    ids: 2..4\n    extends: db",
    ),
    ("a bad image", "ami: debian-12", "ami: ami-xyz"),
    ("a bad type", "ec2_size: m5.large", "ec2_size: large"),
    (
        "unknown key of a pace",
        "update: {concurrency: 25%",
        "update: {concurency: 25%",
    ),
    ("a pace of nobody", "concurrency: 25%", "concurrency: 0"),
    (
        "a part of all that is none",
        "max_errors: 1,",
        "max_errors: some,",
    ),
    ("no canary", "canary: 1", "canary: 0"),
    (
        "a pace that says nothing",
        "{concurrency: 25%, canary: 1, max_errors: 1, batch_wait: 30s}",
        "{}",
    ),
    (
        "a pause without batches",
        "{concurrency: 25%, canary: 1, max_errors: 1, batch_wait: 30s}",
        "{batch_wait: 30s}",
    ),
    (
        "wrong type: a list for a pace",
        "{concurrency: 25%, canary: 1, max_errors: 1, batch_wait: 30s}",
        "[2]",
    ),
    (
        "unknown key of a health check",
        "retries: 3, wait: 2s",
        "retry: 3, wait: 2s",
    ),
    ("too many tries", "retries: 3", "retries: 3000"),
    (
        "wrong type: a list for a health check",
        "{command: systemctl is-active db, retries: 3, wait: 2s}",
        "[ping]",
    ),
    (
        "wrong type: a list for the line of a health check",
        "{command: systemctl is-active db, retries",
        "{command: [systemctl is-active db], retries",
    ),
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
        "needs in a cycle",
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
    assert_eq!(lines, [2, 25, 31, 36], "{report}");
    insta::assert_snapshot!("all_at_once", report);
}

#[test]
fn a_report_that_is_too_long_says_what_it_leaves_out() {
    let keys: String = (0..100).map(|n| format!("unknown{n}: 1\n")).collect();
    let report = parse(&format!("{GOOD}{keys}")).expect_err("a hundred mistakes");
    let all = report.render(false);
    assert_eq!(report.render_within(all.len() + 200), all);
    let text = report.render_within(4000);
    assert!(text.len() <= 4000, "{}", text.len());
    let shown = text.matches("unknown key").count();
    let last = format!(
        "100 problems in /clusters/cluster.yml, {} of them not shown; aot-master check shows all\n",
        100 - shown
    );
    assert!(shown > 5 && text.ends_with(&last), "{text}");

    let long = parse(&format!("{GOOD}unknown: {}\n", "x".repeat(9000))).expect_err("a mistake");
    let text = long.render_within(4000);
    assert!(
        text.contains(": unknown key") && text.ends_with("1 problem in /clusters/cluster.yml\n"),
        "{text}"
    );
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
fn one_mistake_is_one_problem() {
    let lines = |text: &str| match parse(text) {
        Ok(_) => Vec::new(),
        Err(report) => report
            .problems()
            .iter()
            .map(|problem| {
                format!(
                    "{} ({})",
                    problem.line(),
                    problem.help.clone().unwrap_or_default()
                )
            })
            .collect::<Vec<_>>(),
    };
    for provider in ["Local", "lokal", "LOCAL", "[local]"] {
        let found = lines(&format!(
            "cluster: c\nprovider: {provider}\ninstances: [{{name: a}}]\n"
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("provider:"), "{found:?}");
    }
    let local = |rest: &str| format!("cluster: c\nprovider: local\n{rest}\n");
    let size = |size: &str| lines(&local(&format!("pools: [{{name: w, size: {size}}}]")));
    let found = size("010");
    assert!(
        found[0].contains("found 010 (") && found[0].contains("write 10)"),
        "{found:?}"
    );
    assert!(size("1.5")[0].contains("found 1.5"), "{:?}", size("1.5"));
    assert_eq!(size("!!int \"3\""), Vec::<String>::new());
    let stage =
        "instances: [{name: a, stages: [{dir: b, args: [.inf, -.inf, .nan, !!str 007, 1e3]}]}]";
    let parsed = parse(&local(stage)).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(
        parsed.spec.pools[0].stages[0].args,
        [".inf", "-.inf", ".nan", "007", "1e3"]
    );
}
