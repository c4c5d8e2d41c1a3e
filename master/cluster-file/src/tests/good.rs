//! What good files mean.

use aot_model::health::{HealthCheck, HealthSpec};
use aot_model::pace::{Amount, PacePolicy};

use super::*;

#[test]
fn ssh_says_whose_keys_are_exchanged() {
    let with = |word: &str| {
        parse(&mutated(
            "provider: ec2",
            &format!("provider: ec2\nssh: {word}"),
        ))
    };
    assert_eq!(parse(GOOD).expect("good").spec.ssh, SshAccess::Root);
    for ssh in [SshAccess::Root, SshAccess::Users, SshAccess::None] {
        let parsed = with(ssh.as_str()).unwrap_or_else(|report| panic!("{}", report.render(false)));
        assert_eq!((parsed.spec.ssh, parsed.notices.len()), (ssh, 0));
    }
    let report = with("user").expect_err("no such word").render(false);
    assert!(report.contains("did you mean \"users\"?"), "{report}");
    let nobody = "cluster: c\nprovider: local\nssh: users\ninstances: [{name: a}]\n";
    let notices = parse(nobody).expect("good").notices;
    assert!(
        notices.iter().any(|it| it.contains("add `user:`")),
        "{notices:?}"
    );
}

#[test]
fn a_good_file_gives_the_whole_cluster() {
    let Parsed { spec, notices, .. } =
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
fn a_pace_and_a_health_check_are_inherited_as_a_whole() {
    let spec = parse(GOOD).expect("the good file").spec;
    let [manager, _, db] = &spec.pools[..] else {
        panic!("three pools")
    };
    assert!(manager.update.is_unsaid() && manager.health.is_none());
    let pace = PacePolicy {
        concurrency: Some(Amount::Percent(25)),
        max_errors: Some(Amount::Count(1)),
        canary: Some(1),
        batch_wait_ms: Some(30_000),
    };
    assert_eq!(db.update, pace);
    let health = HealthSpec {
        retries: 3,
        wait_ms: 2_000,
        ..HealthSpec::new(HealthCheck::Command("systemctl is-active db".to_owned()))
    };
    assert_eq!(db.health.as_ref(), Some(&health));

    let text = mutated(
        "  user: admin\n",
        "  user: admin\n  update: {concurrency: 2}\n  health: ping\n",
    );
    let spec = parse(&text).expect("good").spec;
    let two = PacePolicy {
        concurrency: Some(Amount::Count(2)),
        ..PacePolicy::default()
    };
    let ping = HealthSpec::new(HealthCheck::Ping);
    assert_eq!(
        (&spec.pools[1].update, &spec.pools[1].health),
        (&two, &Some(ping))
    );
    assert_eq!(spec.pools[2].update, pace, "its own");
    assert_eq!(spec.pools[2].health.as_ref(), Some(&health));
    let text = mutated(
        "health: {command: systemctl is-active db, retries: 3, wait: 2s}",
        "health: curl -fsS localhost",
    );
    let spec = parse(&text).expect("good").spec;
    let line = HealthCheck::Command("curl -fsS localhost".to_owned());
    assert_eq!(spec.pools[2].health, Some(HealthSpec::new(line)));
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
fn attestation_is_one_of_five_words() {
    use aot_model::spec::Attestation;
    let with = |word: &str| {
        parse(&mutated(
            "region: us-west-2",
            &format!("region: us-west-2\nattestation: {word}"),
        ))
    };
    let of = |word: &str| with(word).map(|parsed| parsed.spec.attestation).ok();
    assert_eq!(
        parse(GOOD).expect("is good").spec.attestation,
        Attestation::Auto
    );
    for (word, wanted) in [
        ("auto", Attestation::Auto),
        ("document", Attestation::Document),
        ("challenge", Attestation::Challenge),
        ("both", Attestation::Both),
        ("token", Attestation::Token),
    ] {
        assert_eq!(of(word), Some(wanted), "{word}");
    }
    let refused = with("documents").expect_err("is none of them").to_string();
    assert!(
        refused.contains("attestation") && refused.contains("document"),
        "{refused}"
    );
    let local = "cluster: c\nprovider: local\nattestation: both\npools: [{name: a, size: 1}]\n";
    let notices = parse(local).expect("is good").notices;
    assert_eq!(
        notices,
        ["/clusters/cluster.yml:3: attestation: ignored: provider is local"]
    );
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
    assert!(same.to_string().contains("cycle"), "{same}");
}

#[test]
fn the_largest_cluster_is_read() {
    let text = "cluster: c\nprovider: local\npools: [{name: a, size: 20000, stages: [{dir: x}, {dir: y, needs: pool:a/0}]}]\n";
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
