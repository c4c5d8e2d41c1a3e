//! Secrets that this machine reads from AWS by itself, when a run that is given them begins: with the credentials of its instance
//! profile, from SSM or Secrets Manager. Used by the runner. Keeps nothing: no value, no credentials, no connection.
//!
//! Two calls of one form are no reason for an SDK: requests are signed by AWS's own signer and sent by what the agent has anyway.

mod answer;
pub(crate) mod endpoint;
mod failure;
mod https;
mod request;
mod role;
mod tries;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use aot_proto::secret::check_value;
use aot_proto::v1::{AwsService, MachineSecret, SecretValue};
use rustls::ClientConfig;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::backoff::unit;
use endpoint::AwsEndpoints;
use failure::{Error, FetchFailure, RefusedAt};
use https::Trust;
use role::MachineRole;
use tries::{RetryBounds, Tries};

/// Reads secrets.
#[derive(Debug, Clone)]
pub(crate) struct SecretFetcher {
    /// Of the metadata service; `None` on a clone.
    imds: Option<String>,
    endpoints: AwsEndpoints,
    bounds: RetryBounds,
    trust: Trust,
}

impl SecretFetcher {
    /// With the metadata service there, `http://host[:port]`; `None` on a clone of the master's machine: that of its host, which it
    /// may reach, speaks for the host.
    pub(crate) fn new(imds: Option<String>, endpoints: AwsEndpoints) -> Self {
        Self {
            imds,
            endpoints,
            bounds: RetryBounds::default(),
            trust: Trust::Machine,
        }
    }

    /// Reads them all. What passes is tried again for a while; cancel safe.
    ///
    /// # Errors
    /// A line for a person: which secret, why, and the way out. Nothing of a value is in it.
    pub(crate) async fn fetch(&self, wanted: &[MachineSecret]) -> Result<Vec<SecretValue>, String> {
        let mut values = Vec::with_capacity(wanted.len());
        let mut tries = Tries::new(self.bounds, Instant::now());
        let trust = OnceCell::new();
        loop {
            let before = values.len();
            let Err(failure) = self.round(wanted, &mut values, &trust).await else {
                return Ok(values);
            };
            // Those before it are here.
            let Some(secret) = wanted.get(values.len()) else {
                return Ok(values);
            };
            if values.len() > before {
                tries.came();
            }
            match tries.wait(failure.why.endurance(), Instant::now(), unit()) {
                Some(wait) => {
                    let why = failure.why.to_string();
                    tracing::info!(secret = secret.name, why, "a secret is asked for again");
                    sleep(wait).await;
                }
                None => return Err(failure.about(secret)),
            }
        }
    }

    /// Reads those that are not here yet, until one can't be had. Credentials are new in each round, as they may have expired.
    async fn round(
        &self,
        wanted: &[MachineSecret],
        values: &mut Vec<SecretValue>,
        trust: &OnceCell<Arc<ClientConfig>>,
    ) -> Result<(), FetchFailure> {
        let imds = self.imds.as_deref().ok_or(Error::Clone)?;
        let role = role::read(imds).await?;
        while let Some(secret) = wanted.get(values.len()) {
            let region = match secret.region.as_str() {
                "" => role.region.as_str(),
                said => said,
            };
            let value = self.one(secret, region, &role, trust).await;
            let value = value.map_err(|why| FetchFailure {
                why,
                region: region.to_owned(),
            })?;
            values.push(SecretValue {
                name: secret.name.clone(),
                value,
                env: secret.env.clone(),
            });
        }
        Ok(())
    }

    async fn one(
        &self,
        secret: &MachineSecret,
        region: &str,
        role: &MachineRole,
        trust: &OnceCell<Arc<ClientConfig>>,
    ) -> Result<Vec<u8>, Error> {
        let service = secret.service();
        let endpoint = self.endpoints.of(service, region, &role.domain);
        let request = request::signed(secret, &endpoint, region, role, SystemTime::now())?;
        let tls = match endpoint.is_tls {
            true => Some(trust.get_or_try_init(|| self.trust.config()).await?),
            false => None,
        };
        let answer = https::exchange(&endpoint, tls.cloned(), request).await?;
        let value = answer::value(service, &answer).map_err(|refusal| {
            let at = RefusedAt {
                role: &role.name,
                partition: &role.partition,
                region,
            };
            Error::of_refusal(refusal, secret, &at, SystemTime::now())
        })?;
        if value.len() > most_bytes(service) {
            return Err(Error::TooLong(most_bytes(service) >> 10));
        }
        check_value(&value, !secret.env.is_empty())?;
        Ok(value)
    }
}

/// Longest value: of an advanced parameter (AWS Systems Manager User Guide, "Managing parameter tiers"), and of a secret (AWS
/// Secrets Manager User Guide, "Quotas").
fn most_bytes(service: AwsService) -> usize {
    match service {
        AwsService::Ssm => 8 << 10,
        AwsService::SecretsManager => 64 << 10,
        AwsService::Unspecified => 0,
    }
}

#[cfg(test)]
mod tests;
