//! The `ec2` provider: machines are EC2 instances, found again by the tags that the launching call itself gave them.
//!
//! It never retries past what the SDK does, and never prints a parameter: user-data holds the join token.

mod address;
mod cleanup;
mod client;
mod convert;
mod discovery;
mod error;
#[cfg(test)]
mod fake;
mod ground;
mod groups;
mod image;
mod images;
mod lookup;
mod placement;
mod preflight;
mod request;
mod resolve;
mod rules;
pub mod user_data;

use std::collections::BTreeMap;

use aot_proto::ids::{InstanceName, MachineId};
use aws_sdk_ec2::types::{Filter, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;

use self::client::{Clients, call};
use self::error::{cut_off, invalid};
use super::{
    Ask, ClientToken, ClusterRef, ElasticIp, Ground, LaunchSpec, Leftovers, Lifecycle, Machine,
    MachineState, Problem, Provider, ProviderError, Receipt, Tagged, Thing, tags,
};
use crate::model::file::ProviderKind;
use crate::provider::calls::Calls;

/// Ids in one lifecycle call.
const BATCH: usize = 100;
/// Most that is shown of a console.
const CONSOLE_BYTES: usize = 4 << 10;
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
        let filter = Filter::builder()
            .name(format!("tag:{}", tags::CLUSTER_UUID))
            .values(&cluster.uuid)
            .build();
        let mut machines = Vec::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let request = client
                .describe_instances()
                .filters(filter.clone())
                .max_results(1000)
                .set_next_token(next);
            let page = call("DescribeInstances", request.send()).await?;
            for instance in page
                .reservations()
                .iter()
                .flat_map(|reservation| reservation.instances())
            {
                let machine = convert::machine(instance, &region);
                machines.push(
                    machine
                        .ok_or_else(|| cut_off("EC2 DescribeInstances: the answer is cut off"))?,
                );
            }
            next = page
                .next_token()
                .filter(|token| !token.is_empty())
                .map(str::to_owned);
            if next.is_none() {
                return Ok(machines);
            }
        }
        Err(cut_off("EC2 DescribeInstances: the list does not end"))
    }

    async fn change(
        &self,
        cluster: &ClusterRef,
        action: Lifecycle,
        machines: &[MachineId],
    ) -> Result<(), ProviderError> {
        let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
        for batch in machines.chunks(BATCH) {
            let ids = Some(batch.iter().map(ToString::to_string).collect());
            match action {
                Lifecycle::Start => {
                    call(
                        "StartInstances",
                        client.start_instances().set_instance_ids(ids).send(),
                    )
                    .await
                    .map(drop)?;
                }
                Lifecycle::Stop => {
                    call(
                        "StopInstances",
                        client.stop_instances().set_instance_ids(ids).send(),
                    )
                    .await
                    .map(drop)?;
                }
                Lifecycle::Reboot => {
                    call(
                        "RebootInstances",
                        client.reboot_instances().set_instance_ids(ids).send(),
                    )
                    .await
                    .map(drop)?;
                }
                Lifecycle::Terminate => {
                    call(
                        "TerminateInstances",
                        client.terminate_instances().set_instance_ids(ids).send(),
                    )
                    .await
                    .map(drop)?;
                }
            }
        }
        Ok(())
    }

    async fn tag_names(
        &self,
        cluster: &ClusterRef,
        names: &[(MachineId, InstanceName)],
    ) -> Result<(), ProviderError> {
        let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
        // A call gives all its resources the same tags, so each name is a call.
        for (machine, name) in names {
            let tag = Tag::builder().key(tags::NAME).value(name.as_str()).build();
            call(
                "CreateTags",
                client
                    .create_tags()
                    .resources(machine.as_str())
                    .tags(tag)
                    .send(),
            )
            .await?;
        }
        Ok(())
    }

    async fn console_tail(
        &self,
        cluster: &ClusterRef,
        machine: &MachineId,
    ) -> Result<String, ProviderError> {
        let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
        let answer = call(
            "GetConsoleOutput",
            client
                .get_console_output()
                .instance_id(machine.as_str())
                .send(),
        )
        .await?;
        let text: String = answer
            .output()
            .unwrap_or("")
            .split_ascii_whitespace()
            .collect();
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| cut_off("EC2 GetConsoleOutput: the output is not base64"))?;
        let tail = &bytes[bytes.len().saturating_sub(CONSOLE_BYTES)..];
        Ok(String::from_utf8_lossy(tail).into_owned())
    }

    async fn clean(&self, cluster: &ClusterRef) -> Result<Vec<Receipt>, ProviderError> {
        let machines = self.describe_all(cluster).await?;
        let mut receipts = cleanup::machines(&machines);
        let (client, _) = self.clients.client(cluster.region.as_deref()).await?;
        if machines
            .iter()
            .all(|machine| machine.state == MachineState::Terminated)
        {
            receipts.extend(cleanup::rest(&client, &cluster.uuid).await?);
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
            self.change(cluster, action, machines)
                .await
                .map(|()| Vec::new())
                .map_err(harmless)
        })
    }

    fn name<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        names: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async { self.tag_names(cluster, names).await.map_err(harmless) })
    }

    fn addresses<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<ElasticIp, ProviderError>)>> {
        Box::pin(address::give(&self.clients, cluster, machines))
    }

    fn explain<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, BTreeMap<MachineId, String>> {
        Box::pin(async move {
            let mut known = BTreeMap::new();
            for id in machines {
                if let Ok(text) = self.console_tail(cluster, id).await {
                    known.insert(id.clone(), text);
                }
            }
            known
        })
    }

    fn region(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(self.clients.region(None))
    }

    fn tagged(&self) -> BoxFuture<'_, Result<Vec<Tagged>, ProviderError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn cleanup<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ProviderError>> {
        Box::pin(async { self.clean(cluster).await.map_err(harmless) })
    }
}
