//! Which master a state folder is, and of which database: a file in it, written once the database is that master's.

use std::path::{Path, PathBuf};

use aot_host::files;

use crate::Error;

/// What a state folder says of itself.
pub(crate) struct StateIdentity {
    path: PathBuf,
    folder: String,
    /// Of the database that its records are in; `None` in a folder that has served none.
    database: Option<String>,
}

impl StateIdentity {
    /// Of this folder; made up where it has none yet.
    ///
    /// # Errors
    /// When the folder can't be used, or has records of its own.
    pub(crate) fn read(state_dir: &Path) -> Result<Self, Error> {
        let io = |what, path: &Path| {
            let path: PathBuf = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        files::private_dir(state_dir).map_err(io("make the folder", state_dir))?;
        let local = state_dir.join(aot_store::sqlite::FILE);
        if let Some(place) =
            aot_store::sqlite::moved_to(state_dir).map_err(io("read the mark in", state_dir))?
        {
            let path = state_dir.to_owned();
            return Err(aot_store::Error::Moved { path, place }.into());
        }
        if local.exists() {
            return Err(Error::LocalRecords { path: local });
        }
        let path = state_dir.join(aot_store::sqlite::ELSEWHERE);
        let text = match std::fs::read_to_string(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("read", &path)(source));
            }
            text => text.unwrap_or_default(),
        };
        let mut words = text.split_whitespace().map(str::to_owned);
        let folder = words.next();
        Ok(Self {
            path,
            folder: folder.unwrap_or_else(|| ulid::Ulid::generate().to_string()),
            database: words.next(),
        })
    }

    /// Host and folder: a copy of the folder on another host is another master.
    pub(crate) fn master_id(&self) -> String {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        format!("{host}/{}", self.folder)
    }

    /// The folder, on whatever host it is.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// # Errors
    /// When the folder's records are in another database; one without tables has none.
    pub(crate) fn check(&self, database: Option<&str>, place: &str) -> Result<(), Error> {
        let own = self.database.as_deref();
        match own.is_none_or(|own| database == Some(own)) {
            true => Ok(()),
            false => Err(Error::OtherDatabase {
                path: self.path.clone(),
                place: place.to_owned(),
            }),
        }
    }

    /// From now on the folder is of this database.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write(&self, database: &str) -> Result<(), Error> {
        if self.database.is_some() {
            return Ok(()); // as it was checked
        }
        let text = format!("{} {database}\n", self.folder);
        let written = files::write_atomic(&self.path, text.as_bytes(), 0o600);
        written.map_err(|source| Error::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }
}
