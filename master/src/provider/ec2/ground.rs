//! What machines stand on: what the file's names mean here, security groups, placement groups.

use super::client::Clients;
use crate::provider::{Ask, Ground, ProviderError, Thing};

/// What `prepare` would make or change.
pub(super) async fn outline(_: &Clients, _: &Ask<'_>) -> Result<Vec<Thing>, ProviderError> {
    Ok(Vec::new())
}

/// Makes and finds it.
pub(super) async fn prepare(_: &Clients, ask: &Ask<'_>) -> Result<Ground, ProviderError> {
    Ok(ask.known.clone())
}
