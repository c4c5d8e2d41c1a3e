//! What shows the master that this is that machine: the signed identity document, and the tag that a challenge names. Both
//! come from the machine's own metadata service.

use std::time::Duration;

use aot_proto::v1::Challenge;
use tokio::time::{Instant, sleep};

use crate::config::{Config, Platform};
use crate::imds::{self, Imds};

/// Between two queries for a challenge's tag, which shows up within a second or two of the master's call.
const EVERY: Duration = Duration::from_millis(500);
/// Longest wait for it, whatever the master says.
const LONGEST: Duration = Duration::from_secs(120);
/// Longest value of a tag (EC2 User Guide, "Tag restrictions").
const MAX_VALUE: usize = 256;

/// Who the machine says it is, and its proof.
#[derive(Debug, Default)]
pub(super) struct IdentityProof {
    /// The provider's id of it.
    pub machine_id: String,
    /// `instance-identity/rsa2048`; empty where there is none.
    pub message: String,
}

impl IdentityProof {
    /// Asks the metadata service, on EC2.
    pub(super) async fn gather(config: &Config) -> Result<Self, imds::Error> {
        if config.provider == Platform::Local {
            return Ok(Self {
                machine_id: config.machine_id.clone().unwrap_or_default(),
                message: String::new(),
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
        let message = imds
            .find("/latest/dynamic/instance-identity/rsa2048")
            .await?;
        Ok(Self {
            machine_id,
            message: message.unwrap_or_default(),
        })
    }
}

/// The value of a challenge's tag, once it is there; `None` when it did not show up in time. A value that begins with
/// another id is left alone: it is an older challenge's. Cancel safe.
pub(super) async fn answer(
    config: &Config,
    challenge: &Challenge,
) -> Result<Option<String>, imds::Error> {
    let left = Duration::from_millis(challenge.left_ms).min(LONGEST);
    let until = Instant::now() + left;
    let path = format!("/latest/meta-data/tags/instance/{}", challenge.tag);
    let begin = format!("{}.", challenge.id);
    let good = challenge
        .tag
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b":-_.".contains(&b));
    if !good || challenge.tag.is_empty() {
        return Ok(None); // not a path that a master of ours would name
    }
    let imds = Imds::open(&config.imds).await?;
    loop {
        let found = imds.find(&path).await?;
        let value = found.as_deref().map(str::trim).unwrap_or_default();
        if value.starts_with(&begin) && value.len() <= MAX_VALUE {
            return Ok(Some(value.to_owned()));
        }
        if Instant::now() + EVERY >= until {
            return Ok(None);
        }
        sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests;
