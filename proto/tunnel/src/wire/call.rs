//! A stream that is opened at a master.

use futures::{Stream, StreamExt};
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Body;
use prost::bytes::Bytes;
use tonic::client::GrpcService;
use tonic::{Code, Status};

use super::TunnelMessage;
use super::incoming::{Incoming, Messages};
use super::outgoing::Outgoing;

/// Makes this call, with what `messages` says; gives what is answered once that begins.
///
/// # Errors
/// The master's refusal, or why it can't be asked.
pub async fn open<S, Said, Heard>(
    mut master: S,
    call: &'static str,
    messages: impl Stream<Item = Said> + Send + 'static,
) -> Result<Messages<Heard>, Status>
where
    S: GrpcService<tonic::body::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Said: TunnelMessage,
    Heard: TunnelMessage,
{
    let said = Outgoing::new(messages.map(Ok).boxed(), false);
    let request = request(call, tonic::body::Body::new(said));
    let failed = |error: S::Error| Status::from_error(error.into());
    std::future::poll_fn(|context| master.poll_ready(context))
        .await
        .map_err(failed)?;
    let answer = master.call(request).await.map_err(failed)?;
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ if answer.status() != StatusCode::OK => {
            let text = format!("no answer of a master's: HTTP {}", answer.status());
            Err(Status::unknown(text))
        }
        _ => Ok(Incoming::new(Box::pin(answer.into_body()), true).boxed()),
    }
}

fn request<B>(call: &'static str, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(call);
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    request
}
