//! Flags of `agents` and `attestation`: who the machines are.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::target::{TargetArg, not_empty};
use crate::help;

/// Arguments of `agents`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentsArgs {
    /// More than a list.
    #[command(subcommand)]
    pub command: Option<AgentsCommand>,
}

/// What can be done with identities.
#[derive(Debug, Clone, Subcommand)]
pub enum AgentsCommand {
    /// Revoke identities: sessions end, and these machines never come back
    Revoke {
        /// Which instances.
        #[command(flatten)]
        target: TargetArg,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// What can be done with certificates.
#[derive(Debug, Clone, Subcommand)]
pub enum AttestationCommand {
    /// Store certificates of regions where the master finds them
    #[command(after_help = help::ATTESTATION)]
    Import {
        /// Files with one certificate each, as AWS publishes it (PEM), named REGION.pem
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The region of the file, if its name does not say it
        #[arg(long, value_name = "REGION", value_parser = not_empty)]
        region: Option<String>,
    },
}
