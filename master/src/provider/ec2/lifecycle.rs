//! Start, stop, reboot, terminate: calls over many ids, of which a few bad ones must not hold up the others. Called by
//! the provider; never waits for a state.

use std::collections::BTreeSet;

use aot_proto::ids::MachineId;
use aws_sdk_ec2::Client;

use super::client::call;
use super::error::invalid;
use crate::provider::{Leftovers, Lifecycle, ProviderError};

/// Ids in one call.
const BATCH: usize = 100;

/// EC2's codes for ids that it does not know (or whose form it does not know, which comes to the same).
const UNKNOWN: [&str; 2] = ["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"];

/// Codes that one instance of a call can cause for all of them (EC2 API Reference, "Error codes").
const ONE_OF_THEM: [&str; 5] = [
    "IncorrectInstanceState",
    "IncorrectState",
    "OperationNotPermitted",
    "UnsupportedOperation",
    "UnsupportedHibernationConfiguration",
];

/// What to do about a refused call.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The whole call is to blame: these ids are not.
    GiveUp,
    /// Ask again without these, which EC2 doesn't know.
    Forget(BTreeSet<MachineId>),
    /// Ask again without these, which can't be changed so.
    Blame(BTreeSet<MachineId>),
    /// Somebody is to blame: ask for each half.
    Halve,
}

fn next(code: Option<&str>, message: &str, ids: &[MachineId]) -> Next {
    let code = code.unwrap_or("");
    let unknown = UNKNOWN.contains(&code);
    if !unknown && !ONE_OF_THEM.contains(&code) {
        return Next::GiveUp;
    }
    let mut named = named(message, ids);
    if let ([only], true) = (ids, named.is_empty()) {
        named.insert(only.clone());
    }
    match (named.is_empty(), unknown) {
        (true, _) => Next::Halve,
        (false, true) => Next::Forget(named),
        (false, false) => Next::Blame(named),
    }
}

/// Those ids that a message names, as whole words.
pub(super) fn named(message: &str, ids: &[MachineId]) -> BTreeSet<MachineId> {
    let words: BTreeSet<&str> = message
        .split(|char: char| !char.is_ascii_alphanumeric() && char != '-')
        .collect();
    ids.iter()
        .filter(|id| words.contains(id.as_str()))
        .cloned()
        .collect()
}

/// Whether EC2 says that it doesn't know an id.
pub(super) fn is_unknown(error: &ProviderError) -> bool {
    error
        .code
        .as_deref()
        .is_some_and(|code| UNKNOWN.contains(&code))
}

/// Asks for the change; gives the ids that EC2 doesn't know when they are to be terminated, since that is then done.
///
/// # Errors
/// With each machine that can't be changed so, and why; the others have been asked to change. An error that is not
/// about a machine ends all at once.
pub(super) async fn change(
    client: &Client,
    action: Lifecycle,
    machines: &[MachineId],
) -> Result<Vec<MachineId>, ProviderError> {
    let mut todo: Vec<Vec<MachineId>> = machines.chunks(BATCH).map(<[_]>::to_vec).collect();
    todo.reverse();
    let (mut unknown, mut failed) = (Vec::new(), Vec::new());
    while let Some(mut ids) = todo.pop() {
        let Err(error) = ask(client, action, &ids).await else {
            continue;
        };
        match next(error.code.as_deref(), &error.message, &ids) {
            Next::GiveUp => return Err(error),
            Next::Halve => {
                let half = ids.split_off(ids.len() / 2);
                todo.extend([half, ids]);
                continue;
            }
            Next::Forget(bad) => {
                ids.retain(|id| !bad.contains(id));
                unknown.extend(bad);
            }
            Next::Blame(bad) => {
                ids.retain(|id| !bad.contains(id));
                failed.push((bad, error));
            }
        }
        if !ids.is_empty() {
            todo.push(ids);
        }
    }
    verdict(action, unknown, failed)
}

fn verdict(
    action: Lifecycle,
    unknown: Vec<MachineId>,
    failed: Vec<(BTreeSet<MachineId>, ProviderError)>,
) -> Result<Vec<MachineId>, ProviderError> {
    let is_error = action != Lifecycle::Terminate && !unknown.is_empty();
    if failed.is_empty() && !is_error {
        return Ok(unknown);
    }
    let mut lines: Vec<String> = failed
        .iter()
        .map(|(ids, error)| format!("{}: {}", words(ids), error.message))
        .collect();
    if is_error {
        lines.push(format!("EC2 knows no {}", words(&unknown)));
    }
    let message = lines.join("; ");
    Err(match failed.into_iter().next() {
        Some((_, first)) => ProviderError { message, ..first },
        None => ProviderError {
            code: Some(UNKNOWN[0].into()),
            leftovers: Leftovers::None,
            ..invalid(message)
        },
    })
}

fn words<'a>(ids: impl IntoIterator<Item = &'a MachineId>) -> String {
    let ids: Vec<&str> = ids.into_iter().map(MachineId::as_str).collect();
    ids.join(", ")
}

async fn ask(
    client: &Client,
    action: Lifecycle,
    machines: &[MachineId],
) -> Result<(), ProviderError> {
    let ids = Some(machines.iter().map(ToString::to_string).collect());
    match action {
        Lifecycle::Start => {
            let request = client.start_instances().set_instance_ids(ids);
            call("StartInstances", request.send()).await.map(drop)
        }
        Lifecycle::Stop => {
            let request = client.stop_instances().set_instance_ids(ids);
            call("StopInstances", request.send()).await.map(drop)
        }
        Lifecycle::Reboot => {
            let request = client.reboot_instances().set_instance_ids(ids);
            call("RebootInstances", request.send()).await.map(drop)
        }
        Lifecycle::Terminate => {
            let request = client.terminate_instances().set_instance_ids(ids);
            call("TerminateInstances", request.send()).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
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
}
