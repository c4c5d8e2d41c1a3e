//! Why the database can't be used. Each error names the database without its password, and the way out.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::url::UrlError;

/// What the engine or the way to it says, without details: those may show what was to be written.
pub struct Cause(tokio_postgres::Error);

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(said) => write!(f, "{} (SQLSTATE {})", said.message(), said.code().code()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.0.as_db_error() {
            Some(_) => None,
            None => std::error::Error::source(&self.0),
        }
    }
}

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting.
    #[error("AOT_STORE (store in master.toml) is not the URL of a database")]
    Url(#[source] UrlError),
    /// Nobody answers.
    #[error("cannot connect to {place}: does PostgreSQL run there, and does it let this host in?")]
    Unreachable {
        /// Where.
        place: String,
        /// Why not.
        source: Cause,
    },
    /// Somebody answers, and does not continue.
    #[error("{place} does not answer")]
    Silent {
        /// Where.
        place: String,
    },
    /// Records that don't come.
    #[error(
        "the records of cluster {cluster} were not read within {} s: look for locks in the database, or for what it is busy with",
        within.as_secs_f32()
    )]
    Slow {
        /// Of what.
        cluster: String,
        /// For how long they were waited for.
        within: Duration,
    },
    /// The login.
    #[error(
        "{place} refuses the login: compare user, password and database of AOT_STORE with pg_hba.conf there"
    )]
    Login {
        /// Where.
        place: String,
        /// Why not.
        source: Cause,
    },
    /// The authority's certificate.
    #[error("cannot use the certificates in {}, which sslrootcert names", path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS itself.
    #[error("cannot set up TLS to the database")]
    Tls(#[source] rustls::Error),
    /// An old one.
    #[error("{place} is PostgreSQL {found}: at least version {needed} is needed")]
    TooOld {
        /// Where.
        place: String,
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: i32,
    },
    /// Tables of a newer version.
    #[error(
        "{place} has tables of version {found}, this program knows up to {known}: use the newer aot-master"
    )]
    TooNew {
        /// Where.
        place: String,
        /// Their version.
        found: i32,
        /// Newest known.
        known: i32,
    },
    /// Records of a newer master.
    #[error(
        "the records in {place} are of level {found}, this program knows up to {known}: update this master, then start it again"
    )]
    LaterLevel {
        /// Where.
        place: String,
        /// Their level.
        found: i32,
        /// Highest known.
        known: i32,
    },
    /// There is nothing that masters could share.
    #[error(
        "{place} has no fleet yet: `aot-master fleet init` makes one, or the first master that is started there"
    )]
    NoFleet {
        /// Where.
        place: String,
    },
    /// Records of a master that has its keys for itself.
    #[error(
        "{place} has records of a master whose keys are in its state folder alone ({owner}): start that master with AOT_FLEET_KEY first, it brings its keys"
    )]
    UnsharedKeys {
        /// Where.
        place: String,
        /// Host and folder of the master; what else is known, when none has served.
        owner: String,
    },
    /// Clones do not come along.
    #[error(
        "{} has clusters whose machines are clones of that host ({clusters}): clean them up with the master there first", dir.display()
    )]
    LocalClusters {
        /// The state folder.
        dir: PathBuf,
        /// Their names.
        clusters: String,
    },
    /// Names that are taken.
    #[error(
        "{place} has clusters of the same names already ({clusters}), and nothing was written: clean them up on one side, or import into another database"
    )]
    ClustersExist {
        /// Where.
        place: String,
        /// Their names.
        clusters: String,
    },
    /// What was written is not what was read.
    #[error(
        "{table} of the cluster {cluster} are not in {place} as they are in the folder ({found}, not {wanted}), and nothing of the cluster was kept: look for triggers and rules on the table"
    )]
    Differs {
        /// Where.
        place: String,
        /// Whose.
        cluster: String,
        /// Of which table.
        table: &'static str,
        /// Count and hash of what was read,
        wanted: String,
        /// and of what is there.
        found: String,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] aot_store::Error),
    /// A master that lives.
    #[error(
        "the master {owner} works with {place}: stop that one first, or give this one a database of its own"
    )]
    Alive {
        /// Where.
        place: String,
        /// Its host and id.
        owner: String,
    },
    /// Another master.
    #[error(
        "another master, {owner}, has taken over {place}: this one stops, as what it knows is not true any more"
    )]
    Fenced {
        /// Where.
        place: String,
        /// Its host and id; what else became of the hold, when it is nobody's.
        owner: String,
    },
    /// Records of another fleet.
    #[error(
        "{} belongs to another database than {place}: name that one in AOT_STORE, or another state folder (--state-dir); outputs and keys of one fit no other",
        path.display()
    )]
    OtherDatabase {
        /// The file of the state folder that says so.
        path: PathBuf,
        /// Where.
        place: String,
    },
    /// Keys that only another folder has.
    #[error(
        "the records in {place} are those of the master {owner}, whose keys machines trust: move its state folder here, or let the masters share their keys (AOT_FLEET_KEY)"
    )]
    OtherMaster {
        /// Where.
        place: String,
        /// Its host and folder.
        owner: String,
    },
    /// Machines that only another host has.
    #[error(
        "{place} has clusters whose machines are clones of another host ({clusters}): start the master there, {owner}, or clean them up there first"
    )]
    LocalMachines {
        /// Where.
        place: String,
        /// Their names.
        clusters: String,
        /// Host and id of the master that has them.
        owner: String,
    },
    /// Records of another kind.
    #[error(
        "{} has records of this state: name another state folder (--state-dir), or start without AOT_STORE", path.display()
    )]
    LocalRecords {
        /// The file.
        path: PathBuf,
    },
    /// A file of the state folder.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A statement.
    #[error("cannot {what} {place}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// Where.
        place: String,
        /// Why not.
        source: Cause,
    },
}

impl From<Error> for aot_store::Error {
    fn from(error: Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl Error {
    pub(crate) fn later_level(place: String, found: i32, known: i32) -> Self {
        Self::LaterLevel {
            place,
            found,
            known,
        }
    }

    /// Whether it is the login that was refused.
    pub(crate) fn is_login(&self) -> bool {
        matches!(self, Self::Login { .. })
    }

    /// Whether the same may work a moment later: the engine is away, ends, starts, is read only for now, or has too much to do.
    /// A login that was refused is none of that: tried again and again it may lock the account.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Sql { source, .. } => may_pass(&source.0),
            _ => false,
        }
    }
}

/// By the class of its code (PostgreSQL, appendix A): a connection, a transaction in the way of another, resources, the
/// operator, the system. What has no code is a connection that broke.
pub(crate) fn may_pass(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else {
        return true;
    };
    let class = &code.code()[..2];
    ["08", "40", "53", "55", "57", "58"].contains(&class) || ONCE.contains(&code.code())
}

/// What another connection or a later try does not meet: a transaction that is read only after a failover; one that was idle
/// or lasted too long for the engine; a prepared statement that a pooler has lost, or whose table was changed.
const ONCE: [&str; 5] = ["25006", "25P03", "25P04", "26000", "0A000"];

/// Whether it says the same for ever as well: a feature that this engine does not have.
pub(crate) fn may_last(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "0A000")
}

/// Whether it is the login that is refused: a role, a password, a database that is not there.
pub(crate) fn is_login(error: &tokio_postgres::Error) -> bool {
    let class = |code: &SqlState| code.code().starts_with("28");
    error
        .code()
        .is_some_and(|code| class(code) || *code == SqlState::INVALID_CATALOG_NAME)
}
