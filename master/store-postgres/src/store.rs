//! The handle on the database: opened for one master, with its beats, its writer and its reader.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aot_host::chain::Chain;
use aot_model::job::Job;
use aot_model::key::InstanceKey;
use aot_model::level::LEVEL;
use aot_model::retention::Sweep;
use aot_model::run::Run;
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use aot_store::fleet::Fleet;
use aot_store::{
    Backend, ClosedJob, Hold, Loaded, OpenStore, Pending, SharedSecrets, Store, StoreClock,
    StoredOutputs,
};
use prost::bytes::Bytes;

use crate::beat::Beat;
use crate::connect::EngineLink;
use crate::fleet::PostgresFleet;
use crate::held::KeptHolds;
use crate::load::{self, Of};
use crate::parts::{self, SqlPart};
use crate::state::StateIdentity;
use crate::take::{self, Me, Timing};
use crate::writers::FencedWriters;
use crate::{Error, PostgresUrl, on_record, read, schema};

/// What all records of a database are held by where one master has all of them.
pub(crate) const ALL: &str = "~master";

/// Records in a database.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Where.
    pub url: PostgresUrl,
    /// All masters of a database have the same.
    pub timing: Timing,
    /// Its masters have the same keys: each has some of the clusters, and any of them may.
    pub(crate) shares_keys: bool,
    /// Highest level of records that is understood.
    pub(crate) level: i32,
}

impl Postgres {
    /// In the database of this URL.
    ///
    /// # Errors
    /// When it is not one.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self {
            url: url.parse().map_err(Error::Url)?,
            timing: Timing::default(),
            shares_keys: false,
            level: LEVEL,
        })
    }

    /// Whether all masters of the database have the same keys: only then there may be several.
    #[must_use]
    pub fn sharing_keys(self, shares_keys: bool) -> Self {
        Self {
            shares_keys,
            ..self
        }
    }

    async fn opened(&self, state_dir: &Path) -> Result<TakenStore, aot_store::Error> {
        let identity = StateIdentity::read(state_dir)?;
        let link = EngineLink::new(&self.url)?;
        let database = self.checked(&link, &identity).await?;
        let me = take::enter(&link, &identity.master_id(), self.level).await?;
        let opened = match self.shares_keys {
            true => self.joined(&link, &me).await,
            false => self.taken(&link, &me).await,
        };
        let written = opened.and_then(|opened| {
            identity.write(&database)?;
            Ok(opened)
        });
        // It took the hold, or may have: whoever comes next need not wait.
        if written.is_err()
            && let Ok(link) = EngineLink::new(&self.url)
            && let Err(error) = take::leave(&link, &me).await
        {
            tracing::debug!(error = %Chain(&error), "the entry of a start that failed stays");
        }
        written
    }

    /// Whether this folder's master may have the records, before it takes anything or changes a table; the database's id.
    async fn checked(&self, link: &EngineLink, identity: &StateIdentity) -> Result<String, Error> {
        let place = link.place();
        identity.check(schema::id(link).await?.as_deref(), &place)?;
        let database = schema::migrate(link).await?;
        let (owner, clones) = take::last_served(link, ALL).await?;
        let is_own = owner.is_empty() || owner.ends_with(&format!("/{}", identity.folder()));
        match () {
            // In a fleet its clones are found to be that master's when their cluster is taken.
            () if is_own || self.shares_keys => Ok(database),
            () if !clones.is_empty() => Err(Error::LocalMachines {
                place,
                clusters: clones.join(", "),
                owner,
            }),
            () => Err(Error::OtherMaster { place, owner }),
        }
    }

    /// All records for this master.
    async fn taken(&self, link: &EngineLink, me: &Me) -> Result<TakenStore, aot_store::Error> {
        let kept = KeptHolds::new();
        let beat = Beat::start(&self.url, kept.clone(), me, self.timing)?;
        let taken = take::take(link, ALL, me, self.timing).await?;
        let hold = kept.add_taken(ALL, &taken, self.timing.good).await;
        let loaded = load::load(link, Of::All, Some((ALL, taken.epoch))).await?;
        hold.set_level(take::serve(link, ALL, me, &taken).await?);
        tracing::info!(store = %self.url, epoch = taken.epoch, taken_over = taken.is_taken_over, "the records are this master's");
        Ok(TakenStore {
            store: self.store(me, kept, beat)?,
            hold,
            loaded,
            is_taken_over: taken.is_taken_over,
            fleet: None,
        })
    }

    /// A master among others, which has no cluster yet. Records that one master had for itself are divided first: that one must
    /// have ended.
    async fn joined(&self, link: &EngineLink, me: &Me) -> Result<TakenStore, aot_store::Error> {
        let kept = KeptHolds::new();
        let beat = Beat::start(&self.url, kept.clone(), me, self.timing)?;
        if take::exists(link, ALL).await? {
            let taken = take::take(link, ALL, me, self.timing).await?;
            on_record::divide(link, ALL, taken.epoch).await?;
        }
        on_record::name_all(link).await?;
        kept.standing.until_good().await?; // nothing can be taken before
        tracing::info!(store = %self.url, master = %me.id, "one of the masters of these records");
        let fleet = PostgresFleet::new(&self.url, me.clone(), self.timing, kept.clone())?;
        let standing = kept.standing.clone();
        Ok(TakenStore {
            store: self.store(me, kept, beat)?,
            hold: standing,
            loaded: Loaded::default(),
            is_taken_over: false,
            fleet: Some(Arc::new(fleet)),
        })
    }

    fn store(&self, me: &Me, kept: KeptHolds, beat: Beat) -> Result<PostgresStore, Error> {
        Ok(PostgresStore {
            writers: FencedWriters::new(&self.url)?,
            reader: EngineLink::new(&self.url)?,
            me: me.clone(),
            kept,
            beat: Mutex::new(Some(beat)),
            is_closed: AtomicBool::new(false),
        })
    }

    /// As [`Backend::open`], with the store as what it is.
    #[cfg(test)]
    pub(crate) async fn open_here(&self, state_dir: &Path) -> Result<TakenStore, aot_store::Error> {
        self.opened(state_dir).await
    }
}

/// A database that is this master's.
pub(crate) struct TakenStore {
    pub(crate) store: PostgresStore,
    pub(crate) hold: Arc<Hold>,
    pub(crate) loaded: Loaded,
    pub(crate) is_taken_over: bool,
    pub(crate) fleet: Option<Arc<PostgresFleet>>,
}

impl SharedSecrets for Postgres {
    fn read(&self) -> Pending<'_, Result<Option<Vec<u8>>, aot_store::Error>> {
        Box::pin(async {
            let link = EngineLink::new(&self.url)?;
            // Asked by every start, also of one that turns out not to fit: no table is made or changed for it.
            match schema::id(&link).await? {
                Some(_) => Ok(schema::sealed(&link).await?),
                None => Ok(None),
            }
        })
    }

    fn keep(&self, sealed: Vec<u8>) -> Pending<'_, Result<Vec<u8>, aot_store::Error>> {
        Box::pin(async move {
            let link = EngineLink::new(&self.url)?;
            schema::migrate(&link).await?;
            // A master that has the records for itself would find keys that are not its own at its next start.
            if take::exists(&link, ALL).await?
                && schema::sealed(&link).await?.is_none()
                && let Some(owner) = take::alive_owner(&link, ALL, self.timing.beat).await?
            {
                let place = link.place();
                return Err(Error::Alive { place, owner }.into());
            }
            Ok(schema::seal(&link, &sealed).await?)
        })
    }

    fn replace(
        &self,
        was: Vec<u8>,
        sealed: Vec<u8>,
    ) -> Pending<'_, Result<bool, aot_store::Error>> {
        Box::pin(async move {
            let link = EngineLink::new(&self.url)?;
            Ok(schema::seal_anew(&link, &was, &sealed).await?)
        })
    }
}

impl Backend for Postgres {
    fn shared_secrets(&self) -> Option<&dyn SharedSecrets> {
        Some(self)
    }

    fn open<'a>(&'a self, state_dir: &'a Path) -> Pending<'a, Result<OpenStore, aot_store::Error>> {
        Box::pin(async move {
            let opened = self.opened(state_dir).await?;
            Ok(OpenStore {
                store: Arc::new(opened.store),
                hold: opened.hold,
                loaded: opened.loaded,
                is_taken_over: opened.is_taken_over,
                fleet: opened.fleet.map(|fleet| -> Arc<dyn Fleet> { fleet }),
            })
        })
    }
}

/// A handle on the database.
pub(crate) struct PostgresStore {
    pub(crate) writers: FencedWriters,
    reader: EngineLink,
    me: Me,
    kept: KeptHolds,
    /// `None` once it is closed.
    beat: Mutex<Option<Beat>>,
    is_closed: AtomicBool,
}

impl PostgresStore {
    async fn write(&self, hold: &Hold, parts: Vec<SqlPart>) -> Result<(), aot_store::Error> {
        let mut position = hold.position().await;
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(aot_store::Error::Stopped);
        }
        if parts.is_empty() {
            return Ok(());
        }
        hold.set_writing(true);
        let name = hold.name();
        let written = self.writers.write(name, &mut position, parts).await;
        hold.set_writing(false);
        if written.is_ok() && self.kept.holds.end_doubt(name) {
            let ended = take::end_doubt(self.writers.link(), name, position.epoch).await;
            if let Err(error) = ended {
                tracing::debug!(error = %Chain(&error), "whoever takes it next doubts once more");
            }
        }
        if let Err(fenced @ Error::Fenced { .. }) = &written {
            hold.lose(&fenced.to_string());
        }
        Ok(written?)
    }

    async fn ended(&self, hold: &Hold) {
        let position = hold.position().await; // after whoever writes
        drop(position);
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let beat = self.beat.lock().expect("nobody panics with it").take();
        let ended = tokio::task::spawn_blocking(move || drop(beat));
        let _ = ended.await; // a panic there has ended the process
        let link = self.writers.link();
        let mut left = take::release_all(link, &self.me).await;
        if left.is_ok() {
            left = take::leave(link, &self.me).await;
        }
        if let Err(error) = left {
            tracing::warn!(error = %Chain(&error), "what this master had in the store was not given back: another master waits until it is old");
        }
    }
}

impl Store for PostgresStore {
    fn clock(&self) -> Option<StoreClock> {
        self.kept.clock()
    }

    fn commit<'a>(
        &'a self,
        hold: &'a Hold,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
    ) -> Pending<'a, Result<(), aot_store::Error>> {
        Box::pin(async move { self.write(hold, parts::of_changes(&changes, &spools)).await })
    }

    fn sweep<'a>(
        &'a self,
        hold: &'a Hold,
        sweep: Sweep,
    ) -> Pending<'a, Result<(), aot_store::Error>> {
        Box::pin(async move { self.write(hold, parts::of_sweep(&sweep)).await })
    }

    fn jobs(
        &self,
        cluster: Option<String>,
        limit: u32,
    ) -> Pending<'_, Result<Vec<Job>, aot_store::Error>> {
        Box::pin(async move { read::jobs(&self.reader, cluster.as_deref(), limit).await })
    }

    fn job(&self, id: JobId) -> Pending<'_, Result<Option<Job>, aot_store::Error>> {
        Box::pin(read::one_job(&self.reader, id))
    }

    fn runs_of(&self, job: JobId) -> Pending<'_, Result<Vec<Run>, aot_store::Error>> {
        Box::pin(read::runs(&self.reader, "job = $1", job.to_string()))
    }

    fn stage_runs(&self, at: InstanceKey) -> Pending<'_, Result<Vec<Run>, aot_store::Error>> {
        let condition = "kind = 'stage' AND instance = $1";
        Box::pin(read::runs(&self.reader, condition, at.to_string()))
    }

    fn small_spool(&self, run: RunId) -> Pending<'_, Result<Option<Vec<u8>>, aot_store::Error>> {
        Box::pin(read::small_spool(&self.reader, run))
    }

    fn outputs(
        &self,
        jobs: Option<Vec<JobId>>,
    ) -> Pending<'_, Result<StoredOutputs, aot_store::Error>> {
        Box::pin(read::outputs(&self.reader, jobs))
    }

    fn closed_jobs(&self) -> Pending<'_, Result<Vec<ClosedJob>, aot_store::Error>> {
        Box::pin(read::closed_jobs(&self.reader))
    }

    fn close<'a>(&'a self, hold: &'a Hold) -> Pending<'a, ()> {
        Box::pin(self.ended(hold))
    }
}
