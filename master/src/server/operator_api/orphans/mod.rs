//! `Orphans`: the account against the store, in every region that counts. Asks providers and compares; what deletes is
//! in [`delete`].

mod compare;
mod delete;

use std::sync::Arc;
use std::time::Duration;

use aot_proto::v1;
use tokio::time::timeout;
use tonic::Status;

use self::compare::{Book, Held};
use super::OperatorApi;
use crate::model::file::ProviderKind;
use crate::provider::{Provider, ProviderError, Tagged};

/// What stands for this host in the place of a region.
const LOCAL: &str = "local";

/// Longest search for the region of the AWS settings: off EC2, asking the metadata service takes its time.
const REGION_WITHIN: Duration = Duration::from_secs(10);

/// Longest look at one region.
const LOOK_WITHIN: Duration = Duration::from_secs(200);

/// Where one looks.
struct Place {
    /// A region, or [`LOCAL`].
    name: String,
    provider: Arc<dyn Provider>,
    /// Somebody counts on this place: without an answer of it there is none at all.
    needed: bool,
}

fn unreachable(place: &str, error: &ProviderError) -> Status {
    Status::unavailable(format!("cannot look for orphans in {place}: {error}"))
}

impl Place {
    async fn tagged(&self) -> Result<Vec<Tagged>, Status> {
        timeout(LOOK_WITHIN, self.provider.tagged())
            .await
            .map_err(|_| {
                Status::unavailable(format!(
                    "cannot look for orphans in {}: no answer within {} s",
                    self.name,
                    LOOK_WITHIN.as_secs()
                ))
            })?
            .map_err(|error| unreachable(&self.name, &error))
    }
}

impl OperatorApi {
    pub(super) async fn do_orphans(
        &self,
        request: &v1::OrphansRequest,
    ) -> Result<v1::OrphansReply, Status> {
        let default = self.default_region().await;
        let places = self.places(&request.region, default.as_deref()).await?;
        let mut reply = v1::OrphansReply::default();
        for place in places {
            let before = self.book(default.as_deref());
            match place.tagged().await {
                Ok(tagged) => {
                    let after = self.book(default.as_deref());
                    let found = compare::entries(&place.name, &tagged, &before, &after);
                    reply.entries.extend(found);
                    reply.regions.push(place.name);
                }
                Err(status) if place.needed => return Err(status),
                Err(status) => reply.notes.push(status.message().to_owned()),
            }
        }
        Ok(reply)
    }

    /// The region of the AWS settings, where there is one.
    async fn default_region(&self) -> Option<String> {
        let provider = self.providers.get(ProviderKind::Ec2, None).await.ok()?;
        timeout(REGION_WITHIN, provider.region()).await.ok()?
    }

    /// This host, the regions of all clusters, the one that was asked for, and that of the AWS settings.
    async fn places(&self, asked: &str, default: Option<&str>) -> Result<Vec<Place>, Status> {
        let used: Vec<Option<String>> = self.engine.look(|world| {
            let ec2 = world
                .clusters
                .values()
                .filter(|cluster| cluster.spec.provider == ProviderKind::Ec2);
            ec2.map(|cluster| cluster.spec.region.clone()).collect()
        });
        let mut places = vec![self.place(ProviderKind::Local, None, LOCAL, true).await?];
        for (region, needed) in regions(used, asked, default) {
            let name = region
                .as_deref()
                .unwrap_or("the region of the AWS settings");
            let place = self
                .place(ProviderKind::Ec2, region.as_deref(), name, needed)
                .await?;
            places.push(place);
        }
        Ok(places)
    }

    async fn place(
        &self,
        kind: ProviderKind,
        region: Option<&str>,
        name: &str,
        needed: bool,
    ) -> Result<Place, Status> {
        let provider = self.providers.get(kind, region).await;
        Ok(Place {
            name: name.to_owned(),
            provider: provider.map_err(|error| unreachable(name, &error))?,
            needed,
        })
    }

    /// What the store holds now.
    fn book(&self, default: Option<&str>) -> Book {
        self.engine.look(|world| {
            let held = |cluster: &crate::model::cluster::Cluster| {
                let region = match cluster.spec.provider {
                    ProviderKind::Local => LOCAL,
                    ProviderKind::Ec2 => cluster
                        .spec
                        .region
                        .as_deref()
                        .or(default)
                        .unwrap_or_default(),
                };
                (cluster.uuid.clone(), Held::of(cluster, region))
            };
            world.clusters.values().map(held).collect()
        })
    }
}

/// The regions to look at, each once, and whether somebody counts on it. `None` is a region that clusters use and
/// nobody knows: looking there says what is wrong.
fn regions(
    used: Vec<Option<String>>,
    asked: &str,
    default: Option<&str>,
) -> Vec<(Option<String>, bool)> {
    let default = default.map(str::to_owned);
    let asked = (!matches!(asked, "" | LOCAL)).then(|| Some(asked.to_owned()));
    let mut needed: Vec<Option<String>> = used
        .into_iter()
        .map(|region| region.or_else(|| default.clone()))
        .chain(asked)
        .collect();
    needed.sort();
    needed.dedup();
    let more = default.is_some() && !needed.contains(&default);
    let mut all: Vec<_> = needed.into_iter().map(|region| (region, true)).collect();
    if more {
        all.push((default, false));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_is_looked_at_once() {
        let some = |name: &str| Some(name.to_owned());
        let table = [
            (vec![], "", None, vec![]),
            (vec![], "", Some("r1"), vec![(some("r1"), false)]),
            (vec![], "r1", Some("r1"), vec![(some("r1"), true)]),
            (vec![], "local", None, vec![]),
            (
                vec![None, some("r1")],
                "",
                Some("r1"),
                vec![(some("r1"), true)],
            ),
            (
                vec![some("r2"), None, some("r2")],
                "r3",
                Some("r1"),
                vec![(some("r1"), true), (some("r2"), true), (some("r3"), true)],
            ),
            (vec![None], "", None, vec![(None, true)]),
        ];
        for (used, asked, default, want) in table {
            assert_eq!(
                regions(used.clone(), asked, default),
                want,
                "{used:?} {asked}"
            );
        }
    }
}
