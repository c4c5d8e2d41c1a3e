//! Enrolment: token, request and proof against a certificate, for ever until it works. Called by the service at start.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aot_proto::v1::EnrolRequest;
use aot_proto::v1::enrolment_client::EnrolmentClient;
use tokio::time::{sleep, timeout};

use super::{Error, Identity, Vault, csr};
use crate::backoff::{Backoff, unit};
use crate::config::{Config, Provider};
use crate::imds::{self, Imds};
use crate::link::{self, Link};
use crate::service::Chain;
use crate::{VERSION, tls};

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One try that did not enrol.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The machine's identity can't be kept or used.
    #[error("the identity is no good")]
    Identity(#[from] Error),
    /// IMDS gave no proof.
    #[error("no proof of identity from the metadata service")]
    Imds(#[from] imds::Error),
    /// No master was reached.
    #[error("no master was reached")]
    Link(#[from] link::Error),
    /// The settings have no token.
    #[error("the settings hold no token, and there is no certificate yet")]
    NoToken,
    /// The master refused.
    #[error("the master refused to enrol this machine: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("the master did not answer")]
    Silent,
}

/// Seconds and more since 1970.
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// The stored identity, or a new one: tries for ever, waiting 0.5 s to 30 s between tries. Cancel safe.
pub async fn obtain(config: &Config, vault: &Vault, link: &Link) -> Identity {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        match vault.load(link.roots(), now()) {
            Ok(Some(identity)) => return identity,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the stored certificate is no good; enrolling again")
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

/// One try. The key is on disk before the call, so that a repeat carries the same one.
async fn enrol(config: &Config, vault: &Vault, link: &Link) -> Result<Identity, Failed> {
    let token = config.token.as_ref().ok_or(Failed::NoToken)?;
    let key = vault.key()?;
    let proof = Proof::gather(config).await?;
    let request = EnrolRequest {
        token: token.expose().to_owned(),
        csr_der: csr(&key, &proof.machine_id)?,
        machine_id: proof.machine_id,
        identity_document: proof.document,
        identity_signature: proof.signature,
        agent_version: VERSION.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
    };
    let channel = link.connect(None).await?;
    let mut client = EnrolmentClient::new(channel);
    let reply = timeout(TIMEOUT, client.enrol(request))
        .await
        .map_err(|_| Failed::Silent)?
        .map_err(|status| Failed::Refused(status.message().to_owned()))?
        .into_inner();
    let roots: &Arc<rustls::RootCertStore> = link.roots();
    let identity = Identity::check(key, &reply.certificate_pem, roots, now())?;
    vault.store(&identity)?;
    Ok(identity)
}

/// What shows that this is that machine.
struct Proof {
    machine_id: String,
    document: String,
    signature: String,
}

impl Proof {
    async fn gather(config: &Config) -> Result<Self, imds::Error> {
        if config.provider == Provider::Local {
            let machine_id = config.machine_id.clone().unwrap_or_default();
            return Ok(Self {
                machine_id,
                document: String::new(),
                signature: String::new(),
            });
        }
        let imds = Imds::open(&config.imds).await?;
        let machine_id = match &config.machine_id {
            Some(id) => id.clone(),
            None => imds
                .get("/latest/meta-data/instance-id")
                .await?
                .trim()
                .to_owned(),
        };
        Ok(Self {
            machine_id,
            document: imds
                .get("/latest/dynamic/instance-identity/document")
                .await?,
            signature: imds
                .get("/latest/dynamic/instance-identity/rsa2048")
                .await?,
        })
    }
}

impl From<tls::Error> for Failed {
    fn from(error: tls::Error) -> Self {
        Self::Identity(error.into())
    }
}
