//! What the instance profiles of a file have to allow, so that its machines can read their secrets by themselves.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::aws::partition_of_region;
use aot_proto::v1::AwsService;

use super::secret::SecretReader;
use super::spec::ClusterSpec;

/// What the role of an instance profile has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRight {
    /// The instance profile.
    pub profile: String,
    /// What, on which thing, and for which secret; for a person.
    pub needs: String,
}

/// What the instance profiles need, whose machines read secrets by themselves.
pub fn machine_rights(spec: &ClusterSpec) -> Vec<MachineRight> {
    let mut profiles: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pool in &spec.pools {
        let Some(profile) = &pool.machine.instance_profile_name else {
            continue;
        };
        let uses = pool.stages.iter().flat_map(|stage| &stage.secrets);
        let names = uses.map(|it| it.name.as_str());
        profiles.entry(profile).or_default().extend(names);
    }
    let pairs = profiles.iter();
    let pairs = pairs.flat_map(|(profile, names)| names.iter().map(move |name| (*profile, *name)));
    let right = |(profile, name): (&str, &str)| {
        let profile = profile.to_owned();
        let needs = needs(spec, name)?;
        Some(MachineRight { profile, needs })
    };
    pairs.filter_map(right).collect()
}

/// What reading a secret needs; `None` where it is not the machines that read it.
fn needs(spec: &ClusterSpec, name: &str) -> Option<String> {
    let SecretReader::Machine(service, at) = spec.secrets.get(name)?.reader() else {
        return None;
    };
    let region = at.said_region().or(spec.region.as_deref());
    let partition = region.map_or("aws", partition_of_region);
    let resource = AwsService::resource(service, &at.id, partition, region.unwrap_or("*"));
    let action = service.action();
    Some(format!(
        "its role needs {action} on {resource} for the secret {name}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::secret::{AwsSecret, SecretSource, SecretUse};
    use crate::spec::{BundleSource, ProviderKind, StageSpec};

    fn stage(secrets: &[&str]) -> StageSpec {
        let given = |name: &&str| SecretUse {
            name: (*name).to_owned(),
            env: None,
        };
        StageSpec {
            name: "setup".to_owned(),
            source: BundleSource::Dir("/x".into()),
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: None,
            silence_timeout: None,
            needs: Vec::new(),
            secrets: secrets.iter().map(given).collect(),
            rerun_on_secret: false,
        }
    }

    #[test]
    fn each_instance_profile_is_told_what_its_own_machines_read() {
        let mut pool = samples::pool("web", 2);
        pool.stages = vec![stage(&["a", "b", "c"])];
        let mut spec = samples::file("c", ProviderKind::Ec2, vec![pool]);
        spec.region = Some("eu-west-1".to_owned());
        let at = |id: &str, region: Option<&str>, on_machine| AwsSecret {
            id: id.to_owned(),
            region: region.map(str::to_owned),
            version: None,
            on_machine,
        };
        spec.secrets = BTreeMap::from([
            ("a".to_owned(), SecretSource::Ssm(at("/a", None, true))),
            (
                "b".to_owned(),
                SecretSource::SecretsManager(at("b", Some("us-east-1"), true)),
            ),
            ("c".to_owned(), SecretSource::Ssm(at("/c", None, false))),
        ]);
        assert_eq!(machine_rights(&spec), []);
        let machine = &mut spec.pools[0].machine;
        machine.instance_profile_name = Some("web".to_owned());
        let right = |needs: &str| MachineRight {
            profile: "web".to_owned(),
            needs: format!("its role needs {needs}"),
        };
        let want = [
            right("ssm:GetParameter on arn:aws:ssm:eu-west-1:*:parameter/a for the secret a"),
            right(
                "secretsmanager:GetSecretValue on arn:aws:secretsmanager:us-east-1:*:secret:b-?????? for the secret b",
            ),
        ];
        assert_eq!(machine_rights(&spec), want);
    }
}
