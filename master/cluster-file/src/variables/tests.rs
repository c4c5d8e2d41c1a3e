//! Files with variables: values, types, what wins, and where each mistake is.

use std::path::Path;

use aot_proto::v1::VariablesFile;
use serde_json::{Value, json};

use super::*;
use crate::{Parsed, parse_with};

fn set(all: &[&str]) -> Variables {
    Variables {
        set: all.iter().map(|one| (*one).to_owned()).collect(),
        ..Variables::default()
    }
}

fn read(text: &str, given: &Variables) -> Result<Parsed, Report> {
    parse_with(text, Path::new("/c/cluster.yml"), given)
}

fn good(text: &str, given: &Variables) -> Parsed {
    read(text, given).unwrap_or_else(|report| panic!("{text}\n{}", report.render(false)))
}

/// `FILE:LINE:COLUMN: PATH: MESSAGE (HELP)`, a line each.
fn wrong(text: &str, given: &Variables) -> String {
    let report = read(text, given).map(|parsed| parsed.expanded.to_json());
    report.expect_err(text).to_string()
}

/// A file with these variables, and an instance with this as the first argument of its stage.
fn file(vars: &str, arg: &str) -> String {
    format!(
        "cluster: c\nprovider: local\nvars:\n{vars}\ninstances:\n- name: a\n  stages:\n  - dir: b\n    args:\n    - {arg}\n"
    )
}

fn arg(vars: &str, arg: &str, given: &Variables) -> String {
    good(&file(vars, arg), given).spec.pools[0].stages[0].args[0].clone()
}

const WHOLE: &str = r#"vars:
  cluster: web
  size: 2
  public: true
  net: {subnet: subnet-1, types: [t3.small, t3.large]}
  base: bundles/${cluster}
  stage: {dir: "${base}/x", env: {SHELL_HOME: "$${HOME}"}}
cluster: ${cluster}
region: eu-west-${net.zone}
instances:
  - name: ${cluster}-main
    auto_assign_ip: ${public}
pools:
  - name: node-{id:02}
    size: ${size}
    ami: ami-12345678
    subnet: ${net.subnet}
    ec2_size: ${net.types}
    tags: {of: "$cluster_name/${env:OWNER}/$$/$1"}
    stages: ["${stage}"]
"#;

fn whole() -> Variables {
    Variables {
        env: [("OWNER".to_owned(), "me".to_owned())].into(),
        ..set(&["net.zone=1"])
    }
}

#[test]
fn values_stand_in_their_places_with_their_types() {
    let text = WHOLE.replace(
        "name: ${cluster}-main",
        "name: main\n    ami: ami-12345678\n    ec2_size: t3.micro",
    );
    let spec = good(&text, &whole()).spec;
    assert_eq!(spec.name.as_str(), "web");
    assert_eq!(spec.region.as_deref(), Some("eu-west-1"));
    assert_eq!(spec.pools[0].machine.auto_assign_ip, Some(true));
    let pool = &spec.pools[1];
    let names: Vec<&str> = pool.members.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["node-01", "node-02"]);
    assert_eq!(pool.machine.types, ["t3.small", "t3.large"]);
    assert_eq!(pool.machine.subnets, ["subnet-1"]);
    assert_eq!(pool.machine.tags["of"], "web/me/$/$1");
    let stage = &pool.stages[0];
    assert_eq!(stage.source.path(), Path::new("/c/bundles/web/x"));
    assert_eq!(stage.env["SHELL_HOME"], "${HOME}");
    let vars = Value::Object(spec.vars);
    assert_eq!(vars["net"]["zone"], json!(1));
    assert_eq!(vars["stage"]["env"]["SHELL_HOME"], "${HOME}");
    assert_eq!(vars["base"], "bundles/web");
}

#[test]
fn one_file_makes_a_second_cluster() {
    let text = "vars: {cluster: web, size: 1}\ncluster: ${cluster}\nprovider: local\npools: [{name: n, size: \"${size}\", tags: {of: $cluster_name}}]\n";
    let spec = good(text, &set(&["cluster=staging", "size=3"])).spec;
    assert_eq!(
        (spec.name.as_str(), spec.instances().count()),
        ("staging", 3)
    );
    assert_eq!(spec.pools[0].machine.tags["of"], "staging");
    assert_eq!(good(text, &set(&[])).spec.name.as_str(), "web");
}

#[test]
fn what_comes_later_wins_and_mappings_are_merged() {
    let given = |files: &[&str], sets: &[&str]| Variables {
        files: files
            .iter()
            .map(|text| VariablesFile {
                path: "v.yml".into(),
                text: (*text).to_owned(),
            })
            .collect(),
        ..set(sets)
    };
    let vars = "  a: {x: 1, y: 1}\n  b: 1";
    let of = |given: &Variables| arg(vars, "${a.x} ${a.y} ${b}", given);
    assert_eq!(of(&given(&[], &[])), "1 1 1");
    assert_eq!(
        of(&given(&["a: {x: 2}", "{\"a\": {\"x\": 3}}"], &[])),
        "3 1 1"
    );
    assert_eq!(
        of(&given(&["a: {x: 2}\nb: 2"], &["a.x=4", "a.x=5"])),
        "5 1 2"
    );
    assert_eq!(of(&given(&["# nothing"], &[r#"a={"x": 6}"#])), "6 1 1");
    assert_eq!(
        of(&given(&["\t{\"b\": 7}"], &[])),
        "1 1 7",
        "JSON with a tab"
    );
    assert_eq!(arg("  a: 1", "${a}", &given(&["a: ${b}\nb: 8"], &[])), "8");
}

#[test]
fn a_text_is_taken_as_it_was_written() {
    for (vars, wanted) in [
        ("  v: 1.10", "1.10"),
        ("  v: 007", "007"),
        ("  v: yes", "yes"),
        ("  v: \"a b\"", "a b"),
        ("  v: \"\"", ""),
        ("  v: a$$b", "a$b"),
        ("  v: $$$${w}", "$${w}"),
        ("  v: ${w}\n  w: ${x}-\n  x: 1", "1-"),
        ("  v: ${m.b}\n  m: {a: 1, b: \"${m.a}2\"}", "12"),
        ("  v: ${m.a.b}\n  m: ${n}\n  n: {a: {b: 3}}", "3"),
    ] {
        assert_eq!(arg(vars, "${v}", &set(&[])), wanted, "{vars}");
    }
    for plain in ["$HOME", "a$", "$(date)", "$1", "a{b}"] {
        assert_eq!(arg("  v: 1", plain, &set(&[])), plain);
    }
    assert_eq!(arg("  v: 1", "$${v}", &set(&[])), "${v}");
    assert_eq!(arg("  v: |\n    a\n    b", "${v}", &set(&[])), "a\nb\n");
}

#[test]
fn a_cycle_names_all_of_it() {
    let said = wrong(
        &file(
            "  a: 1\n  b: ${c}\n  c: x${d.e}\n  d: {e: \"${b}\"}",
            "${a}",
        ),
        &set(&[]),
    );
    assert_eq!(
        said,
        "/c/cluster.yml:7:11: vars.d.e: variables use each other in a cycle: b -> c -> d.e -> b"
    );
    let said = wrong(&file("  a: ${a}", "x"), &set(&[]));
    assert!(
        said.contains(":4:6: vars.a: ") && said.ends_with("cycle: a -> a"),
        "{said}"
    );
}

#[test]
fn mistakes_are_where_they_are_and_have_a_way_out() {
    for (vars, value, place, part) in [
        (
            "  size: 1",
            "${sise}",
            "10:7",
            "no variable \"sise\" (did you mean ${size}?",
        ),
        (
            "  n: {sub: 1}",
            "x ${n.subb}",
            "10:9",
            "did you mean ${n.sub}?",
        ),
        (
            "  a: 1",
            "x ${HOME}",
            "10:9",
            "for bash's own variables write $${NAME}",
        ),
        (
            "  a: 1",
            "${HOME:-x}",
            "10:7",
            "${HOME:-x} does not name a variable",
        ),
        ("  a: 1", "${a", "10:7", "${a does not name a variable"),
        (
            "  a: 1",
            "${env:X}",
            "10:7",
            "the environment has no variable \"X\" (export X",
        ),
        (
            "  a: [1]",
            "x${a}",
            "10:8",
            "${a} is a list, which text can't hold",
        ),
        ("  a: [1]", "${a}", "10:7", "wants text, found a list"),
        (
            "  a:",
            "${a}",
            "10:7",
            "${a} has no value (give it with --set a=VALUE)",
        ),
        ("  a: 1\n  a: 2", "x", "5:3", "vars.a: is given twice"),
        (
            "  a b: 2",
            "x",
            "4:3",
            "\"a b\" is not a name for a variable",
        ),
        ("  a: ${b}", "${a}", "4:6", "vars.a: no variable \"b\""),
        ("  a: {b: 1}", "${a.c.d}", "10:7", "no variable \"a.c.d\""),
        ("  a: 1", "${a.b}", "10:7", "no variable \"a.b\""),
        (
            "  a: 1",
            "${cluster_name}",
            "10:7",
            "did you mean $cluster_name",
        ),
    ] {
        let said = wrong(&file(vars, value), &set(&[]));
        let at = format!("/c/cluster.yml:{place}: ");
        assert!(
            said.starts_with(&at) && said.contains(part),
            "{value}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_mistake_outside_of_the_file_names_where_it_was_given() {
    let text = file("  a: 1", "${a}");
    let of = |given: &Variables| wrong(&text, given);
    assert!(of(&set(&["a=x${b}"])).starts_with("--set a:1:2: a: no variable \"b\""));
    assert!(of(&set(&["a"])).starts_with("--set:1:1: \"a\" is not KEY=VALUE"));
    assert!(of(&set(&["1=2"])).contains("is not KEY=VALUE"));
    let file = |text: &str| Variables {
        files: vec![VariablesFile {
            path: "v.yml".into(),
            text: text.to_owned(),
        }],
        ..Variables::default()
    };
    let said = of(&file("b: 1\na: {c: \"${bb.c}\"}\n"));
    assert!(
        said.starts_with("v.yml:2:9: a.c: no variable \"bb.c\""),
        "{said}"
    );
    assert!(of(&file("- a\n")).starts_with("v.yml:1:1: wants a mapping of names"));
    assert!(of(&file("a: [\n")).starts_with("v.yml:1:4: invalid YAML"));
}

#[test]
fn a_set_that_nothing_uses_is_noticed() {
    let notices = |given: &[&str]| good(&file("  size: 1", "${only}"), &set(given)).notices;
    assert_eq!(notices(&["only=1", "size=2"]), Vec::<String>::new());
    assert_eq!(
        notices(&["only=1", "sise=2"]),
        ["--set sise: the file neither declares nor uses this variable; did you mean \"size\"?"]
    );
}

#[test]
fn a_short_file_does_not_become_a_long_one() {
    let mut vars = String::from("  v0: 0123456789");
    for number in 1..30 {
        let before = number - 1;
        vars.push_str(&format!("\n  v{number}: \"${{v{before}}}${{v{before}}}\""));
    }
    let said = wrong(&file(&vars, "x"), &set(&[]));
    assert!(said.contains("more than 4 MiB"), "{said}");
    let chain: Vec<String> = (0..40)
        .map(|it| format!("  v{it}: \"${{v{}}}\"", it + 1))
        .collect();
    let said = wrong(
        &file(&format!("{}\n  v40: 1", chain.join("\n")), "x"),
        &set(&[]),
    );
    assert!(said.contains("more than 32 variables"), "{said}");
    let nest: Vec<String> = (0..20)
        .map(|it| format!("  v{it}: [[[[\"${{v{}}}\"]]]]", it + 1))
        .collect();
    let said = wrong(
        &file(&format!("{}\n  v20: 1", nest.join("\n")), "x"),
        &set(&[]),
    );
    assert!(said.contains("nested more than 64 deep"), "{said}");
    let long = format!("a={}", "x".repeat(300 << 10));
    let said = wrong(&file("  a: 1", "x"), &set(&[&long]));
    assert!(said.contains("at most 262144 are allowed"), "{said}");
    let said = wrong(&file("  a: 1", "x"), &set(&[&"x".repeat(2 << 20)]));
    assert!(said.contains("--vars and --set"), "{said}");
}

#[test]
fn the_expanded_file_is_a_file_that_says_the_same() {
    let text = "vars: {n: 2, z: 007, f: 1.10}\ncluster: ${name}\nprovider: local\npools: [{name: \"p\", size: \"${n}\", tags: {z: \"${z}\", c: $cluster_name, f: \"${f}\", on: true}}]\n";
    let parsed = good(text, &set(&["name=c"]));
    let yaml = parsed.expanded.to_yaml().expect("YAML");
    assert!(!yaml.contains("${"), "{yaml}");
    assert_eq!(good(&yaml, &set(&[])).spec, parsed.spec, "{yaml}");
    assert_eq!(
        parsed.expanded.to_json(),
        json!({"vars": {"n": 2, "z": "007", "f": "1.10", "name": "c"}, "cluster": "c", "provider": "local",
            "pools": [{"name": "p", "size": 2, "tags": {"z": "007", "c": "c", "f": "1.10", "on": true}}]})
    );
}

#[test]
fn the_name_of_a_cluster_is_not_made_of_itself() {
    for text in [
        "cluster: $cluster_name\n",
        "vars: {cluster: $cluster_name}\ncluster: ${cluster}\n",
    ] {
        let said = wrong(
            &format!("{text}provider: local\ninstances: [{{name: a}}]\n"),
            &set(&[]),
        );
        assert!(said.contains("cluster: \"$cluster_name\""), "{said}");
    }
}

#[test]
fn a_variable_without_quotes_in_a_list_has_a_way_out() {
    let said = wrong(
        "cluster: c\nprovider: local\npools: [{name: a, size: ${n}}]\n",
        &set(&["n=1"]),
    );
    assert!(
        said.contains(":3:") && said.contains("quote what has a variable"),
        "{said}"
    );
}

#[test]
fn what_is_set_and_not_text_is_wrong_where_it_is_used_and_not_missing() {
    let given = Variables {
        not_utf8: vec!["NAME".to_owned()],
        ..Variables::default()
    };
    let told = wrong(&file("  a: 1", "x${env:NAME}"), &given);
    let wanted = "/c/cluster.yml:10:8: instances[0].stages[0].args[0]: the environment variable \"NAME\" is not UTF-8 (give it as UTF-8: a file has no other text)";
    assert_eq!(told, wanted);
}
