//! `ssh-config`: Host blocks for ssh.

use super::Ctx;
use super::args::SshConfigArgs;
use super::error::{Error, Exit};

/// `aot-master ssh-config`.
///
/// # Errors
/// When the master can't be asked.
pub async fn ssh_config(_ctx: &mut Ctx<'_>, _args: SshConfigArgs) -> Result<Exit, Error> {
    Err(Error::usage("on its way", "on its way"))
}
