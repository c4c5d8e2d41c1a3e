//! TLS to another master of the fleet, as machines have it.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::enrol::ca::Ca;

/// Settings for HTTP/1.1 to any master with a certificate of this authority.
///
/// # Errors
/// When the authority's certificate can't be used.
pub(super) fn client(ca: &Ca) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let mut config = aot_tls::to_master(Arc::new(roots))?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
