//! The grammar by examples, its errors, and printing back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn groups() -> BTreeMap<String, String> {
    [
        ("edge", "pool:web and not name:web3"),
        ("both", "@edge or db*"),
        ("me", "@you"),
        ("you", "@me"),
        ("bad", "web["),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .collect()
}

fn attested() -> Value {
    json!({"region": "us-west-2", "public_ip": null, "tags": {"env": "prod"}, "state": "running"})
}

/// With names of attested facts among them.
fn claimed() -> Value {
    json!({
        "ssh_host_keys": ["ssh-ed25519 AAAA"],
        "region": "claimed", "public_ip": "claimed",
        "node": {"region": "claimed", "public_ip": "claimed", "state": {"a": "claimed"}, "tags": {"role": "claimed"},
                 "os": {"name": "debian", "pretty": "Debian GNU/Linux 12"}, "cpus": 4, "arm": false,
                 "disks": [{"name": "sda"}], "roles": ["db", "cache"], "none": null}
    })
}

/// web3 of the pool web, failed on a running machine, tagged env=prod.
fn matches(text: &str) -> bool {
    let target = parse(text, &groups()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let tags = [
        ("env".to_owned(), "prod".to_owned()),
        ("a b".to_owned(), String::new()),
    ]
    .into();
    let (attested, claimed) = (attested(), claimed());
    target.matches(&Subject {
        name: "web3",
        pool: Some("web"),
        state: "running",
        phase: "failed",
        tags: &tags,
        attested: Some(&attested),
        claimed: Some(&claimed),
    })
}

#[test]
fn every_form_means_what_it_says() {
    let yes = [
        "*",
        "web3",
        "web?",
        "web[1-3]",
        "web[2-30]",
        "web[1,3]",
        "web{1..3}",
        "web{1,3}",
        "name:web3",
        "'*'",
        "pool:web",
        "pool:w*",
        "state:running",
        "state:failed",
        "phase:failed",
        "tag:env=prod",
        "tag:env=pr*",
        "tag:env",
        "tag:env!=dev",
        "tag:none!=x",
        "tag:\"a b\"",
        "tag:\"a b\"=",
        "fact:os.name=debian",
        "fact:node.os.name=debian",
        "fact:region=us-*",
        "fact:region!=claimed",
        "fact:tags.env=prod",
        "fact:node.region=claimed",
        "fact:ssh_host_keys~^ssh-ed25519",
        "not fact:public_ip",
        "fact:os.pretty=\"Debian GNU*\"",
        "fact:os.pretty~^Debian",
        "fact:cpus=4",
        "fact:cpus>3",
        "fact:cpus<4.5",
        "fact:cpus!=5",
        "fact:roles=cache",
        "fact:disks.0.name=sda",
        "fact:arm=false",
        "fact:os.name",
        "fact:os",
        "fact:missing!=x",
        "re:^web[0-9]+$",
        "re:^(web|db)3",
        "re:eb",
        "a,b,web3",
        "db*, web*",
        "not db1",
        "pool:web and not name:web4",
        "db1 or web3",
        "not (db1 or db2)",
        "db1 and db2 or web3",
        "@both or web3",
        "not @edge",
        "not group:edge",
        "not not web3",
        " web3 ",
        "((web3))",
        "re:\"^web3\"",
    ];
    let no = [
        "web",
        "web[!3]",
        "web{1,2}",
        "name:db*",
        "pool:db",
        "state:stopped",
        "phase:ready",
        "web[13-20]",
        "web[4-30]",
        "web{4..30}",
        "tag:env=dev",
        "tag:none",
        "tag:none=",
        "fact:os.name=ubuntu",
        "fact:cpus>4",
        "fact:cpus<4",
        "fact:os.name<5",
        "fact:none",
        "fact:region=claimed",
        "fact:public_ip",
        "fact:public_ip=claimed",
        "fact:state.a",
        "fact:tags.role",
        "fact:roles!=db",
        "re:^eb",
        "a,b",
        "not web3",
        "pool:web and not name:web3",
        "web3 and db1",
        "@edge",
        "group:both",
        "db1 or db2 and web3",
    ];
    for text in yes {
        let text = text.trim_matches('\'');
        assert!(matches(text), "{text} should match");
    }
    for text in no {
        assert!(!matches(text), "{text} should not match");
    }
}

#[test]
fn no_facts_and_no_pool_match_nothing_but_their_absence() {
    let tags = BTreeMap::new();
    let bare = Subject {
        name: "a",
        pool: None,
        state: "pending",
        phase: "booting",
        tags: &tags,
        attested: None,
        claimed: None,
    };
    for (text, wanted) in [
        ("pool:*", false),
        ("not pool:*", true),
        ("fact:a=*", false),
        ("fact:a!=b", true),
    ] {
        assert_eq!(
            parse(text, &BTreeMap::new()).expect(text).matches(&bare),
            wanted,
            "{text}"
        );
    }
}

#[test]
fn errors_name_the_column_and_the_thing() {
    let mut all = String::new();
    for text in [
        "",
        "  ",
        "web1 web2",
        "(web1",
        "web1)",
        "web1 and",
        "and web1",
        "web1,,web2",
        "not",
        "web[1",
        "pool:web{1",
        "polo:web",
        "pool:",
        "tag:",
        "tag:=x",
        "tag:a!x",
        "fact:cpus>many",
        "re:(",
        "re:a[",
        "re:\"(\"",
        "name:\"web",
        "@nobody",
        "@me",
        "@bad",
        "re:+",
        "state:redy",
        "phase:running",
        "state:",
        "state:x*",
        "node[20-13]",
        "node[a,c]",
        "not node[!13-20]",
    ] {
        let error = parse(text, &groups()).expect_err(text);
        all.push_str(&format!("{text:14} {error}\n"));
    }
    insta::assert_snapshot!("errors", all);
}

#[test]
fn bounds_are_kept() {
    let none = BTreeMap::new();
    assert!(parse(&"(".repeat(100_000), &none).is_err());
    assert!(parse(&"not ".repeat(100_000), &none).is_err());
    assert!(parse(&"a,".repeat(600_000), &none).is_err());
    let doubling: BTreeMap<String, String> = (0..30)
        .map(|n| (format!("g{n}"), format!("@g{0} or @g{0}", n + 1)))
        .chain([("g30".into(), "a".into())])
        .collect();
    assert!(parse("@g0", &doubling).is_err(), "a billion parts");
    let many: Vec<String> = (0..10_000).map(|n| format!("web{n}")).collect();
    assert!(parse(&many.join(","), &none).is_ok());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z*?.,]{1,6}",
        "[a-z]{0,2}\\{[a-z,]{0,4}\\}",
        "[ -~é]{0,8}",
        Just("and".to_owned()),
        Just("name:x".to_owned())
    ]
}

fn glob() -> impl Strategy<Value = Glob> {
    text().prop_filter_map("a pattern", |text| Glob::new(&text).ok())
}

/// A pattern that some phase fits.
fn word_of_state() -> impl Strategy<Value = Glob> {
    prop_oneof![
        Just("ready"),
        Just("*ed"),
        Just("{failed,gone}"),
        Just("boot?ng")
    ]
    .prop_map(|text| Glob::new(text).expect("a pattern"))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{1,6}", "[ -~]{1,6}"]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Exists),
        glob().prop_map(Op::Is),
        glob().prop_map(Op::IsNot),
        "-?[0-9]{1,3}(\\.[0-9])?".prop_map(Op::Less),
        "[0-9]{1,3}".prop_map(Op::More),
        pattern().prop_map(Op::Like),
    ]
}

fn pattern() -> impl Strategy<Value = ValuePattern> {
    prop_oneof![
        "[a-z^$.*+()|,{} ]{1,6}",
        "\\^\\(a\\|b\\)[a-z]\\$",
        "[ -~]{0,5}"
    ]
    .prop_filter_map("an expression", |text| ValuePattern::new(&text).ok())
}

fn target() -> impl Strategy<Value = Target> {
    let leaf = prop_oneof![
        glob().prop_map(Target::Name),
        glob().prop_map(Target::Pool),
        word_of_state().prop_map(Target::State),
        word_of_state().prop_map(Target::Phase),
        (key(), op()).prop_map(|(key, op)| Target::Tag(key, op)),
        (key(), op()).prop_map(|(key, op)| Target::Fact(key, op)),
        pattern().prop_map(Target::Regex),
        Just(parse("@edge", &groups()).expect("a group")),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Target::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Target::Or),
            inner.prop_map(|target| Target::Not(Box::new(target))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(target in target()) {
        let printed = target.to_string();
        prop_assert_eq!(parse(&printed, &groups()), Ok(target), "{}", printed);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ -~éü]{0,40}") {
        if let Ok(target) = parse(&text, &groups()) {
            prop_assert_eq!(parse(&target.to_string(), &groups()), Ok(target));
        }
    }

    #[test]
    fn every_error_points_into_the_text_or_right_behind_it(
        text in "([ -~éü\n]{0,12}|and |or |not |\\(|\\)|,|fact:|tag:a|re:|pool:|@bad|@me|\"|\\[|\\{|web1){0,8}"
    ) {
        if let Err(error) = parse(&text, &groups()) {
            let within = if error.is_of(&text) { text.as_str() } else { error.text.as_str() };
            prop_assert!(error.is_of(&text) || groups().values().any(|it| it == within), "{:?}", error);
            let len = within.chars().count();
            prop_assert!((1..=len + 1).contains(&error.column), "{:?}", error);
            prop_assert!(!error.message.is_empty() && !error.hint(&text).is_empty());
        }
    }
}
