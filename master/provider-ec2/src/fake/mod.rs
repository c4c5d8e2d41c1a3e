//! Stand-ins for the AWS APIs in tests, behind the SDK's own clients. `region` has things and knows the rules that the code
//! leans on; `replay` answers from a script. What both need to be asked at all is here.

mod region;
mod replay;

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

pub(crate) use region::{Fake, Fault, Group, Image};
pub(crate) use replay::{Asked, Replay, cluster};

use crate::call_params;

/// One request.
pub(crate) struct Request {
    pub operation: String,
    /// Of the EC2 query protocol; none in the JSON protocol of other services.
    pub params: BTreeMap<String, String>,
    pub body: String,
}

/// HTTP status and body; `None` when the answer gets lost.
pub(crate) type Answer = Option<(u16, String)>;

struct Connector<F>(F);

impl<F> fmt::Debug for Connector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl<F: Fn(Request) -> Answer + Send + Sync> HttpConnector for Connector<F> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8(request.body().bytes().unwrap_or_default().to_vec()).unwrap();
        let target = request.headers().get("x-amz-target");
        let params: BTreeMap<_, _> = match target {
            Some(_) => BTreeMap::new(),
            None => call_params::form(&body).into_iter().collect(),
        };
        let operation = match target {
            Some(target) => target.rsplit('.').next().unwrap_or(target).to_owned(),
            None => params["Action"].clone(),
        };
        let answer = self.0(Request {
            operation,
            params,
            body,
        });
        HttpConnectorFuture::ready(match answer {
            Some((status, text)) => Ok(HttpResponse::new(
                status.try_into().unwrap(),
                SdkBody::from(text),
            )),
            None => Err(ConnectorError::io("the line went dead".into())),
        })
    }
}

/// What the SDK asks instead of a network.
pub(crate) fn http(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector(answer));
    http_client_fn(move |_, _| connector.clone())
}

/// Clients that ask once.
pub(crate) fn clients(
    region: &'static str,
    http: &SharedHttpClient,
) -> (aws_sdk_ec2::Client, aws_sdk_ssm::Client) {
    let credentials = Credentials::new("id", "secret", None, None, "test");
    let ec2 = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(credentials.clone())
        .retry_config(RetryConfig::disabled())
        .http_client(http.clone())
        .build();
    let ssm = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .http_client(http.clone())
        .build();
    (
        aws_sdk_ec2::Client::from_conf(ec2),
        aws_sdk_ssm::Client::from_conf(ssm),
    )
}
