//! The `ec2` provider: machines are EC2 instances, found again by the tags that the launching call itself gave them.
//!
//! It never retries past what the SDK does, and never prints a parameter: user-data holds the join token.

mod address;
mod cleanup;
mod client;
mod convert;
mod discovery;
mod error;
mod explain;
#[cfg(test)]
mod fake;
mod ground;
mod groups;
mod image;
mod images;
mod leftover;
mod lifecycle;
mod listing;
mod lookup;
mod names;
mod placement;
mod preflight;
mod references;
#[cfg(test)]
mod replay;
mod request;
mod resolve;
mod rules;
mod tagged;
pub mod user_data;
mod watch;
mod whole;
mod wire;

use std::collections::BTreeMap;

use aot_proto::ids::{InstanceName, MachineId};
use futures::future::BoxFuture;

use self::client::{Clients, call};
use self::error::{cut_off, invalid};
use super::{
    Ask, ClientToken, ClusterRef, ElasticIp, Ground, LaunchSpec, Leftovers, Lifecycle, Machine,
    MachineState, Problem, Provider, ProviderError, Receipt, Tagged, Thing,
};
use crate::model::file::ProviderKind;
use crate::provider::calls::Calls;

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
        let token_of = spec.ground.discovery_token.as_deref();
        let user_data = user_data::for_batch(&spec.boot, name, &spec.members, token_of)
            .map_err(|error| invalid(error.to_string()))?;
        let resolved = resolve::resolve(spec)?;
        let (client, region) = self.clients.client(spec.cluster.region.as_deref()).await?;
        let input = request::run_instances(spec, token, &resolved, &user_data)?;
        let answer = call("RunInstances", fluent(&client, input).send()).await?;
        let mut machines = Vec::with_capacity(spec.members.len());
        for instance in answer.instances() {
            let machine = convert::machine(instance, &region);
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

    async fn describe_all(&self, cluster: &ClusterRef) -> Result<Vec<Machine>, ProviderError> {
        let (client, region) = self.clients.client(cluster.region.as_deref()).await?;
        listing::machines(&client, &region, listing::of_cluster(&cluster.uuid)).await
    }

    async fn clean(&self, cluster: &ClusterRef) -> Result<Vec<Receipt>, ProviderError> {
        let machines = self.describe_all(cluster).await?;
        let mut receipts = cleanup::machines(&machines);
        let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
        if machines
            .iter()
            .all(|machine| machine.state == MachineState::Terminated)
        {
            let rest = cleanup::rest(&client, &cluster.uuid, &machines, cleanup::PATIENCE);
            receipts.extend(rest.await?);
        }
        Ok(receipts)
    }
}

/// The SDK sends what a builder holds; this moves a checked request into one.
fn fluent(
    client: &aws_sdk_ec2::Client,
    input: aws_sdk_ec2::operation::run_instances::RunInstancesInput,
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
        Box::pin(async { ground::outline(&self.clients, ask).await.map_err(harmless) })
    }

    fn prepare<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Ground, ProviderError>> {
        Box::pin(async { ground::prepare(&self.clients, ask).await.map_err(harmless) })
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
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(async { self.describe_all(cluster).await.map_err(harmless) })
    }

    fn lifecycle<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Vec<MachineId>, ProviderError>> {
        Box::pin(async move {
            let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
            lifecycle::change(&client, action, machines)
                .await
                .map_err(harmless)
        })
    }

    fn name<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        names: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move {
            let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
            names::give(&client, names).await.map_err(harmless)
        })
    }

    fn addresses<'a>(
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
