//! Secrets: where values come from, who is given them, and every mistake at its place.

use aot_model::secret::{AwsSecret, SecretReader, SecretSource, SecretUse};

use super::*;

const SECRETS: &str = r#"cluster: c
provider: local
secrets:
  db: {env: DB_PASSWORD}
  tls: {file: secrets/tls.key}
  api: {command: pass show api}
  words: {command: [vault, read, x]}
  token: {ssm: /prod/token}
  creds: {secrets_manager: prod/creds, region: eu-west-1, on: master}
instances:
  - name: a
    bootstrap_sequence:
      - dir: x
        env: {PLAIN: 1}
        secrets: [tls, {name: db, env: DB}]
        rerun_on_secret: true
      - {dir: y, secrets: api}
      - {dir: z}
"#;

fn parsed(text: &str) -> Result<Parsed, Report> {
    parse_with(text, Path::new("/clusters/c.yml"), &Variables::default())
}

#[test]
fn each_source_is_read_and_stages_are_given_what_they_name() {
    let spec = parsed(SECRETS).expect("good").spec;
    let aws = |id: &str, region: Option<&str>| AwsSecret {
        id: id.to_owned(),
        region: region.map(str::to_owned),
        version: None,
        on_machine: false,
    };
    let words =
        |words: &[&str]| SecretSource::Command(words.iter().map(ToString::to_string).collect());
    let want = [
        ("api", words(&["/bin/sh", "-c", "pass show api"])),
        (
            "creds",
            SecretSource::SecretsManager(aws("prod/creds", Some("eu-west-1"))),
        ),
        ("db", SecretSource::Env("DB_PASSWORD".to_owned())),
        (
            "tls",
            SecretSource::File("/clusters/secrets/tls.key".into()),
        ),
        ("token", SecretSource::Ssm(aws("/prod/token", None))),
        ("words", words(&["vault", "read", "x"])),
    ];
    let found: Vec<_> = spec
        .secrets
        .iter()
        .map(|(n, s)| (n.as_str(), s.clone()))
        .collect();
    assert_eq!(found, want);
    let of_master = |it: &&SecretSource| matches!(it.reader(), SecretReader::Master(_));
    let of_master = spec.secrets.values().filter(of_master);
    assert_eq!(of_master.count(), 2);
    let given = |name: &str, env: Option<&str>| SecretUse {
        name: name.to_owned(),
        env: env.map(str::to_owned),
    };
    let stages = &spec.pools[0].stages;
    assert_eq!(
        stages[0].secrets,
        [given("tls", None), given("db", Some("DB"))]
    );
    assert_eq!(stages[1].secrets, [given("api", None)]);
    assert!(stages[2].secrets.is_empty());
    let rerun: Vec<bool> = stages.iter().map(|stage| stage.rerun_on_secret).collect();
    assert_eq!(rerun, [true, false, false]);
}

#[test]
fn a_list_of_words_never_goes_through_a_shell_and_a_line_does() {
    for (given, want) in [
        ("a b", &["/bin/sh", "-c", "a b"][..]),
        ("a", &["/bin/sh", "-c", "a"]),
        ("[a b]", &["a b"]),
        ("[a]", &["a"]),
        ("[\"a; b\"]", &["a; b"]),
        ("[a, \"\", 3]", &["a", "", "3"]),
    ] {
        let text = SECRETS.replacen("[vault, read, x]", given, 1);
        let spec = parsed(&text).expect("good").spec;
        let want = want.iter().map(ToString::to_string).collect();
        assert_eq!(
            spec.secrets["words"],
            SecretSource::Command(want),
            "{given}"
        );
    }
}

#[test]
fn every_mistake_is_told_where_it_stands() {
    for (from, to, path, said) in [
        (
            "{env: DB_PASSWORD}",
            "{}",
            "secrets.db",
            "does not say where",
        ),
        (
            "{env: DB_PASSWORD}",
            "{env: A, ssm: /b}",
            "secrets.db.ssm",
            "both env and ssm",
        ),
        (
            "{env: DB_PASSWORD}",
            "{env: A-B}",
            "secrets.db.env",
            "not the name of a variable",
        ),
        (
            "{env: DB_PASSWORD}",
            "{env: A, region: eu-west-1}",
            "secrets.db.region",
            "no meaning",
        ),
        (
            "{env: DB_PASSWORD}",
            "{value: hunter2}",
            "secrets.db.value",
            "unknown key",
        ),
        (
            "{env: DB_PASSWORD}",
            "hunter2",
            "secrets.db",
            "wants a mapping",
        ),
        (
            "  db: {env",
            "  d.b: {env",
            "secrets.d.b",
            "not a name for a secret",
        ),
        (
            "[vault, read, x]",
            "[]",
            "secrets.words.command",
            "is empty",
        ),
        (
            "[vault, read, x]",
            "[\"\", read]",
            "secrets.words.command",
            "the program, is empty",
        ),
        (
            "on: master",
            "on: machine",
            "secrets.creds.on",
            "clones have no instance profile",
        ),
        (
            "on: master",
            "on: mars",
            "secrets.creds.on",
            "not known here",
        ),
        (
            "region: eu-west-1",
            "region: eu",
            "secrets.creds.region",
            "not a region",
        ),
        (
            "{secrets_manager: prod/creds",
            "{secrets_manager: 'arn:aws:secretsmanager:us-east-1:1:secret:a'",
            "secrets.creds.region",
            "its ARN says us-east-1",
        ),
        (
            "{env: DB_PASSWORD}",
            "{env: A, version: 3}",
            "secrets.db.version",
            "no meaning",
        ),
        (
            "[tls, {name",
            "[tsl, {name",
            "instances[0].bootstrap_sequence[0].secrets[0]",
            "no secret is named \"tsl\"",
        ),
        (
            "[tls, {name",
            "[db, {name",
            "instances[0].bootstrap_sequence[0].secrets[1]",
            "is given twice",
        ),
        (
            "env: DB}",
            "env: AOT_DB}",
            "instances[0].bootstrap_sequence[0].secrets[1]",
            "can't be a variable",
        ),
        (
            "env: DB}",
            "env: PLAIN}",
            "instances[0].bootstrap_sequence[0].secrets[1]",
            "also given by `env:`",
        ),
        (
            "{dir: z}",
            "{dir: z, rerun_on_secret: true}",
            "instances[0].bootstrap_sequence[2].rerun_on_secret",
            "has no secrets",
        ),
    ] {
        let text = SECRETS.replacen(from, to, 1);
        assert_ne!(text, SECRETS, "{from}");
        let report = parsed(&text).expect_err(to);
        let problems = report.problems();
        let first = &problems[0];
        assert!(
            first.path == path && first.message.contains(said),
            "{to}: {}",
            report.render(false)
        );
        assert!(first.span.start > 0, "{to}: it has a place");
        assert!(!report.render(false).contains("panicked"));
    }
}

#[test]
fn a_mistake_in_what_many_inherit_is_told_once() {
    let text = "cluster: c\nprovider: local\nsecrets: {db: {env: DB}}\ndefaults: {bootstrap_sequence: [{dir: x, secrets: [dbx]}]}\ninstances: [{name: a}, {name: b}]\n";
    let report = parsed(text).expect_err("no such secret");
    assert_eq!(report.problems().len(), 1, "{}", report.render(false));
    assert!(report.render(false).contains("did you mean \"db\"?"));
}

const ON_MACHINE: &str = r#"cluster: c
secrets:
  token: {ssm: /prod/token, on: machine, version: 3}
  creds: {secrets_manager: prod/creds, on: machine, region: eu-west-1}
  key: {ssm: /prod/key}
defaults: {ami: debian-12, ec2_size: t3.micro, instance_profile_name: web}
instances:
  - name: a
    bootstrap_sequence:
      - {dir: x, secrets: token, rerun_on_secret: true}
      - {dir: y, secrets: [creds, key]}
"#;

#[test]
fn machines_read_those_that_say_so() {
    let parsed = parsed(ON_MACHINE).unwrap_or_else(|report| panic!("{}", report.render(false)));
    let secrets = &parsed.spec.secrets;
    let on_machine = secrets.iter().filter(|(_, it)| it.is_on_machine());
    let names: Vec<&str> = on_machine.map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["creds", "token"]);
    let SecretReader::Machine(service, token) = secrets["token"].reader() else {
        panic!("a machine reads it")
    };
    assert_eq!(service.thing(), "parameter");
    assert_eq!(
        (&*token.id, token.version.as_deref()),
        ("/prod/token", Some("3"))
    );
}

#[test]
fn what_machines_can_not_read_and_nobody_would_see_change_is_a_mistake() {
    for (from, to, path, said) in [
        (
            ", instance_profile_name: web",
            "",
            "instances[0].bootstrap_sequence[0].secrets",
            "a has no instance profile with which its machines could read \"token\"",
        ),
        (
            ", version: 3",
            "",
            "instances[0].bootstrap_sequence[0].rerun_on_secret",
            "nobody would see another value of \"token\"",
        ),
        (
            "version: 3",
            "version: live",
            "instances[0].bootstrap_sequence[0].rerun_on_secret",
            "nobody would see another value of \"token\"",
        ),
        (
            "[creds, key]}",
            "[creds, key], rerun_on_secret: true}",
            "instances[0].bootstrap_sequence[1].rerun_on_secret",
            "nobody would see another value of \"creds\"",
        ),
    ] {
        let text = ON_MACHINE.replacen(from, to, 1);
        assert_ne!(text, ON_MACHINE, "{from}");
        let report = parsed(&text).expect_err(said);
        let first = &report.problems()[0];
        assert!(
            first.path.starts_with(path) && first.message.contains(said),
            "{}",
            report.render(false)
        );
        assert!(first.help.is_some(), "it says the way out");
    }
    // What the master reads needs no profile.
    let text = ON_MACHINE.replace(", on: machine", "");
    let text = text.replace(", instance_profile_name: web", "");
    assert!(parsed(&text).is_ok());
}
