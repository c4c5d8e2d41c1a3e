//! `shell`: a terminal on an instance.

use super::Ctx;
use super::args::ShellArgs;
use super::error::{Error, Exit};

/// `aot-master shell`.
///
/// # Errors
/// When the master can't be asked.
pub async fn shell(_ctx: &mut Ctx<'_>, _args: ShellArgs) -> Result<Exit, Error> {
    Err(Error::usage("on its way", "on its way"))
}
