//! Flags of `fleet`: what is done once for masters that share a database.

use std::path::PathBuf;

use clap::Subcommand;

use super::target::not_empty;
use crate::help;

/// What can be done with masters that share a database, while they run.
#[derive(Debug, Clone, Subcommand)]
pub enum MastersCommand {
    /// Give a cluster to another master
    #[command(after_help = help::MASTERS_MOVE)]
    Move {
        /// Name of the cluster
        #[arg(value_name = "CLUSTER", value_parser = not_empty)]
        name: String,
        /// Id of the master, or a part of it that no other has
        #[arg(value_parser = not_empty)]
        master: String,
    },
    /// Give all clusters of a master to the others, until its next start
    Drain {
        /// Id of the master, or a part of it that no other has
        #[arg(value_parser = not_empty)]
        master: String,
        /// It takes its share again
        #[arg(long)]
        undo: bool,
    },
}

/// What can be done with a fleet, from any of its hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum FleetCommand {
    /// Make the tables and the sealed keys in an empty database
    #[command(after_help = help::FLEET_INIT)]
    Init,
    /// Bring the records, keys and files of a master's state folder
    #[command(after_help = help::FLEET_IMPORT)]
    Import {
        /// State folder of the master, which must have stopped
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Leave outputs over 64 KiB, bundles, agents and uploads behind
        #[arg(long)]
        without_files: bool,
    },
    /// Seal the keys with another key: that of AOT_FLEET_KEY
    #[command(after_help = help::FLEET_REKEY)]
    Rekey {
        /// What they are sealed with now: a file, or kms:KEY
        #[arg(long, value_name = "KEY")]
        from: PathBuf,
    },
    /// Let records have what all masters that run understand
    #[command(after_help = help::FLEET_LEVEL)]
    Level,
}
