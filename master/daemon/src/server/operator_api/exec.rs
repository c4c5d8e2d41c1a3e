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
use super::lacks::Lacks;
use super::paced::paced;
use super::request::Wanted;
use super::select::Selection;
use super::{Asker, OperatorApi, not_empty, refused, unanswered};
use crate::run::{now_ms, updates_queue};

/// Largest standard input.
const MAX_STDIN_BYTES: usize = 1 << 20;

/// Longest command with its environment: with standard input and secrets it is still one message to an agent, which takes 4 MiB.
const MAX_WORDS_BYTES: usize = 3 << 19;

/// Bytes of a command and its environment, as they go to an agent.
fn words_bytes(request: &v1::ExecRequest) -> usize {
    let words = request.argv.iter().map(|word| word.len() + 8);
    let env = request.env.iter();
    let env = env.map(|(name, value)| name.len() + value.len() + 16);
    words.chain(env).sum()
}

impl OperatorApi {
    pub(super) async fn do_exec(
        &self,
        request: v1::ExecRequest,
        asker: Asker,
    ) -> Result<JobEvents, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let names = self.targets(&cluster, &request)?;
        if request.builtin != 0 && !request.secrets.is_empty() {
            return Err(Status::invalid_argument(
                "--secret is for commands: what agents answer by themselves is given none",
            ));
        }
        if request.builtin != 0 {
            return self.builtin(cluster, names, request, asker.operator).await;
        }
        if request.argv.first().is_none_or(String::is_empty) {
            return Err(Status::invalid_argument("no command was given"));
        }
        if request.stdin.len() > MAX_STDIN_BYTES {
            return Err(Status::invalid_argument(
                "more than 1 MiB of standard input; use `cp` for files",
            ));
        }
        if words_bytes(&request) > MAX_WORDS_BYTES {
            return Err(Status::invalid_argument(
                "the command and its environment have more than 1.5 MiB: put them into a file (`aot-master cp`), or on its standard input",
            ));
        }
        let cwd = not_empty("--cwd", request.cwd.as_deref())?;
        let user = not_empty("--user", request.user.as_deref())?;
        let target = Selection::from(&request).to_string();
        let pace = Pace::resolve(&request.pace.unwrap_or_default(), names.len())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let what = format!("exec {target} -- {}", in_words(&request.argv));
        let secrets = self.secrets_given(&cluster, &request.secrets, &request.env)?;
        let exec = Exec {
            argv: request.argv,
            env: request.env.into_iter().collect(),
            cwd: cwd.unwrap_or_default().to_owned(),
            user: user.unwrap_or_default().to_owned(),
            stdin: request.stdin,
            timeout_ms: request.timeout_ms,
            output_cap_bytes: request.output_cap_bytes,
            secrets,
        };
        let ask = ExecAsk {
            cluster,
            instances: names,
            kind: JobKind::Exec,
            task: Task::Command(exec),
            pace,
            queue_ms: request.queue_ms,
            what,
            operator: asker.operator,
            request: asker.request,
        };
        self.start_and_follow(ask, request.detach).await
    }

    /// Begins a job, or joins the one that this very request has begun before; its events until its end, or only the first when it
    /// is to continue by itself.
    pub(super) async fn start_and_follow(
        &self,
        ask: ExecAsk,
        detach: bool,
    ) -> Result<JobEvents, Status> {
        if let Some(job) = self.begun(ask.request, &Wanted::from(&ask)).await? {
            return self.join(&job, detach).await;
        }
        self.has_room()?;
        let names = ask.instances.clone();
        let (kind, cluster, task) = (ask.kind, ask.cluster.clone(), ask.task.clone());
        let (what, operator) = (ask.what.clone(), ask.operator.clone());
        let (listener, updates) = mpsc::channel(updates_queue(names.len()));
        let answer = self.engine.follow(Input::Exec(ask), listener).await;
        let id = match answer.map_err(unanswered)? {
            Answer::Exec { job, .. } => job,
            Answer::Begun(id) => {
                let wanted = Wanted {
                    kind,
                    cluster: &cluster,
                    what: &what,
                    operator: &operator,
                    task: Some(&task),
                };
                let job = self.begun_already(id, &wanted).await?;
                return self.join(&job, detach).await;
            }
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
            let (outcomes, lacks) = (BTreeMap::new(), Lacks::default());
            let follow = Follow::new(id, sender, true, open, outcomes, lacks);
            self.tasks.spawn(follow.run(updates, self.stop.clone()));
        }
        Ok(paced(ReceiverStream::new(stream)).boxed())
    }

    /// The events of a job that has begun, as they would have come to whoever began it.
    async fn join(&self, job: &Job, detach: bool) -> Result<JobEvents, Status> {
        let request = v1::FollowRequest {
            job_id: job.id.to_string(),
            live: true,
            output: true,
        };
        let events = self.do_follow(request).await?;
        match detach {
            true => Ok(events.take(1).boxed()),
            false => Ok(events),
        }
    }
}

/// A command as a shell reads it: what is on record can be typed again.
fn in_words(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_on_record_can_be_typed_again() {
        let argv = ["sh", "-c", "echo hi; it's", ""].map(str::to_owned);
        assert_eq!(in_words(&argv), r"sh -c 'echo hi; it'\''s' ''");
    }
}
