//! Names of the file as ids, from what was found before. Pure: a launch call looks nothing up, so a repeated one says the
//! same.

use aot_provider::{LaunchSpec, Prerequisites, ProviderError};

use super::error::invalid;
use super::groups::is_id;

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

/// All ids come from the prerequisites.
///
/// # Errors
/// When something is not in it; the message names it.
pub(super) fn resolve(spec: &LaunchSpec) -> Result<Resolved, ProviderError> {
    let (prerequisites, machine) = (&spec.prerequisites, &spec.machine);
    let missing = |what: &str, name: &str| {
        invalid(format!(
            "{what} {name:?} was not looked up before the launch: run launch again"
        ))
    };
    let kind = spec
        .instance_type
        .as_deref()
        .ok_or_else(|| invalid("no instance type is named: set `ec2_size`"))?;
    let resolved = prerequisites
        .types
        .get(kind)
        .ok_or_else(|| missing("instance type", kind))?;
    let ami = machine
        .ami
        .as_deref()
        .ok_or_else(|| invalid("no image is named: set `ami`"))?;
    let image = match prerequisites
        .images
        .get(&Prerequisites::image_key(ami, &resolved.arch))
    {
        Some(id) => id.clone(),
        None if ami.starts_with("ami-") => ami.to_owned(),
        None => return Err(missing("image", ami)),
    };
    let subnet = spec.subnet.as_deref().unwrap_or_default();
    let subnet = prerequisites
        .subnets
        .get(subnet)
        .ok_or_else(|| missing("subnet", subnet))?;
    let mut groups = Vec::with_capacity(machine.security_groups.len());
    for name in &machine.security_groups {
        let id = match prerequisites
            .groups
            .get(&Prerequisites::group_key(name, &subnet.vpc))
        {
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
            resolved.ephemeral_drives
        } else {
            0
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_provider::contract::sample_spec;
    use aot_provider::{ResolvedSubnet, ResolvedType};

    fn spec() -> LaunchSpec {
        let mut spec = sample_spec("c", "u", 1);
        spec.instance_type = Some("m6g.large".into());
        spec.subnet = Some("a".into());
        spec.machine.ami = Some("debian-12".into());
        spec.machine.security_groups = vec!["web".into(), "sg-0".into(), "web".into()];
        spec.machine.ephemeral_drives = true;
        let prerequisites = &mut spec.prerequisites;
        let kind = ResolvedType {
            arch: "arm64".into(),
            ephemeral_drives: 2,
        };
        prerequisites.types.insert("m6g.large".into(), kind);
        prerequisites
            .images
            .insert("debian-12 arm64".into(), "ami-1".into());
        prerequisites
            .images
            .insert("debian-12 x86_64".into(), "ami-2".into());
        let subnet = ResolvedSubnet {
            id: "subnet-1".into(),
            vpc: "vpc-1".into(),
            zone: "z".into(),
        };
        prerequisites.subnets.insert("a".into(), subnet);
        let default = ResolvedSubnet {
            vpc: "vpc-0".into(),
            ..ResolvedSubnet::default()
        };
        prerequisites.subnets.insert(String::new(), default);
        prerequisites
            .groups
            .insert("vpc-1 web".into(), "sg-1".into());
        prerequisites
            .groups
            .insert("vpc-0 web".into(), "sg-2".into());
        spec
    }

    #[test]
    fn all_comes_from_the_prerequisites() {
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
            ("\"web\"", |spec| spec.prerequisites.groups.clear()),
        ];
        for (name, spoil) in cases {
            let mut spec = spec();
            spoil(&mut spec);
            let error = resolve(&spec).unwrap_err();
            assert!(error.message.contains(name), "{name}: {error}");
            assert_eq!(error.kind, aot_provider::ErrorKind::Invalid);
        }
    }
}
