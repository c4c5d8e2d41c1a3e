//! What agents answer by themselves, without a process.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1::{self, exec_event};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::OperatorApi;
use super::follow::{EVENTS, ExecEvents, Sender, ended, event, started, summary};
use super::select::Selection;
use crate::model::cluster::Key;
use crate::model::job::{Job, JobKind, Outcome, Verdict};
use crate::model::world::Input;
use crate::run::now_ms;
use crate::session::registry::{BuiltinAnswer, Command, Question};

/// How long a built-in may take unless the operator says otherwise.
const BUILTIN: Duration = Duration::from_secs(10);

impl OperatorApi {
    pub(super) async fn builtin(
        &self,
        cluster: ClusterName,
        names: Vec<InstanceName>,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
        aot_proto::builtin::Builtin::parse(&request.builtin, &request.builtin_args)
            .map_err(|error| Status::invalid_argument(format!("{}: {error}", request.builtin)))?;
        let wait = if request.timeout_ms > 0 {
            Duration::from_millis(request.timeout_ms)
        } else {
            BUILTIN
        };
        let target = Selection::from(&request).to_string();
        let (sender, stream) = mpsc::channel(EVENTS);
        let call = Builtin {
            api: self.clone(),
            cluster,
            name: request.builtin,
            args: request.builtin_args,
            wait,
            sender,
        };
        self.tasks.spawn(call.run(names, target, operator));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

/// One question that agents answer by themselves.
struct Builtin {
    api: OperatorApi,
    cluster: ClusterName,
    name: String,
    args: Vec<String>,
    wait: Duration,
    sender: Sender,
}

impl Builtin {
    async fn run(self, names: Vec<InstanceName>, target: String, operator: String) {
        let (begun, started_ms) = (Instant::now(), now_ms());
        let mut late = pin!(tokio::time::sleep_until((begun + self.wait).into()));
        let mut asked: FuturesUnordered<_> =
            names.iter().map(|name| self.ask(name, begun)).collect();
        let mut targets = BTreeMap::new();
        let job = JobId::from_parts(started_ms, rand());
        let mut record = Job::new(
            job,
            JobKind::Exec,
            self.cluster.clone(),
            self.what(&target),
            operator,
            started_ms,
        );
        let first = started(&record, &names);
        if self
            .sender
            .send(event(exec_event::Body::Started(first)))
            .await
            .is_err()
        {
            return;
        }
        while targets.len() < names.len() {
            let answered = tokio::select! {
                biased;
                Some(answered) = asked.next() => vec![answered],
                () = &mut late => names.iter().filter(|name| !targets.contains_key(*name)).map(timed_out).collect(),
            };
            for (name, verdict, json) in answered {
                let begun = begun.elapsed();
                let ms = u64::try_from(begun.as_millis()).unwrap_or(u64::MAX);
                let verdict = Verdict { ms, ..verdict };
                let word = ended(&name, &verdict, begun.as_secs_f64(), json);
                let _ = self.sender.send(event(exec_event::Body::Ended(word))).await; // unread or not, it is recorded
                targets.insert(name, Some(verdict));
            }
        }
        record.ended_ms = Some(now_ms());
        record.targets = targets;
        let last = summary(
            job,
            record
                .targets
                .values()
                .flatten()
                .map(|verdict| verdict.outcome),
        );
        self.api.engine.tell(Input::Record(Box::new(record))).await;
        let _ = self
            .sender
            .send(event(exec_event::Body::Summary(last)))
            .await;
    }

    /// As typed, for the record.
    fn what(&self, target: &str) -> String {
        let words: Vec<&str> = [self.name.as_str()]
            .into_iter()
            .chain(self.args.iter().map(String::as_str))
            .collect();
        format!("exec {target} {}", words.join(" "))
    }

    async fn ask(&self, name: &InstanceName, begun: Instant) -> (InstanceName, Verdict, String) {
        let at = Key {
            cluster: self.cluster.clone(),
            instance: name.clone(),
        };
        let (answer, reply) = oneshot::channel();
        let deadline = begun + self.wait;
        self.api.wait_for_return(&at, deadline).await;
        let command = Command::Builtin(Box::new(Question {
            name: self.name.clone(),
            args: self.args.clone(),
            answer,
            deadline,
        }));
        if !self.api.registry.send_any(&at, command) {
            return (
                name.clone(),
                Verdict::without_run(Outcome::Absent, "its agent is not connected"),
                String::new(),
            );
        }
        let (verdict, json) = match reply.await {
            Ok(BuiltinAnswer { result: Ok(json) }) => (
                Verdict {
                    exit_code: Some(0),
                    ..Verdict::without_run(Outcome::Succeeded, "")
                },
                json,
            ),
            Ok(BuiltinAnswer { result: Err(error) }) => {
                (Verdict::without_run(Outcome::Failed, error), String::new())
            }
            Err(_) => (
                Verdict::without_run(Outcome::LostContact, "its session ended before it answered"),
                String::new(),
            ),
        };
        (name.clone(), verdict, json)
    }
}

fn timed_out(name: &InstanceName) -> (InstanceName, Verdict, String) {
    let verdict = Verdict::without_run(Outcome::TimedOut, "no answer in time");
    (name.clone(), verdict, String::new())
}

impl OperatorApi {
    /// Just after a start of the master, agents that are on their way back are waited for.
    pub(super) async fn wait_for_return(&self, at: &Key, deadline: Instant) {
        let registry = &self.registry;
        if registry.has(at) {
            return;
        }
        let mut arrivals = registry.arrivals();
        let coming = || {
            self.engine.look(|world| {
                let instance = world.instance(at);
                instance.is_some_and(|instance| world.is_coming_back(instance))
            })
        };
        while !registry.has(at) && coming() {
            if tokio::time::timeout_at(deadline.into(), arrivals.changed())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// 80 random bits for an id; when there are none, a fixed number does: the time is in the id as well.
fn rand() -> u128 {
    let mut bytes = [0; 16];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u128::from_be_bytes(bytes) >> 48,
        Err(_) => 0,
    }
}
