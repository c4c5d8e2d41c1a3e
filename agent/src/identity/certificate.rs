//! A key and the certificate for it, checked against the pinned authority; and when the next one is due.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::SpiffeId;
use rcgen::{KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use crate::tls;

/// Part of a certificate's life after which a new one is asked for.
const RENEW_AT: f64 = 0.7;
/// Most that a renewal moves either way, as part of the certificate's life.
const RENEW_JITTER: f64 = 0.1;

/// Part of the wait of a certificate that has just come: its life began an hour before it came, for clocks that are behind.
const NEW_PART: f64 = 0.94;

/// A key and the certificate for it. `Debug` prints the name only.
pub(crate) struct ClientIdentity {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    /// Whom the certificate names.
    pub name: SpiffeId,
    /// Start of its life, since 1970.
    pub not_before: Duration,
    /// End of its life, since 1970.
    pub not_after: Duration,
    /// It has just come as the renewal of another.
    is_new: bool,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity")
            .field("name", &self.name.to_string())
            .finish_non_exhaustive()
    }
}

impl ClientIdentity {
    /// Checks that the pinned authority signed `chain_pem` for `key` and an agent's name. Whether it is
    /// good at this hour is for the master to say: the clock here may be wrong, and nobody else is shown it.
    ///
    /// # Errors
    /// Says which of these it is not.
    pub(crate) fn check(
        key: KeyPair,
        chain_pem: &str,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, Error> {
        let chain = tls::certificates(chain_pem)?;
        let first = chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let (_, leaf) = X509Certificate::from_der(&first)
            .map_err(|error| tls::Error::Certificate(error.to_string()))?;
        let seconds = |time: i64| Duration::from_secs(time.try_into().unwrap_or(0));
        let not_before = seconds(leaf.validity().not_before.timestamp());
        let not_after = seconds(leaf.validity().not_after.timestamp());
        tls::check_client_chain(&chain, roots, not_before)?;
        if leaf.public_key().raw != key.subject_public_key_info() {
            return Err(Error::OtherKey);
        }
        let uri = aot_tls::uris(&leaf)
            .next()
            .ok_or_else(|| Error::NoName("it has no URI".to_owned()))?;
        let name = uri
            .parse()
            .map_err(|error| Error::NoName(format!("{error}")))?;
        Ok(Self {
            key,
            chain_pem: chain_pem.to_owned(),
            name,
            not_before,
            not_after,
            chain,
            is_new: false,
        })
    }

    /// The certificate chain and the key as PKCS#8, for TLS.
    pub(crate) fn for_tls(&self) -> (&[CertificateDer<'static>], &[u8]) {
        (&self.chain, self.key.serialized_der())
    }

    /// Key, then chain, as PEM: what is stored.
    pub(super) fn to_pem(&self) -> String {
        let chain: String = self
            .chain_pem
            .split_inclusive('\n')
            .skip_while(|line| !line.contains("BEGIN CERTIFICATE"))
            .collect();
        format!("{}{chain}", self.key.serialize_pem())
    }

    /// How long until the next certificate is to be asked for, at `now` (since 1970); `unit` is a random number in [0, 1).
    /// A clock that is wrong neither puts it off past this one's end, nor asks again and again for what has just come.
    pub(crate) fn renew_in(&self, unit: f64, now: Duration) -> Duration {
        let life = self.not_after.saturating_sub(self.not_before);
        let part = life.mul_f64(RENEW_AT + RENEW_JITTER * (2.0 * unit - 1.0));
        if self.is_new {
            return part.mul_f64(NEW_PART);
        }
        (self.not_before + part).saturating_sub(now).min(part)
    }

    /// Checks a renewed certificate for `key`: as [`ClientIdentity::check`], and the name must be this one.
    ///
    /// # Errors
    /// Says what is wrong with it; this identity stays good.
    pub(crate) fn renewed(
        &self,
        key: KeyPair,
        chain_pem: &str,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, Error> {
        let new = Self::check(key, chain_pem, roots)?;
        if new.name != self.name {
            return Err(Error::OtherName {
                got: new.name.to_string(),
                wanted: self.name.to_string(),
            });
        }
        Ok(Self {
            is_new: true,
            ..new
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::new_key;
    use crate::identity::test_authority::Authority;

    const NAME: &str = "spiffe://m/cluster/c/instance/web1/i-1";

    #[test]
    fn a_certificate_that_is_not_ours_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let roots = tls::roots(&ours.pem).unwrap();
        let key = || KeyPair::from_pem(PEM.with(|pem| pem.clone()).as_str()).unwrap();
        thread_local!(static PEM: String = new_key().unwrap().serialize_pem());
        let other = new_key().unwrap();
        let check = |pem: String| ClientIdentity::check(key(), &pem, &roots);
        assert!(matches!(
            check(theirs.sign(&key(), NAME)),
            Err(Error::Certificate(tls::Error::Untrusted(_)))
        ));
        assert!(matches!(
            check(ours.sign(&other, NAME)),
            Err(Error::OtherKey)
        ));
        assert!(matches!(
            check(ours.sign(&key(), "https://else")),
            Err(Error::NoName(_))
        ));
        assert!(matches!(check(String::new()), Err(Error::Certificate(_))));
        let identity = check(ours.sign(&key(), NAME)).unwrap();
        let someone = ours.sign(&key(), "spiffe://m/cluster/c/instance/web2/i-2");
        assert!(matches!(
            identity.renewed(key(), &someone, &roots),
            Err(Error::OtherName { .. })
        ));
        let renewed = ours.sign(&other, NAME);
        assert!(identity.renewed(other, &renewed, &roots).is_ok());
    }

    #[test]
    fn renewal_is_at_about_seven_tenths_of_life_whatever_the_clock_says() {
        let authority = Authority::new();
        let roots = tls::roots(&authority.pem).unwrap();
        let key = new_key().unwrap();
        let pem = authority.sign(&key, NAME);
        let mut identity = ClientIdentity::check(key, &pem, &roots).unwrap();
        identity.not_before = Duration::from_secs(1000);
        identity.not_after = Duration::from_secs(2000);
        let wait = |identity: &ClientIdentity, unit, now| {
            identity
                .renew_in(unit, Duration::from_secs(now))
                .as_secs_f64()
                .round() as u64
        };
        identity.is_new = true;
        for now in [0, 1000, 1500, 9000] {
            assert_eq!(wait(&identity, 0.5, now), 658, "new, at {now}");
        }
        identity.is_new = false;
        for (unit, at) in [(0.0, 1600), (0.5, 1700), (1.0, 1800)] {
            assert_eq!(wait(&identity, unit, 1000) + 1000, at);
        }
        for (now, left) in [(1500, 200), (1700, 0), (9000, 0), (900, 700), (0, 700)] {
            assert_eq!(wait(&identity, 0.5, now), left, "stored, at {now}");
        }
    }

    #[test]
    fn whether_a_certificate_is_over_is_not_for_this_clock_to_say() {
        let authority = Authority::new();
        let roots = tls::roots(&authority.pem).unwrap();
        let key = || KeyPair::from_pem(&PEM.with(Clone::clone)).unwrap();
        thread_local!(static PEM: String = new_key().unwrap().serialize_pem());
        for years in [(1980, 1981), (3000, 3001)] {
            let pem = authority.sign_for(&key(), NAME, years);
            assert!(
                ClientIdentity::check(key(), &pem, &roots).is_ok(),
                "{years:?}"
            );
        }
    }
}
