//! What a load balancer asks: whether machines are to be led to this master. Everybody may ask, and learns no more than that.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::fleet::ClusterFinder;

#[derive(Clone)]
struct Health {
    finder: ClusterFinder,
    stop: CancellationToken,
}

/// The route `GET /v1/health`: 200, or 503 while the master stops, drains, or has been cut off from its store for so long that
/// others may have its clusters.
pub(crate) fn routes(finder: ClusterFinder, stop: CancellationToken) -> Router {
    Router::new()
        .route("/v1/health", get(health))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aot_store::fleet::{FixedFleet, Fleet, sample_view};
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

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
