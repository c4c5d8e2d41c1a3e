//! The renewal of the certificate within a session: the key and the request for it, and what comes back.

use std::sync::Arc;
use std::time::Instant;

use aot_host::chain::Chain;
use aot_host::clock::since_1970;

use super::Session;
use super::protocol::SessionInput;
use crate::backoff::unit;
use crate::identity::{self, ClientIdentity};

/// When the certificate is to be renewed, on the clock for waiting.
pub(super) fn renew_at(identity: &ClientIdentity, now: Instant) -> Instant {
    now + identity.renew_in(unit(), since_1970())
}

impl<S> Session<'_, S> {
    /// A new key for every renewal; it stays in memory until its certificate is there.
    pub(super) fn make_csr(&mut self) -> Option<Vec<u8>> {
        let machine = self
            .agent
            .identity
            .borrow()
            .as_ref()?
            .name
            .machine
            .to_string();
        let made = identity::new_key().and_then(|key| Ok((identity::csr(&key, &machine)?, key)));
        match made {
            Ok((csr, key)) => {
                self.new_key = Some(key);
                Some(csr)
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot ask for a new certificate");
                None
            }
        }
    }

    pub(super) fn install(&mut self, pem: &str) -> Option<SessionInput> {
        let key = self.new_key.take()?;
        let old = self.agent.identity.borrow().clone()?;
        let renewed = old.renewed(key, pem, self.agent.link.roots());
        match renewed.and_then(|new| self.agent.vault.store(&new).map(|()| new)) {
            Ok(new) => {
                tracing::info!(
                    expires_unix = new.not_after.as_secs(),
                    "certificate renewed"
                );
                let renew_at = renew_at(&new, Instant::now());
                self.agent.identity.send_replace(Some(Arc::new(new)));
                Some(SessionInput::Installed(renew_at))
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the renewed certificate is not valid; the old one stays");
                None
            }
        }
    }
}
