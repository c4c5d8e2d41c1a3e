//! The `ec2` provider: machines are EC2 instances, found again by the tags that the launching call itself gave them.
//!
//! It never retries past what the SDK does, and never prints a parameter: user-data holds the join token.

#![warn(unreachable_pub)]

mod address;
mod asked;
mod call_log;
mod call_params;
mod challenge;
mod cleanup;
mod client;
mod convert;
mod discovery;
mod error;
mod explain;
#[cfg(test)]
mod fake;
mod fresh;
mod groups;
mod image_lookup;
mod image_ref;
mod leftover;
mod lifecycle;
mod listing;
mod lookup;
mod names;
mod placement;
mod preflight;
mod prerequisites;
mod references;
mod repeats;
mod request;
mod resolve;
mod rules;
mod secrets;
mod tagged;
mod truncation;

use std::collections::BTreeMap;

use aot_model::attestation::Secret;
use aot_model::secret::SecretSource;
use aot_model::spec::ProviderKind;
use aot_proto::ids::{InstanceName, MachineId};
use aot_provider::calls::Calls;
use aot_provider::{
    Ask, Changed, ClientToken, ClusterRef, ElasticIp, LaunchSpec, Leftovers, Lifecycle, Listing,
    Machine, Prerequisites, Problem, Provider, ProviderError, Receipt, Tagged, Thing,
};
use aws_sdk_ec2::operation::run_instances::{RunInstancesInput, RunInstancesOutput};
use futures::future::BoxFuture;

use self::client::{Clients, call};
use self::error::{cut_off, invalid};

/// Pages of one listing; a server that never ends one is not followed for ever.
const MAX_PAGES: usize = 10_000;

/// EC2, in as many regions as clusters name.
pub struct Ec2Provider {
    clients: Clients,
}

impl Ec2Provider {
    /// With the AWS SDK's own settings (`AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL`, ...), read at the first call;
    /// `region` goes before theirs. A cluster's own region goes before both.
    pub fn new(region: Option<String>, calls: Calls) -> Self {
        Self {
            clients: Clients::new(region, calls),
        }
    }

    async fn launch_all(
        &self,
        spec: &LaunchSpec,
        token: &ClientToken,
    ) -> Result<Vec<Machine>, ProviderError> {
        let name = spec.cluster.name.as_str();
        let token_of = spec.prerequisites.discovery_token.as_deref();
        let user_data = aot_user_data::for_batch(&spec.boot, name, &spec.members, token_of)
            .map_err(|error| invalid(error.to_string()))?;
        let resolved = resolve::resolve(spec)?;
        let (client, region) = self.clients.client(spec.cluster.region.as_deref()).await?;
        let input = request::run_instances(spec, token, &resolved, &user_data)?;
        let answer = run_instances(&client, spec, &resolved, input).await?;
        let mut machines = Vec::with_capacity(spec.members.len());
        for instance in answer.instances() {
            let machine = convert::machine(instance, &region, answer.owner_id());
            machines.push(machine.ok_or_else(|| {
                cut_off("EC2 RunInstances: the answer is cut off within an instance")
            })?);
        }
        if machines.len() != spec.members.len() {
            let (got, asked) = (machines.len(), spec.members.len());
            return Err(cut_off(format!(
                "EC2 RunInstances: the answer has {got} of {asked} instances"
            )));
        }
        machines.sort_by_key(|machine| machine.launch_index);
        tracing::info!(machines = machines.len(), cluster = %spec.cluster.name, region, "instances launched");
        Ok(machines)
    }

    async fn describe_all(&self, cluster: &ClusterRef) -> Result<Listing, ProviderError> {
        let (client, region) = self.clients.client(cluster.region.as_deref()).await?;
        listing::machines(&client, &region, listing::of_cluster(&cluster.uuid)).await
    }

    async fn clean(&self, cluster: &ClusterRef) -> Result<Vec<Receipt>, ProviderError> {
        let listing = self.describe_all(cluster).await?;
        let mut receipts = cleanup::machines(&listing);
        let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
        if receipts.iter().all(|receipt| !receipt.left) {
            let machines = &listing.machines;
            let rest = cleanup::rest(&client, &cluster.uuid, machines, cleanup::PATIENCE);
            receipts.extend(rest.await?);
        }
        Ok(receipts)
    }
}

/// The call. What it stands on may have been made a moment ago: then a refusal that EC2 does not know it passes, and so
/// does one that rests on its tags, which is asked about once more.
async fn run_instances(
    client: &aws_sdk_ec2::Client,
    spec: &LaunchSpec,
    resolved: &resolve::Resolved,
    input: RunInstancesInput,
) -> Result<RunInstancesOutput, ProviderError> {
    let send = || call("RunInstances", fluent(client, input.clone()).send());
    let groups = resolved.groups.iter().map(String::as_str);
    let placement = spec.machine.placement_group.iter().map(String::as_str);
    let new_group = fresh::any(&spec.prerequisites, groups);
    let new_placement = fresh::any(&spec.prerequisites, placement);
    let answer = match new_group || new_placement {
        true => fresh::with_tags(send).await,
        false => send().await,
    };
    answer.map_err(|error| {
        let passes = new_group && fresh::is(&error, &fresh::GROUP)
            || new_placement && fresh::is(&error, &fresh::PLACEMENT);
        match passes {
            true => fresh::passes(error),
            false => error,
        }
    })
}

/// The SDK sends what a builder holds; this moves a checked request into one.
fn fluent(
    client: &aws_sdk_ec2::Client,
    input: RunInstancesInput,
) -> aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder {
    client
        .run_instances()
        .set_client_token(input.client_token)
        .set_min_count(input.min_count)
        .set_max_count(input.max_count)
        .set_image_id(input.image_id)
        .set_instance_type(input.instance_type)
        .set_user_data(input.user_data)
        .set_metadata_options(input.metadata_options)
        .set_tag_specifications(input.tag_specifications)
        .set_block_device_mappings(input.block_device_mappings)
        .set_subnet_id(input.subnet_id)
        .set_security_group_ids(input.security_group_ids)
        .set_network_interfaces(input.network_interfaces)
        .set_key_name(input.key_name)
        .set_ebs_optimized(input.ebs_optimized)
        .set_iam_instance_profile(input.iam_instance_profile)
        .set_placement(input.placement)
        .set_instance_market_options(input.instance_market_options)
}

/// Calls that make nothing leave nothing.
fn harmless(mut error: ProviderError) -> ProviderError {
    error.leftovers = Leftovers::None;
    error
}

impl Provider for Ec2Provider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Ec2
    }

    fn preflight<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Vec<Problem>> {
        Box::pin(preflight::problems(&self.clients, ask))
    }

    fn outline<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Vec<Thing>, ProviderError>> {
        Box::pin(async {
            prerequisites::outline(&self.clients, ask)
                .await
                .map_err(harmless)
        })
    }

    fn prepare<'a>(
        &'a self,
        ask: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<Prerequisites, ProviderError>> {
        Box::pin(async {
            prerequisites::prepare(&self.clients, ask)
                .await
                .map_err(harmless)
        })
    }

    fn launch<'a>(
        &'a self,
        spec: &'a LaunchSpec,
        token: &'a ClientToken,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(self.launch_all(spec, token))
    }

    fn describe<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Listing, ProviderError>> {
        Box::pin(async { self.describe_all(cluster).await.map_err(harmless) })
    }

    fn find<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Listing, ProviderError>> {
        Box::pin(async {
            let (client, region) = self.clients.client(cluster.region.as_deref()).await?;
            let found = listing::by_ids(&client, &region, machines).await;
            found.map_err(harmless)
        })
    }

    fn lifecycle<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        Box::pin(async move {
            let (client, region) = self.clients.client(cluster.region.as_deref()).await?;
            lifecycle::change(&client, &region, action, machines)
                .await
                .map_err(harmless)
        })
    }

    fn set_name_tags<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        names: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move {
            let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
            names::give(&client, names).await.map_err(harmless)
        })
    }

    fn assign_addresses<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<ElasticIp, ProviderError>)>> {
        Box::pin(async move {
            let mut given = address::give(&self.clients, cluster, machines).await;
            for (_, result) in &mut given {
                if let Err(error) = result {
                    error.leftovers = Leftovers::None;
                }
            }
            given
        })
    }

    fn challenge<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        values: &'a [(MachineId, Secret)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<(), ProviderError>)>> {
        Box::pin(async move {
            match self.clients.client(cluster.region.as_deref()).await {
                Ok((client, _)) => challenge::set(&client, values).await,
                Err(error) => {
                    let failed = |(id, _): &(MachineId, Secret)| (id.clone(), Err(error.clone()));
                    values.iter().map(failed).collect()
                }
            }
        })
    }

    fn unchallenge<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move {
            let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
            challenge::remove(&client, machines).await
        })
    }

    fn explain<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, BTreeMap<MachineId, String>> {
        Box::pin(async move {
            match self.clients.client(cluster.region.as_deref()).await {
                Ok((client, _)) => explain::explain(&client, machines).await,
                Err(_) => BTreeMap::new(),
            }
        })
    }

    fn region(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(self.clients.region(None))
    }

    fn secret<'a>(
        &'a self,
        source: &'a SecretSource,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move {
            match source {
                SecretSource::Ssm(secret) => {
                    secrets::parameter(&self.clients.ssm(None).await?, secret).await
                }
                SecretSource::SecretsManager(secret) => {
                    let client = self.clients.secrets_manager(None).await?;
                    secrets::managed(&client, secret).await
                }
                SecretSource::Env(_) | SecretSource::File(_) | SecretSource::Command(_) => {
                    Err(invalid("AWS does not keep this secret"))
                }
            }
        })
    }

    fn tagged(&self) -> BoxFuture<'_, Result<Vec<Tagged>, ProviderError>> {
        Box::pin(async {
            let (client, _) = self.clients.client(None).await?;
            tagged::tagged(&client).await.map_err(harmless)
        })
    }

    fn cleanup<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ProviderError>> {
        Box::pin(async { self.clean(cluster).await.map_err(harmless) })
    }
}

#[cfg(test)]
mod tests;
