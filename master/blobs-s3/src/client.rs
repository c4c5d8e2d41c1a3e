//! The client of S3, made at the first call: the master starts without asking anyone for credentials.

use std::time::Duration;

use aot_aws::Patience;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, Config};
use tokio::sync::OnceCell;

/// Besides the time that what a call sends may take. Whoever needs it done makes it again, later.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(30),
    call: None,
    attempts: 4,
    longest_backoff: Duration::from_secs(5),
};
/// Bytes that may be sent in a second at least: 2 Mbit/s. What stands still is given up earlier, by the SDK.
const LEAST_PER_SECOND: u64 = 256 << 10;

/// The client, once it was needed.
#[derive(Debug, Default)]
pub(super) struct LazyClient(OnceCell<Client>);

impl LazyClient {
    pub(super) async fn get(&self) -> &Client {
        self.0.get_or_init(made).await
    }
}

/// For a call that sends so many bytes.
pub(super) fn sending(bytes: u64) -> Builder {
    let transfer = Duration::from_secs(bytes / LEAST_PER_SECOND);
    let patience = Patience {
        attempt: PATIENCE.attempt + transfer,
        ..PATIENCE
    };
    Config::builder().timeout_config(patience.timeouts())
}

async fn made() -> Client {
    let settings = aot_aws::settings(&PATIENCE).load().await;
    // Of another address than AWS's nobody knows that BUCKET.ADDRESS has a name there.
    let of_s3 = std::env::var_os("AWS_ENDPOINT_URL_S3").is_some_and(|url| !url.is_empty());
    let elsewhere = of_s3 || settings.endpoint_url().is_some();
    let config = Builder::from(&settings).force_path_style(elsewhere);
    Client::from_conf(config.build())
}
