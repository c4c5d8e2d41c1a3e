//! The door: operators' calls go to the master that has their cluster, whole and unread, by what their headers say. In front of
//! the operators' service on its socket and on the masters' port; a call that comes by the latter is never passed on again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aot_proto::ids::{ClusterName, JobId};
use aot_proto::{headers, status};
use aot_store::Store;
use aot_store::fleet::FleetMaster;
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::peer::{PeerMaster, Peers};
use super::ways::{self, Ways};

/// Whose a call is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    /// Its master's: about it as a whole, about records that each can read, or passed on by the service itself.
    Master,
    /// The same, and never another master's to ask for.
    MasterAlone,
    /// A file's, which lies on this master's host: the service reads it, and passes on what came of it.
    File,
    /// A cluster's that is named, or else that of all that there are.
    AnyCluster,
    /// One cluster's.
    OneCluster,
}

/// By the path of a request.
fn concern(path: &str) -> Concern {
    match path.rsplit('/').next().unwrap_or_default() {
        "Shutdown" => Concern::MasterAlone,
        "Info" | "Jobs" | "Examine" | "Orphans" | "DeleteOrphans" | "ApiCalls" | "Masters"
        | "TakenOver" | "MoveCluster" | "DrainMaster" => Concern::Master,
        "Launch" | "ApplyFile" => Concern::File,
        "Plan" | "Status" | "Agents" | "Update" => Concern::AnyCluster,
        _ => Concern::OneCluster,
    }
}

/// What becomes of a call.
enum Lead {
    Here,
    To(FleetMaster, Arc<Peers>),
    Refused(Box<Status>),
}

/// The operators' service behind its door.
#[derive(Clone)]
pub(crate) struct Door<S> {
    service: S,
    guide: CallGuide,
}

/// What a door goes by.
#[derive(Clone)]
struct CallGuide {
    ways: Ways,
    store: Arc<dyn Store>,
}

impl<S> Door<S> {
    /// In front of this service. Jobs' clusters are looked up in `store`.
    pub(crate) fn new(service: S, ways: Ways, store: Arc<dyn Store>) -> Self {
        let guide = CallGuide { ways, store };
        Self { service, guide }
    }
}

impl<S: NamedService> NamedService for Door<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready is the one that is called.
        let other = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, other);
        let guide = self.guide.clone();
        Box::pin(async move {
            match guide.lead(&mut request).await {
                Lead::Here => service.call(request).await,
                Lead::To(master, peers) => {
                    let operator = ways::at_the_socket(request.extensions());
                    let operator = guide.ways.abroad(&operator);
                    Ok(peers.pass(&master, &operator, request).await)
                }
                Lead::Refused(status) => Ok(status.into_http()),
            }
        })
    }
}

impl CallGuide {
    async fn lead(&self, request: &mut Request<Body>) -> Lead {
        if self.ways.finder.is_alone() {
            return Lead::Here;
        }
        let concern = concern(request.uri().path());
        let is_passed = request.extensions().get::<PeerMaster>().is_some();
        let lead = match (concern, is_passed) {
            (Concern::MasterAlone, true) => Err(Status::permission_denied(
                "a master is stopped by its own operators alone",
            )),
            (Concern::Master | Concern::MasterAlone, _) | (Concern::File, false) => {
                return Lead::Here;
            }
            (_, true) => self.arrived(request.headers()).await,
            (_, false) => self.asked(concern, request.headers_mut()).await,
        };
        lead.unwrap_or_else(|status| Lead::Refused(Box::new(status)))
    }

    /// A call that another master has passed on: for a cluster that is here, or for none in particular.
    async fn arrived(&self, headers: &HeaderMap) -> Result<Lead, Status> {
        match self.named(headers).await? {
            Some(cluster) if !self.ways.finder.is_here(&cluster).await => Err(status::moved()),
            _ => Ok(Lead::Here),
        }
    }

    /// A call of an operator.
    async fn asked(&self, concern: Concern, headers: &mut HeaderMap) -> Result<Lead, Status> {
        if headers.contains_key(headers::HERE) {
            return Ok(Lead::Here);
        }
        let cluster = match self.named(headers).await? {
            None if concern == Concern::OneCluster => self.only(),
            named => named,
        };
        let Some(cluster) = cluster else {
            return Ok(Lead::Here);
        };
        let Some(master) = self.ways.elsewhere(&cluster).await? else {
            return Ok(Lead::Here);
        };
        // The other one need not look up a job again.
        if let Ok(value) = HeaderValue::from_str(cluster.as_str()) {
            headers.insert(headers::CLUSTER, value);
        }
        let peers = self.ways.peers(&master)?.clone();
        Ok(Lead::To(master, peers))
    }

    /// The cluster that a call names, by itself or by a job. What is no name, or no job, is for the service to refuse.
    async fn named(&self, headers: &HeaderMap) -> Result<Option<ClusterName>, Status> {
        let text = |name| {
            let value = headers.get(name)?.to_str().ok()?;
            (value.len() <= headers::MAX_BYTES).then_some(value)
        };
        if let Some(name) = text(headers::CLUSTER) {
            return Ok(name.parse().ok());
        }
        let Some(id) = text(headers::JOB).and_then(|id| id.parse::<JobId>().ok()) else {
            return Ok(None);
        };
        let unread = |error| {
            let error = aot_host::chain::Chain(&error);
            Status::unavailable(format!("cannot look up whose {id} is: {error}; try again"))
        };
        let job = self.store.job(id).await.map_err(unread)?;
        Ok(job.map(|job| job.cluster))
    }

    /// The only cluster that there is.
    fn only(&self) -> Option<ClusterName> {
        match self.ways.finder.clusters()?.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
