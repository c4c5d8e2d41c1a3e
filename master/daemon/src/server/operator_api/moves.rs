//! Where clusters are to be: an operator's wish is put on record, and the masters whom it concerns act by it.

use aot_host::chain::Chain;
use aot_proto::ids::ClusterName;
use aot_proto::v1;
use aot_store::fleet::{FleetMaster, FleetView};
use tonic::Status;

use super::OperatorApi;

impl OperatorApi {
    pub(super) async fn do_move(
        &self,
        request: v1::MoveClusterRequest,
    ) -> Result<v1::MoveClusterReply, Status> {
        let view = self.fleet_view()?;
        let cluster = request.cluster.parse::<ClusterName>();
        let cluster = cluster.map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let master = named(&view, &request.master)?;
        if !view.is_able(&master.id) {
            return Err(Status::failed_precondition(format!(
                "the master {} takes no clusters: it drains, or was not heard of for a while",
                master.id
            )));
        }
        let wished = self.ways.finder.prefer(&cluster, &master.id).await;
        match wished.map_err(unrecorded)? {
            true => Ok(v1::MoveClusterReply {
                master: master.id.clone(),
            }),
            false => Err(Status::not_found(match view.owners.get(&cluster) {
                None => format!("no cluster {cluster}"),
                Some(_) => format!(
                    "cluster {cluster} stays where it is: its machines are clones of its master's host"
                ),
            })),
        }
    }

    pub(super) async fn do_drain(
        &self,
        request: v1::DrainMasterRequest,
    ) -> Result<v1::DrainMasterReply, Status> {
        let view = self.fleet_view()?;
        let master = named(&view, &request.master)?;
        let mut rest = view.masters.values().filter(|it| it.id != master.id);
        if !request.undo && !rest.any(|it| view.is_able(&it.id)) {
            return Err(Status::failed_precondition(format!(
                "no other master could take the clusters of {}",
                master.id
            )));
        }
        let drained = self.ways.finder.drain(&master.id, !request.undo).await;
        match drained.map_err(unrecorded)? {
            true => Ok(v1::DrainMasterReply {
                master: master.id.clone(),
            }),
            false => Err(Status::not_found(format!(
                "the master {} has left",
                master.id
            ))),
        }
    }

    fn fleet_view(&self) -> Result<std::sync::Arc<FleetView>, Status> {
        let view = self.ways.finder.known();
        view.ok_or_else(|| {
            Status::failed_precondition(
                "this master is alone: its records are shared with no other (AOT_FLEET_KEY)",
            )
        })
    }
}

fn unrecorded(error: aot_store::Error) -> Status {
    Status::unavailable(format!("it was not put on record: {}", Chain(&error)))
}

/// The master with this id, or the only one with this in its id.
fn named<'v>(view: &'v FleetView, name: &str) -> Result<&'v FleetMaster, Status> {
    if let Some(master) = view.masters.get(name) {
        return Ok(master);
    }
    let all = view.masters.values();
    let found: Vec<_> = all
        .filter(|it| !name.is_empty() && it.id.contains(name))
        .collect();
    let ids = |masters: &mut dyn Iterator<Item = &FleetMaster>| {
        let ids: Vec<&str> = masters.map(|it| it.id.as_str()).collect();
        ids.join(", ")
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Status::not_found(format!(
            "no master {name:?}; the masters are: {}",
            ids(&mut view.masters.values())
        ))),
        several => Err(Status::invalid_argument(format!(
            "{name:?} is part of several: {}",
            ids(&mut several.iter().copied())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use aot_store::fleet::sample_view;

    use super::*;

    #[test]
    fn a_master_is_named_by_what_no_other_has_in_its_id() {
        let mut view = sample_view("a", &[]);
        let a = view.masters["a"].clone();
        for id in ["host1/01AAA", "host2/01AAB"] {
            let id = id.to_owned();
            view.masters
                .insert(id.clone(), FleetMaster { id, ..a.clone() });
        }
        let id = |name| named(&view, name).map(|it| it.id.clone());
        assert_eq!(id("host2").expect("is one"), "host2/01AAB");
        assert_eq!(id("AAA").expect("is one"), "host1/01AAA");
        assert_eq!(id("a").expect("whole"), "a");
        let text = id("01AA").expect_err("are two");
        assert!(text.message().contains("host1/01AAA, host2/01AAB"));
        for none in ["", "host3"] {
            let text = id(none).expect_err("is none");
            assert!(text.message().contains("the masters are: a, b"), "{text}");
        }
    }
}
