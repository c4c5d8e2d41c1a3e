//! A fleet on this host: real masters on one real PostgreSQL, and thousands of simulated agents in one process. For tests and
//! benches of what several masters do; `tests/ec2/fleet.rs` has real machines.
//!
//! Its clusters are of EC2 by their records, so that any master may have them, and nobody is asked for their machines. Without a
//! bucket what is long is nowhere but on each master's disk: the agents' outputs are to be short enough for the records (64 KiB).

pub mod agents;
mod faults;
pub mod master;
mod peer_way;
mod plan;
pub mod records;
mod simulated;
mod sockets;

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use aot_postgres::server::{Missing, Server};
use serde_json::Value;
use tempfile::TempDir;

use crate::bucket::Bucket;
use crate::rig::{LIMIT, master_program};
use crate::wait;
use agents::{AgentsPlan, PlannedCluster, SimulatedAgents};
use master::FleetMaster;
use peer_way::Pids;
use records::{ClusterShape, GENERATION, ProviderKind};
pub use simulated::play;

/// Masters of a usual fleet.
pub const MASTERS: usize = 3;

/// Where masters get their records.
pub(crate) struct Place {
    dir: PathBuf,
    server: Server,
    database: String,
    key: PathBuf,
    bucket: Option<Bucket>,
    /// Where the ways between masters can be parted.
    pids: Option<Pids>,
}

/// What a fleet may have besides masters and a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetExtras {
    /// Nothing: nothing stands between its parts that costs anything.
    None,
    /// A bucket for what is long, and ways between its masters that can be parted.
    ForFaults,
}

/// Masters, their database, and clusters without agents yet.
pub struct Fleet {
    /// The masters.
    pub masters: Vec<FleetMaster>, // first: they end before their database
    clusters: Vec<ClusterShape>,
    place: Place,
    _dir: TempDir,
}

impl Fleet {
    /// Starts this many masters with a cluster of each of these sizes, called `c1`, `c2`, ..., divided among them in turns.
    ///
    /// # Errors
    /// When PostgreSQL is not here and can't be installed.
    ///
    /// # Panics
    /// When the fleet does not come up.
    pub fn start(masters: usize, sizes: &[usize]) -> Result<Self, Missing> {
        Self::start_with(masters, sizes, FleetExtras::None)
    }

    /// The same with more.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    ///
    /// # Panics
    /// As [`Fleet::start`].
    pub fn start_with(
        masters: usize,
        sizes: &[usize],
        extras: FleetExtras,
    ) -> Result<Self, Missing> {
        let has_more = extras == FleetExtras::ForFaults;
        let server = Server::start()?;
        let dir = tempfile::Builder::new()
            .prefix("aot-fleet-")
            .tempdir()
            .expect("a folder");
        let database = server.database();
        let place = Place {
            dir: dir.path().to_owned(),
            key: dir.path().join("fleet.key"),
            server,
            database,
            bucket: has_more.then(Bucket::start),
            pids: has_more.then(Pids::default),
        };
        let clusters = shapes(sizes);
        import(&place, &clusters);
        let masters = (0..masters).map(|at| FleetMaster::new(&place, at));
        let mut fleet = Self {
            masters: masters.collect(),
            clusters,
            place,
            _dir: dir,
        };
        fleet.masters.iter_mut().for_each(FleetMaster::begin);
        fleet.masters.iter_mut().for_each(FleetMaster::answers);
        fleet.divide();
        Ok(fleet)
    }

    /// The database's server.
    pub fn server(&self) -> &Server {
        &self.place.server
    }

    /// The database's name there.
    pub fn database(&self) -> &str {
        &self.place.database
    }

    /// Names of the clusters.
    pub fn clusters(&self) -> Vec<&str> {
        self.clusters.iter().map(|it| it.name.as_str()).collect()
    }

    /// How many agents a cluster has.
    ///
    /// # Panics
    /// When there is no such cluster.
    pub fn size(&self, cluster: &str) -> usize {
        let found = self.clusters.iter().find(|it| it.name == cluster);
        found.expect("a cluster").agents.len()
    }

    /// Addresses of all masters, for agents.
    pub fn addresses(&self) -> Vec<String> {
        self.masters.iter().map(FleetMaster::address).collect()
    }

    /// Starts the agents of these clusters, which know these addresses.
    pub fn agents(&self, clusters: &[&str], addresses: &[String]) -> SimulatedAgents {
        SimulatedAgents::start(&self.plan(clusters, addresses))
    }

    /// The same of few agents, which have no cluster facts at first, and keep those that they are sent.
    pub fn agents_with_facts(&self, clusters: &[&str], addresses: &[String]) -> SimulatedAgents {
        SimulatedAgents::start(&AgentsPlan {
            generation: 0,
            keeps_facts: true,
            ..self.plan(clusters, addresses)
        })
    }

    fn plan(&self, clusters: &[&str], addresses: &[String]) -> AgentsPlan {
        let planned = |it: &ClusterShape| PlannedCluster {
            name: it.name.clone(),
            agents: it.agents.clone(),
        };
        let wanted = self.clusters.iter();
        let wanted = wanted.filter(|it| clusters.contains(&it.name.as_str()));
        AgentsPlan {
            certificates: self.place.dir.clone(),
            clusters: wanted.map(planned).collect(),
            addresses: addresses.to_vec(),
            generation: GENERATION,
            keeps_facts: false,
        }
    }

    /// How a master calls itself.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn id(&self, master: usize) -> String {
        let says = self.says(master).into_iter().find(|(at, _)| *at == master);
        let (_, own) = says.expect("it knows itself");
        own["id"].as_str().expect("an id").to_owned()
    }

    /// What a master says of all of them (`masters --json`), and which of [`Fleet::masters`] each is.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn says(&self, master: usize) -> Vec<(usize, Value)> {
        let all = self.masters[master].json(&["masters"]);
        let of = |value: &Value| {
            let peer = value["peer"].as_str().unwrap_or_default();
            self.masters.iter().position(|it| it.peer_address() == peer)
        };
        // One that has just begun has said no address yet.
        all.into_iter()
            .filter_map(|it| Some((of(&it)?, it)))
            .collect()
    }

    /// Which master has a cluster, as one says.
    pub fn owner(&self, asked: usize, cluster: &str) -> Option<usize> {
        let says = self.says(asked).into_iter();
        let lives = says.filter(|(_, it)| it["alive"] == true);
        let mut has = lives.filter(|(_, it)| names(&it["clusters"]).any(|name| name == cluster));
        has.next().map(|(at, _)| at)
    }

    /// The clusters that a master has, as one says; none of one that has just begun.
    pub fn clusters_of(&self, asked: usize, master: usize) -> Vec<String> {
        let says = self.says(asked).into_iter().find(|(at, _)| *at == master);
        let names_of =
            |(_, of): (usize, Value)| names(&of["clusters"]).map(str::to_owned).collect();
        says.map_or_else(Vec::new, names_of)
    }

    /// Sessions of each master, as itself says; none of those that do not run.
    pub fn sessions(&self) -> Vec<u64> {
        let of = |(at, master): (usize, &FleetMaster)| {
            if !master.runs() {
                return 0;
            }
            let says = self.says(at).into_iter().find(|(of, _)| *of == at);
            says.and_then(|(_, it)| it["sessions"].as_u64())
                .unwrap_or(0)
        };
        self.masters.iter().enumerate().map(of).collect()
    }

    /// Gives each cluster to a master, in turns.
    fn divide(&self) {
        let has_owner = |name: &&str| self.owner(0, name).is_some();
        let all = || self.clusters().iter().all(has_owner);
        wait::until(all, LIMIT, "every cluster has a master");
        for (at, cluster) in self.clusters().iter().enumerate() {
            let wanted = at % self.masters.len();
            if self.owner(0, cluster) != Some(wanted) {
                self.give(cluster, wanted);
            }
        }
    }

    /// Gives a cluster to a master, and waits until it has it.
    ///
    /// # Panics
    /// When that fails.
    pub fn give(&self, cluster: &str, to: usize) {
        let id = self.id(to);
        let move_there = ["masters", "move", cluster, &id];
        self.masters[to].run(&move_there).expect(0);
    }
}

fn names(value: &Value) -> impl Iterator<Item = &str> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_str)
}

fn shapes(sizes: &[usize]) -> Vec<ClusterShape> {
    let mut next = 0;
    let shape = |(at, size): (usize, &usize)| {
        let agents: Range<usize> = next..next + size;
        next = agents.end;
        ClusterShape {
            name: format!("c{}", at + 1),
            provider: ProviderKind::Ec2,
            agents,
            bundle: None,
        }
    };
    sizes.iter().enumerate().map(shape).collect()
}

/// Writes the clusters as a single master has them, and brings them into the database as an operator would.
fn import(place: &Place, clusters: &[ClusterShape]) {
    let from = place.dir.join("import");
    records::write(&from, &place.dir, clusters);
    let mut command = std::process::Command::new(master_program());
    command
        .args(["fleet", "import", "--from"])
        .arg(&from)
        .env("AOT_STORE", place.server.url(&place.database))
        .env("AOT_FLEET_KEY", &place.key)
        .env("HOME", &place.dir)
        .env_remove("AOT_BLOBS");
    let limit = LIMIT.max(Duration::from_secs(600));
    crate::process::Running::start(command)
        .finish(limit)
        .expect(0);
}
