//! What a machine may ask for before it has an agent: the agent, and to report how far it is. Each call shows a join
//! token; none does more than read a file or record a line.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aot_host::chain::Chain;
use aot_model::hash::sha256_hex;
use aot_model::text::cleaned;
use aot_model::world::{Answer, Input};
use aot_proto::ids::ClusterName;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use futures::Stream;
use serde::Deserialize;

use super::boot_pass::{BootPass, MAX_REQUEST_BYTES, to_owner};
use super::limits::RateLimit;
use super::listener::Peer;
use super::strangers::Stay;
use crate::run::Engines;
use crate::run::agents::Agents;
use crate::run::blob_janitor::named_agents;
use crate::run::contents::Contents;

/// Bytes of an agent that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Longest text of a step that is kept, in bytes.
const MAX_STEP_BYTES: usize = 512;

/// What the boot endpoints need.
pub(crate) struct BootApi {
    /// Where reports go.
    pub engine: Engines,
    /// What is handed out.
    pub agents: Arc<Agents>,
    /// The same by content, those of other masters too.
    pub contents: Arc<Contents>,
    /// How often.
    pub limit: Arc<RateLimit>,
    /// What was handed out last: all who fetch it at once share its descriptor.
    pub open: SharedFile,
}

/// The file that was opened last: whoever reads it meanwhile shares its descriptor.
#[derive(Default)]
pub(crate) struct SharedFile(Mutex<Option<(PathBuf, Arc<File>)>>);

impl SharedFile {
    /// A file and its length. Another file in its place is opened anew: what was handed out before is not it.
    fn open(&self, path: &std::path::Path) -> std::io::Result<(Arc<File>, u64)> {
        let there = std::fs::metadata(path)?;
        let is_there = |file: &File| {
            let open = file.metadata();
            open.is_ok_and(|open| (open.dev(), open.ino()) == (there.dev(), there.ino()))
        };
        let mut open = self.0.lock().expect("nobody panics with it");
        let file = match &*open {
            Some((last, file)) if last == path && is_there(file) => file.clone(),
            _ => {
                let file = Arc::new(File::open(path)?);
                *open = Some((path.to_owned(), file.clone()));
                file
            }
        };
        let length = file.metadata()?.len();
        Ok((file, length))
    }
}

/// A file's bytes, piece by piece, as fast as they are taken.
fn pieces(file: Arc<File>) -> impl Stream<Item = std::io::Result<Vec<u8>>> {
    futures::stream::try_unfold(0, move |at| {
        let file = file.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut data = vec![0; PIECE_BYTES];
                let length = file.read_at(&mut data, at)?;
                data.truncate(length);
                Ok::<_, std::io::Error>(data)
            });
            let data = read
                .await
                .unwrap_or_else(|_| Err(ErrorKind::Other.into()))?;
            let next = at + data.len() as u64;
            Ok((!data.is_empty()).then_some((data, next)))
        }
    })
}

#[derive(Deserialize)]
struct BootReport {
    machine_id: String,
    step: String,
    #[serde(default)]
    detail: String,
}

/// The routes `POST /v1/boot` and `GET /v1/agent/{sha256}`, for clusters of this master; `pass` has the others.
pub(crate) fn routes(boot: Arc<BootApi>, pass: Arc<BootPass>) -> Router {
    Router::new()
        .route("/v1/boot", post(report))
        .route("/v1/agent/{sha256}", get(agent))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(from_fn_with_state(pass, to_owner))
        .with_state(boot)
}

/// SHA-256 of the bearer token, when it is a known one and its address may ask. Its connection may stay then.
fn bearer(
    boot: &BootApi,
    peer: &Peer,
    stay: &Stay,
    headers: &HeaderMap,
) -> Result<String, StatusCode> {
    let header = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let token = header.and_then(|text| text.strip_prefix("Bearer "));
    let shown = token.map(|token| sha256_hex(token.trim().as_bytes()));
    let known = shown
        .as_deref()
        .filter(|token| boot.engine.cluster_of_token(token).is_some());
    if !boot.limit.admit(peer.address.ip(), known, Instant::now()) {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    if known.is_some() {
        stay.stays();
    }
    match (known.is_some(), shown) {
        (_, None) => Err(StatusCode::UNAUTHORIZED),
        (true, Some(token)) => Ok(token),
        (false, Some(_)) => {
            tracing::info!(address = %peer.address, "refused at the boot endpoints: the join token is unknown");
            Err(StatusCode::FORBIDDEN)
        }
    }
}

async fn report(
    State(boot): State<Arc<BootApi>>,
    Extension(peer): Extension<Peer>,
    Extension(stay): Extension<Arc<Stay>>,
    headers: HeaderMap,
    Json(report): Json<BootReport>,
) -> StatusCode {
    let token_sha256 = match bearer(&boot, &peer, &stay, &headers) {
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
        Ok(Answer::Refused(refused)) => {
            boot.limit.log(peer.address.ip(), |left_out| {
                tracing::info!(address = %peer.address, error = %Chain(&refused), left_out, "refused a boot report");
            });
            StatusCode::FORBIDDEN
        }
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// One harmless line: it comes from a machine that nobody knows yet.
fn printable(text: &str) -> String {
    cleaned(text, MAX_STEP_BYTES).into_owned()
}

async fn agent(
    State(boot): State<Arc<BootApi>>,
    Extension(peer): Extension<Peer>,
    Extension(stay): Extension<Arc<Stay>>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = match bearer(&boot, &peer, &stay, &headers) {
        Ok(token) => token,
        Err(status) => return status.into_response(),
    };
    let engine = &boot.engine;
    let brings =
        |cluster: &ClusterName| engine.read(cluster, |world| world.token_brings_agent(&token));
    let Some(cluster) = engine.cluster_of_token(&token).filter(brings) else {
        boot.limit.log(peer.address.ip(), |left_out| {
            tracing::info!(address = %peer.address, left_out, "refused to hand out an agent: the join token has expired");
        });
        return StatusCode::FORBIDDEN.into_response();
    };
    let is_named = || engine.read(&cluster, |world| named_agents(world).contains(&sha256));
    if boot.agents.path(&sha256).is_none()
        && is_named()
        && let Err(error) = boot.contents.bring(&sha256).await
    {
        tracing::error!(error = %Chain(&error), "cannot bring an agent that is to be handed out");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Some(path) = boot.agents.path(&sha256) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let opened = tokio::task::spawn_blocking({
        let (boot, path) = (boot.clone(), path.clone());
        move || boot.open.open(&path)
    });
    match opened
        .await
        .unwrap_or_else(|_| Err(ErrorKind::Other.into()))
    {
        Ok((file, length)) => {
            let headers = [
                ("content-length", length.to_string()),
                ("content-type", "application/octet-stream".to_owned()),
            ];
            (headers, Body::from_stream(pieces(file))).into_response()
        }
        Err(error) => {
            tracing::error!(path = %path.display(), error = %Chain(&error), "cannot read an agent that is to be handed out");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_place_of_another_is_what_is_handed_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, other) = (dir.path().join("agent"), dir.path().join("other"));
        let shared = SharedFile::default();
        std::fs::write(&path, "first").expect("a file");
        let (first, _) = shared.open(&path).expect("opens");
        let (again, _) = shared.open(&path).expect("opens");
        assert!(Arc::ptr_eq(&first, &again), "one descriptor for both");
        std::fs::write(&other, "the second").expect("a file");
        std::fs::rename(&other, &path).expect("takes its place");
        let (second, length) = shared.open(&path).expect("opens");
        assert!(!Arc::ptr_eq(&first, &second) && length == 10, "{length}");
    }

    #[test]
    fn what_an_unknown_machine_says_is_cut_and_cleaned() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\u{fffd}[31mb ");
        assert!(printable(&"x".repeat(9999)).len() <= MAX_STEP_BYTES + 3);
    }
}
