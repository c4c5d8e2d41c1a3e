//! EC2's instances as machines. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aot_model::machine::AttachedVolume;
use aot_provider::{ClientToken, Machine, MachineState, Receipt, tags};
use aws_sdk_ec2::types::{Instance, InstanceBlockDeviceMapping, Tag};

/// A machine from an instance of a reservation that `account` owns; `None` when the answer was cut off before its id, launch index or state.
pub(super) fn machine(instance: &Instance, region: &str, account: Option<&str>) -> Option<Machine> {
    let mut tags = tag_map(instance.tags());
    tags.remove(tags::CHALLENGE); // nobody else's to know, and gone in a minute
    let reason = instance.state_reason().and_then(|reason| reason.message());
    let reason = reason.or(instance.state_transition_reason()).unwrap_or("");
    let text = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
    Some(Machine {
        id: instance.instance_id()?.parse().ok()?,
        client_token: token(instance, &tags),
        launch_index: u32::try_from(instance.ami_launch_index()?).ok()?,
        name: own_name(&tags),
        state: state(instance.state()?.name()?.as_str())?,
        state_reason: reason.to_owned(),
        private_ip: text(instance.private_ip_address()),
        public_ip: text(instance.public_ip_address()),
        private_dns: text(instance.private_dns_name()),
        public_dns: text(instance.public_dns_name()),
        instance_type: instance
            .instance_type()
            .map(|kind| kind.as_str().to_owned()),
        availability_zone: instance
            .placement()
            .and_then(|placement| text(placement.availability_zone())),
        region: Some(region.to_owned()),
        subnet: text(instance.subnet_id()),
        image: text(instance.image_id()),
        launched_at: instance
            .launch_time()
            .and_then(|time| SystemTime::try_from(*time).ok()),
        tags,
        volumes: volumes(instance),
        account: text(account),
    })
}

/// EC2's own word before the tag: the console's "launch more like this" copies tags, and the copy is not of our launch.
fn token(instance: &Instance, tags: &BTreeMap<String, String>) -> Option<ClientToken> {
    let own = instance.client_token().filter(|token| !token.is_empty());
    let token = own.or_else(|| tags.get(tags::TOKEN).map(String::as_str))?;
    Some(ClientToken(token.to_owned()))
}

/// EBS volumes by device name; instance store drives have no id.
fn volumes(instance: &Instance) -> Vec<AttachedVolume> {
    let volume = |mapping: &InstanceBlockDeviceMapping| {
        Some(AttachedVolume {
            device: mapping.device_name()?.to_owned(),
            id: mapping.ebs()?.volume_id()?.to_owned(),
        })
    };
    let mut volumes: Vec<_> = instance
        .block_device_mappings()
        .iter()
        .filter_map(volume)
        .collect();
    volumes.sort_by(|a, b| a.device.cmp(&b.device));
    volumes
}

/// Its member's name, once the Name tag is not the pool's any more. A single instance has the same name from the start.
fn own_name(tags: &BTreeMap<String, String>) -> Option<aot_proto::ids::InstanceName> {
    let name = tags.get(tags::NAME)?;
    let pool = tags.get("Pool");
    name.parse().ok().filter(|_| pool != Some(name))
}

fn state(word: &str) -> Option<MachineState> {
    use MachineState::*;
    [
        Pending,
        Running,
        Stopping,
        Stopped,
        ShuttingDown,
        Terminated,
    ]
    .into_iter()
    .find(|state| state.as_str() == word)
}

pub(super) fn receipt(kind: &str, id: &str, state: impl Into<String>, left: bool) -> Receipt {
    Receipt {
        kind: kind.into(),
        id: id.into(),
        state: state.into(),
        left,
    }
}

/// Tags as a map.
pub(super) fn tag_map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or("").to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::{EbsInstanceBlockDevice, InstanceState, InstanceStateName, Tag};

    fn instance() -> aws_sdk_ec2::types::builders::InstanceBuilder {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        Instance::builder()
            .instance_id("i-0abc")
            .ami_launch_index(2)
            .state(
                InstanceState::builder()
                    .name(InstanceStateName::ShuttingDown)
                    .build(),
            )
            .state_transition_reason("User initiated")
            .public_dns_name("")
            .tags(tag("Name", "web"))
            .tags(tag("Pool", "web"))
            .tags(tag(tags::TOKEN, "t"))
            .tags(tag(tags::CHALLENGE, "secret"))
    }

    #[test]
    fn an_instance_is_a_machine() {
        let machine = machine(&instance().build(), "eu-west-1", Some("123456789012")).unwrap();
        assert_eq!(machine.id.as_str(), "i-0abc");
        assert_eq!(
            (machine.launch_index, machine.state),
            (2, MachineState::ShuttingDown)
        );
        assert_eq!(machine.client_token, Some(ClientToken("t".into())));
        assert_eq!(machine.name, None, "that is the pool's name");
        assert_eq!(machine.public_dns, None);
        assert!(!machine.tags.contains_key(tags::CHALLENGE));
        assert_eq!(machine.state_reason, "User initiated");
        assert_eq!(machine.region.as_deref(), Some("eu-west-1"));
        assert_eq!(machine.account.as_deref(), Some("123456789012"));
    }

    #[test]
    fn the_token_is_ec2s_own_before_the_tag() {
        for (own, wanted) in [(Some("mine"), "mine"), (Some(""), "t"), (None, "t")] {
            let instance = instance().set_client_token(own.map(str::to_owned));
            let machine = machine(&instance.build(), "r", None).unwrap();
            assert_eq!(machine.client_token, Some(ClientToken(wanted.into())));
        }
    }

    #[test]
    fn volumes_are_by_device() {
        let mapping = |device: &str, id: Option<&str>| {
            let ebs = id.map(|id| EbsInstanceBlockDevice::builder().volume_id(id).build());
            InstanceBlockDeviceMapping::builder()
                .device_name(device)
                .set_ebs(ebs)
                .build()
        };
        let instance = instance()
            .block_device_mappings(mapping("/dev/sdf", Some("vol-2")))
            .block_device_mappings(mapping("/dev/sda1", Some("vol-1")))
            .block_device_mappings(mapping("/dev/sdg", None));
        let volumes = machine(&instance.build(), "r", None).unwrap().volumes;
        let rows: Vec<_> = volumes
            .iter()
            .map(|it| (it.device.as_str(), it.id.as_str()))
            .collect();
        assert_eq!(rows, [("/dev/sda1", "vol-1"), ("/dev/sdf", "vol-2")]);
    }

    #[test]
    fn a_cut_off_instance_is_none() {
        for cut in [
            instance().set_instance_id(None),
            instance().set_ami_launch_index(None),
            instance().set_state(None),
        ] {
            assert_eq!(machine(&cut.build(), "r", None), None);
        }
    }
}
