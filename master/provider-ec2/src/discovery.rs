//! `$discovery_token`: asks a discovery service once per cluster. Called by `prerequisites`; never shows the answer.

use std::time::Duration;

use aot_host::chain::Chain;
use aot_provider::{ErrorKind, Leftovers, ProviderError};
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use http_body_util::{BodyExt as _, Limited};

use super::error::invalid;

/// Largest answer that is read.
const MAX_BYTES: usize = 4 << 10;
/// Longest token or URL: it goes into user-data, which has little room.
const MAX_TOKEN: usize = 512;
/// One try.
const LIMIT: Duration = Duration::from_secs(10);
/// Tries, the first included.
const TRIES: u32 = 3;
/// Pause before another try.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a discovery service gave no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// Not http or https.
    #[error("it is not an http or https address")]
    Address,
    /// It can't be reached, or broke off.
    #[error("{0}")]
    Network(String),
    /// It took too long.
    #[error("no answer within {} s", LIMIT.as_secs())]
    TooSlow,
    /// It said something else than 200.
    #[error("it answers with HTTP status {0}")]
    Status(u16),
    /// More than one line, nothing, or what could break a cloud-config.
    #[error("its answer is not one line with a token or a URL")]
    NotToken,
}

/// Where tokens come from unless the file says so: the service that etcd's authors run.
pub(super) fn default_url(instances: usize) -> String {
    format!("https://discovery.etcd.io/new?size={instances}")
}

/// Asks for a token, at most three times.
///
/// # Errors
/// Names the service, and what is wrong with it.
pub(super) async fn fetch(url: &str) -> Result<String, ProviderError> {
    // What comes after may be a password.
    let named = url.split(['?', '#']).next().unwrap_or_default();
    let mut tries = 1;
    loop {
        let error = match once(url).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        let again = match &error {
            Error::Network(_) | Error::TooSlow => true,
            Error::Status(status) => *status >= 500 || *status == 429,
            Error::Address | Error::NotToken => false,
        };
        if !again || tries == TRIES {
            let message = format!(
                "no $discovery_token from {named}: {error}; set discovery_url to a service that gives one"
            );
            return Err(if again {
                ProviderError {
                    kind: ErrorKind::Unavailable,
                    leftovers: Leftovers::None,
                    message,
                    code: None,
                }
            } else {
                invalid(message)
            });
        }
        tracing::debug!(url = named, error = %Chain(&error), tries, "discovery service");
        tokio::time::sleep(PAUSE * tries).await;
        tries += 1;
    }
}

async fn once(url: &str) -> Result<String, Error> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Error::Address);
    }
    let crypto = tls::rustls_provider::CryptoMode::AwsLc;
    let connector = Connector::builder()
        .tls_provider(tls::Provider::Rustls(crypto))
        .build();
    let request = HttpRequest::get(url).map_err(|_| Error::Address)?;
    let answer = async {
        let answer = connector
            .call(request)
            .await
            .map_err(|error| Error::Network(Chain(&error).to_string()))?;
        if answer.status().as_u16() != 200 {
            return Err(Error::Status(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(
            |error| match error.is::<http_body_util::LengthLimitError>() {
                true => Error::NotToken,
                false => Error::Network("the answer breaks off".into()),
            },
        )?;
        token(&body.to_bytes())
    };
    tokio::time::timeout(LIMIT, answer)
        .await
        .unwrap_or(Err(Error::TooSlow))
}

/// One line of printable ASCII without spaces, quotes and braces, so that it means nothing to YAML, jinja or a shell's
/// quotes wherever a cloud-config puts it.
fn token(body: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Error::NotToken)?
        .trim();
    let good = |c: char| c.is_ascii_graphic() && !"'\"`\\{}<>$".contains(c);
    if text.is_empty() || text.len() > MAX_TOKEN || !text.chars().all(good) {
        return Err(Error::NotToken);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
