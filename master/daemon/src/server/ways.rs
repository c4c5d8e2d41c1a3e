//! Which master answers a call, and the way to it: what the door, the masters' port and the operators' service decide by.

use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::limits::MAX_ANSWER_BYTES;
use aot_proto::v1::operator_client::OperatorClient;
use aot_proto::{headers, status};
use aot_store::fleet::{FleetMaster, Whereabouts};
use http::Extensions;
use tonic::{Request, Status};

use super::operator_name::OperatorName;
use super::peer::{PeerChannel, PeerMaster, Peers};
use crate::fleet::ClusterFinder;

/// How long a cluster that nobody has is waited for.
const NOBODYS: Duration = Duration::from_secs(20);

/// What leads calls. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ways {
    /// Where clusters are.
    pub finder: ClusterFinder,
    /// The other masters; `None` for one that is alone.
    pub peers: Option<Arc<Peers>>,
}

impl Ways {
    /// The other master that answers for a cluster; `None` = this one does, also where nobody knows the cluster. One that nobody has
    /// is waited for.
    ///
    /// # Errors
    /// UNAVAILABLE when nobody has it, or whoever has it is gone and nobody has taken it.
    pub(crate) async fn elsewhere(
        &self,
        cluster: &ClusterName,
    ) -> Result<Option<FleetMaster>, Status> {
        match self.finder.find(cluster, NOBODYS).await {
            Whereabouts::Here | Whereabouts::Unknown => Ok(None),
            Whereabouts::Elsewhere(master) if master.is_alive => Ok(Some(master)),
            Whereabouts::Elsewhere(master) => Err(status::owner_gone(format!(
                "the master {}, which has cluster {cluster}, has been silent for {} s, and no other has taken it; look at `aot-master masters`, and try again",
                master.id,
                master.silent_for.as_secs()
            ))),
            Whereabouts::Nowhere => Err(status::owner_gone(format!(
                "no master has cluster {cluster} at the moment: it was waited for {} s; look at `aot-master masters`, and try again",
                NOBODYS.as_secs()
            ))),
        }
    }

    /// The way to another master.
    ///
    /// # Errors
    /// UNAVAILABLE when this master has no port for others.
    pub(crate) fn peers(&self, master: &FleetMaster) -> Result<&Arc<Peers>, Status> {
        self.peers.as_ref().ok_or_else(|| {
            Status::unavailable(format!(
                "this is the master {}'s to answer, and this master was started without AOT_FLEET_KEY: ask it there",
                master.id
            ))
        })
    }

    /// A client of another master's calls, for this operator.
    ///
    /// # Errors
    /// As [`Ways::peers`].
    pub(crate) fn client(
        &self,
        master: FleetMaster,
        operator: &str,
    ) -> Result<OperatorClient<PeerChannel>, Status> {
        let channel = self.peers(&master)?.channel(master, operator);
        Ok(OperatorClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES))
    }

    /// An operator of this master, by its name for the others.
    pub(crate) fn abroad(&self, operator: &str) -> String {
        match &self.peers {
            Some(peers) => format!("{operator} at {}", peers.me()),
            None => operator.to_owned(),
        }
    }
}

/// Who is on the other side of the operators' socket, by name.
pub(crate) fn at_the_socket(extensions: &Extensions) -> String {
    let name = extensions.get::<OperatorName>();
    name.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

/// Who asks: whoever is on the other side of the socket, or who that was at the master that has passed it on, by its word.
pub(crate) fn operator<T>(request: &Request<T>) -> String {
    match is_passed(request.extensions()) {
        true => {
            let said = headers::get(request.metadata(), headers::OPERATOR);
            said.unwrap_or("unknown").to_owned()
        }
        false => at_the_socket(request.extensions()),
    }
}

/// The id of the master that has passed a call on.
pub(crate) fn passed_by(extensions: &Extensions) -> Option<&str> {
    extensions.get::<PeerMaster>().map(|master| &*master.0)
}

/// Whether a call was passed on by a master.
pub(crate) fn is_passed(extensions: &Extensions) -> bool {
    extensions.get::<PeerMaster>().is_some()
}
