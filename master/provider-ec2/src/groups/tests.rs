//! What becomes of groups that are there, or come to be there in between.

use aot_model::spec::InboundRule;
use aot_provider::{ErrorKind, ThingAction, ThingKind};

use super::ensure::RULE_DUPLICATE;
use super::*;
use crate::fake::{Fault, Group};
use crate::prerequisites::tests::{Case, case, group};

fn there(case: &Case, name: &str, uuid: Option<&str>, rules: &[&str]) {
    let tag = |uuid: &str| (tags::CLUSTER_UUID.to_owned(), uuid.to_owned());
    case.fake.with(|region| {
        region.groups.push(Group {
            id: format!("sg-{name}"),
            vpc: "vpc-1".into(),
            name: name.into(),
            tags: uuid.map(tag).into_iter().collect(),
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        });
    });
}

fn rules(case: &Case, name: &str) -> Vec<String> {
    let is = |group: &&Group| group.name == name;
    case.fake
        .with(|region| region.groups.iter().find(is).unwrap().rules.clone())
}

#[tokio::test]
async fn found_groups_are_left_alone_others_get_their_rules() {
    for (action, uuid, result) in [
        (GroupAction::Find, None, Some(1)),
        (GroupAction::FindOrCreate, None, Some(2)),
        (GroupAction::FindOrCreate, Some("other"), Some(2)),
        (GroupAction::Create, Some("uuid-1"), Some(2)),
        (GroupAction::Create, Some("other"), None),
        (GroupAction::Create, None, None),
    ] {
        let mut case = case();
        case.spec.security_groups[0].action = action;
        there(&case, "own", uuid, &["tcp 20,30 v4=0.0.0.0/0"]);
        let prepared = case.prepare().await;
        match result {
            Some(count) => {
                let id = &prepared.unwrap().groups["vpc-1 own"];
                assert_eq!(id, "sg-own");
                assert_eq!(rules(&case, "own").len(), count, "{action:?} {uuid:?}");
            }
            None => assert!(prepared.unwrap_err().message.contains("sg-own")),
        }
    }
    let mut case = case();
    case.spec.security_groups[0].action = GroupAction::Find;
    there(&case, "own", None, &[]);
    let things = case.outline().await;
    assert!(
        things
            .iter()
            .all(|thing| thing.action != ThingAction::Change)
    );
    assert!(
        things
            .iter()
            .any(|thing| thing.kind == ThingKind::Rule && thing.detail.contains("left alone"))
    );
}

#[tokio::test]
async fn a_group_that_another_try_made_is_taken() {
    // The look comes before the group of an earlier try shows up.
    let case = case();
    there(&case, "own", Some("uuid-1"), &["tcp 22,22 v4=0.0.0.0/0"]);
    // A look is two listings where a name is missing: it may be spelt otherwise.
    let blind = vec![("DescribeSecurityGroups", Fault::Blind); 2];
    case.fake.with(|region| {
        region.faults.extend(blind.clone());
        region.groups.retain(|group| group.name != "default");
    });
    let mut case = case;
    case.spec.pools[1].machine.security_groups.clear();
    assert_eq!(case.prepare().await.unwrap().groups["vpc-1 own"], "sg-own");
    assert_eq!(rules(&case, "own").len(), 2);
    // Nor does it show up the second time: ask again.
    case.fake.with(|region| {
        region
            .faults
            .extend([blind.clone(), blind.clone()].concat())
    });
    let error = case.prepare().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    // One of somebody else is not taken.
    case.fake.with(|region| {
        region.groups[0].tags.clear();
        region.faults.extend(blind);
    });
    assert_eq!(case.prepare().await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn rules_that_came_in_between_hinder_no_others() {
    let case = case();
    there(&case, "own", Some("uuid-1"), &[]);
    case.fake.with(|region| {
        region.faults.push((
            "AuthorizeSecurityGroupIngress",
            Fault::Refuse(RULE_DUPLICATE),
        ));
        region.faults.push((
            "AuthorizeSecurityGroupIngress",
            Fault::Refuse(RULE_DUPLICATE),
        ));
    });
    case.prepare().await.unwrap();
    // The call of all and that of the first were refused; the second rule is in.
    assert_eq!(rules(&case, "own"), ["tcp 22,22 v4=0.0.0.0/0"]);
    case.prepare().await.unwrap();
    assert_eq!(rules(&case, "own").len(), 2);
}

#[tokio::test]
async fn a_group_that_is_too_new_is_asked_for_again() {
    let case = case();
    let unknown = (
        "AuthorizeSecurityGroupIngress",
        Fault::Refuse("InvalidGroup.NotFound"),
    );
    case.fake.with(|region| region.faults.push(unknown));
    let error = case.prepare().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("\"own\""), "{error}");
    case.prepare().await.unwrap();
    assert_eq!(rules(&case, "own").len(), 2);
}

#[tokio::test]
async fn rules_may_name_other_groups() {
    let mut case = case();
    let from = |text: &str| InboundRule {
        protocol: "udp".into(),
        from_port: Some(1),
        to_port: Some(2),
        ip: None,
        group: Some(text.into()),
    };
    // One that is made, too, one that is there, and one by its id.
    case.spec.security_groups[0].allow_inbound = vec![from("z"), from("there"), from("sg-7")];
    case.spec
        .security_groups
        .push(group("z", GroupAction::FindOrCreate));
    case.spec.pools[1].machine.security_groups = vec!["z".into()];
    there(&case, "there", None, &[]);
    let prerequisites = case.prepare().await.unwrap();
    // The one with rules is in vpc-1, so the one that it names is made there as well.
    let z = &prerequisites.groups["vpc-1 z"];
    assert!(prerequisites.groups.contains_key("vpc-0 z"));
    let rules = rules(&case, "own");
    for source in [z.as_str(), "sg-there", "sg-7"] {
        assert!(
            rules.contains(&format!("udp 1,2 group={source}")),
            "{source}: {rules:?}"
        );
    }
    case.spec.security_groups[0]
        .allow_inbound
        .push(from("nowhere"));
    assert!(
        case.prepare()
            .await
            .unwrap_err()
            .message
            .contains("\"nowhere\"")
    );
}

#[tokio::test]
async fn a_name_in_other_letters_is_the_same_name() {
    let case = case();
    there(&case, "OWN", None, &[]);
    let error = case.prepare().await.unwrap_err();
    for word in ["\"own\"", "as \"OWN\"", "another name"] {
        assert!(error.message.contains(word), "{error}");
    }
    assert_eq!(error.kind, ErrorKind::Invalid, "it stays so");
    let case = self::case();
    there(&case, "OWN", Some("uuid-1"), &[]);
    let prerequisites = case.prepare().await.unwrap();
    assert_eq!(prerequisites.groups["vpc-1 own"], "sg-OWN");
}

#[tokio::test]
async fn a_group_that_was_found_and_is_gone_is_not_waited_for() {
    let mut case = case();
    case.spec.security_groups[0].action = GroupAction::FindOrCreate;
    there(&case, "own", None, &[]);
    let unknown = (
        "AuthorizeSecurityGroupIngress",
        Fault::Refuse("InvalidGroup.NotFound"),
    );
    case.fake.with(|region| region.faults.push(unknown));
    let error = case.prepare().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}
