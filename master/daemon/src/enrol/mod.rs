//! Who may join: the CA that signs, the key behind join tokens, and what is looked at in a request before anything is
//! decided. Called by `server`; the decision itself is `model::world`'s.

pub mod attest;
pub mod ca;
pub mod fleet_key;
pub mod fleet_seal;
pub(crate) mod masters;
pub(crate) mod secret_vault;
pub mod shared_keys;

use std::path::Path;

use aot_model::hash::JoinKey;

/// The CA's files in a state folder: its key and its certificate.
pub(crate) const CA_FILES: [&str; 2] = ["ca.key", "ca.pem"];

/// The file of the key behind all join tokens.
pub(crate) const JOIN_KEY_FILE: &str = "join.key";

/// The key behind all join tokens, made on first start.
///
/// # Errors
/// When the file can't be read or made.
pub fn join_key(state_dir: &Path) -> std::io::Result<JoinKey> {
    let path = state_dir.join(JOIN_KEY_FILE);
    if let Some(secret) = aot_host::files::read_optional(&path)? {
        return Ok(JoinKey::new(&secret));
    }
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| std::io::Error::other("no random bytes"))?;
    aot_host::files::write_atomic(&path, &secret, 0o600)?;
    Ok(JoinKey::new(&secret))
}
