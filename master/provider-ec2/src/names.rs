//! The Name tag of machines. Called by the provider after a launch.

use aot_proto::ids::{InstanceName, MachineId};
use aot_provider::{ProviderError, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Tag;
use futures::StreamExt as _;

use super::client::call;
use super::fresh;

/// Most machines that get names of their own in one go. EC2 gives all resources of one CreateTags call the same tags, so
/// each name is a call, and the number of calls must not grow with that of machines. A bigger batch keeps its pool's
/// label as Name; a member's name then follows from `aot:pool` and the launch index.
pub(super) const MAX_NAMED: usize = 20;
/// Calls at the same time.
const AT_ONCE: usize = 8;

/// Tags each machine with its name, all of them even when one fails.
///
/// # Errors
/// The first failure.
pub(super) async fn give(
    client: &Client,
    names: &[(MachineId, InstanceName)],
) -> Result<(), ProviderError> {
    if names.len() > MAX_NAMED {
        tracing::debug!(machines = names.len(), "too many to give each a Name");
        return Ok(());
    }
    let owned: Vec<_> = names.to_vec();
    let calls = owned.into_iter().map(|(machine, name)| {
        let tag = Tag::builder().key(tags::NAME).value(name.as_str()).build();
        let request = client.create_tags().resources(machine.as_str()).tags(tag);
        call("CreateTags", request.send())
    });
    let results: Vec<_> = futures::stream::iter(calls)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let passing = |error| match fresh::is(&error, &fresh::MACHINE) {
        // Our own call has just made it.
        true => fresh::passes(error),
        false => error,
    };
    results
        .into_iter()
        .try_for_each(|result| result.map(drop).map_err(passing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Replay;
    use aot_provider::ErrorKind;

    fn names(count: usize) -> Vec<(MachineId, InstanceName)> {
        (1..=count)
            .map(|number| {
                let id = format!("i-{number}").parse().unwrap();
                (id, format!("web{number}").parse().unwrap())
            })
            .collect()
    }

    #[tokio::test]
    async fn each_machine_gets_its_name_unless_there_are_many() {
        let fake = Replay::default();
        fake.ok("CreateTags", "<return>true</return>");
        let client = fake.client().await;
        give(&client, &names(MAX_NAMED)).await.unwrap();
        let asked = fake.asked("CreateTags");
        assert_eq!(asked.len(), MAX_NAMED);
        for call in &asked {
            let number = call["ResourceId.1"].strip_prefix("i-").unwrap();
            assert_eq!(call["Tag.1.Value"], format!("web{number}"));
        }
        give(&client, &names(MAX_NAMED + 1)).await.unwrap();
        assert_eq!(fake.asked("CreateTags").len(), MAX_NAMED);
    }

    #[tokio::test]
    async fn one_failure_is_reported_after_the_others_got_theirs() {
        let fake = Replay::default();
        fake.refuse("CreateTags", 400, "InvalidInstanceID.NotFound", "i-1")
            .ok("CreateTags", "<return>true</return>");
        let error = give(&fake.client().await, &names(3)).await.unwrap_err();
        assert_eq!(error.code.as_deref(), Some("InvalidInstanceID.NotFound"));
        assert_eq!(error.kind, ErrorKind::Unavailable, "it is asked again");
        assert_eq!(fake.asked("CreateTags").len(), 3);
    }
}
