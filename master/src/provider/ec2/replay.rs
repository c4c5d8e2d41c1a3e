//! A stand-in for the EC2 API in tests: answers each action from a script, and keeps what it was asked. Tests only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ReconnectMode;

use super::client::Clients;
use super::whole;
use super::wire;
use crate::provider::ClusterRef;
use crate::provider::calls::Calls;

/// Stands for an answer that gets lost.
const LOST: u16 = 0;

/// One request: its parameters as sent.
pub(super) type Asked = BTreeMap<String, String>;

/// Answers in order, by action; the last one of an action is given again and again.
#[derive(Debug, Clone, Default)]
pub(super) struct Replay(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, VecDeque<(u16, String)>>,
    asked: Vec<Asked>,
}

impl Replay {
    /// The next answer to `action`: the inside of its response element.
    pub fn ok(&self, action: &str, inside: &str) -> &Self {
        let xml = format!(
            "<{action}Response><requestId>req-{action}</requestId>{inside}</{action}Response>"
        );
        self.raw(action, 200, xml)
    }

    /// The next answer to `action` is cut off in the middle of its inside.
    pub fn cut(&self, action: &str, inside: &str) -> &Self {
        let half = &inside[..inside.len() / 2];
        self.raw(action, 200, format!("<{action}Response>{half}"))
    }

    /// The next answer to `action` is a refusal.
    pub fn refuse(&self, action: &str, status: u16, code: &str, message: &str) -> &Self {
        let xml = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>req-bad</RequestID></Response>"
        );
        self.raw(action, status, xml)
    }

    /// The next answer to `action`, in the JSON protocol of other services.
    pub fn json(&self, action: &str, status: u16, body: &str) -> &Self {
        self.raw(action, status, body.to_owned())
    }

    /// The next answer to `action` gets lost.
    pub fn lose(&self, action: &str) -> &Self {
        self.raw(action, LOST, String::new())
    }

    fn raw(&self, action: &str, status: u16, body: String) -> &Self {
        let mut state = self.0.lock().unwrap();
        let queue = state.answers.entry(action.to_owned()).or_default();
        queue.push_back((status, body));
        drop(state);
        self
    }

    /// Requests of one action so far.
    pub fn asked(&self, action: &str) -> Vec<Asked> {
        let state = self.0.lock().unwrap();
        let is = |asked: &&Asked| asked["Action"] == action;
        state.asked.iter().filter(is).cloned().collect()
    }

    /// Actions so far, in order.
    pub fn actions(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let action = |asked: &Asked| asked["Action"].clone();
        state.asked.iter().map(action).collect()
    }

    fn http(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    /// Clients that talk to it.
    pub fn clients(&self, calls: Calls) -> Clients {
        let credentials = Credentials::new("AKIATEST", "hush-secret", None, None, "test");
        let retries = RetryConfig::standard()
            .with_max_attempts(3)
            .with_initial_backoff(std::time::Duration::from_millis(1))
            .with_reconnect_mode(ReconnectMode::ReuseAllConnections);
        let settings = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .sleep_impl(aws_sdk_ec2::config::SharedAsyncSleep::new(Sleep))
            .retry_config(retries)
            .http_client(whole::answers(self.http()))
            .build();
        Clients::with(settings, calls)
    }

    /// A client that talks to it.
    pub async fn client(&self) -> aws_sdk_ec2::Client {
        let clients = self.clients(Calls::default());
        clients.client(None).await.unwrap().0
    }
}

/// The SDK's waits, by tokio's clock.
#[derive(Debug)]
struct Sleep;

impl aws_sdk_ec2::config::AsyncSleep for Sleep {
    fn sleep(&self, duration: std::time::Duration) -> aws_sdk_ec2::config::Sleep {
        aws_sdk_ec2::config::Sleep::new(tokio::time::sleep(duration))
    }
}

impl HttpConnector for Replay {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8(request.body().bytes().unwrap().to_vec()).unwrap();
        let mut asked: Asked = wire::form(&body).into_iter().collect();
        if let Some(target) = request.headers().get("x-amz-target") {
            let action = target.rsplit('.').next().unwrap_or(target);
            asked = BTreeMap::from([("Action".to_owned(), action.to_owned())]);
        }
        let mut state = self.0.lock().unwrap();
        let action = asked["Action"].clone();
        state.asked.push(asked);
        let queue = state
            .answers
            .get_mut(&action)
            .unwrap_or_else(|| panic!("no answer to {action}"));
        let (status, text) = if queue.len() > 1 {
            queue.pop_front().unwrap()
        } else {
            queue[0].clone()
        };
        if status == LOST {
            let lost = ConnectorError::io("the line went dead".into());
            return HttpConnectorFuture::ready(Err(lost));
        }
        let status = status.try_into().unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(text))))
    }
}

/// A cluster to ask about.
pub(super) fn cluster() -> ClusterRef {
    ClusterRef {
        name: "shop".parse().unwrap(),
        uuid: "uuid-1".into(),
        region: None,
    }
}
