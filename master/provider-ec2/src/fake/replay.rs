//! A stand-in for the EC2 API in tests: answers each action from a script, and keeps what it was asked. Tests only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use aot_provider::ClusterRef;
use aot_provider::calls::Calls;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::ReconnectMode;

use super::{Answer, Request};
use crate::client::Clients;
use crate::truncation;

/// Stands for an answer that gets lost.
const LOST: u16 = 0;

/// One request: its parameters as sent.
pub(crate) type Asked = BTreeMap<String, String>;

/// Answers in order, by action; the last one of an action is given again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replay(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, VecDeque<(u16, String)>>,
    asked: Vec<Asked>,
}

impl Replay {
    /// The next answer to `action`: the inside of its response element.
    pub(crate) fn ok(&self, action: &str, inside: &str) -> &Self {
        let xml = format!(
            "<{action}Response><requestId>req-{action}</requestId>{inside}</{action}Response>"
        );
        self.raw(action, 200, xml)
    }

    /// The next answer to `action` is cut off in the middle of its inside.
    pub(crate) fn cut(&self, action: &str, inside: &str) -> &Self {
        let half = &inside[..inside.len() / 2];
        self.raw(action, 200, format!("<{action}Response>{half}"))
    }

    /// The next answer to `action` is a refusal.
    pub(crate) fn refuse(&self, action: &str, status: u16, code: &str, message: &str) -> &Self {
        let xml = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>req-bad</RequestID></Response>"
        );
        self.raw(action, status, xml)
    }

    /// The next answer to `action`, in the JSON protocol of other services.
    pub(crate) fn json(&self, action: &str, status: u16, body: &str) -> &Self {
        self.raw(action, status, body.to_owned())
    }

    /// The next answer to `action` gets lost.
    pub(crate) fn lose(&self, action: &str) -> &Self {
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
    pub(crate) fn asked(&self, action: &str) -> Vec<Asked> {
        let state = self.0.lock().unwrap();
        let is = |asked: &&Asked| asked["Action"] == action;
        state.asked.iter().filter(is).cloned().collect()
    }

    /// Actions so far, in order.
    pub(crate) fn actions(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let action = |asked: &Asked| asked["Action"].clone();
        state.asked.iter().map(action).collect()
    }

    fn answer(&self, request: Request) -> Answer {
        let action = request.operation;
        let mut asked = request.params;
        asked.insert("Action".to_owned(), action.clone());
        let mut state = self.0.lock().unwrap();
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
        (status != LOST).then_some((status, text))
    }

    fn http(&self) -> SharedHttpClient {
        let replay = self.clone();
        super::http(move |request| replay.answer(request))
    }

    /// Clients that talk to it.
    pub(crate) fn clients(&self, calls: Calls) -> Clients {
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
            .http_client(truncation::answers(self.http()))
            .build();
        Clients::with(settings, calls)
    }

    /// A client that talks to it.
    pub(crate) async fn client(&self) -> aws_sdk_ec2::Client {
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

/// A cluster to ask about.
pub(crate) fn cluster() -> ClusterRef {
    ClusterRef {
        name: "shop".parse().unwrap(),
        uuid: "uuid-1".into(),
        region: None,
    }
}
