//! What every provider must do, as checks that run against any of them. Called by tests only; each check makes its own
//! cluster and ends its machines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aot_model::spec::{
    ClusterSpec, LaunchPolicy, MachineSpec, MemberSpec, MinReady, OnFailure, PoolSpec, ProviderKind,
};
use aot_proto::ids::{InstanceName, MachineId};
use aot_proto::route::Route;

use super::{
    Ask, BootSpec, ClientToken, ClusterRef, ElasticIp, ErrorKind, LaunchSpec, Lifecycle, Machine,
    MachineState, Prerequisites, Provider, ProviderError, ThingAction, tags,
};

/// Longest wait for a state.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a state is asked for.
const PAUSE: Duration = Duration::from_millis(20);

/// A batch of `count` members of pool `web`; what the machine is, and its agent, are the caller's to set.
pub fn sample_spec(cluster: &str, uuid: &str, count: usize) -> LaunchSpec {
    LaunchSpec {
        challenged: false,
        cluster: ClusterRef {
            name: cluster.parse().expect("the caller gives a good name"),
            uuid: uuid.to_owned(),
            region: None,
        },
        pool: Some("web".parse().expect("it is a label")),
        members: (1..=count)
            .map(|number| MemberSpec {
                name: format!("web{number}").parse().expect("it is a label"),
                hostname: format!("web{number}"),
            })
            .collect(),
        owner: None,
        user: None,
        machine: MachineSpec::default(),
        instance_type: None,
        subnet: None,
        zone: None,
        on_demand: false,
        attempt: 1,
        prerequisites: Prerequisites::default(),
        boot: BootSpec {
            master: vec!["127.0.0.1:7440".into()],
            route: Route::of(&cluster.parse().expect("the caller gives a good name")),
            ca_pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            join_token: "00ff".into(),
            agent_sha256: BTreeMap::from([("x86_64".into(), "ab".repeat(32))]),
            agent_path: PathBuf::from("/nonexistent"),
            user_part: None,
        },
    }
}

/// The file of a cluster that has this batch alone.
pub fn sample_file(kind: ProviderKind, spec: &LaunchSpec) -> ClusterSpec {
    let pool = PoolSpec {
        name: spec.pool.clone(),
        members: spec.members.clone(),
        owner: None,
        user: None,
        machine: MachineSpec {
            types: spec.instance_type.iter().cloned().collect(),
            subnets: spec.subnet.iter().cloned().collect(),
            ..spec.machine.clone()
        },
        stages: Vec::new(),
        update: Default::default(),
        health: None,
    };
    ClusterSpec {
        name: spec.cluster.name.clone(),
        provider: kind,
        region: spec.cluster.region.clone(),
        launch: LaunchPolicy {
            min_ready: MinReady::All,
            on_failure: OnFailure::Keep,
            timeout: LIMIT,
            replace: 0,
        },
        attestation: Default::default(),
        security_groups: Vec::new(),
        ssh: Default::default(),
        cluster_facts: Default::default(),
        discovery_url: None,
        groups: BTreeMap::new(),
        vars: Default::default(),
        secrets: BTreeMap::new(),
        pools: vec![pool],
        base_dir: PathBuf::from("/"),
    }
}

/// The same batch with what its names stand for, as `prepare` finds it; preparing again must change nothing, and an
/// outline must have nothing left to make.
///
/// # Errors
/// Those of `prepare`.
///
/// # Panics
/// When preparing twice gives two results, or an outline shows what is there as missing.
pub async fn prepared(
    provider: &dyn Provider,
    spec: &LaunchSpec,
    file: &ClusterSpec,
) -> Result<LaunchSpec, ProviderError> {
    let missing = BTreeMap::from([(tags::label(spec).to_owned(), spec.members.len())]);
    let no_parts = BTreeMap::new();
    let ask = |known| Ask {
        spec: file,
        cluster: Some(&spec.cluster),
        known,
        missing: &missing,
        advertise: &spec.boot.master,
        user_parts: &no_parts,
        agents: &no_parts,
    };
    let prerequisites = provider.prepare(&ask(&spec.prerequisites)).await?;
    let again = provider.prepare(&ask(&prerequisites)).await?;
    // When a group was last found is not a change of what is there.
    let made =
        |prerequisites: &Prerequisites| prerequisites.made_ms.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        made(&again),
        made(&prerequisites),
        "preparing again makes nothing"
    );
    let timeless = |prerequisites: &Prerequisites| Prerequisites {
        made_ms: BTreeMap::new(),
        ..prerequisites.clone()
    };
    assert_eq!(
        timeless(&again),
        timeless(&prerequisites),
        "preparing again changes nothing"
    );
    let things = provider.outline(&ask(&prerequisites)).await?;
    assert!(
        things
            .iter()
            .all(|thing| !matches!(thing.action, ThingAction::Create | ThingAction::Change)),
        "nothing is left to make: {things:?}"
    );
    Ok(LaunchSpec {
        challenged: false,
        prerequisites,
        ..spec.clone()
    })
}

/// Waits until every machine of the cluster is in `state`.
///
/// # Panics
/// When that takes too long; the message has what was seen last.
pub async fn wait_for(
    provider: &dyn Provider,
    cluster: &ClusterRef,
    state: MachineState,
) -> Vec<Machine> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let listing = provider.describe(cluster).await.expect("describe works");
        let machines = listing.machines;
        if !machines.is_empty() && machines.iter().all(|machine| machine.state == state) {
            return machines;
        }
        assert!(
            Instant::now() < deadline,
            "not all are {state}: {machines:#?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ids in launch order.
pub fn ids(machines: &[Machine]) -> Vec<MachineId> {
    let mut sorted: Vec<&Machine> = machines.iter().collect();
    sorted.sort_by_key(|machine| machine.launch_index);
    sorted
        .into_iter()
        .map(|machine| machine.id.clone())
        .collect()
}

/// Runs every check. `idempotent` is off for a fake that can't repeat a token.
///
/// # Panics
/// When the provider does not keep to the contract.
pub async fn check_all(provider: &dyn Provider, spec: &LaunchSpec, idempotent: bool) {
    let token = ClientToken(format!("contract-{}", &spec.cluster.uuid));
    let cluster = &spec.cluster;
    assert!(
        provider
            .describe(cluster)
            .await
            .expect("describe works")
            .machines
            .is_empty(),
        "a new uuid has no machines"
    );
    let made = provider.launch(spec, &token).await.expect("launch works");
    launched(spec, &token, &made);
    let up = wait_for(provider, cluster, MachineState::Running).await;
    assert_eq!(ids(&up), ids(&made), "describe shows what launch made");
    if idempotent {
        let again = provider
            .launch(spec, &token)
            .await
            .expect("the same token works again");
        assert_eq!(
            ids(&again),
            ids(&made),
            "the same token gives the same machines"
        );
        let shown = provider.describe(cluster).await.expect("describe works");
        assert_eq!(
            shown.machines.len(),
            made.len(),
            "the same token makes no others"
        );
    }
    names(provider, cluster, spec, &made).await;
    let given = addresses(provider, cluster, spec, &made).await;
    carries_the_tag(provider, cluster, &ids(&made), false).await;
    let all = ids(&made);
    for (action, state) in [
        (Lifecycle::Stop, MachineState::Stopped),
        (Lifecycle::Start, MachineState::Running),
        (Lifecycle::Reboot, MachineState::Running),
        (Lifecycle::Terminate, MachineState::Terminated),
        (Lifecycle::Terminate, MachineState::Terminated),
    ] {
        provider
            .lifecycle(cluster, action, &all)
            .await
            .expect("lifecycle works")
            .of_all()
            .expect("all of them change");
        wait_for(provider, cluster, state).await;
        if action == Lifecycle::Start {
            let again = addresses(provider, cluster, spec, &made).await;
            assert_eq!(again, given, "addresses last over stop and start");
        }
    }
    strangers(provider, spec).await;
    by_id(provider, cluster, &all).await;
    if idempotent {
        let error = provider
            .launch(spec, &token)
            .await
            .expect_err("a spent token makes nothing");
        assert_eq!(error.kind, ErrorKind::TokenSpent, "{error}");
    }
    let receipts = provider.cleanup(cluster).await.expect("cleanup works");
    assert!(
        receipts.iter().all(|receipt| !receipt.left),
        "nothing is left: {receipts:?}"
    );
    let lasting = given.iter().map(|ip| ip.allocation.as_str());
    for id in all.iter().map(MachineId::as_str).chain(lasting) {
        assert!(
            receipts.iter().any(|receipt| receipt.id == id),
            "{id} is in the receipt"
        );
    }
    carries_the_tag(provider, cluster, &all, true).await;
}

/// Each machine has its own address, and the same one when asked again; a provider without addresses refuses all.
async fn addresses(
    provider: &dyn Provider,
    cluster: &ClusterRef,
    spec: &LaunchSpec,
    made: &[Machine],
) -> Vec<ElasticIp> {
    let pairs = pairs(spec, made);
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let given = provider.assign_addresses(cluster, &pairs).await;
        let asked: Vec<MachineId> = given.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(asked, ids(made), "a result for each machine, in order");
        let given = given.into_iter().filter_map(|(_, result)| result.ok());
        rounds.push(given.collect::<Vec<ElasticIp>>());
    }
    let given = rounds.swap_remove(0);
    assert_eq!(given, rounds[0], "asked again, it gives the same");
    let own: BTreeSet<&str> = given.iter().map(|ip| ip.address.as_str()).collect();
    assert_eq!(own.len(), given.len(), "each its own: {given:?}");
    let none_or_all = [0, made.len()];
    assert!(none_or_all.contains(&given.len()), "{given:?}");
    given
}

/// What carries the cluster's tag is shown; `gone` = all of it is.
async fn carries_the_tag(
    provider: &dyn Provider,
    cluster: &ClusterRef,
    machines: &[MachineId],
    gone: bool,
) {
    let mut tagged = provider.tagged().await.expect("tagged works");
    tagged.retain(|thing| thing.uuid == cluster.uuid);
    for id in machines {
        let found = tagged.iter().find(|thing| thing.id == id.as_str());
        let Some(thing) = found else {
            assert!(gone, "{id} is shown: {tagged:?}"); // what is gone need not be
            continue;
        };
        assert_eq!(thing.cluster, cluster.name.as_str());
        assert_eq!((thing.kind, thing.gone), ("instance", gone));
    }
    if gone {
        assert!(tagged.iter().all(|thing| thing.gone), "{tagged:?}");
    }
}

/// What a launch hands back.
fn launched(spec: &LaunchSpec, token: &ClientToken, made: &[Machine]) {
    assert_eq!(made.len(), spec.members.len(), "all members or an error");
    let indexes: Vec<u32> = made.iter().map(|machine| machine.launch_index).collect();
    let mut sorted = indexes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(
        sorted.len(),
        made.len(),
        "each has its own index: {indexes:?}"
    );
    for machine in made {
        assert_eq!(machine.client_token.as_ref(), Some(token));
        assert_eq!(
            machine.tags.get(tags::CLUSTER_UUID),
            Some(&spec.cluster.uuid)
        );
        assert!(
            machine.private_ip.is_some(),
            "{} has an address",
            machine.id
        );
    }
}

/// Machines with their members' names.
fn pairs(spec: &LaunchSpec, made: &[Machine]) -> Vec<(MachineId, InstanceName)> {
    let names = spec.members.iter().map(|member| member.name.clone());
    ids(made).into_iter().zip(names).collect()
}

/// Names are given, twice.
async fn names(provider: &dyn Provider, cluster: &ClusterRef, spec: &LaunchSpec, made: &[Machine]) {
    let pairs = pairs(spec, made);
    for _ in 0..2 {
        provider
            .set_name_tags(cluster, &pairs)
            .await
            .expect("naming works, and again");
    }
    let shown = provider.describe(cluster).await.expect("describe works");
    for machine in shown.machines {
        let wanted = pairs
            .iter()
            .find(|(id, _)| *id == machine.id)
            .map(|(_, name)| name);
        assert_eq!(machine.name.as_ref(), wanted);
    }
}

/// Machines are found by their ids, and one that is not there is left out.
async fn by_id(provider: &dyn Provider, cluster: &ClusterRef, machines: &[MachineId]) {
    let mut asked = machines.to_vec();
    asked.push("i-0123456789abcdef0".parse().expect("an id"));
    let found = provider.find(cluster, &asked).await.expect("find works");
    let mut found: Vec<MachineId> = found.machines.into_iter().map(|it| it.id).collect();
    let mut wanted = machines.to_vec();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

/// Machines of another cluster are neither shown nor touched.
async fn strangers(provider: &dyn Provider, spec: &LaunchSpec) {
    let other = ClusterRef {
        uuid: format!("{}-other", spec.cluster.uuid),
        ..spec.cluster.clone()
    };
    assert!(
        provider
            .describe(&other)
            .await
            .expect("describe works")
            .machines
            .is_empty()
    );
}
