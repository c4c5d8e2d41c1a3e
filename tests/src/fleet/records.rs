//! The records of clusters as launches and enrolments would have left them: every instance ready, with a certificate of the
//! folder's own authority.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aot_daemon::enrol::ca::{self, Ca};
use aot_daemon::enrol::join_key;
use aot_model::cluster::Cluster;
use aot_model::identity::Identity;
use aot_model::instance::{Instance, NodeFacts};
use aot_model::key::{ClusterUuid, InstanceKey};
use aot_model::machine::{Machine, MachineState};
use aot_model::phase::Phase;
pub use aot_model::spec::ProviderKind;
use aot_model::spec::{BundleSource, MemberSpec, PoolSpec, StageSpec};
use aot_model::world::Changes;
use aot_model::{facts, hash, samples};
use aot_proto::ids::SpiffeId;
use aot_store::sqlite::Sqlite;
use aot_store::{Backend, OpenStore};

use crate::bench::agents::report;
use crate::bench::tls;

/// Generation of the cluster facts that all have.
pub const GENERATION: u64 = 1;

/// A cluster to be written.
#[derive(Debug, Clone)]
pub struct ClusterShape {
    /// Its name.
    pub name: String,
    /// Who made its machines.
    pub provider: ProviderKind,
    /// The numbers of its agents; the instances are called `n1`, `n2`, ... in each cluster.
    pub agents: Range<usize>,
    /// The folder of a bundle that its file names, and that none has run.
    pub bundle: Option<PathBuf>,
}

/// Writes a master's state folder with these clusters. The authority goes into `certificates` as `ca.pem`, and the certificate
/// and key of each agent as `NUMBER.pem` and `NUMBER.key`.
///
/// # Panics
/// When it can't be written.
pub fn write(state: &Path, certificates: &Path, clusters: &[ClusterShape]) {
    aot_host::files::private_dir(state).expect("a folder");
    let ca = Ca::open(state).expect("an authority");
    join_key(state).expect("a key");
    std::fs::write(certificates.join("ca.pem"), ca.pem()).expect("a file");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let OpenStore { store, hold, .. } = Sqlite.open(state).await.expect("a store");
        for shape in clusters {
            let cluster = cluster(&ca, certificates, shape);
            let written = store.commit(&hold, changes(&cluster), Vec::new()).await;
            written.expect("it is written");
        }
        store.close(&hold).await;
    });
}

fn changes(cluster: &Cluster) -> Changes {
    let key = |instance: &Instance| InstanceKey {
        cluster: cluster.spec.name.clone(),
        instance: instance.name.clone(),
    };
    let all = cluster.instances.values();
    Changes {
        instances: all.clone().map(|i| (key(i), i.clone())).collect(),
        facts: all
            .filter_map(|i| Some((key(i), i.facts.clone()?)))
            .collect(),
        clusters: vec![cluster.clone()],
        ..Changes::default()
    }
}

fn cluster(ca: &Ca, certificates: &Path, shape: &ClusterShape) -> Cluster {
    let members: Vec<MemberSpec> = (0..shape.agents.len()).map(member).collect();
    let mut cluster = empty(shape, members.clone());
    for (number, member) in shape.agents.clone().zip(&members) {
        let id = SpiffeId {
            master: ca.id().to_owned(),
            cluster: cluster.spec.name.clone(),
            instance: member.name.clone(),
            machine: machine_id(shape.provider, number).parse().expect("an id"),
        };
        let identity = issue(ca, &id, certificates, number);
        let instance = instance(&cluster, member, id, identity, number);
        cluster.instances.insert(member.name.clone(), instance);
    }
    cluster.facts_sha256 = facts::digest(&cluster);
    cluster
}

fn machine_id(provider: ProviderKind, number: usize) -> String {
    let prefix = match provider {
        ProviderKind::Ec2 => "i",
        ProviderKind::Local => "local",
    };
    format!("{prefix}-{number:017x}")
}

fn member(number: usize) -> MemberSpec {
    let name = format!("n{}", number + 1);
    MemberSpec {
        hostname: name.clone(),
        name: name.parse().expect("a name"),
    }
}

fn empty(shape: &ClusterShape, members: Vec<MemberSpec>) -> Cluster {
    let stage = |folder: &PathBuf| StageSpec {
        name: "change".to_owned(),
        source: BundleSource::Dir(folder.clone()),
        args: Vec::new(),
        env: Default::default(),
        timeout: None,
        silence_timeout: None,
        needs: Vec::new(),
        secrets: Vec::new(),
        rerun_on_secret: false,
    };
    let pool = PoolSpec {
        members,
        stages: shape.bundle.iter().map(stage).collect(),
        ..samples::pool("n", 0)
    };
    let mut spec = samples::file(&shape.name, shape.provider, vec![pool]);
    spec.launch.timeout = Duration::from_secs(600);
    Cluster {
        uuid: ClusterUuid::new(&shape.name),
        generation: GENERATION,
        ..samples::empty_cluster(spec)
    }
}

fn issue(ca: &Ca, id: &SpiffeId, certificates: &Path, number: usize) -> Identity {
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("a request");
    let request = ca::read_request(csr.der()).expect("it is signed");
    let issued = ca.issue(&request, id).expect("it signs");
    let (name, key_pem) = (number.to_string(), key.serialize_pem());
    tls::write_member(certificates, &name, &issued.pem, &key_pem);
    Identity {
        key_sha256: request.key_sha256.clone(),
        previous_serial: String::new(),
        issued_ms: 0,
        used_twice: None,
        previous_key_sha256: String::new(),
        enrolled_ms: 1,
        serial: issued.serial,
        expires_unix: issued.expires_unix,
        proof: Default::default(),
    }
}

fn instance(
    cluster: &Cluster,
    member: &MemberSpec,
    id: SpiffeId,
    identity: Identity,
    number: usize,
) -> Instance {
    let report = report(number);
    let facts = NodeFacts {
        node: serde_json::from_str(&report.node_json).expect("JSON"),
        ssh_host_keys: report.ssh_host_keys,
        root_public_key: report.root_public_key,
        user_public_key: report.user_public_key,
        main_user: report.main_user,
    };
    let mut instance = Instance::planned(&cluster.spec.pools[0], member);
    instance.set_machine(machine(id, number));
    instance.phase = Phase::Ready;
    instance.attempt = 1;
    instance.identity = Some(identity);
    instance.boot_id = "b".to_owned();
    instance.applied_generation = GENERATION;
    instance.facts = Some(Arc::new(facts));
    instance
}

fn machine(id: SpiffeId, number: usize) -> Machine {
    Machine {
        launch_index: u32::try_from(number).expect("a small number"),
        name: Some(id.instance),
        private_ip: Some(format!("10.0.{}.{}", number / 250, number % 250 + 1)),
        image: Some(hash::sha256_hex(b"image")),
        // So new that a provider which does not have it is not believed yet, and for a day to come.
        launched_at: Some(SystemTime::now() + Duration::from_secs(86_400)),
        ..samples::bare_machine(id.machine.as_str(), MachineState::Running)
    }
}
