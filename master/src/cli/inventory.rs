//! `inventory`: an inventory for Ansible.

use super::Ctx;
use super::args::InventoryArgs;
use super::error::{Error, Exit};

/// `aot-master inventory`.
///
/// # Errors
/// When the master can't be asked.
pub async fn inventory(_ctx: &mut Ctx<'_>, _args: InventoryArgs) -> Result<Exit, Error> {
    Err(Error::usage("on its way", "on its way"))
}
