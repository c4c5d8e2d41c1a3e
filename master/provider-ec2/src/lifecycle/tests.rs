//! Tests of `lifecycle`: bad ids among good ones, by message, by halves, in batches.

use aot_provider::ErrorKind;

use super::*;
use crate::fake::Replay;

const NOT_FOUND: &str = "InvalidInstanceID.NotFound";
const STATE: &str = "IncorrectInstanceState";

fn ids(texts: &[&str]) -> Vec<MachineId> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Ids of each call.
fn asked(fake: &Replay, action: &str) -> Vec<Vec<String>> {
    let ids = |asked: &crate::fake::Asked| {
        let is = |(key, _): &(&String, &String)| key.starts_with("InstanceId.");
        asked
            .iter()
            .filter(is)
            .map(|(_, id)| id.clone())
            .collect::<Vec<_>>()
    };
    fake.asked(action).iter().map(ids).collect()
}

#[test]
fn what_a_refusal_means() {
    let three = ids(&["i-1", "i-2", "i-12"]);
    let set = |texts: &[&str]| ids(texts).into_iter().collect::<BTreeSet<_>>();
    for (code, message, wanted) in [
        (
            NOT_FOUND,
            "The instance IDs 'i-1, i-12' do not exist",
            RefusalAction::Forget(set(&["i-1", "i-12"])),
        ),
        (
            NOT_FOUND,
            "The instance ID 'i-2' does not exist",
            RefusalAction::Forget(set(&["i-2"])),
        ),
        (
            "InvalidInstanceID.Malformed",
            "Invalid id: \"i-2\"",
            RefusalAction::Forget(set(&["i-2"])),
        ),
        (NOT_FOUND, "some do not exist", RefusalAction::Halve),
        (
            STATE,
            "The instance 'i-2' is not in a state",
            RefusalAction::Blame(set(&["i-2"])),
        ),
        (STATE, "i-99 and others", RefusalAction::Halve),
        (NOT_ALLOWED, "i-1", RefusalAction::Doubt),
        ("RequestLimitExceeded", "i-1", RefusalAction::GiveUp),
    ] {
        assert_eq!(
            next(Some(code), message, &three),
            wanted,
            "{code} {message}"
        );
    }
    assert_eq!(
        next(Some(NOT_FOUND), "", &three[..1]),
        RefusalAction::Forget(set(&["i-1"]))
    );
    assert_eq!(
        next(Some(STATE), "", &three[..1]),
        RefusalAction::Blame(set(&["i-1"]))
    );
    assert_eq!(next(None, "", &three[..1]), RefusalAction::GiveUp);
}

#[tokio::test]
async fn unknown_ids_do_not_hold_up_the_others() {
    let fake = Replay::default();
    fake.refuse(
        "TerminateInstances",
        400,
        NOT_FOUND,
        "The instance IDs 'i-1, i-3' do not exist",
    )
    .ok("TerminateInstances", "<instancesSet/>");
    let all = ids(&["i-1", "i-2", "i-3", "i-4"]);
    let client = fake.client().await;
    let changed = terminate(&client, &all).await;
    assert_eq!(changed.unknown, ids(&["i-1", "i-3"]));
    assert_eq!(asked(&fake, "TerminateInstances")[1], ["i-2", "i-4"]);
}

#[tokio::test]
async fn a_message_without_ids_is_found_out_by_halves() {
    let fake = Replay::default();
    fake.refuse("TerminateInstances", 400, NOT_FOUND, "some") // 1 2 3 4
        .ok("TerminateInstances", "") // 1 2
        .refuse("TerminateInstances", 400, NOT_FOUND, "some") // 3 4
        .refuse("TerminateInstances", 400, NOT_FOUND, "some") // 3
        .ok("TerminateInstances", ""); // 4
    let all = ids(&["i-1", "i-2", "i-3", "i-4"]);
    let client = fake.client().await;
    let changed = terminate(&client, &all).await;
    assert_eq!(changed.unknown, ids(&["i-3"]));
    let calls = asked(&fake, "TerminateInstances");
    assert_eq!(
        calls[1..],
        [
            vec!["i-1", "i-2"],
            vec!["i-3", "i-4"],
            vec!["i-3"],
            vec!["i-4"]
        ]
    );
}

#[tokio::test]
async fn a_wrong_state_is_told_and_the_others_go_on() {
    let fake = Replay::default();
    fake.refuse(
        "StopInstances",
        400,
        STATE,
        "The instance 'i-1' is not in a state from which it can be stopped.",
    )
    .refuse(
        "StopInstances",
        400,
        NOT_FOUND,
        "The instance ID 'i-3' does not exist",
    )
    .ok("StopInstances", "<instancesSet/>");
    let client = fake.client().await;
    let three = ids(&["i-1", "i-2", "i-3"]);
    let changed = change(&client, "r", Lifecycle::Stop, &three).await;
    let error = changed.unwrap().of_all().unwrap_err();
    assert_eq!(error.code.as_deref(), Some(STATE));
    for word in ["i-1: EC2 StopInstances", "can be stopped", "knows no i-3"] {
        assert!(error.message.contains(word), "{error}");
    }
    assert!(!error.message.contains("i-2"), "{error}");
    assert_eq!(asked(&fake, "StopInstances").last().unwrap(), &["i-2"]);
}

#[tokio::test]
async fn what_is_unknown_does_not_change() {
    for (action, name) in [
        (Lifecycle::Start, "StartInstances"),
        (Lifecycle::Reboot, "RebootInstances"),
    ] {
        let fake = Replay::default();
        fake.refuse(name, 400, NOT_FOUND, "The instance ID 'i-1' does not exist");
        let changed = change(&fake.client().await, "r", action, &ids(&["i-1"])).await;
        let error = changed.unwrap().of_all().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("i-1"), "{error}");
    }
}

#[tokio::test]
async fn trouble_of_the_whole_call_ends_it() {
    let fake = Replay::default();
    fake.refuse("StopInstances", 401, "AuthFailure", "no");
    let both = ids(&["i-1", "i-2"]);
    let error = change(&fake.client().await, "r", Lifecycle::Stop, &both)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(fake.actions().len(), 1);
}

async fn terminate(client: &Client, all: &[MachineId]) -> Changed {
    change(client, "r", Lifecycle::Terminate, all)
        .await
        .unwrap()
}

fn shown(machines: &[(&str, &str)]) -> String {
    let item = |(id, state): &(&str, &str)| {
        format!(
            "<item><instanceId>{id}</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>{state}</name></instanceState></item>"
        )
    };
    let items: String = machines.iter().map(item).collect();
    format!("<reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>")
}

#[tokio::test]
async fn a_machine_that_is_gone_is_not_named_to_a_policy_that_asks_for_its_tags() {
    let fake = Replay::default();
    fake.refuse("TerminateInstances", 403, NOT_ALLOWED, "not authorized")
        .ok("TerminateInstances", "<instancesSet/>")
        .ok(
            "DescribeInstances",
            &shown(&[
                ("i-2", "running"),
                ("i-3", "terminated"),
                ("i-4", "running"),
            ]),
        );
    let all = ids(&["i-1", "i-2", "i-3", "i-4"]);
    let changed = terminate(&fake.client().await, &all).await;
    assert_eq!(changed.unknown, ids(&["i-1"]));
    assert_eq!(changed.terminated, ids(&["i-3"]));
    assert!(changed.refused.is_empty());
    assert_eq!(asked(&fake, "TerminateInstances")[1], ["i-2", "i-4"]);
    let looked = &fake.asked("DescribeInstances")[0];
    assert_eq!(looked["Filter.1.Name"], "instance-id");
    assert_eq!(
        looked.get("InstanceId.1"),
        None,
        "an unknown id must not fail"
    );
}

#[tokio::test]
async fn what_may_not_be_changed_is_found_by_halves_and_named() {
    let fake = Replay::default();
    fake.refuse("TerminateInstances", 403, NOT_ALLOWED, "all")
        .ok("TerminateInstances", "<instancesSet/>") // 1
        .refuse("TerminateInstances", 403, NOT_ALLOWED, "only 2")
        .ok(
            "DescribeInstances",
            &shown(&[("i-1", "running"), ("i-2", "running")]),
        );
    let changed = terminate(&fake.client().await, &ids(&["i-1", "i-2"])).await;
    let refused: Vec<&str> = changed.refused.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(refused, ["i-2"]);
    assert_eq!(changed.refused[0].1.kind, ErrorKind::Denied);
    assert!(changed.unknown.is_empty());
}

#[tokio::test]
async fn a_right_that_is_missing_is_found_out_in_a_few_calls() {
    let fake = Replay::default();
    let names: Vec<String> = (0..100).map(|number| format!("i-{number:x}")).collect();
    let there: Vec<(&str, &str)> = names.iter().map(|id| (id.as_str(), "running")).collect();
    fake.refuse("TerminateInstances", 403, NOT_ALLOWED, "no")
        .ok("DescribeInstances", &shown(&there));
    let all: Vec<MachineId> = names.iter().map(|id| id.parse().unwrap()).collect();
    let changed = terminate(&fake.client().await, &all).await;
    assert_eq!(changed.refused.len(), 100);
    let calls = fake.asked("TerminateInstances").len();
    assert!(calls <= 20, "{calls} calls");
}

#[tokio::test]
async fn who_may_neither_change_nor_look_is_told_of_the_change() {
    let fake = Replay::default();
    fake.refuse("TerminateInstances", 403, NOT_ALLOWED, "not that")
        .refuse("DescribeInstances", 403, NOT_ALLOWED, "nor this");
    let (client, one) = (fake.client().await, ids(&["i-1"]));
    let error = change(&client, "r", Lifecycle::Terminate, &one).await;
    assert!(error.unwrap_err().message.contains("not that"));
}

#[tokio::test]
async fn one_that_was_terminated_before_is_told() {
    let fake = Replay::default();
    let change = |id: &str, state: &str| {
        format!(
            "<item><instanceId>{id}</instanceId><currentState><name>{state}</name></currentState></item>"
        )
    };
    let both = change("i-1", "terminated") + &change("i-2", "shutting-down");
    fake.ok(
        "TerminateInstances",
        &format!("<instancesSet>{both}</instancesSet>"),
    );
    let changed = terminate(&fake.client().await, &ids(&["i-1", "i-2"])).await;
    assert_eq!(changed.terminated, ids(&["i-1"]));
}

#[tokio::test]
async fn many_ids_go_in_batches() {
    let fake = Replay::default();
    fake.ok("StartInstances", "<instancesSet/>");
    let many: Vec<MachineId> = (0..250)
        .map(|number| format!("i-{number:x}").parse().unwrap())
        .collect();
    let client = fake.client().await;
    let changed = change(&client, "r", Lifecycle::Start, &many).await;
    changed.unwrap().of_all().unwrap();
    let sizes: Vec<usize> = asked(&fake, "StartInstances")
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}
