//! What is wrong with this master as a whole: said by `status`, before a launch, and when it was started in the background.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use aot_model::cluster::Cluster;
use aot_model::hash::sha256_hex;
use aot_model::key::InstanceKey;
use aot_model::spec::{ClusterSpec, ProviderKind};
use aot_model::view;
use aot_model::world::{USED_TWICE, remedy};
use aot_proto::ids::ClusterName;
use aot_proto::v1;

use super::OperatorApi;

impl OperatorApi {
    /// For a person, one line each; none when all is well.
    pub(super) fn notes(&self) -> Vec<String> {
        let full = self.room.check().err().map(|full| full.to_string());
        let away = self.away().into_iter();
        away.chain(full).chain(self.lesser_notes()).collect()
    }

    /// That nothing can be put on record.
    pub(super) fn away(&self) -> Option<String> {
        let time = self.engine.away_for()?;
        Some(format!(
            "the master's database does not answer: for {} s nothing could be begun; what is shown may be older than that, and what runs continues",
            time.as_secs()
        ))
    }

    /// What does not keep the master from its work.
    pub(super) fn lesser_notes(&self) -> Vec<String> {
        let advertise = &self.ways.finder.addresses(&self.info.advertise);
        let notes = self.engine.read_each(|world| {
            let lost = world.clusters.values().flat_map(|cluster| {
                let name = cluster.spec.name.clone();
                dialling_elsewhere(cluster, advertise)
                    .into_iter()
                    .map(move |(dialled, count)| {
                        format!(
                            "{name}: {count} of its machines dial {dialled}, and this master advertises {}: {}",
                            advertise.join(","),
                            way_out(self.info.background, &dialled)
                        )
                    })
            });
            let unproven = |cluster: &Cluster| {
                let warning = view::unproven(cluster)?;
                Some(format!("{}: {warning}", cluster.spec.name))
            };
            let unproven = world.clusters.values().filter_map(unproven);
            let twice = world.clusters.values().flat_map(used_twice);
            twice.chain(lost).chain(unproven).collect::<Vec<_>>()
        });
        let unput = self.outputs.note().into_iter();
        unput.chain(notes.into_iter().flatten()).collect()
    }

    /// What of the AWS settings in an operator's shell is not what this master goes by.
    pub(super) fn other_aws_settings(
        &self,
        spec: &ClusterSpec,
        theirs: &HashMap<String, String>,
    ) -> Option<String> {
        if spec.provider != ProviderKind::Ec2 {
            return None;
        }
        let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let own = |name: &str| own(name).map(|value| sha256_hex(value.as_encoded_bytes()));
        let what = differences(theirs, own)?;
        Some(format!(
            "this master uses other AWS settings than this shell: {what}; {}",
            match self.info.background {
                true => "aot-master restart gives it this shell's",
                false =>
                    "it was started with aot-master serve: change its environment there and restart it",
            }
        ))
    }

    /// The file that a cluster was launched from, when it is another one than this and this one leaves instances out;
    /// else nothing.
    pub(super) fn other_file(
        &self,
        name: &ClusterName,
        file: &Path,
        lines: &[v1::PlanLine],
    ) -> String {
        let leaves_out = lines.iter().any(|line| {
            matches!(
                line.action(),
                v1::PlanAction::Orphan | v1::PlanAction::Terminate
            )
        });
        let before = self.engine.read(name, |world| {
            world.clusters.get(name).map(|cluster| cluster.file.clone())
        });
        match before.filter(|before| leaves_out && !is_same(before, file)) {
            Some(before) => before.display().to_string(),
            None => String::new(),
        }
    }
}

/// Instances whose identity two processes hold.
fn used_twice(cluster: &Cluster) -> impl Iterator<Item = String> {
    cluster.instances.values().filter_map(|instance| {
        let twice = instance.identity.as_ref()?.used_twice.as_ref()?;
        let at = InstanceKey {
            cluster: cluster.spec.name.clone(),
            instance: instance.name.clone(),
        };
        Some(format!(
            "{at}: identity-used-twice: {USED_TWICE}: {}; {}",
            twice.detail,
            remedy(&at)
        ))
    })
}

/// Where machines without a session look for a master, when that is none of these addresses, and how many do. One that has
/// a session was told of these addresses.
fn dialling_elsewhere(cluster: &Cluster, advertise: &[String]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let away = cluster.instances.values().filter(|it| !it.connected());
    let machines = away.filter_map(|it| it.machine.as_ref());
    for machine in machines.filter(|machine| !machine.state.is_ending()) {
        let token = machine.client_token.as_ref();
        let batch = token.and_then(|token| cluster.batches.get(&token.0));
        if let Some(batch) = batch
            && !batch
                .boot
                .master
                .iter()
                .any(|dialled| advertise.contains(dialled))
        {
            *found.entry(batch.boot.master.join(",")).or_default() += 1;
        }
    }
    found
}

fn way_out(background: bool, dialled: &str) -> String {
    match background {
        true => format!(
            "aot-master restart --advertise {dialled} --listen ADDRESS where that leads to it"
        ),
        false => {
            format!("start it with --advertise {dialled}, and --listen where that leads to it")
        }
    }
}

/// `AWS_PROFILE differs, AWS_REGION is not set there`.
fn differences(
    theirs: &HashMap<String, String>,
    own: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let theirs: BTreeMap<_, _> = theirs.iter().collect();
    let differing: Vec<String> = theirs
        .into_iter()
        .filter_map(|(name, digest)| match own(name) {
            None => Some(format!("{name} is not set there")),
            Some(own) if own != *digest => Some(format!("{name} differs")),
            Some(_) => None,
        })
        .collect();
    (!differing.is_empty()).then(|| differing.join(", "))
}

/// The same file, also by another path; where one of them is gone, the same path.
fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// A line for whoever follows a launch.
pub(super) fn note(cluster: &ClusterName, text: String) -> v1::Event {
    v1::Event {
        unix_ms: crate::run::now_ms(),
        cluster: cluster.to_string(),
        event: "notice".to_owned(),
        message: text,
        ..v1::Event::default()
    }
}

#[cfg(test)]
mod tests {
    use aot_model::batch::PlannedPool;
    use aot_model::instance::Instance;
    use aot_model::machine::{ClientToken, MachineState};
    use aot_model::samples;

    use super::*;

    #[test]
    fn machines_that_dial_elsewhere_are_counted_while_they_have_no_session() {
        let mut cluster = samples::cluster();
        let pool = PlannedPool::new(cluster.spec.pools[0].clone());
        let mut batch = samples::batch("t", pool, Vec::new());
        batch.boot.master = vec!["old:1".to_owned(), "older:1".to_owned()];
        let token = ClientToken("t".to_owned());
        cluster.batches.insert(token.0.clone(), batch);
        let named = |cluster: &mut Cluster, name: &str, change: &dyn Fn(&mut Instance)| {
            let name = name.parse().expect("a name");
            change(cluster.instances.get_mut(&name).expect("it is there"));
        };
        for name in ["web1", "web2", "db1"] {
            named(&mut cluster, name, &|it| {
                let machine = it.machine.as_mut().expect("it has one");
                machine.client_token = Some(token.clone());
            });
        }
        let counted = |cluster: &Cluster, advertised: &str| {
            let found = dialling_elsewhere(cluster, &[advertised.to_owned()]);
            found.into_iter().collect::<Vec<_>>()
        };
        let all = |count| vec![("old:1,older:1".to_owned(), count)];
        assert_eq!(counted(&cluster, "new:1"), all(3));
        assert_eq!(counted(&cluster, "older:1"), []);
        // Back, and told of the new address.
        named(&mut cluster, "web1", &|it| it.session = Some(1));
        assert_eq!(counted(&cluster, "new:1"), all(2));
        named(&mut cluster, "web2", &|it| {
            it.machine.as_mut().expect("it has one").state = MachineState::Terminated;
        });
        assert_eq!(counted(&cluster, "new:1"), all(1));
        named(&mut cluster, "db1", &|it| it.session = Some(2));
        assert_eq!(counted(&cluster, "new:1"), []);
    }

    #[test]
    fn what_differs_is_named_and_what_is_alike_is_not() {
        let theirs = [
            ("AWS_PROFILE", "1"),
            ("AWS_REGION", "2"),
            ("AWS_ROLE_ARN", "3"),
        ]
        .map(|(name, digest)| (name.to_owned(), digest.to_owned()))
        .into();
        let own = |name: &str| match name {
            "AWS_PROFILE" => Some("other".to_owned()),
            "AWS_REGION" => Some("2".to_owned()),
            _ => None,
        };
        let said = differences(&theirs, own);
        assert_eq!(
            said.as_deref(),
            Some("AWS_PROFILE differs, AWS_ROLE_ARN is not set there")
        );
        assert_eq!(differences(&HashMap::new(), own), None);
    }

    #[test]
    fn a_file_is_the_same_by_any_path() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("cluster.yml"), dir.path().join("link.yml"));
        std::fs::write(&file, "").expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert!(is_same(&file, &link));
        assert!(!is_same(&file, &dir.path().join("other.yml")));
        assert!(is_same(
            &dir.path().join("gone.yml"),
            &dir.path().join("gone.yml")
        ));
    }
}
