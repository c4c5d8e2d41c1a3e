//! Start, stop, reboot, terminate: calls over many ids, of which a few bad ones must not hold up the others. Called by
//! the provider; never waits for a state.

use std::collections::BTreeSet;

use aot_proto::ids::MachineId;
use aot_provider::{Changed, ErrorKind, Leftovers, Lifecycle, MachineState, ProviderError};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::terminate_instances::TerminateInstancesOutput;
use aws_sdk_ec2::types::{InstanceStateChange, InstanceStateName};

use super::client::call;
use super::listing;

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

/// What EC2 says of a call that these credentials may not make, and, where a policy asks for tags, of an id that it no
/// longer has: that has no tags (IAM User Guide, "Controlling access to AWS resources using tags").
const NOT_ALLOWED: &str = "UnauthorizedOperation";

/// So many single machines are refused, and none is taken, before the right itself is taken to be missing.
const PROOFS: usize = 4;

/// What to do about a refused call.
#[derive(Debug, PartialEq, Eq)]
enum RefusalAction {
    /// The whole call is to blame: these ids are not.
    GiveUp,
    /// Ask again without these, which EC2 doesn't know.
    Forget(BTreeSet<MachineId>),
    /// Ask again without these, which can't be changed so.
    Blame(BTreeSet<MachineId>),
    /// Somebody is to blame: ask for each half.
    Halve,
    /// Some may be gone, or not ours to change: see which are there.
    Doubt,
}

fn next(code: Option<&str>, message: &str, ids: &[MachineId]) -> RefusalAction {
    let code = code.unwrap_or("");
    if code == NOT_ALLOWED {
        return RefusalAction::Doubt;
    }
    let unknown = UNKNOWN.contains(&code);
    if !unknown && !ONE_OF_THEM.contains(&code) {
        return RefusalAction::GiveUp;
    }
    let mut named = named(message, ids);
    if let ([only], true) = (ids, named.is_empty()) {
        named.insert(only.clone());
    }
    match (named.is_empty(), unknown) {
        (true, _) => RefusalAction::Halve,
        (false, true) => RefusalAction::Forget(named),
        (false, false) => RefusalAction::Blame(named),
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

/// Asks for the change, and gives what became of each machine that is not on its way.
///
/// # Errors
/// When the whole call is refused, whatever the machines: nothing is known of any of them.
pub(super) async fn change(
    client: &Client,
    region: &str,
    action: Lifecycle,
    machines: &[MachineId],
) -> Result<Changed, ProviderError> {
    let mut work = StateChange {
        client,
        region,
        action,
        todo: Vec::new(),
        changed: Changed::default(),
        any_taken: false,
        refused_alone: 0,
    };
    for batch in machines.chunks(BATCH).rev() {
        work.later(batch.to_vec(), false);
    }
    while let Some((ids, are_there)) = work.todo.pop() {
        work.ask(ids, are_there).await?;
    }
    Ok(work.changed)
}

/// A change that is under way: what is still to be asked, and what has come of the rest.
struct StateChange<'a> {
    client: &'a Client,
    region: &'a str,
    action: Lifecycle,
    /// Ids of one call each, the next one last; and whether they are known to be there.
    todo: Vec<(Vec<MachineId>, bool)>,
    changed: Changed,
    /// A call was taken: the right is there.
    any_taken: bool,
    /// Machines that are there and were refused when asked about alone.
    refused_alone: usize,
}

impl StateChange<'_> {
    fn later(&mut self, ids: Vec<MachineId>, are_there: bool) {
        if !ids.is_empty() {
            self.todo.push((ids, are_there));
        }
    }

    async fn ask(&mut self, mut ids: Vec<MachineId>, are_there: bool) -> Result<(), ProviderError> {
        let error = match ask(self.client, self.action, &ids).await {
            Ok(over) => {
                self.any_taken = true;
                self.changed.terminated.extend(over);
                return Ok(());
            }
            Err(error) => error,
        };
        match next(error.code.as_deref(), &error.message, &ids) {
            RefusalAction::GiveUp => return Err(error),
            RefusalAction::Halve => self.halve(ids, are_there),
            RefusalAction::Forget(bad) => {
                ids.retain(|id| !bad.contains(id));
                self.changed.unknown.extend(bad);
                self.later(ids, are_there);
            }
            RefusalAction::Blame(bad) => {
                ids.retain(|id| !bad.contains(id));
                let error = passing(error);
                let each = bad.into_iter().map(|id| (id, error.clone()));
                self.changed.refused.extend(each);
                self.later(ids, are_there);
            }
            RefusalAction::Doubt if are_there => self.not_allowed(ids, error),
            RefusalAction::Doubt => self.doubt(ids, error).await?,
        }
        Ok(())
    }

    fn halve(&mut self, mut ids: Vec<MachineId>, are_there: bool) {
        let half = ids.split_off(ids.len() / 2);
        self.later(half, are_there);
        self.later(ids, are_there);
    }

    /// Asks again for those that are there, without those that are gone.
    async fn doubt(
        &mut self,
        ids: Vec<MachineId>,
        error: ProviderError,
    ) -> Result<(), ProviderError> {
        // Who may not look either gets the error of the call that was wanted.
        let Ok(shown) = listing::by_ids(self.client, self.region, &ids).await else {
            return Err(error);
        };
        let (mut there, before) = (Vec::new(), ids.len());
        for id in ids {
            let machine = shown.machines.iter().find(|machine| machine.id == id);
            let is_over = machine.is_some_and(|it| it.state == MachineState::Terminated);
            if is_over && self.action == Lifecycle::Terminate {
                self.changed.terminated.push(id);
            } else if machine.is_some() || shown.unclear.contains(&id) {
                there.push(id);
            } else {
                self.changed.unknown.push(id);
            }
        }
        match there.len() == before {
            true => self.not_allowed(there, error),
            false => self.later(there, true),
        }
        Ok(())
    }

    /// All of these are there, and one of them at least may not be changed.
    fn not_allowed(&mut self, ids: Vec<MachineId>, error: ProviderError) {
        if ids.len() > 1 && (self.any_taken || self.refused_alone < PROOFS) {
            return self.halve(ids, true);
        }
        self.refused_alone += usize::from(ids.len() == 1);
        let each = ids.into_iter().map(|id| (id, error.clone()));
        self.changed.refused.extend(each);
    }
}

/// A state that forbids the change passes.
fn passing(mut error: ProviderError) -> ProviderError {
    if matches!(
        error.code.as_deref(),
        Some("IncorrectInstanceState" | "IncorrectState")
    ) {
        error.kind = ErrorKind::Unavailable;
    }
    error.leftovers = Leftovers::None;
    error
}

/// One call; gives those that EC2 says are terminated already.
async fn ask(
    client: &Client,
    action: Lifecycle,
    machines: &[MachineId],
) -> Result<Vec<MachineId>, ProviderError> {
    let ids = Some(machines.iter().map(ToString::to_string).collect());
    match action {
        Lifecycle::Start => {
            let request = client.start_instances().set_instance_ids(ids);
            call("StartInstances", request.send()).await?;
        }
        Lifecycle::Stop => {
            let request = client.stop_instances().set_instance_ids(ids);
            call("StopInstances", request.send()).await?;
        }
        Lifecycle::Reboot => {
            let request = client.reboot_instances().set_instance_ids(ids);
            call("RebootInstances", request.send()).await?;
        }
        Lifecycle::Terminate => {
            let request = client.terminate_instances().set_instance_ids(ids);
            let answer = call("TerminateInstances", request.send()).await?;
            return Ok(over(&answer, machines));
        }
    }
    Ok(Vec::new())
}

/// Of those that were asked for, the ones that were terminated before.
fn over(answer: &TerminateInstancesOutput, machines: &[MachineId]) -> Vec<MachineId> {
    let is_over = |change: &&InstanceStateChange| {
        let state = change.current_state().and_then(|state| state.name());
        state == Some(&InstanceStateName::Terminated)
    };
    let changes = answer.terminating_instances().iter().filter(is_over);
    let ids: BTreeSet<&str> = changes.filter_map(|it| it.instance_id()).collect();
    let all = machines.iter();
    all.filter(|id| ids.contains(id.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
