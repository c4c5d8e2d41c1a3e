//! Challenges: a random value as a tag on a machine, which the agent there reads back through the metadata service. Called
//! by the provider; the tags are removed again.

use aot_model::attestation::Secret;
use aot_proto::ids::MachineId;
use aot_provider::{ProviderError, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Tag;
use futures::StreamExt as _;

use super::client::call;
use super::lifecycle::{is_unknown, named};

/// Calls at the same time. Each machine needs its own: EC2 gives all resources of one CreateTags call the same value, and
/// then one of them could answer for the others.
const AT_ONCE: usize = 8;
/// Machines in one DeleteTags call (EC2 takes 1,000 resources).
const BATCH: usize = 500;

/// Sets each machine's value.
pub(super) async fn set(
    client: &Client,
    values: &[(MachineId, Secret)],
) -> Vec<(MachineId, Result<(), ProviderError>)> {
    let owned: Vec<_> = values.to_vec();
    let calls = owned.into_iter().map(|(machine, value)| {
        let tag = Tag::builder().key(tags::CHALLENGE).value(value.0).build();
        let request = client.create_tags().resources(machine.as_str()).tags(tag);
        async move {
            let result = call("CreateTags", request.send()).await;
            (machine, result.map(drop))
        }
    });
    futures::stream::iter(calls)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Removes the tags, whatever their values. A machine that EC2 does not know any more has none.
///
/// # Errors
/// The first that is not about an unknown machine.
pub(super) async fn remove(client: &Client, machines: &[MachineId]) -> Result<(), ProviderError> {
    let mut todo: Vec<Vec<MachineId>> = machines.chunks(BATCH).map(<[_]>::to_vec).collect();
    while let Some(mut ids) = todo.pop() {
        let tag = Tag::builder().key(tags::CHALLENGE).build();
        let resources = ids.iter().map(ToString::to_string).collect();
        let request = client
            .delete_tags()
            .set_resources(Some(resources))
            .tags(tag);
        let error = match call("DeleteTags", request.send()).await {
            Ok(_) => continue,
            Err(error) if is_unknown(&error) => error,
            Err(error) => return Err(error),
        };
        let unknown = named(&error.message, &ids);
        let known = ids.len();
        ids.retain(|id| !unknown.contains(id));
        match ids.len() {
            0 | 1 if ids.len() == known => {} // the only one, and it is unknown
            len if len == known => {
                let half = ids.split_off(len / 2);
                todo.extend([half, ids]);
            }
            0 => {}
            _ => todo.push(ids),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Replay;

    fn ids(count: usize) -> Vec<MachineId> {
        let id = |number| format!("i-{number}").parse().unwrap();
        (1..=count).map(id).collect()
    }

    #[tokio::test]
    async fn each_machine_gets_a_value_of_its_own() {
        let fake = Replay::default();
        fake.refuse("CreateTags", 400, "InvalidInstanceID.NotFound", "i-1")
            .ok("CreateTags", "<return>true</return>");
        let values: Vec<_> = ids(3)
            .into_iter()
            .map(|id| (id.clone(), Secret(format!("value of {id}"))))
            .collect();
        let results = set(&fake.client().await, &values).await;
        let failed = results.iter().filter(|(_, result)| result.is_err()).count();
        assert_eq!((results.len(), failed), (3, 1));
        let asked = fake.asked("CreateTags");
        assert_eq!(asked.len(), 3);
        for call in asked {
            assert_eq!(call["Tag.1.Key"], "aot:challenge");
            assert_eq!(
                call["Tag.1.Value"],
                format!("value of {}", call["ResourceId.1"])
            );
            assert_eq!(call.get("ResourceId.2"), None);
        }
    }

    #[tokio::test]
    async fn all_are_removed_at_once_and_unknown_ones_are_left_out() {
        let fake = Replay::default();
        fake.refuse(
            "DeleteTags",
            400,
            "InvalidInstanceID.NotFound",
            "The instance ID 'i-2' does not exist",
        )
        .ok("DeleteTags", "<return>true</return>");
        remove(&fake.client().await, &ids(3)).await.unwrap();
        let asked = fake.asked("DeleteTags");
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0]["Tag.1.Key"], "aot:challenge");
        assert_eq!(asked[0].get("Tag.1.Value"), None, "whatever it holds");
        let left = [&asked[1]["ResourceId.1"], &asked[1]["ResourceId.2"]];
        assert_eq!(left, ["i-1", "i-3"]);
    }

    #[tokio::test]
    async fn a_refusal_that_names_nobody_ends_too() {
        let fake = Replay::default();
        fake.refuse(
            "DeleteTags",
            400,
            "InvalidInstanceID.NotFound",
            "one of them",
        );
        remove(&fake.client().await, &ids(3)).await.unwrap();
        let denied = Replay::default();
        denied.refuse("DeleteTags", 403, "UnauthorizedOperation", "no");
        assert!(remove(&denied.client().await, &ids(3)).await.is_err());
    }
}
