//! The handle on the database: opened for one master, with its beats, its writer and its reader.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aot_host::chain::Chain;
use aot_host::files;
use aot_model::job::Job;
use aot_model::key::InstanceKey;
use aot_model::retention::Sweep;
use aot_model::run::Run;
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use aot_store::{
    Backend, ClosedJob, Hold, HoldPosition, Loaded, OpenStore, Pending, Store, StoredOutputs,
};
use prost::bytes::Bytes;

use crate::beat::{Beat, Lost};
use crate::commit::FencedWriter;
use crate::connect::EngineLink;
use crate::parts::{self, SqlPart};
use crate::take::{self, Me, Timing};
use crate::{Error, PostgresUrl, load, read, schema};

/// What all records of a database are held by: one master has all of them.
const HOLD: &str = "~master";

/// Which master a state folder is, in that folder. Says too that its records lie elsewhere.
const ID_FILE: &str = aot_store::sqlite::ELSEWHERE;

/// Records in a database.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Where.
    pub url: PostgresUrl,
    /// All masters of a database have the same.
    pub timing: Timing,
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
        })
    }

    async fn opened(
        &self,
        state_dir: &Path,
    ) -> Result<(PostgresStore, Hold, Loaded), aot_store::Error> {
        let id = master_id(state_dir)?;
        let writer = FencedWriter::new(EngineLink::new(&self.url)?);
        schema::migrate(&writer.link).await?;
        let me = take::enter(&writer.link, &id).await?;
        let opened = self.taken(writer, &me).await;
        if opened.is_err()
            && let Ok(link) = EngineLink::new(&self.url)
            && let Err(error) = take::leave(&link, &me).await
        {
            tracing::debug!(error = %Chain(&error), "the entry of a start that failed stays");
        }
        opened
    }

    async fn taken(
        &self,
        writer: FencedWriter,
        me: &Me,
    ) -> Result<(PostgresStore, Hold, Loaded), aot_store::Error> {
        let lost = Lost::new(None);
        let beat = Beat::start(&self.url, HOLD, me, self.timing, &lost)?;
        let (epoch, seq) = take::take(&writer.link, HOLD, me, self.timing).await?;
        beat.has_taken(epoch);
        tracing::info!(store = %self.url, epoch, "the records are this master's");
        let reader = EngineLink::new(&self.url)?;
        let loaded = load::load(&reader).await?;
        let store = PostgresStore {
            writer,
            reader,
            me: me.clone(),
            beat: Mutex::new(Some(beat)),
            lost,
            is_closed: AtomicBool::new(false),
        };
        let position = HoldPosition {
            epoch,
            seq,
            is_unsure: false,
        };
        Ok((store, Hold::new(HOLD, position), loaded))
    }

    /// As [`Backend::open`], with the store as what it is.
    #[cfg(test)]
    pub(crate) async fn open_here(
        &self,
        state_dir: &Path,
    ) -> Result<(PostgresStore, Hold, Loaded), aot_store::Error> {
        self.opened(state_dir).await
    }
}

impl Backend for Postgres {
    fn open<'a>(&'a self, state_dir: &'a Path) -> Pending<'a, Result<OpenStore, aot_store::Error>> {
        Box::pin(async move {
            let (store, hold, loaded) = self.opened(state_dir).await?;
            Ok(OpenStore {
                store: Arc::new(store),
                hold: Arc::new(hold),
                loaded,
            })
        })
    }
}

/// Host and state folder: a copy of the folder on another host is another master.
fn master_id(state_dir: &Path) -> Result<String, Error> {
    let io = |what, path: &Path| {
        let path: PathBuf = path.to_owned();
        move |source| Error::Io { what, path, source }
    };
    files::private_dir(state_dir).map_err(io("make the folder", state_dir))?;
    let local = state_dir.join(aot_store::sqlite::FILE);
    if local.exists() {
        return Err(Error::LocalRecords { path: local });
    }
    let path = state_dir.join(ID_FILE);
    let folder = match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("read", &path)(source));
        }
        _ => {
            let made = ulid::Ulid::generate().to_string();
            let written = files::write_atomic(&path, made.as_bytes(), 0o600);
            written.map_err(io("write", &path))?;
            made
        }
    };
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    Ok(format!("{host}/{folder}"))
}

/// A handle on the database.
pub(crate) struct PostgresStore {
    pub(crate) writer: FencedWriter,
    reader: EngineLink,
    me: Me,
    /// `None` once it is closed.
    beat: Mutex<Option<Beat>>,
    lost: Lost,
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
        let written = self.writer.write(hold.name(), &mut position, parts).await;
        if let Err(Error::Fenced { owner, .. }) = &written {
            self.lost.send_replace(Some(owner.clone()));
        }
        Ok(written?)
    }

    async fn ended(&self, hold: &Hold) {
        let position = hold.position().await; // after whoever writes
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let beat = self.beat.lock().expect("nobody panics with it").take();
        let ended = tokio::task::spawn_blocking(move || drop(beat));
        let _ = ended.await; // a panic there has ended the process
        let link = &self.writer.link;
        let mut left = take::release(link, hold.name(), position.epoch).await;
        if left.is_ok() {
            left = take::leave(link, &self.me).await;
        }
        if let Err(error) = left {
            tracing::warn!(error = %Chain(&error), "the hold on the store was not given back: another master waits until it is old");
        }
    }
}

impl Store for PostgresStore {
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

    fn lost<'a>(&'a self, _: &'a Hold) -> Pending<'a, aot_store::Error> {
        Box::pin(async move {
            let mut lost = self.lost.subscribe();
            let owner = lost.wait_for(Option::is_some).await;
            let owner = owner.map(|owner| owner.clone().unwrap_or_default());
            // Its sender is here.
            self.writer.fenced(owner.unwrap_or_default()).into()
        })
    }

    fn close<'a>(&'a self, hold: &'a Hold) -> Pending<'a, ()> {
        Box::pin(self.ended(hold))
    }
}
