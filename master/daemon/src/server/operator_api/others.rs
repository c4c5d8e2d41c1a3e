//! What is asked of all masters at once: status, update, agents. The master that an operator asks answers for its own
//! clusters, has the others answer for theirs, and names those that do not.

use std::collections::BTreeSet;
use std::time::Duration;

use aot_proto::headers;
use aot_proto::ids::ClusterName;
use aot_proto::v1;
use aot_proto::v1::operator_client::OperatorClient;
use aot_store::fleet::FleetView;
use futures::future::join_all;
use tonic::{Request, Response, Status};

use super::select::Selection;
use super::{Asker, OperatorApi};
use crate::server::peer::{self, PeerChannel};

/// How long a master may take to say what it knows.
pub(super) const KNOWN: Duration = Duration::from_secs(5);
const _: () = assert!(peer::CONNECT.as_millis() < KNOWN.as_millis());

/// How long one may take that asks its provider first.
const ASKED: Duration = Duration::from_secs(120);

/// Calls of one other master.
pub(super) type Other = OperatorClient<PeerChannel>;

/// What the other masters answered.
pub(super) struct Heard<T> {
    /// By the masters' ids.
    pub given: Vec<(String, T)>,
    /// Who did not, and why.
    pub silent: Vec<(String, String)>,
}

/// A request that is answered for the clusters of one master alone.
pub(super) fn here<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    headers::set(request.metadata_mut(), headers::HERE, "1");
    request
}

/// A request about this cluster.
pub(super) fn about<T>(cluster: &ClusterName, message: T) -> Request<T> {
    let mut request = Request::new(message);
    headers::set(request.metadata_mut(), headers::CLUSTER, cluster.as_str());
    request
}

impl OperatorApi {
    /// The clusters of all masters, in the order of their names.
    pub(super) fn every_cluster(&self) -> Vec<ClusterName> {
        let own = self.engine.clusters();
        match self.ways.finder.clusters() {
            None => own,
            Some(all) => {
                let all: BTreeSet<ClusterName> = all.into_iter().chain(own).collect();
                all.into_iter().collect()
            }
        }
    }

    /// Asks all others that live the same, at once.
    pub(super) async fn ask_others<T, A>(
        &self,
        asker: &Asker,
        within: Duration,
        ask: impl Fn(Other) -> A,
    ) -> Heard<T>
    where
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let operator = self.ways.abroad(&asker.operator);
        let asked = self.ways.finder.others().into_iter().map(|master| {
            let id = master.id.clone();
            let answer = self.ways.client(master, &operator).map(&ask);
            async move {
                let answer = async { answer?.await };
                let given = match tokio::time::timeout(within, answer).await {
                    Ok(Ok(given)) => Ok(given.into_inner()),
                    Ok(Err(status)) => Err(status.message().to_owned()),
                    Err(_) => Err(format!("no answer within {} s", within.as_secs())),
                };
                (id, given)
            }
        });
        let mut answers = Heard {
            given: Vec::new(),
            silent: Vec::new(),
        };
        for (id, given) in join_all(asked).await {
            match given {
                Ok(given) => answers.given.push((id, given)),
                Err(why) => answers.silent.push((id, why)),
            }
        }
        answers
    }

    /// The only cluster that there is, and its master, where that is another and no cluster was named.
    async fn only_elsewhere(
        &self,
        named: Option<&str>,
        asker: &Asker,
    ) -> Result<Option<(ClusterName, Other)>, Status> {
        let all = self.every_cluster();
        let (None, [only]) = (named, all.as_slice()) else {
            return Ok(None);
        };
        let Some(master) = self.ways.elsewhere(only).await? else {
            return Ok(None);
        };
        let client = self
            .ways
            .client(master, &self.ways.abroad(&asker.operator))?;
        Ok(Some((only.clone(), client)))
    }

    fn absent<T>(&self, answers: &Heard<T>) -> Vec<String> {
        let view = self.ways.finder.known();
        view.map_or_else(Vec::new, |view| absent(&view, &answers.silent))
    }

    pub(super) async fn status_of_all(
        &self,
        request: v1::StatusRequest,
        asker: Asker,
    ) -> Result<v1::StatusReply, Status> {
        if asker.here || self.ways.finder.is_alone() {
            return self.do_status(request).await;
        }
        let named = request.cluster.as_deref();
        if named.is_some() || !Selection::from(&request).is_all() {
            return match self.only_elsewhere(named, &asker).await? {
                Some((only, mut other)) => {
                    let cluster = Some(only.to_string());
                    let request = about(&only, v1::StatusRequest { cluster, ..request });
                    let reply = other.status(request).await?;
                    Ok(reply.into_inner())
                }
                None => self.do_status(request).await,
            };
        }
        let within = if request.live { ASKED } else { KNOWN };
        let (own, others) = tokio::join!(
            self.do_status(request.clone()),
            self.ask_others(&asker, within, |mut other| {
                let request = here(request.clone());
                async move { other.status(request).await }
            })
        );
        let absent = self.absent(&others);
        Ok(merged(own?, others.given, absent))
    }

    pub(super) async fn update_all(
        &self,
        request: v1::TargetRequest,
        asker: Asker,
    ) -> Result<v1::StatusReply, Status> {
        if asker.here || self.ways.finder.is_alone() {
            return self.do_update(request, asker.operator).await;
        }
        let named = request.cluster.as_deref();
        if named.is_some() || !Selection::from(&request).is_all() {
            return match self.only_elsewhere(named, &asker).await? {
                Some((only, mut other)) => {
                    let cluster = Some(only.to_string());
                    let request = about(&only, v1::TargetRequest { cluster, ..request });
                    let reply = other.update(request).await?;
                    Ok(reply.into_inner())
                }
                None => self.do_update(request, asker.operator).await,
            };
        }
        let (own, others) = tokio::join!(
            self.do_update(request.clone(), asker.operator.clone()),
            self.ask_others(&asker, ASKED, |mut other| {
                let request = here(request.clone());
                async move { other.update(request).await }
            })
        );
        let absent = self.absent(&others);
        Ok(merged(own?, others.given, absent))
    }

    pub(super) async fn agents_of_all(
        &self,
        request: v1::AgentsRequest,
        asker: Asker,
    ) -> Result<v1::AgentsReply, Status> {
        let own = self.do_agents(&request)?;
        if asker.here || request.cluster.is_some() || self.ways.finder.is_alone() {
            return Ok(own);
        }
        let others = self.ask_others(&asker, KNOWN, |mut other| {
            let request = here(request.clone());
            async move { other.agents(request).await }
        });
        let others = others.await;
        let absent = self.absent(&others);
        let given = others.given.into_iter().flat_map(|(_, it)| it.agents);
        let mut agents: Vec<_> = own.agents.into_iter().chain(given).collect();
        agents.sort_by(|one, other| one.cluster.cmp(&other.cluster));
        Ok(v1::AgentsReply { agents, absent })
    }
}

impl OperatorApi {
    /// What this master is; with all the others that live, where that is asked for.
    pub(super) async fn info_of_all(
        &self,
        request: v1::InfoRequest,
        asker: &Asker,
    ) -> v1::InfoReply {
        let clusters = self.every_cluster();
        let view = self.ways.finder.known();
        let mut own = v1::InfoReply {
            clusters: clusters.iter().map(ToString::to_string).collect(),
            api_calls: self.calls.last(),
            notes: self.notes(),
            sessions: Some(self.registry.len() as u64),
            keeps_requests: view.as_ref().is_none_or(|view| are_alike(view)),
            master: view.map(|view| view.me.clone()).unwrap_or_default(),
            ..(*self.info).clone()
        };
        if !request.all || asker.here || self.ways.finder.is_alone() {
            return own;
        }
        let others = self.ask_others(asker, KNOWN, |mut other| async move {
            other.info(here(v1::InfoRequest::default())).await
        });
        let others = others.await;
        own.absent = self.absent(&others);
        let named = |(master, info)| v1::InfoReply { master, ..info };
        own.others = others.given.into_iter().map(named).collect();
        own
    }
}

/// Whether all masters that live are of one build: what this one knows of requests, they do. A request may be made at one and
/// repeated at another.
fn are_alike(view: &FleetView) -> bool {
    let own = view.masters.get(&view.me).map(|it| &it.says.build);
    view.others().all(|master| Some(&master.says.build) == own)
}

/// In the order of clusters' names. What is wrong with another master says which.
fn merged(
    mut own: v1::StatusReply,
    others: Vec<(String, v1::StatusReply)>,
    absent: Vec<String>,
) -> v1::StatusReply {
    for (master, reply) in others {
        own.clusters.extend(reply.clusters);
        own.instances.extend(reply.instances);
        let notes = reply.notes.into_iter();
        own.notes
            .extend(notes.map(|note| format!("{master}: {note}")));
    }
    own.clusters.sort_by(|one, other| one.name.cmp(&other.name));
    own.instances
        .sort_by(|one, other| one.cluster.cmp(&other.cluster));
    own.absent = absent;
    own
}

/// For a person, what an answer of all masters lacks.
pub(super) fn absent(view: &FleetView, silent: &[(String, String)]) -> Vec<String> {
    let of = |has: &dyn Fn(&str) -> bool| {
        let owners = view.owners.iter().filter(|(_, owner)| has(&owner.master));
        let names: Vec<&str> = owners.map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    let mut lines: Vec<String> = silent
        .iter()
        .map(|(master, why)| match of(&|owner| owner == master).as_str() {
            "" => format!("the master {master} did not answer ({why})"),
            clusters => format!(
                "the master {master} did not answer ({why}): its clusters are left out: {clusters}"
            ),
        })
        .collect();
    let lives = |id: &str| view.masters.get(id).is_some_and(|it| it.is_alive);
    let nobodys = of(&|owner| owner != view.me && !lives(owner));
    if !nobodys.is_empty() {
        lines.push(format!(
            "left out, as no master that lives has them at the moment: {nobodys}"
        ));
    }
    lines
}

#[cfg(test)]
mod tests;
