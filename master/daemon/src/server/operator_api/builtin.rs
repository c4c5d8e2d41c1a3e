//! What agents answer by themselves, without a process.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use aot_model::job::{Job, JobKind};
use aot_model::key::InstanceKey;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::unix_ms::UnixMs;
use aot_model::world::Input;
use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1::{self, job_event};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::OperatorApi;
use super::follow::{EVENTS, JobEvents, JobSender, ended, event, started, summary};
use super::paced::paced;
use super::select::Selection;
use super::shell::random;
use crate::run::now_ms;
use crate::session::Closed;
use crate::session::registry::{BuiltinAnswer, Question, SessionCommand};

/// How long a built-in may take unless the operator says otherwise.
const BUILTIN: Duration = Duration::from_secs(10);

impl OperatorApi {
    pub(super) async fn builtin(
        &self,
        cluster: ClusterName,
        names: Vec<InstanceName>,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<JobEvents, Status> {
        let name = v1::BuiltinName::name_of(request.builtin);
        aot_proto::builtin::Builtin::parse(name, &request.builtin_args)
            .map_err(|error| Status::invalid_argument(format!("{name}: {error}")))?;
        let wait = if request.timeout_ms > 0 {
            Duration::from_millis(request.timeout_ms)
        } else {
            BUILTIN
        };
        let target = Selection::from(&request).to_string();
        let (sender, stream) = mpsc::channel(EVENTS);
        let started_ms = now_ms();
        let call = BuiltinQuestion {
            job: JobId::from_parts(started_ms, random()? >> 48),
            started_ms,
            api: self.clone(),
            cluster,
            name,
            args: request.builtin_args,
            wait,
            sender,
        };
        self.tasks.spawn(call.run(names, target, operator));
        Ok(paced(ReceiverStream::new(stream)).boxed())
    }
}

/// One question that agents answer by themselves.
struct BuiltinQuestion {
    job: JobId,
    started_ms: UnixMs,
    api: OperatorApi,
    cluster: ClusterName,
    name: &'static str,
    args: Vec<String>,
    wait: Duration,
    sender: JobSender,
}

impl BuiltinQuestion {
    async fn run(self, names: Vec<InstanceName>, target: String, operator: String) {
        let (begun, job, started_ms) = (Instant::now(), self.job, self.started_ms);
        let mut late = pin!(tokio::time::sleep_until((begun + self.wait).into()));
        let mut asked: FuturesUnordered<_> =
            names.iter().map(|name| self.ask(name, begun)).collect();
        let mut targets = BTreeMap::new();
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
            .send(event(job_event::Body::Started(first)))
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
                let end = ended(&name, &verdict, begun.as_secs_f64(), json);
                let _ = self.sender.send(event(job_event::Body::Ended(end))).await; // unread or not, it is recorded
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
        self.api.engine.note(Input::Record(Box::new(record))).await;
        let _ = self
            .sender
            .send(event(job_event::Body::Summary(last)))
            .await;
    }

    /// As typed, for the record.
    fn what(&self, target: &str) -> String {
        let words: Vec<&str> = [self.name]
            .into_iter()
            .chain(self.args.iter().map(String::as_str))
            .collect();
        format!("exec {target} {}", words.join(" "))
    }

    async fn ask(&self, name: &InstanceName, begun: Instant) -> (InstanceName, Verdict, String) {
        let at = InstanceKey {
            cluster: self.cluster.clone(),
            instance: name.clone(),
        };
        let (answer, reply) = oneshot::channel();
        let deadline = begun + self.wait;
        self.api.wait_for_return(&at, deadline).await;
        let command = SessionCommand::Builtin(Box::new(Question {
            name: self.name.to_owned(),
            args: self.args.clone(),
            answer,
            deadline,
        }));
        let Some(end) = self.api.registry.send_any(&at, command) else {
            return (
                name.clone(),
                Verdict::without_run(Outcome::Absent, "its agent is not connected"),
                String::new(),
            );
        };
        let lost = |why: &str| {
            (
                Verdict::without_run(Outcome::LostContact, why),
                String::new(),
            )
        };
        let (verdict, json) = match (reply.await, end.why()) {
            // Whoever was shut out meanwhile has nothing to say, be it on its way or not.
            (_, Some(Closed::Revoked)) => lost("its identity was revoked"),
            (Ok(BuiltinAnswer { result: Ok(json) }), _) => (
                Verdict {
                    exit_code: Some(0),
                    ..Verdict::without_run(Outcome::Succeeded, "")
                },
                json,
            ),
            (Ok(BuiltinAnswer { result: Err(error) }), _) => {
                (Verdict::without_run(Outcome::Failed, error), String::new())
            }
            (Err(_), _) => lost("its session ended before it answered"),
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
    pub(super) async fn wait_for_return(&self, at: &InstanceKey, deadline: Instant) {
        let registry = &self.registry;
        if registry.has(at) {
            return;
        }
        let mut arrivals = registry.arrivals();
        let coming = || {
            self.engine.read(&at.cluster, |world| {
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
