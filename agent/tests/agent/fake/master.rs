//! What the master has received and how it behaves; tests wait here for what they expect.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use aot_proto::frame;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{BuiltinReply, MasterMessage, RunAnswer, StartRun, TunnelPiece, TunnelUp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateSigningRequestDer;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tonic::{Status, Streaming};

use super::run_result::RunResult;

/// Longest wait of a test for anything.
const LIMIT: Duration = Duration::from_secs(120);
const NAME: &str = "spiffe://m/cluster/c/instance/web1/local-1";

/// From the agent, and to it.
pub(crate) type TunnelHalves = (
    Streaming<TunnelUp>,
    mpsc::Sender<Result<TunnelPiece, Status>>,
);

/// What the master knows and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) enrolments: Vec<Vec<u8>>,
    pub(crate) lose_enrol_replies: usize,
    pub(crate) short_certificates: usize,
    /// Enrolments whose certificates are over before they come.
    pub(crate) past_certificates: usize,
    /// Certificates of renewals.
    pub(crate) renewed: Vec<String>,
    pub(crate) sessions: usize,
    /// Welcomes that pick a version of the protocol that no agent speaks.
    pub(crate) strange_welcomes: usize,
    /// Of its hold on the cluster.
    pub(crate) epoch: i64,
    /// Names that connections were opened by, one each.
    pub(crate) server_names: Vec<Option<String>>,
    /// Addresses that its welcome names.
    pub(crate) masters: Vec<String>,
    pub(crate) to_agent: Option<mpsc::Sender<Result<MasterMessage, Status>>>,
    pub(crate) received: Vec<Up>,
    pub(crate) spools: HashMap<String, Vec<u8>>,
    pub(crate) ends: HashMap<String, u64>,
    pub(crate) overlaps: u64,
    pub(crate) acks: bool,
    pub(crate) bundles: HashMap<String, Vec<u8>>,
    pub(crate) cut_fetches: usize,
    pub(crate) fetch_offsets: Vec<u64>,
    pub(crate) connections: Vec<AbortHandle>,
    /// Both halves of each forwarded connection's stream.
    pub(crate) tunnels: Vec<TunnelHalves>,
}

pub(crate) struct Master {
    pub(crate) state: Mutex<State>,
    changed: Notify,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) ca_pem: String,
    port: u16,
}

impl Master {
    /// One with an authority of its own, which has received nothing yet.
    pub(crate) fn new(port: u16) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fake");
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self {
            state: Mutex::new(State {
                acks: true,
                ..State::default()
            }),
            changed: Notify::new(),
            issuer: Issuer::new(params, key),
            ca_pem,
            port,
        }
    }

    /// Where agents find it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the state, and wakes whoever waits for something.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_waiters();
        value
    }

    /// Waits until `find` finds something.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut find: impl FnMut(&State) -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = find(&self.lock()) {
                return found;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                panic!(
                    "waited {LIMIT:?} for {what}; the agent sent {:?}",
                    self.lock()
                        .received
                        .iter()
                        .filter(|up| !matches!(up, Up::Spool(_)))
                        .collect::<Vec<_>>()
                );
            }
        }
    }

    /// Sends a message in the agent's session; waits for one.
    pub(crate) async fn send(&self, body: Down) {
        let sender = self
            .until("a session", |state| {
                state.to_agent.clone().filter(|sender| !sender.is_closed())
            })
            .await;
        sender
            .send(Ok(MasterMessage { body: Some(body) }))
            .await
            .unwrap();
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.to_agent = None;
        state
            .connections
            .drain(..)
            .for_each(|connection| connection.abort());
    }

    /// Starts a run and waits for the answer.
    pub(crate) async fn start(&self, start: StartRun) -> RunAnswer {
        let (run_id, answered) = (start.run_id.clone(), self.answers(&start.run_id).len());
        self.send(Down::StartRun(start)).await;
        self.until("an answer to StartRun", |state| {
            answers(state, &run_id).into_iter().nth(answered)
        })
        .await
    }

    fn answers(&self, run_id: &str) -> Vec<RunAnswer> {
        answers(&self.lock(), run_id)
    }

    /// The run's spool, once it has ended.
    pub(crate) async fn result(&self, run_id: &str) -> RunResult {
        let bytes = self
            .until(&format!("the end of {run_id}"), |state| {
                let end = state.ends.get(run_id)?;
                state
                    .spools
                    .get(run_id)
                    .filter(|spool| spool.len() as u64 == *end)
                    .cloned()
            })
            .await;
        let (frames, len) = frame::decode_all(&bytes).unwrap();
        assert_eq!(len, bytes.len(), "a torn frame was sent");
        RunResult::of(frames)
    }

    pub(crate) async fn builtin(&self, id: u64, name: &str) -> BuiltinReply {
        self.ask(id, name, &[]).await
    }

    pub(crate) async fn ask(&self, id: u64, name: &str, args: &[&str]) -> BuiltinReply {
        self.send(Down::Builtin(aot_proto::v1::BuiltinCall {
            id,
            name: name.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        }))
        .await;
        self.until("a builtin's answer", |state| {
            state.received.iter().find_map(|up| match up {
                Up::BuiltinReply(reply) if reply.id == id => Some(reply.clone()),
                _ => None,
            })
        })
        .await
    }

    pub(crate) fn sign(&self, csr: &[u8], (from, to): (i32, i32)) -> String {
        let mut request = CertificateSigningRequestParams::from_der(
            &CertificateSigningRequestDer::from(csr.to_vec()),
        )
        .unwrap();
        let params = &mut request.params;
        params.subject_alt_names = vec![SanType::URI(NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

fn answers(state: &State, run_id: &str) -> Vec<RunAnswer> {
    let answers = state.received.iter().filter_map(|up| match up {
        Up::RunAnswer(answer) if answer.run_id == run_id => Some(answer.clone()),
        _ => None,
    });
    answers.collect()
}
