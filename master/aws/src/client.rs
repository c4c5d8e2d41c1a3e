//! The SDK's own HTTP client, and how long calls are tried.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, ConnectorBuilder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// First wait between two tries; the SDK doubles it, and takes a random part of it.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// The SDK's own HTTP client, proxies from the environment included.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        let mut connector = ConnectorBuilder::default().tls_provider(provider);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}

/// How long, and how often, a call is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One try, up to the first byte of its answer.
    pub attempt: Duration,
    /// All tries with the waits between them; without a limit, their number is one.
    pub call: Option<Duration>,
    /// Tries, the first included.
    pub attempts: u32,
    /// Longest wait between two.
    pub longest_backoff: Duration,
}

impl Patience {
    /// The limits in time.
    #[must_use]
    pub fn timeouts(&self) -> TimeoutConfig {
        let mut limits = TimeoutConfig::builder()
            .connect_timeout(CONNECT_LIMIT)
            .operation_attempt_timeout(self.attempt);
        limits.set_operation_timeout(self.call);
        limits.build()
    }
}

/// The SDK's settings (environment, profile, SSO, process, container, instance), not loaded yet, with our client.
///
/// Not with the adaptive mode of retries: it slows a client down to one call in two seconds after a few throttled ones.
#[must_use]
pub fn settings(patience: &Patience) -> ConfigLoader {
    let retries = RetryConfig::standard()
        .with_max_attempts(patience.attempts)
        .with_initial_backoff(FIRST_BACKOFF)
        .with_max_backoff(patience.longest_backoff);
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .timeout_config(patience.timeouts())
        .retry_config(retries)
}
