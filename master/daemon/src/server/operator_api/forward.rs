//! Forwards: a job for as long as an operator has one open. Keeps its record; what its connections carry is in `tunnel`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_model::job::{Job, JobKind};
use aot_model::key::InstanceKey;
use aot_model::level::Addition;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::world::Input;
use aot_proto::ids::{ClusterName, JobId};
use aot_proto::limits::MAX_SOCKET_PATH_BYTES;
use aot_proto::v1::{self, forward_event};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::shell::{only, random};
use super::{OperatorApi, stopping};
use crate::run::{JobUpdate, now_ms, updates_queue};
use crate::server::forwards::Forward;

/// How long the connections of a forward that ends may take to be counted.
const COUNTED: Duration = Duration::from_secs(5);

/// Longest name of a host (RFC 1035, 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Events of a forward: it begins, and it ends.
const EVENTS: usize = 2;

pub(super) type ForwardEvents =
    Pin<Box<dyn Stream<Item = Result<v1::ForwardEvent, Status>> + Send>>;

fn event(body: forward_event::Body) -> Result<v1::ForwardEvent, Status> {
    Ok(v1::ForwardEvent { body: Some(body) })
}

impl OperatorApi {
    pub(super) fn do_forward(
        &self,
        request: v1::ForwardRequest,
        operator: String,
    ) -> Result<ForwardEvents, Status> {
        let to = destination(request.to.unwrap_or_default())?;
        let cluster = self.cluster(request.cluster.as_deref())?;
        let names = self.targets(&cluster, &request.instance)?;
        let instance = only("a forward", &request.instance, &names)?;
        self.admit(&cluster)?;
        let started_ms = now_ms();
        let job = Job::new(
            JobId::from_parts(started_ms, random()? >> 48),
            JobKind::Forward,
            cluster.clone(),
            format!("forward {instance}:{}", shown(&to)),
            operator.clone(),
            started_ms,
        );
        let (sender, stream) = mpsc::channel(EVENTS);
        let at = InstanceKey { cluster, instance };
        let call = ForwardCall {
            api: self.clone(),
            forward: Arc::new(Forward::new(at, operator, to)),
            job,
            began: Instant::now(),
            sender,
        };
        self.tasks.spawn(call.run());
        Ok(ReceiverStream::new(stream).boxed())
    }

    /// Whether the cluster's records may have a forward: a record has no answer that would say so.
    fn admit(&self, cluster: &ClusterName) -> Result<(), Status> {
        let level = self.engine.level(cluster);
        let addition = Addition::of_kind(JobKind::Forward);
        let refusal = addition.and_then(|it| it.refusal(level));
        refusal.map_or(Ok(()), |why| {
            Err(Status::failed_precondition(why.to_string()))
        })
    }
}

/// What a forward may lead to; whether the machine allows it, its agent says.
fn destination(to: v1::TunnelDestination) -> Result<v1::TunnelDestination, Status> {
    let is_port = (1..=u32::from(u16::MAX)).contains(&to.port);
    let is_host = to.host.len() <= MAX_HOST_BYTES && to.host.chars().all(|c| c.is_ascii_graphic());
    let is_path = to.path.starts_with('/')
        && to.path.len() <= MAX_SOCKET_PATH_BYTES
        && !to.path.contains(char::is_control);
    let fits = match to.path.is_empty() {
        true => is_port && is_host,
        false => is_path && to.port == 0 && to.host.is_empty(),
    };
    fits.then_some(to).ok_or_else(|| {
        Status::invalid_argument(format!(
            "a forward leads to a port from 1 to 65535, of the machine or of a host, or to an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"
        ))
    })
}

/// As it was typed.
fn shown(to: &v1::TunnelDestination) -> String {
    match (to.path.as_str(), to.host.as_str()) {
        ("", "") => to.port.to_string(),
        ("", host) if host.contains(':') => format!("[{host}]:{}", to.port),
        ("", host) => format!("{host}:{}", to.port),
        (path, _) => path.to_owned(),
    }
}

/// One forward.
struct ForwardCall {
    api: OperatorApi,
    forward: Arc<Forward>,
    job: Job,
    began: Instant,
    sender: mpsc::Sender<Result<v1::ForwardEvent, Status>>,
}

impl ForwardCall {
    async fn run(mut self) {
        self.record(None).await;
        let at = self.forward.at.clone();
        tracing::info!(job = %self.job.id, instance = %at, operator = self.job.operator, to = shown(&self.forward.to), "a forward begins");
        let (listener, mut updates) = mpsc::channel(updates_queue(1));
        let (cluster, job) = (at.cluster.clone(), self.job.id);
        // No answer: the master is stopping.
        let _ = self
            .api
            .engine
            .follow(Input::Follow { cluster, job }, listener)
            .await;
        let open = self.api.forwards.open(job, Arc::clone(&self.forward));
        let started = v1::ForwardStarted {
            job_id: self.job.id.to_string(),
            instance: at.instance.to_string(),
            cluster: at.cluster.to_string(),
        };
        // An operator who is gone is seen right after.
        let _ = self
            .sender
            .send(event(forward_event::Body::Started(started)))
            .await;
        let lost = |why| Verdict::without_run(Outcome::LostContact, why);
        let verdict = tokio::select! {
            () = self.sender.closed() => Verdict::without_run(Outcome::Succeeded, ""),
            verdict = ended_by_another(&mut updates) => verdict,
            () = self.api.stop.cancelled() => lost("the master was stopped"),
        };
        drop(open);
        // What is not counted by then is left out of the record.
        let _ = tokio::time::timeout(COUNTED, self.forward.emptied()).await;
        self.end(verdict).await;
    }

    async fn end(mut self, verdict: Verdict) {
        let summary = self.forward.summary();
        let detail = match verdict.detail.as_str() {
            "" => summary,
            why => format!("{why}; {summary}"),
        };
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = Verdict {
            ms,
            detail,
            ..verdict
        };
        tracing::info!(job = %self.job.id, instance = %self.forward.at, outcome = verdict.outcome.as_str(), ms, detail = verdict.detail, "a forward has ended");
        // On record before it is sent: `jobs` right after it shows it ended.
        self.record(Some(verdict.clone())).await;
        let last = if self.api.stop.is_cancelled() {
            Err(stopping())
        } else {
            event(forward_event::Body::Ended(v1::ForwardEnded {
                outcome: v1::Outcome::from(verdict.outcome).into(),
                detail: verdict.detail,
            }))
        };
        let _ = self.sender.send(last).await; // whether or not the operator is still there
    }

    async fn record(&mut self, verdict: Option<Verdict>) {
        let instance = self.forward.at.instance.clone();
        self.job.targets = [(instance, verdict)].into();
        let record = Input::Record(Box::new(self.job.clone()));
        // It is on disk when this returns, unless the master stops or its store is away.
        self.api.engine.record(record).await;
    }
}

/// The end that somebody else gave this job: `jobs cancel`, a revocation, another master that has the cluster now.
async fn ended_by_another(updates: &mut mpsc::Receiver<JobUpdate>) -> Verdict {
    while let Some(update) = updates.recv().await {
        if let JobUpdate::Ended(_, verdict) = update {
            return verdict;
        }
    }
    let why = "the cluster is with this master no more; begin another with `aot-master forward`";
    Verdict::without_run(Outcome::LostContact, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: &str, port: u32, path: &str) -> v1::TunnelDestination {
        v1::TunnelDestination {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }
    }

    #[test]
    fn only_what_can_be_connected_to_is_taken_and_shown_as_it_is_typed() {
        for (good, text) in [
            (to("", 22, ""), "22"),
            (to("db.internal", 5432, ""), "db.internal:5432"),
            (to("fd00::1", 80, ""), "[fd00::1]:80"),
            (to("", 0, "/run/docker.sock"), "/run/docker.sock"),
        ] {
            assert_eq!(shown(&good), text);
            assert!(destination(good).is_ok(), "{text}");
        }
        for bad in [
            to("", 0, ""),
            to("", 65536, ""),
            to("a b", 80, ""),
            to("a\nb", 80, ""),
            to(&"a".repeat(254), 80, ""),
            to("", 0, "run/x"),
            to("", 80, "/run/x"),
            to("db", 0, "/run/x"),
            to("", 0, "/run/\u{1b}x"),
            to("", 0, &format!("/{}", "x".repeat(MAX_SOCKET_PATH_BYTES))),
        ] {
            let refused = destination(bad.clone()).expect_err(&format!("{bad:?}"));
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn a_forward_whose_cluster_goes_to_another_master_ends() {
        let (sender, mut updates) = mpsc::channel(1);
        drop(sender);
        let verdict = ended_by_another(&mut updates).await;
        assert_eq!(verdict.outcome, Outcome::LostContact);
    }
}
