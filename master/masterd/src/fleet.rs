//! `aot-master fleet`: what is done once for masters that share a database, without a master. Settings to whoever does it, in the
//! order in which nothing is written before all that can be refused is.

mod error;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use aot_cli::args::FleetCommand;
use aot_cli::program::{BAD_USAGE, absolute, fail};
use aot_daemon::enrol::ca::Ca;
use aot_daemon::enrol::fleet_key::FleetKey;
use aot_daemon::enrol::fleet_seal::FleetSeal;
use aot_daemon::enrol::shared_keys;
use aot_daemon::lock_to_move;
use aot_postgres::{FoundDatabase, Postgres};
use aot_settings::{FleetKeySetting, Settings};
use aot_store::blobs::{BlobPlace, Blobs};
use aot_store::sqlite::export::{LongFile, PutFiles, SqliteExport, put_files};
use aot_store::sqlite::mark_moved;

use crate::seal::fleet_seal;
use error::Error;
use report::{FleetReport, SealedWith};

/// Where the settings say that the fleet is.
struct FleetPlace {
    postgres: Postgres,
    /// The key; `None` where nothing is opened.
    key: Option<FleetKeySetting>,
    /// Where long things are put.
    blobs: Option<Arc<dyn BlobPlace>>,
}

/// Does what the command says, and says what was done.
pub(crate) fn run(
    command: &FleetCommand,
    settings: &Settings,
    blobs: Option<Arc<dyn BlobPlace>>,
    json: bool,
) -> ExitCode {
    let place = match FleetPlace::new(settings, blobs, command) {
        Ok(place) => place,
        Err(error) => return fail(&error, BAD_USAGE),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let mut report = FleetReport::new(json);
    let done = runtime.block_on(async {
        match command {
            FleetCommand::Init => place.init(&mut report).await,
            FleetCommand::Import {
                from,
                without_files,
            } => place.import(from, *without_files, &mut report).await,
            FleetCommand::Rekey { from } => place.rekey(from, &mut report).await,
            FleetCommand::Level => place.raise_level(&mut report).await,
        }
    });
    runtime.shutdown_background();
    match done {
        Ok(()) => report.exit(),
        Err(error) => fail(&error, 1),
    }
}

impl FleetPlace {
    fn new(
        settings: &Settings,
        blobs: Option<Arc<dyn BlobPlace>>,
        command: &FleetCommand,
    ) -> Result<Self, Error> {
        let url = settings.store.as_ref().ok_or(Error::NoStore)?;
        let key = settings.fleet_key.clone();
        if key.is_none() && !matches!(command, FleetCommand::Level) {
            return Err(Error::NoFleetKey);
        }
        Ok(Self {
            postgres: Postgres::new(&url.0)?.sharing_keys(true),
            key,
            blobs,
        })
    }

    /// The fleet's key, and whether it was made now: only for a database that has nothing that another has sealed.
    async fn key(&self) -> Result<(FleetSeal, SealedWith), Error> {
        let setting = self.key.as_ref().ok_or(Error::NoFleetKey)?;
        let path = match setting {
            FleetKeySetting::Kms(key) => {
                let with = SealedWith::kms(key);
                return Ok((fleet_seal(setting)?, with));
            }
            FleetKeySetting::File(path) => absolute(path),
        };
        let found = self.postgres.found().await?;
        let (key, is_new) = match (path.exists(), found) {
            (true, _) => (FleetKey::read(&path)?, false),
            (false, FoundDatabase::Empty) => (FleetKey::create(&path)?, true),
            (false, FoundDatabase::Keys) => {
                let place = self.postgres.place();
                return Err(Error::KeyElsewhere { path, place });
            }
        };
        let with = SealedWith::file(&path, is_new);
        Ok((FleetSeal::File(Arc::new(key)), with))
    }

    async fn init(&self, report: &mut FleetReport) -> Result<(), Error> {
        let (key, with) = self.key().await?;
        let is_new = shared_keys::init(&with.scratch(), &self.postgres, &key).await?;
        report.init(&self.postgres.place(), &with, is_new);
        Ok(())
    }

    /// Seals with the key that is set what was sealed with another. A file has to be there: a new one would be nobody's copy.
    async fn rekey(&self, from: &Path, report: &mut FleetReport) -> Result<(), Error> {
        let old = fleet_seal(&FleetKeySetting::read(from)?)?;
        let setting = self.key.as_ref().ok_or(Error::NoFleetKey)?;
        let new = fleet_seal(setting)?;
        let is_done = shared_keys::rekey(&self.postgres, &old, &new).await?;
        report.rekeyed(&self.postgres.place(), setting, is_done);
        Ok(())
    }

    async fn import(
        &self,
        from: &Path,
        without_files: bool,
        report: &mut FleetReport,
    ) -> Result<(), Error> {
        let dir = absolute(from);
        let _lock = lock_to_move(&dir)?; // until the folder is marked
        let export = Arc::new(SqliteExport::open(&dir)?);
        let files = export.files()?;
        let left = self.left_behind(&dir, &files, without_files)?;
        let plan = self.postgres.plan_import(export.clone()).await?;
        let (key, with) = self.key().await?;
        shared_keys::bring(&dir, &self.postgres, &key).await?;
        report.keys(&with);
        // First: whoever reads a record finds its output.
        let put = self.put(&dir, &files, !without_files).await?;
        let mut brought = |cluster| report.cluster(&cluster);
        self.postgres.import(&plan, &mut brought).await?;
        // What nothing named for an hour may have been tidied up meanwhile.
        self.put(&dir, &files, !without_files).await?;
        mark_moved(&dir, &self.postgres.place())?;
        let nobodys = export.rows_of_nobody()?;
        report.moved(&self.postgres.place(), &dir, put, left, nobodys);
        Ok(())
    }

    /// What is left behind since there is nowhere to put it; refused unless that is wanted.
    fn left_behind(
        &self,
        dir: &Path,
        files: &[LongFile],
        without_files: bool,
    ) -> Result<PutFiles, Error> {
        let all = PutFiles {
            files: files.len(),
            bytes: files.iter().map(|file| file.bytes).sum(),
        };
        match (without_files, &self.blobs) {
            (true, _) => Ok(all),
            (false, Some(_)) => Ok(PutFiles::default()),
            (false, None) if files.is_empty() => Ok(PutFiles::default()),
            (false, None) => Err(Error::FilesLeft {
                dir: dir.to_owned(),
                left: all,
            }),
        }
    }

    async fn put(
        &self,
        dir: &Path,
        files: &[LongFile],
        is_wanted: bool,
    ) -> Result<PutFiles, Error> {
        let Some(place) = self.blobs.as_ref().filter(|_| is_wanted) else {
            return Ok(PutFiles::default());
        };
        let blobs: Arc<dyn Blobs> = place.of_masters(Ca::open(dir)?.id());
        Ok(put_files(files, &blobs).await?)
    }

    async fn raise_level(&self, report: &mut FleetReport) -> Result<(), Error> {
        let raise = self.postgres.raise_level().await?;
        if !raise.masters.iter().any(|master| master.is_alive) {
            let dead = raise.masters.iter().map(|master| master.id.clone());
            return Err(Error::NobodyLives {
                place: self.postgres.place(),
                dead: dead.collect(),
            });
        }
        report.level(&raise);
        Ok(())
    }
}
