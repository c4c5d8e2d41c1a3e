//! Flags of `cp`, `shell`, `forward` and `connect`, which work on the machines themselves, as `exec` does.

use clap::Args;

use super::target::{Narrow, not_empty};

/// Arguments of `cp`.
#[derive(Debug, Clone, Args)]
pub struct CpArgs {
    /// Sources, then the destination: local paths, or TARGET:/path on one of the two sides
    #[arg(value_name = "SRC... DST", required = true, num_args = 2.., value_parser = not_empty)]
    pub paths: Vec<String>,
    /// Copy to or from this many at a time: a number or a percentage [default: all; 32 when copying from instances]
    #[arg(long, value_name = "N|P%", value_parser = not_empty)]
    pub concurrency: Option<String>,
    /// Of the instances.
    #[command(flatten)]
    pub narrow: Narrow,
}

/// Arguments of `shell`.
#[derive(Debug, Clone, Args)]
pub struct ShellArgs {
    /// The instance
    #[arg(value_name = "NAME", value_parser = not_empty)]
    pub name: String,
    /// User to log in as [default: root]
    #[arg(short, long, value_name = "NAME", value_parser = not_empty)]
    pub user: Option<String>,
    /// What to run instead of the login shell
    #[arg(value_name = "COMMAND ARGS", last = true)]
    pub command: Vec<String>,
}

/// Arguments of `forward`.
#[derive(Debug, Clone, Args)]
pub struct ForwardArgs {
    /// The instance and where to lead to: NAME:PORT, NAME:HOST:PORT or NAME:/path
    #[arg(value_name = "NAME:PLACE", value_parser = not_empty)]
    pub place: String,
    /// Where to listen: a port, HOST:PORT or a path [default: 127.0.0.1, same port]
    #[arg(value_name = "LOCAL", value_parser = not_empty)]
    pub local: Option<String>,
}

/// Arguments of `connect`.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// The instance
    #[arg(value_name = "NAME", value_parser = not_empty)]
    pub name: String,
    /// Its port
    #[arg(value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
}
