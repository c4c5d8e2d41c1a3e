//! Data keys by a key in AWS KMS, which never leaves it: whoever may call it has them, and nobody else. The only crate that knows the SDK of KMS.
//! `client` makes the way to it, `fault` says why something failed. Called when a master starts, and by `aot-master fleet`.

#![warn(unreachable_pub)]

mod client;
mod fault;

use aot_aws::AwsFault;
use aot_store::{DataKey, DataKeyError, DataKeys, Pending};
use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use tokio::sync::OnceCell;

/// Name of the purpose in the encryption context, which KMS logs, and compares when it opens a key.
const PURPOSE: &str = "aot-fleet";

/// One key of KMS.
pub struct Kms {
    client: OnceCell<Client>,
    /// Its id, ARN or alias.
    key: String,
    /// As it is set.
    name: String,
}

impl Kms {
    /// With the AWS SDK's own settings, read at the first call, but for the region where the key is an ARN, which names its own.
    pub fn new(key: &str) -> Self {
        Self {
            client: OnceCell::new(),
            key: key.to_owned(),
            name: format!("kms:{key}"),
        }
    }

    async fn client(&self) -> &Client {
        let made = || client::made(region(&self.key));
        self.client.get_or_init(made).await
    }

    fn error(&self, what: &'static str, fault: AwsFault) -> DataKeyError {
        DataKeyError {
            what,
            key: self.name.clone(),
            hint: fault.hint,
            source: fault.source,
        }
    }

    async fn generate(&self, purpose: &str) -> Result<DataKey, AwsFault> {
        let ask = self.client().await.generate_data_key();
        let ask = ask.key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let made = ask
            .encryption_context(PURPOSE, purpose)
            .send()
            .await
            .map_err(fault::of)?;
        match (made.plaintext, made.ciphertext_blob) {
            (Some(plain), Some(sealed)) => Ok(DataKey {
                plain: plain.into_inner(),
                sealed: sealed.into_inner(),
            }),
            _ => Err(fault::no_key()),
        }
    }

    async fn decrypt(&self, sealed: &[u8], purpose: &str) -> Result<Vec<u8>, AwsFault> {
        // By this key alone: one that somebody else has put there is not opened, whatever the role may use.
        let ask = self.client().await.decrypt().key_id(&self.key);
        let ask = ask.encryption_context(PURPOSE, purpose);
        let opened = ask
            .ciphertext_blob(Blob::new(sealed))
            .send()
            .await
            .map_err(fault::of)?;
        let plain = opened.plaintext.ok_or_else(fault::no_key)?;
        Ok(plain.into_inner())
    }
}

/// That of an ARN (`arn:PARTITION:kms:REGION:ACCOUNT:key/ID`).
fn region(key: &str) -> Option<String> {
    let mut parts = key.split(':');
    let region = (parts.next()? == "arn").then(|| parts.nth(2)).flatten()?;
    (!region.is_empty()).then(|| region.to_owned())
}

impl DataKeys for Kms {
    fn name(&self) -> &str {
        &self.name
    }

    fn make<'a>(&'a self, purpose: &'a str) -> Pending<'a, Result<DataKey, DataKeyError>> {
        Box::pin(async move {
            let made = self.generate(purpose).await;
            made.map_err(|fault| self.error("make a data key", fault))
        })
    }

    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        purpose: &'a str,
    ) -> Pending<'a, Result<Vec<u8>, DataKeyError>> {
        Box::pin(async move {
            let opened = self.decrypt(sealed, purpose).await;
            opened.map_err(|fault| self.error("open the fleet's data key", fault))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_its_region_and_nothing_else_does() {
        let arn = "arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd";
        assert_eq!(region(arn).as_deref(), Some("cn-north-1"));
        let alias = "arn:aws:kms:eu-west-1:123456789012:alias/aot";
        assert_eq!(region(alias).as_deref(), Some("eu-west-1"));
        for other in [
            "alias/aot",
            "1234abcd-12ab",
            "arn:aws:kms",
            "arn:aws:kms::1",
        ] {
            assert_eq!(region(other), None, "{other}");
        }
    }
}
