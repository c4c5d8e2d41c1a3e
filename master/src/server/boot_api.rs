//! What a machine may ask for before it has an agent: the agent, and to tell how far it is. Each call shows a join
//! token; none does more than read a file or note a line.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::limits::RateLimit;
use super::listener::Peer;
use crate::model::hash::sha256_hex;
use crate::model::world::{Answer, Input};
use crate::run::Engine;
use crate::run::agents::Agents;

/// Largest report of a boot step.
const MAX_REPORT_BYTES: usize = 4096;

/// Longest text of a step that is kept.
const MAX_TEXT_CHARS: usize = 500;

/// What the boot endpoints need.
pub struct Boot {
    /// Where reports go.
    pub engine: Engine,
    /// What is handed out.
    pub agents: Arc<Agents>,
    /// How often.
    pub limit: Arc<RateLimit>,
}

#[derive(Deserialize)]
struct Report {
    machine_id: String,
    step: String,
    #[serde(default)]
    detail: String,
}

/// The routes `POST /v1/boot` and `GET /v1/agent/{sha256}`.
pub fn routes(boot: Arc<Boot>) -> Router {
    Router::new()
        .route("/v1/boot", post(report))
        .route("/v1/agent/{sha256}", get(agent))
        .layer(DefaultBodyLimit::max(MAX_REPORT_BYTES))
        .with_state(boot)
}

/// SHA-256 of the bearer token, when the address may ask and shows one.
fn bearer(boot: &Boot, peer: &Peer, headers: &HeaderMap) -> Result<String, StatusCode> {
    if !boot
        .limit
        .take(peer.address.ip(), std::time::Instant::now())
    {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    let header = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let token = header
        .and_then(|text| text.strip_prefix("Bearer "))
        .ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(sha256_hex(token.trim().as_bytes()))
}

async fn report(
    State(boot): State<Arc<Boot>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Json(report): Json<Report>,
) -> StatusCode {
    let token_sha256 = match bearer(&boot, &peer, &headers) {
        Ok(token) => token,
        Err(status) => return status,
    };
    let Ok(machine) = report.machine_id.parse() else {
        return StatusCode::BAD_REQUEST;
    };
    let (step, detail) = (printable(&report.step), printable(&report.detail));
    let input = Input::BootStep {
        token_sha256,
        machine,
        step,
        detail,
    };
    match boot.engine.ask(input).await {
        Some(Answer::Refused(refused)) => {
            tracing::info!(address = %peer.address, error = %refused, "refused a boot report");
            StatusCode::FORBIDDEN
        }
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A bounded text without control characters: it comes from a machine that nobody knows yet.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT_CHARS)
        .collect()
}

async fn agent(
    State(boot): State<Arc<Boot>>,
    Extension(peer): Extension<Peer>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = match bearer(&boot, &peer, &headers) {
        Ok(token) => token,
        Err(status) => return status.into_response(),
    };
    if !boot.engine.look(|world| world.token_is_known(&token)) {
        tracing::info!(address = %peer.address, "refused to hand out an agent: the join token is unknown");
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(path) = boot.agents.path(&sha256) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match tokio::fs::File::open(&path).await {
        Ok(file) => {
            let length = file.metadata().await.map_or(0, |meta| meta.len());
            let headers = [
                ("content-length", length.to_string()),
                ("content-type", "application/octet-stream".to_owned()),
            ];
            (headers, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read an agent that is to be handed out");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_unknown_machine_says_is_cut_and_cleaned() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(printable(&"x".repeat(9999)).len(), MAX_TEXT_CHARS);
    }
}
