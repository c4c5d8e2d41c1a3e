//! What a load balancer asks: whether machines are to be led to this master. Everybody may ask, and learns no more than that.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fleet::ClusterFinder;

/// The path that is asked.
const PATH: &str = "/v1/health";

#[derive(Clone)]
struct Health {
    finder: ClusterFinder,
    stop: CancellationToken,
}

/// The route `GET /v1/health`: 200, or 503 while the master stops, drains, or has been cut off from its store for so long that
/// others may have its clusters.
pub(crate) fn routes(finder: ClusterFinder, stop: CancellationToken) -> Router {
    Router::new()
        .route(PATH, get(health))
        .with_state(Health { finder, stop })
}

async fn health(State(health): State<Health>) -> (StatusCode, &'static str) {
    let why = match () {
        () if health.stop.is_cancelled() => Some("stopping\n"),
        () if health.finder.is_draining() => Some("draining\n"),
        () if health.finder.is_cut_off() => Some("cut off\n"),
        () => None,
    };
    match why {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        None => (StatusCode::OK, "ok\n"),
    }
}

/// Answers a question that came without TLS and was read to its end, as `app` answers it.
///
/// # Errors
/// As write(2).
pub(super) async fn answer_plainly(
    stream: &mut (impl AsyncWrite + Unpin),
    app: Router,
) -> std::io::Result<()> {
    let asked = Request::get(PATH).body(Body::empty());
    let Ok(answer) = app.oneshot(asked.expect("a path of ours")).await;
    // Its numeral and its name, as the status line has them (RFC 9112, section 4).
    let status = answer.status();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aot_store::fleet::{FixedFleet, Fleet, sample_view};

    use super::*;

    #[tokio::test]
    async fn who_asks_without_tls_is_told_the_same() {
        let stop = CancellationToken::new();
        let said = async || {
            let mut said = Vec::new();
            let routes = routes(ClusterFinder::new(None), stop.clone());
            let answered = answer_plainly(&mut said, routes).await;
            answered.expect("writes to memory");
            String::from_utf8(said).expect("text")
        };
        let well = said().await;
        assert!(well.starts_with("HTTP/1.1 200 OK\r\n"), "{well}");
        assert!(well.ends_with("\r\n\r\n"), "{well}");
        stop.cancel();
        let stopping = said().await;
        assert!(stopping.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    }

    async fn asked(finder: &ClusterFinder, stop: &CancellationToken) -> StatusCode {
        let request = Request::get("/v1/health").body(Body::empty());
        let routes = routes(finder.clone(), stop.clone());
        let answer = routes.oneshot(request.expect("a request")).await;
        answer.expect("it answers").status()
    }

    #[tokio::test]
    async fn a_master_that_stops_drains_or_has_no_say_is_passed_over() {
        let stop = CancellationToken::new();
        assert_eq!(
            asked(&ClusterFinder::new(None), &stop).await,
            StatusCode::OK
        );
        let fleet = Arc::new(FixedFleet::new(sample_view("a", &[])));
        let finder = ClusterFinder::new(Some(fleet.clone()));
        assert_eq!(asked(&finder, &stop).await, StatusCode::OK);
        fleet.drain("b", true).await.expect("is asked for");
        assert_eq!(asked(&finder, &stop).await, StatusCode::OK, "another does");
        fleet.drain("a", true).await.expect("is asked for");
        let unfit = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(asked(&finder, &stop).await, unfit);
        fleet.drain("a", false).await.expect("is asked for");
        fleet.standing().lose("another start of it");
        assert_eq!(asked(&finder, &stop).await, unfit);
        stop.cancel();
        assert_eq!(asked(&ClusterFinder::new(None), &stop).await, unfit);
    }
}
