//! Connections on which the records of one cluster each are loaded: a load is a transaction, and may take its time.

use std::time::Duration;

use aot_store::Loaded;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::connect::EngineLink;
use crate::load::{self, Of};
use crate::{Error, PostgresUrl};

/// Clusters that are loaded, or looked at, at the same time.
const LOADERS: usize = 4;

/// All of them.
pub(crate) struct Loaders {
    all: [Mutex<EngineLink>; LOADERS],
    within: Duration,
}

impl Loaders {
    /// To this database; each connects when it is needed. A load that takes longer than `within` is given up.
    pub(crate) fn new(url: &PostgresUrl, within: Duration) -> Result<Self, Error> {
        let loader = || EngineLink::new(url).map(Mutex::new);
        let all = [loader()?, loader()?, loader()?, loader()?];
        Ok(Self { all, within })
    }

    /// What is on record of a cluster, in which this epoch has the hold where there must be one.
    ///
    /// # Errors
    /// When somebody else has the hold, or it can't be read in time.
    pub(crate) async fn load(
        &self,
        cluster: &str,
        epoch: Option<i64>,
    ) -> Result<Loaded, aot_store::Error> {
        let until = Instant::now() + self.within;
        let slow = || Error::Slow {
            cluster: cluster.to_owned(),
            within: self.within,
        };
        let link = timeout_at(until, self.free()).await;
        let link = link.map_err(|_| slow())?;
        let hold = epoch.map(|epoch| (cluster, epoch));
        let load = link.in_turn(load::load(&link, Of::Cluster(cluster), hold));
        match timeout_at(until, load).await {
            Ok(loaded) => loaded,
            Err(_) => {
                link.reset().await; // the engine need not continue with it
                Err(slow().into())
            }
        }
    }

    /// One that is free, or the first that will be.
    async fn free(&self) -> MutexGuard<'_, EngineLink> {
        let free = self.all.iter().find_map(|it| it.try_lock().ok());
        match free {
            Some(free) => free,
            None => self.all[0].lock().await,
        }
    }
}
