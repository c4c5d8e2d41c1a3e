//! `cp`: copies files to or from instances.

use super::Ctx;
use super::args::CpArgs;
use super::error::{Error, Exit};

/// `aot-master cp`.
///
/// # Errors
/// When the master can't be asked.
pub async fn cp(_ctx: &mut Ctx<'_>, _args: CpArgs) -> Result<Exit, Error> {
    Err(Error::usage("on its way", "on its way"))
}
