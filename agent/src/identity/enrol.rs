//! Enrolment: token, request and proof against a certificate, until it works. Called by the service at start.

use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::v1::enrolment_client::EnrolmentClient;
use aot_proto::v1::{EnrolReply, EnrolRequest};
use tokio::time::{sleep, timeout};

use super::document::{self, IdentityProof};
use super::{ClientIdentity, Error, Vault, csr};
use crate::backoff::{Backoff, unit};
use crate::config::Config;
use crate::imds;
use crate::link::{self, Connection, Link};
use crate::{VERSION, tls};

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One try that did not enrol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// The machine's identity can't be kept or used.
    #[error("the identity is not valid")]
    Identity(#[from] Error),
    /// IMDS gave no proof.
    #[error("no proof of identity from the metadata service")]
    Imds(#[from] imds::Error),
    #[error("no master was reached")]
    Link(#[from] link::Error),
    /// The settings have no token.
    #[error("the settings hold no token, and there is no certificate yet")]
    NoToken,
    #[error("the master refused to enrol this machine: {0}")]
    Refused(String),
    /// The tag of a challenge did not show up.
    #[error("the metadata service did not show the tag of the master's challenge in time")]
    NoTag,
    /// No answer in time.
    #[error("the master did not answer")]
    Silent,
}

/// The stored identity, or a new one: tries without end, waiting 0.5 s to 30 s between tries. Cancel safe.
pub(crate) async fn obtain(config: &Config, vault: &Vault, link: &Link) -> ClientIdentity {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        match vault.load(link.roots()) {
            Ok(Some(identity)) => match is_of(config, &identity) {
                Ok(()) => {
                    link.lead_to(&identity.name.cluster);
                    return identity;
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the stored certificate was set aside; enrolling");
                    if let Err(error) = vault.set_aside() {
                        tracing::error!(error = %Chain(&error), "it cannot be set aside");
                    }
                }
            },
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the stored certificate is not valid; enrolling again")
            }
        }
        match enrol(config, vault, link).await {
            Ok(identity) => {
                tracing::info!(instance = %identity.name.instance, machine = %identity.name.machine, "enrolled");
                return identity;
            }
            Err(error) => {
                let wait = backoff.next(unit());
                tracing::warn!(error = %Chain(&error), wait_ms = wait.as_millis() as u64, "cannot enrol yet");
                sleep(wait).await;
            }
        }
    }
}

/// Another certificate instead of the stored one, which the master does not take any more: one try, with the same key.
///
/// # Errors
/// When there was none; the stored one stays.
pub(crate) async fn again(
    config: &Config,
    vault: &Vault,
    link: &Link,
) -> Result<ClientIdentity, Failed> {
    enrol(config, vault, link).await
}

/// A certificate that names another machine is not this one's, however it came here.
fn is_of(config: &Config, identity: &ClientIdentity) -> Result<(), Error> {
    let names = identity.name.machine.to_string();
    match &config.machine_id {
        Some(machine) if *machine != names => Err(Error::OtherMachine {
            names,
            machine: machine.clone(),
        }),
        _ => Ok(()),
    }
}

/// Asks the next master that answers. One that does not enrol this machine is not the next one any more.
async fn ask(link: &Link, request: EnrolRequest) -> Result<EnrolReply, Failed> {
    let Connection {
        address, channel, ..
    } = link.dial(None).await?;
    let mut client = EnrolmentClient::new(channel);
    let reply = timeout(TIMEOUT, client.enrol(request)).await;
    let reply = reply
        .map_err(|_| Failed::Silent)
        .and_then(|reply| reply.map_err(|status| Failed::Refused(status.message().to_owned())));
    if reply.is_err() {
        link.order().failed(&address);
    }
    Ok(reply?.into_inner())
}

/// One try. The key is on disk before the call, so that a repeat carries the same one.
async fn enrol(config: &Config, vault: &Vault, link: &Link) -> Result<ClientIdentity, Failed> {
    let token = config.token.as_ref().ok_or(Failed::NoToken)?;
    let key = vault.key()?;
    let proof = IdentityProof::gather(config).await?;
    let mut request = EnrolRequest {
        token: token.expose().to_owned(),
        csr_der: csr(&key, &proof.machine_id)?,
        machine_id: proof.machine_id,
        identity_signature: proof.message,
        agent_version: VERSION.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        challenge_answer: String::new(),
    };
    let mut reply = ask(link, request.clone()).await?;
    if let Some(challenge) = &reply.challenge {
        let answer = document::answer(config, challenge).await?;
        request.challenge_answer = answer.ok_or(Failed::NoTag)?;
        reply = ask(link, request).await?;
    }
    let roots: &Arc<rustls::RootCertStore> = link.roots();
    let identity = ClientIdentity::check(key, &reply.certificate_pem, roots)?;
    is_of(config, &identity)?;
    vault.store(&identity)?;
    link.lead_to(&identity.name.cluster);
    Ok(identity)
}

impl From<tls::Error> for Failed {
    fn from(error: tls::Error) -> Self {
        Self::Identity(error.into())
    }
}
