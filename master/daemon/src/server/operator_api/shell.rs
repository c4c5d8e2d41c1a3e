//! Terminals: asks one agent to open one, splices the operator's stream and the agent's, and keeps the record of it.

use std::pin::Pin;
use std::time::{Duration, Instant};

use aot_model::job::{Job, JobKind};
use aot_model::key::InstanceKey;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::world::Input;
use aot_proto::ids::{InstanceName, JobId};
use aot_proto::v1::{self, master_message, shell_down, shell_input, shell_output, shell_up};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{OperatorApi, not_empty, stopping};
use crate::run::{JobUpdate, now_ms, updates_queue};
use crate::server::pending::{ShellLink, Wait};
use crate::session::registry::SessionCommand;
use crate::session::wall;

/// How long an agent may take to open a terminal.
const OPEN: Duration = Duration::from_secs(10);

/// How long an operator's first message may take.
const FIRST: Duration = Duration::from_secs(10);

/// Messages that may wait in each direction, past HTTP/2's own windows. When full, the other side is not read.
const QUEUE: usize = 8;

/// Names that an error lists.
const MOST_NAMES: usize = 20;

/// What lost contact means for what ran there.
const HUNG_UP: &str = "what ran in the terminal is hung up there: SIGHUP, after 5 s SIGKILL";

pub(super) type ShellEvents = Pin<Box<dyn Stream<Item = Result<v1::ShellOutput, Status>> + Send>>;
type ShellSender = mpsc::Sender<Result<v1::ShellOutput, Status>>;

fn output(body: shell_output::Body) -> Result<v1::ShellOutput, Status> {
    Ok(v1::ShellOutput { body: Some(body) })
}

impl OperatorApi {
    pub(super) async fn do_shell(
        &self,
        mut input: Streaming<v1::ShellInput>,
        operator: String,
    ) -> Result<ShellEvents, Status> {
        let open = first(&mut input).await?;
        let cluster = self.cluster(open.cluster.as_deref())?;
        not_empty("--user", open.user.as_deref())?;
        let names = self.targets(&cluster, &open.instance)?;
        let instance = only("a terminal", &open.instance, &names)?;
        let started_ms = now_ms();
        let job = Job::new(
            JobId::from_parts(started_ms, random()? >> 48),
            JobKind::Shell,
            cluster.clone(),
            what(&open),
            operator,
            started_ms,
        );
        let (sender, stream) = mpsc::channel(QUEUE);
        let shell = ShellCall {
            api: self.clone(),
            at: InstanceKey { cluster, instance },
            job,
            began: Instant::now(),
            input,
            sender,
        };
        let shell_id = format!("{:032x}", random()?);
        self.tasks.spawn(shell.run(open, shell_id));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

async fn first(input: &mut Streaming<v1::ShellInput>) -> Result<v1::ShellOpen, Status> {
    let first = timeout(FIRST, input.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no terminal was requested in 10 s"))??;
    match first.and_then(|first| first.body) {
        Some(shell_input::Body::Open(open)) => Ok(open),
        _ => Err(Status::invalid_argument(
            "the first message must request a terminal",
        )),
    }
}

/// The one instance of a target, which `what` is for.
pub(super) fn only(
    what: &str,
    target: &str,
    names: &[InstanceName],
) -> Result<InstanceName, Status> {
    if let [only] = names {
        return Ok(only.clone());
    }
    let mut list: Vec<&str> = names.iter().take(MOST_NAMES).map(|n| n.as_str()).collect();
    if names.len() > MOST_NAMES {
        list.push("...");
    }
    Err(Status::invalid_argument(format!(
        "{what} is for one instance, and {target:?} selects {}: {}",
        names.len(),
        list.join(", ")
    )))
}

/// As typed, more or less.
fn what(open: &v1::ShellOpen) -> String {
    let mut what = format!("shell {}", open.instance);
    if let Some(user) = &open.user {
        what.push_str(&format!(" --user {user}"));
    }
    if !open.argv.is_empty() {
        what.push_str(&format!(" -- {}", open.argv.join(" ")));
    }
    what
}

pub(super) fn random() -> Result<u128, Status> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Status::internal("the system has no random bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

fn verdict(end: &v1::ShellEnd) -> Verdict {
    let bare = |outcome, detail: &str| Verdict::without_run(outcome, detail);
    match (end.exit_code, end.signal) {
        (Some(0), _) => Verdict {
            exit_code: Some(0),
            ..bare(Outcome::Succeeded, &end.detail)
        },
        (Some(code), _) => Verdict {
            exit_code: Some(code),
            ..bare(Outcome::Failed, &end.detail)
        },
        (None, 0) => bare(Outcome::Rejected, &end.detail),
        (None, signal) => {
            let why = match end.detail.as_str() {
                "" => format!("ended by signal {signal}"),
                detail => format!("ended by signal {signal}: {detail}"),
            };
            Verdict {
                // As shells say it.
                exit_code: Some(128_i32.saturating_add(signal)),
                ..bare(Outcome::Failed, &why)
            }
        }
    }
}

/// One terminal.
struct ShellCall {
    api: OperatorApi,
    at: InstanceKey,
    job: Job,
    began: Instant,
    input: Streaming<v1::ShellInput>,
    sender: ShellSender,
}

impl ShellCall {
    async fn run(mut self, open: v1::ShellOpen, shell_id: String) {
        self.record(None).await;
        tracing::info!(job = %self.job.id, instance = %self.at, operator = self.job.operator, "a terminal was requested");
        let (listener, mut updates) = mpsc::channel(updates_queue(1));
        let (cluster, job) = (self.at.cluster.clone(), self.job.id);
        // No answer: the master is stopping.
        let _ = self
            .api
            .engine
            .follow(Input::Follow { cluster, job }, listener)
            .await;
        let link = self.link(open, shell_id).await;
        let started = v1::ShellStarted {
            job_id: self.job.id.to_string(),
            instance: self.at.instance.to_string(),
        };
        // An operator who is gone is seen by the splice.
        let _ = self
            .sender
            .send(output(shell_output::Body::Started(started)))
            .await;
        let verdict = match link {
            Ok(link) => {
                let (input, sender, stop) = (&mut self.input, &self.sender, &self.api.stop);
                tokio::select! {
                    verdict = splice(input, sender, link, stop) => verdict,
                    verdict = cancelled(&mut updates) => verdict,
                }
            }
            Err(verdict) => verdict,
        };
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = Verdict { ms, ..verdict };
        tracing::info!(job = %self.job.id, instance = %self.at, outcome = verdict.outcome.as_str(), ms, "a terminal has ended");
        // On record before it is sent: `jobs` right after it shows it ended.
        self.record(Some(verdict.clone())).await;
        let last = if self.api.stop.is_cancelled() {
            Err(stopping())
        } else {
            output(shell_output::Body::Ended(v1::ShellEnded {
                outcome: v1::Outcome::from(verdict.outcome).into(),
                exit_code: verdict.exit_code,
                detail: verdict.detail,
            }))
        };
        let _ = self.sender.send(last).await; // whether or not the operator is still there
    }

    async fn record(&mut self, verdict: Option<Verdict>) {
        self.job.targets = [(self.at.instance.clone(), verdict)].into();
        let record = Input::Record(Box::new(self.job.clone()));
        // It is on disk when this returns, unless the master stops or its store is away.
        self.api.engine.record(record).await;
    }

    /// The agent's link, or how it ends without one.
    async fn link(&mut self, open: v1::ShellOpen, shell_id: String) -> Result<ShellLink, Verdict> {
        let without = Verdict::without_run;
        let deadline = self.began + OPEN;
        let full = || without(Outcome::Rejected, "too many terminals are being opened");
        // Nobody is asked before somebody waits.
        let mut wait = self
            .api
            .shells
            .expect(&shell_id, &self.at)
            .ok_or_else(full)?;
        self.api.wait_for_return(&self.at, deadline).await;
        let message = v1::OpenShell {
            shell_id,
            user: open.user.unwrap_or_default(),
            term: open.term,
            columns: open.columns,
            rows: open.rows,
            argv: open.argv,
            env: std::collections::HashMap::new(),
            job_id: self.job.id.to_string(),
        };
        let command = SessionCommand::Send(Box::new(master_message::Body::OpenShell(message)));
        if self.api.registry.send_any(&self.at, command).is_none() {
            return Err(without(Outcome::Absent, "its agent is not connected"));
        }
        self.await_link(&mut wait, deadline).await
    }

    async fn await_link(
        &mut self,
        wait: &mut Wait<ShellLink>,
        deadline: Instant,
    ) -> Result<ShellLink, Verdict> {
        let without = Verdict::without_run;
        tokio::select! {
            link = tokio::time::timeout_at(deadline.into(), wait.link()) => match link {
                Ok(Some(link)) => Ok(link),
                _ => Err(without(Outcome::Rejected, "its agent did not open a terminal in 10 s")),
            },
            () = self.sender.closed() => Err(without(Outcome::Cancelled, "the operator went away")),
            () = self.api.stop.cancelled() => Err(without(Outcome::Cancelled, "the master was stopped")),
        }
    }
}

/// The end that somebody else gave this job: `jobs cancel`.
pub(super) async fn cancelled(updates: &mut mpsc::Receiver<JobUpdate>) -> Verdict {
    while let Some(update) = updates.recv().await {
        if let JobUpdate::Ended(_, verdict) = update {
            return verdict;
        }
    }
    std::future::pending().await
}

/// Copies both ways until either end is gone; dropping the link hangs up.
async fn splice(
    input: &mut Streaming<v1::ShellInput>,
    sender: &ShellSender,
    link: ShellLink,
    stop: &CancellationToken,
) -> Verdict {
    let ShellLink { mut up, down, over } = link;
    let gone = || Verdict::without_run(Outcome::Cancelled, "the operator went away");
    let lost = |why| Verdict::without_run(Outcome::LostContact, format!("{why}; {HUNG_UP}"));
    tokio::select! {
        end = shown(&mut up, sender) => match end {
            Some(end) => verdict(&end),
            None => lost("the connection to its agent broke"),
        },
        () = typed(input, &down) => gone(),
        () = sender.closed() => gone(),
        () = over.cancelled() => lost("its identity was revoked"),
        () = stop.cancelled() => lost("the master was stopped"),
    }
}

/// Passes on what the terminal shows, until its end; `None` when the agent is gone and said nothing.
async fn shown(up: &mut Streaming<v1::ShellUp>, sender: &ShellSender) -> Option<v1::ShellEnd> {
    while let Ok(Some(up)) = up.message().await {
        let Ok(v1::ShellUp { body }) = wall::admit_shell(up) else {
            return None;
        };
        match body {
            Some(shell_up::Body::Data(data)) => {
                // An operator who is gone is the end that `splice` sees.
                let _ = sender.send(output(shell_output::Body::Data(data))).await;
            }
            Some(shell_up::Body::End(end)) => return Some(end),
            Some(shell_up::Body::Hello(_)) | None => {}
        }
    }
    None
}

/// Passes on what the operator types, until there is no more of either side.
async fn typed(
    input: &mut Streaming<v1::ShellInput>,
    down: &mpsc::Sender<Result<v1::ShellDown, Status>>,
) {
    while let Ok(Some(v1::ShellInput { body })) = input.message().await {
        let body = match body {
            Some(shell_input::Body::Data(data)) => shell_down::Body::Data(data),
            Some(shell_input::Body::Resize(size)) => shell_down::Body::Resize(v1::TerminalSize {
                columns: size.columns,
                rows: size.rows,
            }),
            Some(shell_input::Body::Open(_)) | None => continue,
        };
        let message = v1::ShellDown { body: Some(body) };
        if down.send(Ok(message)).await.is_err() {
            // The agent's last message, or its loss, is on its way.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit_code: Option<i32>, signal: i32, detail: &str) -> v1::ShellEnd {
        v1::ShellEnd {
            exit_code,
            signal,
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn every_end_has_its_verdict() {
        let table = [
            (end(Some(0), 0, ""), Outcome::Succeeded, Some(0), ""),
            (end(Some(7), 0, ""), Outcome::Failed, Some(7), ""),
            (
                end(None, 9, ""),
                Outcome::Failed,
                Some(137),
                "ended by signal 9",
            ),
            (
                end(None, 1, "the agent was stopped"),
                Outcome::Failed,
                Some(129),
                "ended by signal 1: the agent was stopped",
            ),
            (
                end(None, 0, "no user x"),
                Outcome::Rejected,
                None,
                "no user x",
            ),
        ];
        for (end, outcome, code, detail) in table {
            let verdict = verdict(&end);
            assert_eq!(
                (verdict.outcome, verdict.exit_code, verdict.detail.as_str()),
                (outcome, code, detail)
            );
        }
    }

    #[test]
    fn a_target_that_means_many_is_told_what_it_means() {
        let names: Vec<InstanceName> = (1..=30)
            .map(|n| format!("web{n}").parse().expect("a name"))
            .collect();
        assert_eq!(only("it", "web1", &names[..1]).expect("one"), names[0]);
        let two = only("it", "web*", &names[..2]).expect_err("two");
        assert_eq!(two.code(), tonic::Code::InvalidArgument);
        assert!(two.message().ends_with("selects 2: web1, web2"), "{two}");
        let many = only("it", "web*", &names).expect_err("many");
        assert!(many.message().ends_with("web20, ..."), "{many}");
    }

    #[test]
    fn a_record_says_what_was_asked() {
        let mut open = v1::ShellOpen {
            instance: "web1".to_owned(),
            ..v1::ShellOpen::default()
        };
        assert_eq!(what(&open), "shell web1");
        open.user = Some("admin".to_owned());
        open.argv = vec!["htop".to_owned(), "-d".to_owned()];
        assert_eq!(what(&open), "shell web1 --user admin -- htop -d");
    }
}
