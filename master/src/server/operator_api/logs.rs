//! Output of stages, live or recorded.

use std::pin::Pin;

use aot_proto::v1::{self, frame::Body};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::OperatorApi;
use crate::model::cluster::Key;
use crate::model::job::{Run, RunKind, Verdict};

/// Lines that may wait for one reader. When full, reading waits.
const LINES: usize = 64;

type Lines = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;
type Sender = mpsc::Sender<Result<v1::LogLine, Status>>;

impl OperatorApi {
    pub(super) fn do_logs(&self, request: &v1::LogsRequest) -> Result<Lines, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let names = self.targets(&cluster, request)?;
        let stage = request.has_stage.then_some(request.stage as usize);
        let (sender, stream) = mpsc::channel(LINES);
        if request.follow {
            for name in names {
                let at = Key {
                    cluster: cluster.clone(),
                    instance: name,
                };
                self.tasks
                    .spawn(follow(self.clone(), at, stage, sender.clone()));
            }
        } else {
            let api = self.clone();
            let all: Vec<Key> = names
                .into_iter()
                .map(|instance| Key {
                    cluster: cluster.clone(),
                    instance,
                })
                .collect();
            self.tasks.spawn(async move {
                for at in all {
                    if !recorded(&api, &at, stage, &sender).await {
                        return;
                    }
                }
            });
        }
        Ok(ReceiverStream::new(stream).boxed())
    }
}

fn runs(api: &OperatorApi, at: &Key, stage: Option<usize>) -> Vec<Run> {
    let all = api.store.stage_runs(at).unwrap_or_else(|error| {
        tracing::error!(instance = %at, %error, "cannot read the runs of an instance");
        Vec::new()
    });
    let wanted = |run: &Run| matches!(run.what, RunKind::Stage { index, .. } if stage.is_none_or(|s| s == index));
    all.into_iter().filter(wanted).collect()
}

/// All that is on record, the newest attempt of each stage last. `false` when nobody reads any more.
async fn recorded(api: &OperatorApi, at: &Key, stage: Option<usize>, sender: &Sender) -> bool {
    for run in runs(api, at, stage) {
        if !one(api, &run, false, sender).await {
            return false;
        }
    }
    true
}

/// What is on record, then what comes, until nobody reads any more or the master stops.
async fn follow(api: OperatorApi, at: Key, stage: Option<usize>, sender: Sender) {
    let mut told = api.engine.watch();
    let mut seen = std::collections::BTreeSet::new();
    loop {
        for run in runs(&api, &at, stage) {
            if seen.insert(run.id) && !one(&api, &run, true, &sender).await {
                return;
            }
        }
        // A new run is told as an event of this instance; anything else is passed over.
        loop {
            tokio::select! {
                event = told.recv() => match event {
                    Ok(told) if told.event.instance != at.instance.as_str() => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                    _ => break,
                },
                () = sender.closed() => return,
                () = api.stop.cancelled() => return,
            }
        }
    }
}

/// The output of one run. `false` when nobody reads any more.
async fn one(api: &OperatorApi, run: &Run, live: bool, sender: &Sender) -> bool {
    let RunKind::Stage { index, attempt } = run.what else {
        return true;
    };
    let line = v1::LogLine {
        instance: run.at.instance.to_string(),
        stage: u32::try_from(index).unwrap_or(u32::MAX),
        attempt,
        ..v1::LogLine::default()
    };
    let open = api.engine.look(|world| world.runs.contains_key(&run.id));
    let stored = api.store.small_spool(run.id).ok().flatten();
    let mut reader = api.spools.read(run.id, stored, open && live);
    loop {
        let frames = match reader.next().await {
            Ok(Some(frames)) => frames,
            Ok(None) => return true,
            Err(error) => {
                let text = format!("cannot read the rest: {error}");
                return sender
                    .send(Ok(v1::LogLine { note: text, ..line }))
                    .await
                    .is_ok();
            }
        };
        for frame in frames {
            if let Some(line) = log_line(&line, frame)
                && sender.send(Ok(line)).await.is_err()
            {
                return false;
            }
        }
    }
}

fn log_line(line: &v1::LogLine, frame: v1::Frame) -> Option<v1::LogLine> {
    let mut line = v1::LogLine {
        unix_ms: frame.unix_ms,
        ..line.clone()
    };
    match frame.body? {
        Body::Started(_) => line.note = format!("attempt {} started", line.attempt),
        Body::Stdout(data) => line.data = data.to_vec(),
        Body::Stderr(data) => {
            line.stderr = true;
            line.data = data.to_vec();
        }
        Body::Truncated(cut) => line.note = format!("output past {} bytes was cut", cut.cap_bytes),
        Body::Ended(ended) => {
            let verdict = Verdict::of(&ended);
            let code = verdict
                .exit_code
                .map(|code| format!(" with exit code {code}"))
                .unwrap_or_default();
            let why = if verdict.detail.is_empty() {
                String::new()
            } else {
                format!(": {}", verdict.detail)
            };
            line.note = format!(
                "attempt {} {}{code}{why}",
                line.attempt,
                verdict.outcome.as_str()
            );
        }
    }
    Some(line)
}
