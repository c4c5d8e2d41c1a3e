//! A cluster's batches as its record has them: pools once each, by their hash, and calls that name their pool by its hash and
//! their members by name. So the record grows with the instances, and not with the calls times the members of their pools. A
//! pool is on record for as long as a batch names it. Used by `cluster` alone, when it is written and read.

use std::collections::{BTreeMap, HashMap};

use aot_proto::ids::InstanceName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Batch, PlannedPool};
use crate::spec::{MemberSpec, PoolSpec};

/// A batch that names its pool and members.
type Named = Batch<String, InstanceName>;

#[derive(Serialize)]
struct Written<'a> {
    pools: BTreeMap<&'a str, &'a PoolSpec>,
    calls: BTreeMap<&'a str, Named>,
}

#[derive(Deserialize)]
struct Stored {
    pools: BTreeMap<String, PoolSpec>,
    calls: BTreeMap<String, Named>,
}

pub(crate) fn serialize<S: Serializer>(
    batches: &BTreeMap<String, Batch>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let pools = batches.values().map(|it| (it.spec.sha256(), &*it.spec));
    let calls = batches
        .iter()
        .map(|(token, it)| (token.as_str(), named(it)));
    Written {
        pools: pools.collect(),
        calls: calls.collect(),
    }
    .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Batch>, D::Error> {
    let Stored { pools, calls } = Stored::deserialize(deserializer)?;
    let pools: BTreeMap<String, PlannedPool> = pools
        .into_iter()
        .map(|(sha256, spec)| (sha256.clone(), PlannedPool::on_record(&sha256, spec)))
        .collect();
    let members: BTreeMap<&str, HashMap<&InstanceName, &MemberSpec>> = pools
        .iter()
        .map(|(sha256, pool)| {
            let members = pool.members.iter();
            (sha256.as_str(), members.map(|it| (&it.name, it)).collect())
        })
        .collect();
    let resolved = |(token, call): (String, Named)| {
        let unknown = |what: &str| {
            de::Error::custom(format_args!(
                "batch {token} names a {what} that is not on record"
            ))
        };
        let pool = pools.get(&call.spec).ok_or_else(|| unknown("pool"))?;
        let known = &members[call.spec.as_str()];
        let found = call.members.iter().map(|name| known.get(name).copied());
        let found: Option<Vec<MemberSpec>> = found.map(Option::<&_>::cloned).collect();
        let found = found.ok_or_else(|| unknown("member"))?;
        let batch = with(call, pool.clone(), found);
        Ok((token, batch))
    };
    calls.into_iter().map(resolved).collect()
}

fn named(batch: &Batch) -> Named {
    let members = batch.members.iter().map(|member| member.name.clone());
    let (members, spec) = (members.collect(), batch.spec.sha256().to_owned());
    with(batch.clone(), spec, members)
}

/// The same batch, its pool and members said in another way.
fn with<P, M, Q, N>(batch: Batch<P, M>, spec: Q, members: Vec<N>) -> Batch<Q, N> {
    let Batch {
        token,
        pool,
        members: _,
        attempt,
        spec: _,
        choice,
        zone,
        join_sha256,
        proof,
        boot,
        state,
        calls,
        next_call_ms,
        unsure_ms,
        doubt_until_ms,
        last_error,
        in_flight,
        created_ms,
    } = batch;
    Batch {
        token,
        pool,
        members,
        attempt,
        spec,
        choice,
        zone,
        join_sha256,
        proof,
        boot,
        state,
        calls,
        next_call_ms,
        unsure_ms,
        doubt_until_ms,
        last_error,
        in_flight,
        created_ms,
    }
}
