//! The RunInstances request of a batch. Pure, so that a repeated call with the same token has the same parameters.

use std::collections::BTreeMap;

use aot_model::spec::{MachineSpec, SpotSpec, VolumeSpec};
use aot_provider::{ClientToken, LaunchSpec, ProviderError, tags};
use aws_sdk_ec2::operation::run_instances::RunInstancesInput;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder as Builder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
    InstanceMarketOptionsRequest, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest,
    InstanceMetadataTagsState, InstanceNetworkInterfaceSpecification, InstanceType, MarketType,
    Placement, ResourceType, SpotInstanceType, SpotMarketOptions, Tag, TagSpecification,
    VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::invalid;
use super::resolve::Resolved;

/// Devices that instance store drives are mapped to (EC2 User Guide, "Device names for volumes"): `ephemeral0` to
/// `ephemeral23` on those that no volume has.
const DRIVES: std::ops::RangeInclusive<char> = 'b'..='y';

/// What is tagged in the call that makes it.
const TAGGED: [ResourceType; 3] = [
    ResourceType::Instance,
    ResourceType::Volume,
    ResourceType::NetworkInterface,
];

/// The whole request: all members or none.
///
/// # Errors
/// When the batch has no instance type, no members, or numbers that EC2 can't take.
pub(super) fn run_instances(
    spec: &LaunchSpec,
    token: &ClientToken,
    resolved: &Resolved,
    user_data: &[u8],
) -> Result<RunInstancesInput, ProviderError> {
    let kind = spec
        .instance_type
        .as_deref()
        .ok_or_else(|| invalid("no instance type is named: set `ec2_size`"))?;
    let count = i32::try_from(spec.members.len())
        .ok()
        .filter(|count| *count > 0);
    let count = count.ok_or_else(|| invalid("a batch needs at least one member"))?;
    let machine = &spec.machine;
    let mut builder = Builder::default()
        .client_token(&token.0)
        .min_count(count)
        .max_count(count)
        .image_id(&resolved.image)
        .instance_type(InstanceType::from(kind))
        .user_data(STANDARD.encode(user_data))
        .metadata_options(metadata(spec.challenged));
    for kind in TAGGED {
        builder = builder.tag_specifications(tagged(kind, &tags::for_launch(spec, token)));
    }
    for volume in &machine.volumes {
        builder = builder.block_device_mappings(mapping(volume)?);
    }
    for drive in ephemeral(machine, resolved.ephemeral_drives) {
        builder = builder.block_device_mappings(drive);
    }
    builder = network(builder, machine, resolved);
    builder = placement(builder, machine, spec.zone.as_deref());
    if !spec.on_demand {
        builder = builder.set_instance_market_options(machine.spot.as_ref().map(spot));
    }
    builder.build().map_err(|error| invalid(error.to_string()))
}

/// `tags`: the metadata service shows the machine's tags. EC2 then refuses keys of tags with blanks or slashes.
fn metadata(tags: bool) -> InstanceMetadataOptionsRequest {
    let tags = match tags {
        true => InstanceMetadataTagsState::Enabled,
        false => InstanceMetadataTagsState::Disabled,
    };
    InstanceMetadataOptionsRequest::builder()
        // Said, as an account may have other defaults: without it no machine can call home.
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .instance_metadata_tags(tags)
        .build()
}

fn tagged(kind: ResourceType, tags: &BTreeMap<String, String>) -> TagSpecification {
    let tags = tags
        .iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect();
    TagSpecification::builder()
        .resource_type(kind)
        .set_tags(Some(tags))
        .build()
}

fn mapping(volume: &VolumeSpec) -> Result<BlockDeviceMapping, ProviderError> {
    if volume.size_gib.is_none() && volume.snapshot.is_none() {
        return Err(invalid(format!(
            "volume {}: neither size nor snapshot is given",
            volume.device
        )));
    }
    let number = |value: Option<u32>| {
        let wide = || invalid(format!("volume {}: a number is too large", volume.device));
        value
            .map(|value| i32::try_from(value).map_err(|_| wide()))
            .transpose()
    };
    let ebs = EbsBlockDevice::builder()
        .set_volume_size(number(volume.size_gib)?)
        .set_volume_type(volume.kind.as_deref().map(VolumeType::from))
        .set_iops(number(volume.iops)?)
        .set_throughput(number(volume.throughput)?)
        .set_snapshot_id(volume.snapshot.clone())
        .set_encrypted(volume.encrypted)
        .delete_on_termination(volume.delete_on_termination)
        .build();
    Ok(BlockDeviceMapping::builder()
        .device_name(&volume.device)
        .ebs(ebs)
        .build())
}

/// Mappings of this many instance store drives on devices that no volume uses.
fn ephemeral(machine: &MachineSpec, count: u32) -> Vec<BlockDeviceMapping> {
    let taken = |letter: &char| {
        let mut devices = machine.volumes.iter().map(|volume| volume.device.as_str());
        // /dev/sdb, sdb and /dev/xvdb are one device to the machine.
        devices.any(|device| {
            let name = device.strip_prefix("/dev/").unwrap_or(device);
            let rest = name.strip_prefix("xvd").or(name.strip_prefix("sd"));
            rest.is_some_and(|rest| rest.starts_with(*letter))
        })
    };
    let free = DRIVES.filter(|letter| !taken(letter));
    (0..count)
        .zip(free)
        .map(|(number, letter)| {
            BlockDeviceMapping::builder()
                .device_name(format!("/dev/sd{letter}"))
                .virtual_name(format!("ephemeral{number}"))
                .build()
        })
        .collect()
}

/// Subnet and groups: of the call, or of its first interface where the public address is asked for or refused.
fn network(builder: Builder, machine: &MachineSpec, resolved: &Resolved) -> Builder {
    let groups = (!resolved.groups.is_empty()).then(|| resolved.groups.clone());
    let Some(public) = machine.auto_assign_ip else {
        return builder
            .set_subnet_id(resolved.subnet.clone())
            .set_security_group_ids(groups);
    };
    let interface = InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .associate_public_ip_address(public)
        .delete_on_termination(true)
        .set_subnet_id(resolved.subnet.clone())
        .set_groups(groups)
        .build();
    builder.network_interfaces(interface)
}

fn placement(builder: Builder, machine: &MachineSpec, zone: Option<&str>) -> Builder {
    let profile = machine.instance_profile_name.as_ref();
    let profile = profile.map(|name| {
        IamInstanceProfileSpecification::builder()
            .name(name)
            .build()
    });
    let group = machine.placement_group.as_ref();
    let group = group.map(|name| {
        Placement::builder()
            .group_name(name)
            .set_availability_zone(zone.map(str::to_owned))
            .build()
    });
    builder
        .set_key_name(machine.ssh_key.clone())
        .set_ebs_optimized(machine.ebs_optimized)
        .set_iam_instance_profile(profile)
        .set_placement(group)
}

fn spot(spot: &SpotSpec) -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .set_max_price(spot.max_price.clone())
        .build();
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(options)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_provider::contract::sample_spec;

    fn spec() -> LaunchSpec {
        let mut spec = sample_spec("c", "uuid-1", 3);
        spec.instance_type = Some("m5.large".into());
        spec
    }

    fn resolved() -> Resolved {
        Resolved {
            image: "ami-1".into(),
            subnet: Some("subnet-1".into()),
            groups: vec!["sg-1".into()],
            ephemeral_drives: 0,
        }
    }

    fn token() -> ClientToken {
        ClientToken("tok".into())
    }

    #[test]
    fn a_machine_sees_its_tags_where_it_will_be_challenged() {
        for (challenged, wanted) in [
            (true, InstanceMetadataTagsState::Enabled),
            (false, InstanceMetadataTagsState::Disabled),
        ] {
            let spec = LaunchSpec {
                challenged,
                ..spec()
            };
            let input = run_instances(&spec, &token(), &resolved(), b"data").unwrap();
            let metadata = input.metadata_options().unwrap();
            assert_eq!(metadata.instance_metadata_tags(), Some(&wanted));
        }
    }

    #[test]
    fn one_call_makes_the_batch_or_nothing() {
        let input = run_instances(&spec(), &token(), &resolved(), b"data").unwrap();
        assert_eq!((input.min_count(), input.max_count()), (Some(3), Some(3)));
        assert_eq!(input.client_token(), Some("tok"));
        assert_eq!(input.user_data(), Some("ZGF0YQ=="));
        assert_eq!(input.subnet_id(), Some("subnet-1"));
        assert_eq!(input.security_group_ids(), ["sg-1"]);
        let metadata = input.metadata_options().unwrap();
        assert_eq!(metadata.http_tokens(), Some(&HttpTokensState::Required));
        assert_eq!(
            metadata.http_endpoint(),
            Some(&InstanceMetadataEndpointState::Enabled)
        );
        assert_eq!(metadata.http_put_response_hop_limit(), Some(1));
        let kinds: Vec<_> = input
            .tag_specifications()
            .iter()
            .filter_map(|spec| spec.resource_type())
            .collect();
        assert_eq!(
            kinds,
            [
                &ResourceType::Instance,
                &ResourceType::Volume,
                &ResourceType::NetworkInterface
            ]
        );
        for specification in input.tag_specifications() {
            let uuid = specification
                .tags()
                .iter()
                .find(|tag| tag.key() == Some(tags::CLUSTER_UUID));
            assert_eq!(uuid.and_then(|tag| tag.value()), Some("uuid-1"));
        }
    }

    #[test]
    fn the_same_batch_gives_the_same_request() {
        let one = run_instances(&spec(), &token(), &resolved(), b"data").unwrap();
        let two = run_instances(&spec(), &token(), &resolved(), b"data").unwrap();
        assert!(one == two);
    }

    #[test]
    fn a_public_address_moves_subnet_and_groups_to_the_interface() {
        for public in [true, false] {
            let mut spec = spec();
            spec.machine.auto_assign_ip = Some(public);
            let input = run_instances(&spec, &token(), &resolved(), b"").unwrap();
            assert_eq!(input.subnet_id(), None);
            assert!(input.security_group_ids().is_empty());
            let [interface] = input.network_interfaces() else {
                panic!()
            };
            assert_eq!(interface.associate_public_ip_address(), Some(public));
            assert_eq!(interface.delete_on_termination(), Some(true));
            assert_eq!(interface.subnet_id(), Some("subnet-1"));
            assert_eq!(interface.groups(), ["sg-1"]);
        }
    }

    #[test]
    fn disks_end_with_their_machine_unless_said() {
        let mut spec = spec();
        let volume = |device: &str, ends| VolumeSpec {
            device: device.into(),
            size_gib: Some(10),
            kind: Some("gp3".into()),
            iops: Some(4000),
            throughput: None,
            snapshot: None,
            encrypted: Some(true),
            delete_on_termination: ends,
            mount: None,
            fs: None,
        };
        spec.machine.volumes = vec![volume("/dev/sdf", true), volume("/dev/sdb", false)];
        let drives = Resolved {
            ephemeral_drives: 3,
            ..resolved()
        };
        let input = run_instances(&spec, &token(), &drives, b"").unwrap();
        let mappings = input.block_device_mappings();
        let ends: Vec<_> = mappings
            .iter()
            .filter_map(|it| it.ebs())
            .map(|ebs| ebs.delete_on_termination())
            .collect();
        assert_eq!(ends, [Some(true), Some(false)]);
        let drives: Vec<_> = mappings
            .iter()
            .filter_map(|it| Some((it.device_name()?, it.virtual_name()?)))
            .collect();
        // The volumes have sdf and sdb.
        let expected = [
            ("/dev/sdc", "ephemeral0"),
            ("/dev/sdd", "ephemeral1"),
            ("/dev/sde", "ephemeral2"),
        ];
        assert_eq!(drives, expected);
        spec.machine.volumes[1].size_gib = None;
        let error = run_instances(&spec, &token(), &resolved(), b"").unwrap_err();
        assert!(error.message.contains("/dev/sdb") && error.message.contains("snapshot"));
        spec.machine.volumes[1].snapshot = Some("snap-1".into());
        run_instances(&spec, &token(), &resolved(), b"").unwrap();
        spec.machine.volumes[0].size_gib = Some(u32::MAX);
        assert!(
            run_instances(&spec, &token(), &resolved(), b"")
                .unwrap_err()
                .message
                .contains("/dev/sdf")
        );
    }

    #[test]
    fn a_batch_needs_a_type_and_members() {
        let mut none = spec();
        none.instance_type = None;
        assert!(
            run_instances(&none, &token(), &resolved(), b"")
                .unwrap_err()
                .message
                .contains("ec2_size")
        );
        let mut empty = spec();
        empty.members.clear();
        run_instances(&empty, &token(), &resolved(), b"").unwrap_err();
    }

    #[test]
    fn spot_and_placement_are_asked_for() {
        let mut spec = spec();
        spec.machine.spot = Some(SpotSpec {
            max_price: Some("0.05".into()),
            fallback: true,
        });
        spec.machine.placement_group = Some("pg".into());
        spec.machine.instance_profile_name = Some("role".into());
        let input = run_instances(&spec, &token(), &resolved(), b"").unwrap();
        let options = input.instance_market_options().unwrap();
        assert_eq!(options.market_type(), Some(&MarketType::Spot));
        assert_eq!(options.spot_options().unwrap().max_price(), Some("0.05"));
        let place = input.placement().unwrap();
        assert_eq!(
            (place.group_name(), place.availability_zone()),
            (Some("pg"), None)
        );
        assert_eq!(input.iam_instance_profile().unwrap().name(), Some("role"));
        spec.zone = Some("us-east-1b".into());
        let input = run_instances(&spec, &token(), &resolved(), b"").unwrap();
        let place = input.placement().unwrap();
        assert_eq!(place.availability_zone(), Some("us-east-1b"));
        spec.on_demand = true;
        let input = run_instances(&spec, &token(), &resolved(), b"").unwrap();
        assert_eq!(input.instance_market_options(), None);
        assert_eq!(input.placement().unwrap().group_name(), Some("pg"));
    }
}
