//! Tests of `lifecycle`: bad ids among good ones, by message, by halves, in batches.

use super::*;
use crate::provider::ErrorKind;
use crate::provider::ec2::replay::Replay;

const NOT_FOUND: &str = "InvalidInstanceID.NotFound";
const STATE: &str = "IncorrectInstanceState";

fn ids(texts: &[&str]) -> Vec<MachineId> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Ids of each call.
fn asked(fake: &Replay, action: &str) -> Vec<Vec<String>> {
    let ids = |asked: &super::super::replay::Asked| {
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
            Next::Forget(set(&["i-1", "i-12"])),
        ),
        (
            NOT_FOUND,
            "The instance ID 'i-2' does not exist",
            Next::Forget(set(&["i-2"])),
        ),
        (
            "InvalidInstanceID.Malformed",
            "Invalid id: \"i-2\"",
            Next::Forget(set(&["i-2"])),
        ),
        (NOT_FOUND, "some do not exist", Next::Halve),
        (
            STATE,
            "The instance 'i-2' is not in a state",
            Next::Blame(set(&["i-2"])),
        ),
        (STATE, "i-99 and others", Next::Halve),
        ("RequestLimitExceeded", "i-1", Next::GiveUp),
    ] {
        assert_eq!(
            next(Some(code), message, &three),
            wanted,
            "{code} {message}"
        );
    }
    assert_eq!(
        next(Some(NOT_FOUND), "", &three[..1]),
        Next::Forget(set(&["i-1"]))
    );
    assert_eq!(
        next(Some(STATE), "", &three[..1]),
        Next::Blame(set(&["i-1"]))
    );
    assert_eq!(next(None, "", &three[..1]), Next::GiveUp);
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
    let unknown = change(&client, Lifecycle::Terminate, &all).await.unwrap();
    assert_eq!(unknown, ids(&["i-1", "i-3"]));
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
    let unknown = change(&client, Lifecycle::Terminate, &all).await.unwrap();
    assert_eq!(unknown, ids(&["i-3"]));
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
    let error = change(&client, Lifecycle::Stop, &ids(&["i-1", "i-2", "i-3"]))
        .await
        .unwrap_err();
    assert_eq!(error.code.as_deref(), Some(STATE));
    for word in ["i-1: EC2 StopInstances", "can be stopped", "knows no i-3"] {
        assert!(error.message.contains(word), "{error}");
    }
    assert!(!error.message.contains("i-2"), "{error}");
    assert_eq!(asked(&fake, "StopInstances").last().unwrap(), &["i-2"]);
}

#[tokio::test]
async fn only_terminating_what_is_unknown_is_fine() {
    for (action, name) in [
        (Lifecycle::Start, "StartInstances"),
        (Lifecycle::Reboot, "RebootInstances"),
    ] {
        let fake = Replay::default();
        fake.refuse(name, 400, NOT_FOUND, "The instance ID 'i-1' does not exist");
        let error = change(&fake.client().await, action, &ids(&["i-1"]))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("i-1"), "{error}");
    }
}

#[tokio::test]
async fn trouble_of_the_whole_call_ends_it() {
    let fake = Replay::default();
    fake.refuse("StopInstances", 403, "UnauthorizedOperation", "no");
    let error = change(&fake.client().await, Lifecycle::Stop, &ids(&["i-1", "i-2"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(fake.actions().len(), 1);
}

#[tokio::test]
async fn many_ids_go_in_batches() {
    let fake = Replay::default();
    fake.ok("StartInstances", "<instancesSet/>");
    let many: Vec<MachineId> = (0..250)
        .map(|number| format!("i-{number:x}").parse().unwrap())
        .collect();
    let client = fake.client().await;
    assert!(
        change(&client, Lifecycle::Start, &many)
            .await
            .unwrap()
            .is_empty()
    );
    let sizes: Vec<usize> = asked(&fake, "StartInstances")
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}
