//! What values of secrets are sealed with before the records have them: a key that is derived from the one behind join tokens. That
//! one is a file of the state folder, and where masters share their records it lies there sealed with the fleet's key: so each of
//! them opens what another has sealed, and the records alone open nothing.

use aot_model::hash::{JoinKey, PurposeKey, hex};
use aot_model::secret::SealedSecret;
use aot_proto::ids::ClusterName;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fleet_key::FleetKey;

/// Seals and opens the values of secrets.
pub(crate) struct SecretVault {
    key: FleetKey,
    versions: PurposeKey,
}

impl SecretVault {
    /// That of all masters with this key.
    pub(crate) fn new(join_key: &JoinKey) -> Self {
        let key = join_key
            .of_purpose("values of secrets")
            .sign(b"AES-256-GCM");
        Self {
            key: FleetKey::of(&key).expect("it is 32 bytes long"),
            versions: join_key.of_purpose("versions of secrets"),
        }
    }

    /// Seals a value for this secret of this cluster alone: put into another one's record, it is opened by nobody.
    pub(crate) fn seal(&self, cluster: &ClusterName, name: &str, value: &[u8]) -> SealedSecret {
        let purpose = purpose(cluster, name);
        let about_value = [purpose.as_slice(), value].concat();
        SealedSecret {
            // Keyed, so that nobody who reads the records can try values.
            version: hex(&self.versions.sign(&about_value)),
            sealed: STANDARD.encode(self.key.seal_for(&purpose, value)),
        }
    }

    /// The value; `None` when it was sealed with another key, for another secret, or was changed.
    pub(crate) fn open(
        &self,
        cluster: &ClusterName,
        name: &str,
        secret: &SealedSecret,
    ) -> Option<Vec<u8>> {
        let sealed = STANDARD.decode(&secret.sealed).ok()?;
        self.key.open_for(&purpose(cluster, name), &sealed)
    }
}

/// Neither name has a line end.
fn purpose(cluster: &ClusterName, name: &str) -> Vec<u8> {
    format!("aot secret 1\n{cluster}\n{name}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClusterName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_value_is_opened_for_its_own_secret_with_its_own_key_alone() {
        let (vault, other) = ([7; 32], [8; 32]);
        let [vault, other] = [vault, other].map(|key| SecretVault::new(&JoinKey::new(&key)));
        let again = SecretVault::new(&JoinKey::new(&[7; 32]));
        let (c, d) = (name("c"), name("d"));
        for value in [&b"hunter2"[..], b"", &[0xff; 70_000]] {
            let sealed = vault.seal(&c, "db", value);
            assert_eq!(again.open(&c, "db", &sealed).as_deref(), Some(value));
            assert_eq!(other.open(&c, "db", &sealed), None);
            assert_eq!(vault.open(&d, "db", &sealed), None);
            assert_eq!(vault.open(&c, "tls", &sealed), None);
            let text = serde_json::to_string(&sealed).expect("is text");
            assert!(!text.contains("hunter2") && !text.contains(&STANDARD.encode("hunter2")));
            let mut changed = sealed.clone();
            changed.sealed = STANDARD.encode([0; 40]);
            assert_eq!(vault.open(&c, "db", &changed), None);
        }
    }

    #[test]
    fn versions_are_equal_where_values_are_and_say_nothing_without_the_key() {
        let vault = SecretVault::new(&JoinKey::new(&[7; 32]));
        let other = SecretVault::new(&JoinKey::new(&[8; 32]));
        let c = name("c");
        let of = |vault: &SecretVault, name: &str, value: &[u8]| vault.seal(&c, name, value);
        let first = of(&vault, "db", b"hunter2");
        let again = of(&vault, "db", b"hunter2");
        assert_eq!(first.version, again.version);
        assert_ne!(first.sealed, again.sealed, "each has its own nonce");
        for another in [
            of(&vault, "db", b"hunter3"),
            of(&vault, "tls", b"hunter2"),
            of(&other, "db", b"hunter2"),
        ] {
            assert_ne!(first.version, another.version);
        }
    }
}
