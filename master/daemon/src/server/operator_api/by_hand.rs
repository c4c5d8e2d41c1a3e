//! The operators' service as their door has it: the calls that carry much are served past tonic's own service, whose buffers would
//! have all of it copied (`aot_tunnel::wire`).

use std::convert::Infallible;
use std::task::{Context, Poll};

use aot_proto::v1::operator_server::OperatorServer;
use aot_tunnel::wire;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::Service;

use super::OperatorApi;
use crate::server::ways::operator;

/// All calls of operators.
#[derive(Clone)]
pub(crate) struct OperatorService {
    api: OperatorApi,
    rest: OperatorServer<OperatorApi>,
}

impl OperatorService {
    /// `rest` serves all that is not served by hand.
    pub(crate) fn new(api: OperatorApi, rest: OperatorServer<OperatorApi>) -> Self {
        Self { api, rest }
    }
}

impl NamedService for OperatorService {
    const NAME: &'static str = OperatorServer::<OperatorApi>::NAME;
}

impl Service<Request<Body>> for OperatorService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.rest, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.uri().path() {
            wire::OPERATORS_CALL => {
                let api = self.api.clone();
                Box::pin(async move { Ok(tunnel(&api, request).await) })
            }
            _ => self.rest.call(request),
        }
    }
}

async fn tunnel(api: &OperatorApi, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let headers = MetadataMap::from_headers(parts.headers);
    let request = tonic::Request::from_parts(headers, parts.extensions, ());
    match api
        .do_tunnel(wire::requests(body), operator(&request))
        .await
    {
        Ok(events) => wire::response(events).map(Body::new),
        Err(status) => status.into_http(),
    }
}
