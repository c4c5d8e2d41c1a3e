//! Commands over many instances.

use std::collections::BTreeMap;

use aot_proto::v1::{self, exec_event};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::follow::{EVENTS, ExecEvents, Follow, event, started};
use super::select::Selection;
use super::{OperatorApi, refused, stopping};
use crate::model::job::{Exec, Job, JobKind, Task};
use crate::model::pace::Pace;
use crate::model::world::{Answer, ExecAsk, Input};
use crate::run::{news_of, now_ms};

/// Largest standard input.
const MAX_STDIN_BYTES: usize = 1 << 20;

impl OperatorApi {
    pub(super) async fn do_exec(
        &self,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let names = self.targets(&cluster, &request)?;
        if !request.builtin.is_empty() {
            return self.builtin(cluster, names, request, operator).await;
        }
        if request.argv.is_empty() {
            return Err(Status::invalid_argument("no command was given"));
        }
        if request.stdin.len() > MAX_STDIN_BYTES {
            return Err(Status::invalid_argument(
                "standard input of more than 1 MiB; use `cp` for files",
            ));
        }
        let target = Selection::from(&request).to_string();
        let pace = Pace::resolve(&request.pace.unwrap_or_default(), names.len())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let what = format!("exec {target} -- {}", request.argv.join(" "));
        let exec = Exec {
            argv: request.argv,
            env: request.env.into_iter().collect(),
            cwd: request.cwd,
            user: request.user,
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

    /// Begins a job; its events until its end, or only the first when it is to go on by itself.
    pub(super) async fn start_and_follow(
        &self,
        ask: ExecAsk,
        detach: bool,
    ) -> Result<ExecEvents, Status> {
        let names = ask.instances.clone();
        let (kind, cluster) = (ask.kind, ask.cluster.clone());
        let (what, operator) = (ask.what.clone(), ask.operator.clone());
        let (told, news) = mpsc::channel(news_of(names.len()));
        let answer = self.engine.follow(Input::Exec(ask), told).await;
        let id = match answer.ok_or_else(stopping)? {
            Answer::Exec { job, .. } => job,
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("an answer to another question")),
        };
        let (sender, stream) = mpsc::channel(EVENTS);
        let first = started(
            &Job::new(id, kind, cluster, what, operator, now_ms()),
            &names,
        );
        let _ = sender.try_send(event(exec_event::Body::Started(first))); // the channel is empty
        if !detach {
            let open = names.into_iter().collect();
            let follow = Follow::new(id, sender, true, open, BTreeMap::new());
            self.tasks.spawn(follow.run(news, self.stop.clone()));
        }
        Ok(ReceiverStream::new(stream).boxed())
    }
}
