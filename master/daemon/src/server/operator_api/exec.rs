//! Commands over many instances.

use std::collections::BTreeMap;

use aot_model::job::{Job, JobKind};
use aot_model::pace::Pace;
use aot_model::task::{Exec, Task};
use aot_model::world::{Answer, ExecAsk, Input};
use aot_proto::v1::{self, job_event};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::follow::{EVENTS, Follow, JobEvents, event, started};
use super::paced::paced;
use super::select::Selection;
use super::{OperatorApi, not_empty, refused, unanswered};
use crate::run::{now_ms, updates_queue};

/// Largest standard input.
const MAX_STDIN_BYTES: usize = 1 << 20;

impl OperatorApi {
    pub(super) async fn do_exec(
        &self,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<JobEvents, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let names = self.targets(&cluster, &request)?;
        if request.builtin != 0 {
            return self.builtin(cluster, names, request, operator).await;
        }
        if request.argv.first().is_none_or(String::is_empty) {
            return Err(Status::invalid_argument("no command was given"));
        }
        if request.stdin.len() > MAX_STDIN_BYTES {
            return Err(Status::invalid_argument(
                "more than 1 MiB of standard input; use `cp` for files",
            ));
        }
        let cwd = not_empty("--cwd", request.cwd.as_deref())?;
        let user = not_empty("--user", request.user.as_deref())?;
        let target = Selection::from(&request).to_string();
        let pace = Pace::resolve(&request.pace.unwrap_or_default(), names.len())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let what = format!("exec {target} -- {}", request.argv.join(" "));
        let exec = Exec {
            argv: request.argv,
            env: request.env.into_iter().collect(),
            cwd: cwd.unwrap_or_default().to_owned(),
            user: user.unwrap_or_default().to_owned(),
            stdin: request.stdin,
            timeout_ms: request.timeout_ms,
            output_cap_bytes: request.output_cap_bytes,
        };
        let ask = ExecAsk {
            cluster,
            instances: names,
            kind: JobKind::Exec,
            task: Task::Command(exec),
            pace,
            queue_ms: request.queue_ms,
            what,
            operator,
        };
        self.start_and_follow(ask, request.detach).await
    }

    /// Begins a job; its events until its end, or only the first when it is to continue by itself.
    pub(super) async fn start_and_follow(
        &self,
        ask: ExecAsk,
        detach: bool,
    ) -> Result<JobEvents, Status> {
        self.has_room()?;
        let names = ask.instances.clone();
        let (kind, cluster) = (ask.kind, ask.cluster.clone());
        let (what, operator) = (ask.what.clone(), ask.operator.clone());
        let (listener, updates) = mpsc::channel(updates_queue(names.len()));
        let answer = self.engine.follow(Input::Exec(ask), listener).await;
        let id = match answer.map_err(unanswered)? {
            Answer::Exec { job, .. } => job,
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("unexpected reply from the engine")),
        };
        let (sender, stream) = mpsc::channel(EVENTS);
        let first = started(
            &Job::new(id, kind, cluster, what, operator, now_ms()),
            &names,
        );
        let _ = sender.try_send(event(job_event::Body::Started(first))); // the channel is empty
        if !detach {
            let open = names.into_iter().collect();
            let follow = Follow::new(id, sender, true, open, BTreeMap::new());
            self.tasks.spawn(follow.run(updates, self.stop.clone()));
        }
        Ok(paced(ReceiverStream::new(stream)).boxed())
    }
}
