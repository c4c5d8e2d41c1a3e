//! The client of S3, made at the first call: the master starts without asking anyone for credentials.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Config};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{ConnectorBuilder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use tokio::sync::OnceCell;

/// One try of a call, up to the first byte of its answer, besides the time that what it sends may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that may be sent in a second at least: 2 Mbit/s. What stands still is given up earlier, by the SDK.
const LEAST_PER_SECOND: u64 = 256 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Tries of a call, the first included. Whoever needs the call done makes it again, later.
const ATTEMPTS: u32 = 4;
/// Longest first wait between two tries; the SDK doubles it, and takes a random part of it.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The client, once it was needed.
#[derive(Debug, Default)]
pub(super) struct LazyClient(OnceCell<Client>);

impl LazyClient {
    pub(super) async fn get(&self) -> &Client {
        self.0.get_or_init(made).await
    }
}

/// The SDK's own HTTP client, proxies from the environment included.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        let mut connector = ConnectorBuilder::default().tls_provider(provider);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(attempt)
        .build()
}

/// For a call that sends so many bytes.
pub(super) fn sending(bytes: u64) -> Builder {
    let transfer = Duration::from_secs(bytes / LEAST_PER_SECOND);
    Config::builder().timeout_config(timeouts(ATTEMPT_LIMIT + transfer))
}

async fn made() -> Client {
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(FIRST_BACKOFF)
        .with_max_backoff(LONGEST_BACKOFF);
    let settings = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .timeout_config(timeouts(ATTEMPT_LIMIT))
        .retry_config(retries)
        .load()
        .await;
    // Of another address than AWS's nobody knows that BUCKET.ADDRESS has a name there.
    let of_s3 = std::env::var_os("AWS_ENDPOINT_URL_S3").is_some_and(|url| !url.is_empty());
    let elsewhere = of_s3 || settings.endpoint_url().is_some();
    let config = Builder::from(&settings).force_path_style(elsewhere);
    Client::from_conf(config.build())
}
