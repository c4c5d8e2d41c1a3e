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
#[path = "lifecycle_tests.rs"]
mod tests;
