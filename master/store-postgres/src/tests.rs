//! On a real server, which `server` starts. T1: an owner that is stopped anywhere and taken over writes nothing more. T2: a
//! server that is killed under writes loses nothing that was acknowledged, and takes nothing twice.

mod answers;
mod clocks;
mod fleet;
mod import;
mod killed;
mod level;
mod loads;
mod opening;
mod paused;
mod proxy;
mod secured;
mod wishes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aot_model::world::Changes;
use aot_proto::ids::{ClusterName, JobId};
use aot_store::contract::samples::{cluster, job, targets};
use aot_store::contract::{CHECKS, Place};
use aot_store::fleet::{Fleet, Take, TakenCluster};
use aot_store::{Backend, Hold, Loaded, Store};

use crate::fleet::PostgresFleet;
use crate::server::Server;
use crate::store::PostgresStore;
use crate::{Postgres, Timing};

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// So that a take-over is a matter of moments.
const QUICK: Timing = Timing {
    beat: Duration::from_millis(100),
    dead: Duration::from_secs(3),
    refused: Duration::from_millis(500),
    good: Duration::from_secs(1),
    load: LIMIT,
};

/// The shared server, or a test that is counted as skipped.
fn server(test: &str) -> Option<Arc<Server>> {
    Server::shared().inspect_err(|why| why.skip(test)).ok()
}

fn quick(url: &str) -> Postgres {
    Postgres {
        timing: QUICK,
        shares_keys: true,
        ..Postgres::new(url).expect("a URL")
    }
}

/// For a master that has all records for itself.
fn alone(url: &str) -> Postgres {
    quick(url).sharing_keys(false)
}

/// A state folder, which is a master. In a fleet it takes the one cluster that is written to here.
struct Master {
    dir: tempfile::TempDir,
    postgres: Postgres,
}

struct Opened {
    store: Arc<PostgresStore>,
    hold: Arc<Hold>,
    loaded: Loaded,
    is_taken_over: bool,
}

/// Takes a cluster as soon as its owner has given it back or is dead.
async fn until_taken(
    fleet: &PostgresFleet,
    cluster: &ClusterName,
) -> Result<TakenCluster, aot_store::Error> {
    loop {
        fleet.refresh().await?;
        if let Take::Taken(taken) = fleet.take(cluster).await? {
            return Ok(*taken);
        }
        tokio::time::sleep(QUICK.beat / 4).await;
    }
}

impl Master {
    fn of(url: &str) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            postgres: quick(url),
        }
    }

    fn alone(url: &str) -> Self {
        Self {
            postgres: alone(url),
            ..Self::of(url)
        }
    }

    async fn try_open(&self) -> Result<Opened, aot_store::Error> {
        let opened = self.postgres.open_here(self.dir.path()).await?;
        let store = Arc::new(opened.store);
        let Some(fleet) = opened.fleet else {
            return Ok(Opened {
                store,
                hold: opened.hold,
                loaded: opened.loaded,
                is_taken_over: opened.is_taken_over,
            });
        };
        let taken = until_taken(&fleet, &cluster().spec.name).await?;
        Ok(Opened {
            store,
            hold: taken.hold,
            loaded: taken.loaded,
            is_taken_over: taken.is_taken_over,
        })
    }

    async fn open(&self) -> Opened {
        self.try_open().await.expect("opens")
    }
}

impl Opened {
    /// One job with two targets, as one commit.
    async fn write(&self, number: u64) -> Result<(), aot_store::Error> {
        let changes = one(number);
        self.store.commit(&self.hold, changes, Vec::new()).await
    }

    async fn close(&self) {
        self.store.close(&self.hold).await;
    }

    /// Writes that were made, and questions that took the place of one.
    fn raised(&self, written: u64) -> u64 {
        written + self.store.writers.counts().1
    }

    /// Jobs that are whole, with both targets.
    async fn jobs(&self) -> Vec<JobId> {
        let jobs = self.store.jobs(None, u32::MAX).await.expect("reads");
        assert!(jobs.iter().all(|job| job.targets.len() == 2), "{jobs:?}");
        let mut ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        ids.sort();
        ids
    }
}

fn one(number: u64) -> Changes {
    Changes {
        jobs: vec![job(number, false)],
        targets: targets(number, 2),
        ..Changes::default()
    }
}

/// Waits for what another process does.
async fn until(mut is_so: impl FnMut() -> bool) {
    let come = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let come = tokio::time::timeout(LIMIT, come).await;
    come.expect("it comes in time");
}

fn id(number: u64) -> JobId {
    JobId::from_parts(number, 0)
}

/// How often the rows of holds were raised.
fn counted(server: &Server, database: &str) -> u64 {
    let seq = server.ask(database, "SELECT sum(seq) FROM owners");
    seq.parse().expect("a number")
}

#[tokio::test]
async fn it_meets_the_contract() {
    let Some(server) = server("the contract on PostgreSQL") else {
        return;
    };
    for (name, check) in CHECKS {
        println!("{name}");
        let url = server.url(&server.database());
        let dir = tempfile::tempdir().expect("a folder");
        let place = Place {
            backend: Arc::new(alone(&url)),
            dir: dir.path().to_owned(),
        };
        tokio::time::timeout(LIMIT, check(place)).await.expect(name);
    }
}

/// Numbers from the clock, unless `AOT_TEST_SEED` asks for some again.
fn seed() -> u64 {
    let given = std::env::var("AOT_TEST_SEED").ok();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let fresh = now.map_or(1, |passed| u64::from(passed.subsec_nanos()));
    let seed = given.and_then(|text| text.parse().ok()).unwrap_or(fresh);
    println!("AOT_TEST_SEED={seed}");
    seed
}

/// The next number below `most` (xorshift64).
fn dice(state: &mut u64, most: u64) -> u64 {
    *state |= 1;
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % most
}

/// The program of these tests, of which one is to be run as another process.
fn program() -> PathBuf {
    std::env::current_exe().expect("its own path")
}
