//! The small service that aot runs on each machine: dials the master, runs stages and commands, loses nothing.
//!
//! Used by its own thin binary and by tests. It never listens on a port, speaks to AWS only to read secrets that a file has machines read
//! (and to the machine's own metadata service), and never runs a journalled run twice.

#![warn(unreachable_pub)]

mod aws;
mod backoff;
mod blocks;
mod boot_id;
mod bundle;
mod cluster_facts;
mod config;
mod copy;
mod file_builtins;
mod hostname;
mod identity;
mod ignored_signals;
mod imds;
mod let_in;
mod link;
mod masters;
mod node_facts;
mod origin;
mod power;
mod reconnect;
mod runner;
mod secrets;
mod service;
mod session;
mod shell;
mod sshkeys;
mod starts;
mod stop;
mod tls;
mod tunnel;
mod userkeys;
mod users;
mod volumes;

pub use config::{Config, DEFAULT_PATH};
pub use service::{Mode, main as serve};

/// What this program runs as when it starts itself: each in a process of its own, none with a runtime or a network.
pub mod programs {
    pub use crate::copy::{pack, unpack};
    pub use crate::runner::shim::main as shim;
    pub use crate::shell::keeper::{become_program as pty_exec, main as terminal};
    pub use crate::users::become_and_exec;
}

/// What tests of whole processes and of real disks reach into. Nothing else uses it.
#[doc(hidden)]
pub mod inside {
    pub use crate::runner::command::CommandSpec;
    pub use crate::tls::{client_config, roots};
    pub use crate::volumes::{VolumePaths, mount_all};
    pub use aot_tls::provider;

    /// What a run's folder says of its cancellation.
    pub mod cancellation {
        pub use crate::runner::cancellation::{CANCEL, wake};
    }

    /// A run's record, and who holds it.
    pub mod journal {
        pub use crate::runner::journal::{SPEC, lock_if_free, pid_in};
    }

    /// In which order masters are dialled.
    pub mod masters {
        pub use crate::masters::{DialOrder, permuted};
    }

    /// When they are dialled again.
    pub mod reconnect {
        pub use crate::backoff::{Backoff, unit};
        pub use crate::reconnect::{EndedSession, Reconnect};
    }

    /// What a session decides, for agents that are simulated.
    pub mod session {
        pub use crate::session::protocol::{
            Closed, Protocol, SessionInput, SessionOutput, SpoolPiece,
        };
    }

    /// A run's output.
    pub mod spool {
        pub use crate::runner::spool::{Chunk, SPOOL, SpoolStat, read, stat};
    }

    /// The machine's processes.
    pub mod tree {
        pub use crate::runner::tree::{signal_below, stat};
    }
}

/// Version of this agent, as it reports it to the master.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
