//! Records every call that a service client makes, after its last try: an interceptor of the AWS SDK. Set by `client`
//! on all its clients; changes nothing of a call, and stops one that this master may not make any more.

use std::fmt;
use std::time::Instant;

use aot_host::chain::Chain;
use aot_provider::calls::{ApiCall, Calls};
use aws_sdk_ec2::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Intercept, Region, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::Error;
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata, OrchestratorError};
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_types::config_bag::{Storable, StoreReplace};

use super::call_params::{parameters, shorten};

/// Longest error that is recorded.
const ERROR_BYTES: usize = 1 << 10;

/// The interceptor.
#[derive(Debug, Clone)]
pub(super) struct CallLog(Calls);

/// Why a try was not sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent: the master's database does not answer, and another master may have taken over")]
struct NotSent;

/// When the call began.
#[derive(Debug, Clone, Copy)]
struct Began(Instant);

/// What it was sent with.
#[derive(Clone)]
struct Sent(String);

/// Debug output of the SDK's settings need not repeat it.
impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sent")
    }
}

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl CallLog {
    /// One that records into `calls`.
    pub(crate) fn new(calls: Calls) -> Self {
        Self(calls)
    }
}

impl Intercept for CallLog {
    fn name(&self) -> &'static str {
        "aot-call-log"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_serialization(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request().body().bytes().unwrap_or_default();
        bag.interceptor_state().store_put(Sent(parameters(body)));
        Ok(())
    }

    /// Right before each try is sent: since it was decided on, another master may have taken over.
    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match self.0.may_be_sent() {
            true => Ok(()),
            false => Err(Box::new(NotSent)),
        }
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let call = ended_call(context, bag);
        tracing::debug!(
            service = call.service,
            operation = call.operation,
            region = call.region,
            request_id = call.request_id,
            ms = call.ms,
            retries = call.retries,
            error = call.error,
            "AWS call"
        );
        self.0.record(call);
        Ok(())
    }
}

fn ended_call(context: &FinalizerInterceptorContextRef<'_>, bag: &ConfigBag) -> ApiCall {
    let metadata = bag.load::<Metadata>();
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ApiCall {
        number: 0, // `record` counts
        unix_ms: aot_host::clock::unix_ms(),
        service: metadata.map_or("", Metadata::service).to_owned(),
        operation: metadata.map_or("", Metadata::name).to_owned(),
        region: bag
            .load::<Region>()
            .map_or_else(String::new, ToString::to_string),
        parameters: bag
            .load::<Sent>()
            .map_or_else(String::new, |sent| sent.0.clone()),
        request_id: context.response().map_or_else(String::new, request_id),
        ms: bag
            .load::<Began>()
            .map_or(0, |began| millis(began.0.elapsed())),
        retries: bag
            .load::<RequestAttempts>()
            .map_or(0, |tries| tries.attempts().saturating_sub(1)),
        error: match context.output_or_error() {
            Some(Err(error)) => shorten(&why(error, context.response()), ERROR_BYTES),
            _ => String::new(),
        },
    }
}

/// From the header, else from EC2's XML, which says it in two spellings.
fn request_id(response: &HttpResponse) -> String {
    let header = ["x-amzn-requestid", "x-amz-request-id"]
        .iter()
        .find_map(|name| response.headers().get(name));
    let body = || {
        let body = body(response);
        element(&body, "requestId").or_else(|| element(&body, "RequestID"))
    };
    header.map(str::to_owned).or_else(body).unwrap_or_default()
}

fn body(response: &HttpResponse) -> String {
    String::from_utf8_lossy(response.body().bytes().unwrap_or_default()).into_owned()
}

/// Code and message of a refusal, else what the SDK says.
fn why(error: &OrchestratorError<Error>, response: Option<&HttpResponse>) -> String {
    let said = response
        .filter(|_| error.is_operation_error())
        .map(body)
        .and_then(|body| xml_refusal(&body).or_else(|| json_refusal(&body)));
    let status = || {
        response
            .filter(|_| error.is_operation_error())
            .map(|response| format!("HTTP status {}", response.status()))
    };
    said.or_else(status)
        .unwrap_or_else(|| Chain(error).to_string())
}

fn xml_refusal(body: &str) -> Option<String> {
    let code = element(body, "Code")?;
    Some(match element(body, "Message") {
        Some(message) => format!("{code}: {message}"),
        None => code,
    })
}

/// AWS JSON protocol: `__type` may have a namespace before a `#`.
fn json_refusal(body: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).ok()?;
    let text = |name: &str| object.get(name).and_then(|value| value.as_str());
    let code = text("__type").or(text("code"))?;
    let code = code.rsplit('#').next().unwrap_or(code);
    Some(match text("message").or(text("Message")) {
        Some(message) => format!("{code}: {message}"),
        None => code.to_owned(),
    })
}

/// Text of the first element of that name; XML's five entities are read.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'");
    Some(text.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests;
