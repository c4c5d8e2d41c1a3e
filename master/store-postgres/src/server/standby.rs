//! A second server that has all of the first's, and can take its place.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16};

use super::install::{programs, user};
use super::{Missing, Server, free_port, new_dir, succeeded};

impl Server {
    /// A synchronous standby of this one, which runs: from now on nothing is acknowledged that is not on both disks.
    ///
    /// # Errors
    /// When PostgreSQL is not here.
    pub fn standby(&self) -> Result<Self, Missing> {
        let user = user()?;
        let standby = Self {
            dir: new_dir(user),
            programs: programs()?,
            user,
            port: AtomicU16::new(free_port()),
            has_run: AtomicBool::new(false),
            running: Mutex::default(),
            databases: Mutex::new(0),
        };
        let mut copy = standby.command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--no-sync", "--checkpoint=fast"]);
        copy.args(["--username=aot", "--host=127.0.0.1", "--port"]);
        copy.arg(self.port().to_string());
        succeeded("pg_basebackup", copy.arg("-D").arg(standby.data()).output());
        // The copy has the first one's settings: its socket is elsewhere.
        let mut settings = std::fs::read_to_string(standby.data().join("postgresql.auto.conf"))
            .expect("it was copied");
        settings.push_str(&format!(
            "unix_socket_directories = '{}'\n",
            standby.dir().display()
        ));
        standby.write("data/postgresql.auto.conf", &settings, 0o600);
        standby.run();
        self.ask(
            "postgres",
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
        );
        self.ask("postgres", "SELECT pg_reload_conf()");
        Ok(standby)
    }

    /// Whether its standby has caught up and is waited for.
    pub fn has_standby(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        self.ask("postgres", sql) == "1"
    }

    /// A standby takes the place of the server that it follows.
    pub fn promote(&self) {
        self.ask("postgres", "SELECT pg_promote()");
    }
}
