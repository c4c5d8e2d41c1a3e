//! `Orphans`: the account against the store, in every region that counts. Looks and compares; [`delete`] begins a
//! deletion.

mod compare;
mod delete;

use aot_host::chain::Chain;
use aot_model::spec::ProviderKind;
use aot_proto::v1;
use aot_provider::Tagged;
use tonic::Status;

use self::compare::{Book, StoredCluster};
use super::{OperatorApi, not_empty};

/// What stands for this host in the place of a region.
const LOCAL: &str = "local";

/// Where one looks.
struct RegionScope {
    /// A region, or [`LOCAL`].
    name: String,
    /// `None` is this host, or the region of the AWS settings.
    region: Option<String>,
    kind: ProviderKind,
    /// Somebody counts on this place: without an answer of it there is none at all.
    needed: bool,
}

impl OperatorApi {
    pub(super) async fn do_orphans(
        &self,
        request: &v1::OrphansRequest,
    ) -> Result<v1::OrphansReply, Status> {
        let default = self.lookups.default_region().await;
        let region = not_empty("--region", request.region.as_deref())?.unwrap_or_default();
        let places = self.places(region, default.as_deref()).await?;
        let mut reply = v1::OrphansReply::default();
        for place in places {
            let before = self.book(default.as_deref()).await?;
            match self.tagged(&place).await {
                Ok(tagged) => {
                    let after = self.book(default.as_deref()).await?;
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

    /// All that carries our tags there.
    async fn tagged(&self, place: &RegionScope) -> Result<Vec<Tagged>, Status> {
        let tagged = self.lookups.tagged(place.kind, place.region.clone()).await;
        tagged.map_err(|error| {
            Status::unavailable(format!(
                "cannot search for orphans in {}: {error}",
                place.name
            ))
        })
    }

    /// This host, the regions of all clusters, the one that was asked for, and that of the AWS settings.
    async fn places(&self, asked: &str, default: Option<&str>) -> Result<Vec<RegionScope>, Status> {
        let used = self.engine.read_everywhere(|world| -> Vec<Option<String>> {
            let ec2 = world
                .clusters
                .values()
                .filter(|cluster| cluster.spec.provider == ProviderKind::Ec2);
            ec2.map(|cluster| cluster.spec.region.clone()).collect()
        });
        let used = used.await.map_err(unread)?;
        let mut places = vec![RegionScope {
            name: LOCAL.to_owned(),
            region: None,
            kind: ProviderKind::Local,
            needed: true,
        }];
        places.extend(regions(used.concat(), asked, default).into_iter().map(
            |(region, needed)| {
                RegionScope {
                    name: region
                        .clone()
                        .unwrap_or_else(|| "the region of the AWS settings".to_owned()),
                    region,
                    kind: ProviderKind::Ec2,
                    needed,
                }
            },
        ));
        Ok(places)
    }

    /// What the store holds now, also of clusters that other masters have.
    async fn book(&self, default: Option<&str>) -> Result<Book, Status> {
        let books = self.engine.read_everywhere(|world| -> Book {
            // Clones of another host are not seen from here.
            let is_seen = |cluster: &&aot_model::cluster::Cluster| {
                let name = &cluster.spec.name;
                cluster.spec.provider == ProviderKind::Ec2 || self.engine.is_decided_here(name)
            };
            let held = |cluster: &aot_model::cluster::Cluster| {
                let region = match cluster.spec.provider {
                    ProviderKind::Local => LOCAL,
                    ProviderKind::Ec2 => cluster
                        .spec
                        .region
                        .as_deref()
                        .or(default)
                        .unwrap_or_default(),
                };
                (cluster.uuid.to_string(), StoredCluster::of(cluster, region))
            };
            world.clusters.values().filter(is_seen).map(held).collect()
        });
        let books = books.await.map_err(unread)?;
        Ok(books.into_iter().flatten().collect())
    }
}

/// Without the records of all clusters nothing can be said of what belongs to none.
fn unread(error: aot_store::Error) -> Status {
    Status::unavailable(format!("cannot read all clusters: {}", Chain(&error)))
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
