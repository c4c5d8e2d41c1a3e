//! Names of the file that EC2 must be asked about: images, subnets, security groups. Reads only.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, InstanceType, Subnet};

use super::client::call;
use super::error::invalid;
use super::image::{Wanted, newest, parse};
use crate::provider::{LaunchSpec, ProviderError};

/// What a launch call needs besides the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resolved {
    /// Image id.
    pub image: String,
    /// Subnet id; `None` leaves it to the default VPC.
    pub subnet: Option<String>,
    /// Security group ids.
    pub groups: Vec<String>,
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// Looks everything up.
pub(super) async fn resolve(client: &Client, spec: &LaunchSpec) -> Result<Resolved, ProviderError> {
    let image = image(client, spec).await?;
    let subnet = match &spec.subnet {
        Some(text) => Some(subnet(client, text).await?),
        None => None,
    };
    let names = &spec.machine.security_groups;
    let by_name = names.iter().any(|name| !name.starts_with("sg-"));
    let vpc = match &subnet {
        Some(subnet) => subnet.vpc_id.clone(),
        None if by_name => default_vpc(client).await?,
        None => None,
    };
    let mut groups = Vec::with_capacity(names.len());
    for name in names {
        groups.push(group(client, name, vpc.as_deref()).await?);
    }
    Ok(Resolved {
        image,
        subnet: subnet.and_then(|subnet| subnet.subnet_id),
        groups,
    })
}

async fn image(client: &Client, spec: &LaunchSpec) -> Result<String, ProviderError> {
    let text = spec
        .machine
        .ami
        .as_deref()
        .ok_or_else(|| invalid("no image is named: set `ami`"))?;
    let pattern = match parse(text)? {
        Wanted::Id(id) => return Ok(id),
        Wanted::Newest(pattern) => pattern,
    };
    let arch = architecture(client, spec.instance_type.as_deref()).await?;
    let name = pattern.for_arch(&arch);
    let request = client
        .describe_images()
        .owners(&pattern.owner)
        .filters(filter("name", &name))
        .filters(filter("architecture", &arch))
        .filters(filter("state", "available"));
    let answer = call("DescribeImages", request.send()).await?;
    newest(answer.images()).ok_or_else(|| {
        invalid(format!(
            "image {text:?}: no available {arch} image of {} is named {name:?}",
            pattern.owner
        ))
    })
}

/// EC2's word for the architecture of an instance type.
async fn architecture(client: &Client, kind: Option<&str>) -> Result<String, ProviderError> {
    let Some(kind) = kind else {
        return Err(invalid("no instance type is named: set `ec2_size`"));
    };
    let request = client
        .describe_instance_types()
        .instance_types(InstanceType::from(kind));
    let answer = call("DescribeInstanceTypes", request.send()).await?;
    let found = answer
        .instance_types()
        .iter()
        .find(|info| info.instance_type().is_some_and(|it| it.as_str() == kind));
    let archs = found
        .and_then(|info| info.processor_info())
        .map(|info| info.supported_architectures())
        .unwrap_or_default();
    archs
        .iter()
        .map(|arch| arch.as_str())
        .find(|arch| matches!(*arch, "x86_64" | "arm64"))
        .map(str::to_owned)
        .ok_or_else(|| {
            invalid(format!(
                "instance type {kind} has no architecture that an agent is built for"
            ))
        })
}

/// A subnet by its id or its Name tag, which must be the only one.
async fn subnet(client: &Client, text: &str) -> Result<Subnet, ProviderError> {
    let request = client.describe_subnets();
    let request = if text.starts_with("subnet-") {
        request.subnet_ids(text)
    } else {
        request.filters(filter("tag:Name", text))
    };
    let answer = call("DescribeSubnets", request.send()).await?;
    match answer.subnets() {
        [one] => Ok(one.clone()),
        [] => Err(invalid(format!(
            "there is no subnet {text:?} in this region"
        ))),
        more => Err(invalid(format!(
            "{} subnets have the Name tag {text:?}: name one by its id",
            more.len()
        ))),
    }
}

async fn default_vpc(client: &Client) -> Result<Option<String>, ProviderError> {
    let answer = call(
        "DescribeVpcs",
        client
            .describe_vpcs()
            .filters(filter("is-default", "true"))
            .send(),
    )
    .await?;
    Ok(answer.vpcs().first().and_then(|vpc| vpc.vpc_id.clone()))
}

/// A security group by its id, or by its name within one VPC.
async fn group(client: &Client, text: &str, vpc: Option<&str>) -> Result<String, ProviderError> {
    if text.starts_with("sg-") {
        return Ok(text.to_owned());
    }
    let mut request = client
        .describe_security_groups()
        .filters(filter("group-name", text));
    if let Some(vpc) = vpc {
        request = request.filters(filter("vpc-id", vpc));
    }
    let answer = call("DescribeSecurityGroups", request.send()).await?;
    let place = vpc.unwrap_or("this region");
    match answer.security_groups() {
        [one] => one
            .group_id
            .clone()
            .ok_or_else(|| super::error::cut_off("EC2 named a security group without its id")),
        [] => Err(invalid(format!(
            "there is no security group {text:?} in {place}"
        ))),
        more => Err(invalid(format!(
            "{} security groups in {place} are named {text:?}: use an id",
            more.len()
        ))),
    }
}
