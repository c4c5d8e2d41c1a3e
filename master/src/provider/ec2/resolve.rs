//! Names of the file as ids, from what was found before. Pure: a launch call looks nothing up, so a repeated one says the
//! same.

use super::error::invalid;
use super::groups::is_id;
use crate::provider::{Ground, LaunchSpec, ProviderError};

/// What a launch call needs besides the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resolved {
    /// Image id.
    pub image: String,
    /// Subnet id; `None` leaves it to the default VPC.
    pub subnet: Option<String>,
    /// Security group ids.
    pub groups: Vec<String>,
    /// Instance store drives to be mapped.
    pub ephemeral_drives: u32,
}

/// Takes everything from the ground.
///
/// # Errors
/// When something is not in it; the message names it.
pub(super) fn resolve(spec: &LaunchSpec) -> Result<Resolved, ProviderError> {
    let (ground, machine) = (&spec.ground, &spec.machine);
    let missing = |what: &str, name: &str| {
        invalid(format!(
            "{what} {name:?} was not looked up before the launch: run launch again"
        ))
    };
    let kind = spec
        .instance_type
        .as_deref()
        .ok_or_else(|| invalid("no instance type is named: set `ec2_size`"))?;
    let kind_ground = ground
        .types
        .get(kind)
        .ok_or_else(|| missing("instance type", kind))?;
    let ami = machine
        .ami
        .as_deref()
        .ok_or_else(|| invalid("no image is named: set `ami`"))?;
    let image = match ground
        .images
        .get(&Ground::image_key(ami, &kind_ground.arch))
    {
        Some(id) => id.clone(),
        None if ami.starts_with("ami-") => ami.to_owned(),
        None => return Err(missing("image", ami)),
    };
    let subnet = spec.subnet.as_deref().unwrap_or_default();
    let subnet = ground
        .subnets
        .get(subnet)
        .ok_or_else(|| missing("subnet", subnet))?;
    let mut groups = Vec::with_capacity(machine.security_groups.len());
    for name in &machine.security_groups {
        let id = match ground.groups.get(&Ground::group_key(name, &subnet.vpc)) {
            Some(id) => id,
            None if is_id(name) => name,
            None => return Err(missing("security group", name)),
        };
        if !groups.contains(id) {
            groups.push(id.clone());
        }
    }
    Ok(Resolved {
        image,
        subnet: (!subnet.id.is_empty()).then(|| subnet.id.clone()),
        groups,
        ephemeral_drives: if machine.ephemeral_drives {
            kind_ground.ephemeral_drives
        } else {
            0
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::contract::sample_spec;
    use crate::provider::{SubnetGround, TypeGround};

    fn spec() -> LaunchSpec {
        let mut spec = sample_spec("c", "u", 1);
        spec.instance_type = Some("m6g.large".into());
        spec.subnet = Some("a".into());
        spec.machine.ami = Some("debian-12".into());
        spec.machine.security_groups = vec!["web".into(), "sg-0".into(), "web".into()];
        spec.machine.ephemeral_drives = true;
        let ground = &mut spec.ground;
        let kind = TypeGround {
            arch: "arm64".into(),
            ephemeral_drives: 2,
        };
        ground.types.insert("m6g.large".into(), kind);
        ground
            .images
            .insert("debian-12 arm64".into(), "ami-1".into());
        ground
            .images
            .insert("debian-12 x86_64".into(), "ami-2".into());
        let subnet = SubnetGround {
            id: "subnet-1".into(),
            vpc: "vpc-1".into(),
            zone: "z".into(),
        };
        ground.subnets.insert("a".into(), subnet);
        let default = SubnetGround {
            vpc: "vpc-0".into(),
            ..SubnetGround::default()
        };
        ground.subnets.insert(String::new(), default);
        ground.groups.insert("vpc-1 web".into(), "sg-1".into());
        ground.groups.insert("vpc-0 web".into(), "sg-2".into());
        spec
    }

    #[test]
    fn all_comes_from_the_ground() {
        let mut spec = spec();
        let resolved = resolve(&spec).unwrap();
        assert_eq!(resolved.image, "ami-1");
        assert_eq!(resolved.subnet.as_deref(), Some("subnet-1"));
        assert_eq!(resolved.groups, ["sg-1", "sg-0"]);
        assert_eq!(resolved.ephemeral_drives, 2);
        spec.subnet = None;
        spec.machine.ephemeral_drives = false;
        spec.machine.ami = Some("ami-9".into());
        let resolved = resolve(&spec).unwrap();
        assert_eq!((resolved.subnet, resolved.image.as_str()), (None, "ami-9"));
        assert_eq!(resolved.groups, ["sg-2", "sg-0"]);
        assert_eq!(resolved.ephemeral_drives, 0);
    }

    #[test]
    fn what_is_missing_is_named() {
        type Spoil = fn(&mut LaunchSpec);
        let cases: [(&str, Spoil); 7] = [
            ("ec2_size", |spec| spec.instance_type = None),
            ("\"m5.large\"", |spec| {
                spec.instance_type = Some("m5.large".into())
            }),
            ("`ami`", |spec| spec.machine.ami = None),
            ("\"al2023\"", |spec| {
                spec.machine.ami = Some("al2023".into())
            }),
            ("\"b\"", |spec| spec.subnet = Some("b".into())),
            ("\"db\"", |spec| {
                spec.machine.security_groups.push("db".into())
            }),
            ("\"web\"", |spec| spec.ground.groups.clear()),
        ];
        for (name, spoil) in cases {
            let mut spec = spec();
            spoil(&mut spec);
            let error = resolve(&spec).unwrap_err();
            assert!(error.message.contains(name), "{name}: {error}");
            assert_eq!(error.kind, crate::provider::ErrorKind::Invalid);
        }
    }
}
