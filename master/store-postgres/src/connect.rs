//! A connection that is made when it is needed, and made again when it broke. Knows no statement of the store's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::TaskTracker;

use crate::url::PostgresUrl;
use crate::{Error, error, tls};

/// Longest wait for a connection, to all hosts of the URL together.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Longest wait for an answer to a read, with all that it takes to connect again.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// What a session begins with, whatever the role and the database have: what is acknowledged is on the engine's disk and, where
/// it waits for standbys, on theirs; a transaction that its master left open does not hold its locks; a row that another one
/// has changed meanwhile is read anew, not refused; nothing else is cut off by the clock, for that is done here, where it is
/// known what is waited for; and what nobody waits for any more ends.
const BEGIN: &str = "
SET default_transaction_isolation = 'read committed';
SET idle_in_transaction_session_timeout = '5s';
SET idle_session_timeout = 0;
SET statement_timeout = 0;
SET lock_timeout = 0;
SELECT set_config('transaction_timeout', '0', false)
    WHERE EXISTS (SELECT FROM pg_settings WHERE name = 'transaction_timeout');
SET client_connection_check_interval = '1s';
SET client_min_messages = warning;
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// What a statement is given.
pub(crate) type SqlValues<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A way to the engine, with at most one connection.
pub(crate) struct EngineLink {
    url: PostgresUrl,
    tls: MakeRustlsConnect,
    /// Own the connections.
    tasks: TaskTracker,
    session: tokio::sync::Mutex<Option<Arc<EngineSession>>>,
    /// Work that may leave a transaction open is under way, or was given up amid it.
    is_amid: AtomicBool,
}

/// One connection.
pub(crate) struct EngineSession {
    client: Client,
    connection: AbortHandle,
    prepared: Mutex<HashMap<String, Statement>>,
}

impl EngineLink {
    pub(crate) fn new(url: &PostgresUrl) -> Result<Self, Error> {
        Ok(Self {
            url: url.clone(),
            tls: tls::connector(url.tls.as_ref())?,
            tasks: TaskTracker::new(),
            session: tokio::sync::Mutex::default(),
            is_amid: AtomicBool::new(false),
        })
    }

    /// Where it leads to, for people.
    pub(crate) fn place(&self) -> String {
        self.url.to_string()
    }

    /// The connection, made if there is none.
    pub(crate) async fn session(&self) -> Result<Arc<EngineSession>, Error> {
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref().filter(|it| !it.client.is_closed()) {
            return Ok(session.clone());
        }
        *held = None;
        let connecting = timeout(CONNECT_WITHIN, self.connect());
        let session = connecting.await.map_err(|_| self.silent())??;
        Ok(held.insert(Arc::new(session)).clone())
    }

    async fn connect(&self) -> Result<EngineSession, Error> {
        let connected = self.url.config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|source| {
            let (place, is_login) = (self.place(), error::is_login(&source));
            let source = source.into();
            match is_login {
                true => Error::Login { place, source },
                false => Error::Unreachable { place, source },
            }
        })?;
        let connection = self.tasks.spawn(async move {
            let _ = connection.await; // whoever waits for an answer learns of it
        });
        let session = EngineSession {
            client,
            connection: connection.abort_handle(),
            prepared: Mutex::default(),
        };
        let begun = session.batch(BEGIN).await;
        begun.map_err(|source| self.sql("begin a session with", source))?;
        Ok(session)
    }

    /// Lets go of the connection, whatever is under way on it.
    pub(crate) async fn reset(&self) {
        *self.session.lock().await = None;
    }

    /// Does work that has transactions. Where earlier work was given up amid one, its connection is let go first. Whoever calls this
    /// sees to it that there is one such work at a time.
    pub(crate) async fn in_turn<T>(&self, work: impl Future<Output = T>) -> T {
        if self.is_amid.swap(true, Ordering::SeqCst) {
            self.reset().await;
        }
        let done = work.await;
        self.is_amid.store(false, Ordering::SeqCst);
        done
    }

    /// Lets go of a connection that is not to be trusted any more, unless it was replaced already.
    pub(crate) async fn discard(&self, session: &Arc<EngineSession>) {
        let mut held = self.session.lock().await;
        if held.as_ref().is_some_and(|it| Arc::ptr_eq(it, session)) {
            *held = None;
        }
    }

    /// One statement within this time, on a connection that is dropped when no answer came.
    pub(crate) async fn query(
        &self,
        what: &'static str,
        sql: &str,
        values: SqlValues<'_>,
        within: Duration,
    ) -> Result<Vec<Row>, Error> {
        let session = self.session().await?;
        match timeout(within, session.query(sql, values)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(source)) => Err(self.sql(what, source)),
            Err(_) => {
                self.discard(&session).await;
                Err(self.silent())
            }
        }
    }

    /// A statement that changes nothing: asked again when its connection broke.
    pub(crate) async fn read(
        &self,
        what: &'static str,
        sql: &str,
        values: SqlValues<'_>,
    ) -> Result<Vec<Row>, Error> {
        let deadline = Instant::now() + READ_WITHIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = timeout(left, self.query(what, sql, values, left));
            let error = match answer.await.unwrap_or_else(|_| Err(self.silent())) {
                Err(error) if error.may_pass() => error,
                answer => return answer,
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(crate) fn sql(&self, what: &'static str, source: tokio_postgres::Error) -> Error {
        let place = self.place();
        Error::Sql {
            what,
            place,
            source: source.into(),
        }
    }

    pub(crate) fn silent(&self) -> Error {
        let place = self.place();
        Error::Silent { place }
    }
}

impl Drop for EngineSession {
    /// Its socket is closed now, and not once the engine has answered what nobody waits for.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl EngineSession {
    /// Prepared once a connection.
    async fn statement(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let known = {
            let prepared = self.prepared.lock().expect("nobody panics with it");
            prepared.get(sql).cloned()
        };
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut prepared = self.prepared.lock().expect("nobody panics with it");
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(crate) async fn query(
        &self,
        sql: &str,
        values: SqlValues<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.statement(sql).await?;
        self.client.query(&statement, values).await
    }

    /// Statements without values, one after the other.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }
}
