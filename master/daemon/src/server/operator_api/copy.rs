//! Files to and from many: takes what is to go out, and begins the job.

use aot_model::job::JobKind;
use aot_model::pace::Pace;
use aot_model::task::{CopyIn, Task};
use aot_model::world::ExecAsk;
use aot_proto::ids::JobId;
use aot_proto::v1::{self, copy_request::Way, job_event};
use futures::StreamExt;
use tokio::sync::broadcast;
use tonic::{Status, Streaming};

use super::follow::{JobEvents, event};
use super::{OperatorApi, unput};
use crate::server::transfers::Copied;

/// Of an archive that was removed.
const NOT_HERE: &str = "the master no longer has the files: copy them again";

impl OperatorApi {
    pub(super) async fn do_upload(
        &self,
        pieces: Streaming<v1::UploadChunk>,
    ) -> Result<v1::UploadReply, Status> {
        self.transfers.receive(pieces).await
    }

    pub(super) async fn do_copy(
        &self,
        request: v1::CopyRequest,
        operator: String,
    ) -> Result<JobEvents, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instances = self.targets(&cluster, &request)?;
        let task = match request.way {
            Some(Way::In(copy)) => self.copy_in(copy).await?,
            Some(Way::Out(copy)) => copy_out(copy)?,
            None => return Err(Status::invalid_argument("a copy of nothing")),
        };
        let pace = Pace::resolve(&request.pace.unwrap_or_default(), instances.len())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ask = ExecAsk {
            cluster,
            instances,
            kind: JobKind::Copy,
            task,
            pace,
            queue_ms: 0,
            what: request.what,
            operator,
            request: None,
        };
        // Before the job begins: a quick agent may be done before the first event is read.
        let progress = self.transfers.subscribe();
        let events = self.start_and_follow(ask, false).await?;
        Ok(with_progress(events, progress))
    }

    /// Whether a job with this task can be begun once more, as far as files are concerned.
    pub(super) fn can_copy_again(&self, task: &Task) -> Result<(), Status> {
        match task {
            Task::Command(_) => Ok(()),
            Task::CopyIn(copy) if self.transfers.has(&copy.sha256) => Ok(()),
            Task::CopyIn(_) => Err(Status::failed_precondition(NOT_HERE)),
            Task::CopyOut(_) => Err(Status::failed_precondition(
                "nothing receives what the instances send: run aot-master cp again",
            )),
        }
    }

    /// The archive must be here already.
    async fn copy_in(&self, copy: v1::CopyIn) -> Result<Task, Status> {
        absolute(&copy.path)?;
        let path = self.transfers.path(&copy.sha256);
        let path = path.ok_or_else(|| Status::invalid_argument("no SHA-256 in hex"))?;
        let brought = self.uploads.bring(&copy.sha256).await;
        brought.map_err(|error| unput(&error))?;
        let here = tokio::fs::metadata(path)
            .await
            .map_err(|_| Status::failed_precondition(NOT_HERE))?;
        if here.len() != copy.bytes {
            return Err(Status::invalid_argument(format!(
                "the upload has {} bytes, not {}",
                here.len(),
                copy.bytes
            )));
        }
        let put = self.uploads.put(&copy.sha256).await;
        put.map_err(|error| unput(&error))?;
        Ok(Task::CopyIn(CopyIn {
            sha256: copy.sha256,
            bytes: copy.bytes,
            path: copy.path,
            into: copy.into,
            names: copy.names,
        }))
    }
}

fn copy_out(copy: v1::CopyOut) -> Result<Task, Status> {
    if copy.paths.is_empty() {
        return Err(Status::invalid_argument("a copy of nothing"));
    }
    copy.paths.iter().try_for_each(|path| absolute(path))?;
    Ok(Task::CopyOut(copy.paths))
}

fn absolute(path: &str) -> Result<(), Status> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "{path:?} is not an absolute path"
    )))
}

/// What is reported beside a job's events until they end.
struct CopyUpdates {
    events: JobEvents,
    progress: broadcast::Receiver<Copied>,
    job: Option<JobId>,
}

/// The job's events, with progress between them. A follower that is slow misses some of it, and nothing else.
fn with_progress(events: JobEvents, progress: broadcast::Receiver<Copied>) -> JobEvents {
    let beside = CopyUpdates {
        events,
        progress,
        job: None,
    };
    futures::stream::unfold(beside, |mut beside| async move {
        beside.next().await.map(|event| (event, beside))
    })
    .boxed()
}

impl CopyUpdates {
    async fn next(&mut self) -> Option<Result<v1::JobEvent, Status>> {
        loop {
            let copied = tokio::select! {
                next = self.events.next() => {
                    let next = next?;
                    if let Ok(v1::JobEvent { body: Some(job_event::Body::Started(started)) }) = &next {
                        self.job = started.job_id.parse().ok();
                    }
                    return Some(next);
                }
                copied = self.progress.recv(), if self.job.is_some() => copied,
            };
            match copied {
                Ok(copied) if Some(copied.job) == self.job => {
                    return Some(event(job_event::Body::Progress(v1::JobProgress {
                        instance: copied.instance.to_string(),
                        bytes: copied.bytes,
                        total_bytes: copied.total,
                    })));
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The master holds the other end as long as it serves.
                Err(broadcast::error::RecvError::Closed) => return self.events.next().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_are_taken() {
        assert!(absolute("/opt/x").is_ok());
        for bad in ["", "opt", "~/x", "/a\0b"] {
            assert!(absolute(bad).is_err(), "{bad:?}");
        }
        assert!(copy_out(v1::CopyOut { paths: Vec::new() }).is_err());
    }

    #[tokio::test]
    async fn progress_of_this_job_alone_is_passed_on() {
        let (job, other) = (JobId::from_parts(1, 1), JobId::from_parts(2, 2));
        let (sent, progress) = broadcast::channel(4);
        let copied = |job, bytes| Copied {
            job,
            instance: "web1".parse().expect("a name"),
            bytes,
            total: 9,
        };
        for (job, bytes) in [(other, 1), (job, 2)] {
            sent.send(copied(job, bytes)).expect("is followed");
        }
        let (sender, events) = tokio::sync::mpsc::channel(4);
        let started = v1::JobStarted {
            job_id: job.to_string(),
            ..v1::JobStarted::default()
        };
        let first = event(job_event::Body::Started(started));
        sender.send(first).await.expect("is open");
        let events = tokio_stream::wrappers::ReceiverStream::new(events).boxed();
        let mut events = with_progress(events, progress);
        let mut next = async || events.next().await.and_then(|event| event.ok()?.body);
        assert!(matches!(next().await, Some(job_event::Body::Started(_))));
        match next().await {
            Some(job_event::Body::Progress(progress)) => assert_eq!(progress.bytes, 2),
            other => panic!("{other:?}"),
        }
        drop(sender);
        assert!(next().await.is_none(), "it ends with the job's events");
    }
}
