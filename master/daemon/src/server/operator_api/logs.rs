//! Output of stages, live or recorded, of any number of instances in one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use aot_host::chain::Chain;
use aot_model::key::InstanceKey;
use aot_model::run::{Run, RunKind};
use aot_model::stage::describe_stage_end;
use aot_model::world::World;
use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1::{self, frame::Body};
use aot_store::spool::SpoolReader;
use futures::{Stream, StreamExt};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::lacks::{Lack, Lacks, ReadOutput};
use super::paced::paced;
use super::{OperatorApi, events, stopping};
use crate::run::Published;

/// How often it is seen whether the cluster is still here.
const RECHECK: std::time::Duration = std::time::Duration::from_secs(2);

/// Lines that may wait for one reader. When full, reading waits.
const LINES: usize = 64;

type LogStream = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;
type LogSender = mpsc::Sender<Result<v1::LogLine, Status>>;

impl OperatorApi {
    pub(super) async fn do_logs(&self, request: v1::LogsRequest) -> Result<LogStream, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let names = self.targets(&cluster, &request)?;
        let stage = request.stage.map(|stage| stage as usize);
        if let Some(stage) = stage {
            self.check_stage(&cluster, &names, stage).await?;
        }
        let (sender, stream) = mpsc::channel(LINES);
        if request.follow {
            let many = Many {
                api: self.clone(),
                cluster,
                request,
                stage,
                sender,
                followed: BTreeMap::new(),
            };
            // Listens before it looks: what begins in between is reported.
            self.tasks.spawn(many.run(names, self.engine.subscribe()));
        } else {
            self.tasks
                .spawn(recorded(self.clone(), cluster, names, stage, sender));
        }
        Ok(paced(ReceiverStream::new(stream)).boxed())
    }

    /// A stage that none of them has, nor ever had, is a mistake.
    async fn check_stage(
        &self,
        cluster: &ClusterName,
        names: &[InstanceName],
        stage: usize,
    ) -> Result<(), Status> {
        let counts = |name: &InstanceName| {
            self.engine.read(cluster, |world| {
                let instance = world.clusters.get(cluster)?.instances.get(name)?;
                Some(instance.stages.len())
            })
        };
        let most = names.iter().filter_map(counts).max().unwrap_or(0);
        if stage < most {
            return Ok(());
        }
        for name in names {
            let at = InstanceKey {
                cluster: cluster.clone(),
                instance: name.clone(),
            };
            if !runs(self, &at, Some(stage)).await.is_empty() {
                return Ok(());
            }
        }
        let whose = match names {
            [one] => format!("{one} has no stage {stage}"),
            all => format!("none of {} instances has a stage {stage}", all.len()),
        };
        let there = match most {
            0 => "there are no stages".to_owned(),
            1 => "there is only stage 0".to_owned(),
            _ => format!("there are 0 to {}", most - 1),
        };
        Err(Status::invalid_argument(format!("{whose}; {there}")))
    }
}

async fn runs(api: &OperatorApi, at: &InstanceKey, stage: Option<usize>) -> Vec<Run> {
    let all = api.store.stage_runs(at.clone()).await.unwrap_or_else(|error| {
        tracing::error!(instance = %at, error = %Chain(&error), "cannot read the runs of an instance");
        Vec::new()
    });
    let wanted = |run: &Run| matches!(run.what, RunKind::Stage { index, .. } if stage.is_none_or(|s| s == index));
    all.into_iter().filter(wanted).collect()
}

/// All that is on record, one instance after the other, the newest attempt of each stage last. Where some of it is not whole, the
/// last message says so.
async fn recorded(
    api: OperatorApi,
    cluster: ClusterName,
    names: Vec<InstanceName>,
    stage: Option<usize>,
    sender: LogSender,
) {
    let mut lacks = Lacks::default();
    for instance in names {
        let cluster = cluster.clone();
        for run in runs(&api, &InstanceKey { cluster, instance }, stage).await {
            let Some(shown) = one(&api, &run, false, &sender).await else {
                return;
            };
            if let (Some(lack), RunKind::Stage { index, .. }) = (shown.lack, run.what) {
                lacks.add(format!("{}/{index}", run.at.instance), lack);
            }
        }
    }
    let incomplete = lacks.text();
    if !incomplete.is_empty() {
        let last = v1::LogLine {
            incomplete,
            ..v1::LogLine::default()
        };
        let _ = sender.send(Ok(last)).await; // whoever read may have left
    }
}

/// Follows every selected instance, also those that join later; each by a task of its own, woken from here.
struct Many {
    api: OperatorApi,
    cluster: ClusterName,
    request: v1::LogsRequest,
    stage: Option<usize>,
    sender: LogSender,
    followed: BTreeMap<InstanceName, Arc<Notify>>,
}

impl Many {
    async fn run(
        mut self,
        names: Vec<InstanceName>,
        mut published: broadcast::Receiver<Published>,
    ) {
        self.add(names);
        let mut recheck = tokio::time::interval(RECHECK);
        loop {
            tokio::select! {
                next = published.recv() => match next {
                    Ok(published) => self.heard(&published.event),
                    Err(broadcast::error::RecvError::Closed) => return,
                    // What was missed may have been anything.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.add_joined();
                        self.followed.values().for_each(|wake| wake.notify_one());
                    }
                },
                _ = recheck.tick() => if events::has_left(&self.api, &self.cluster) {
                    return self.end(aot_proto::status::left()).await;
                },
                () = self.sender.closed() => return,
                () = self.api.stop.cancelled() => return self.end(stopping()).await,
            }
        }
    }

    /// The next master tells the rest.
    async fn end(self, why: Status) {
        let _ = self.sender.send(Err(why)).await; // whoever read may have left
    }

    /// An attempt that began is an event of its instance; an instance that nobody follows may have joined.
    fn heard(&mut self, event: &v1::Event) {
        if event.cluster != self.cluster.as_str() || event.instance.is_empty() {
            return;
        }
        match event.instance.parse::<InstanceName>() {
            Ok(name) => match self.followed.get(&name) {
                Some(wake) if matches!(&*event.event, "stage-started" | "stage-check-started") => {
                    wake.notify_one()
                }
                Some(_) => {}
                None => self.add_joined(),
            },
            Err(error) => tracing::debug!(error = %Chain(&error), "an event of nobody"),
        }
    }

    /// What the target means now. Of a limited number no more are taken than there were.
    fn add_joined(&mut self) {
        if self.request.limit > 0 {
            return;
        }
        // That it means nothing any more is no reason to stop: something may come.
        if let Ok(names) = self.api.targets(&self.cluster, &self.request) {
            self.add(names);
        }
    }

    fn add(&mut self, names: Vec<InstanceName>) {
        for instance in names {
            if self.followed.contains_key(&instance) {
                continue;
            }
            let wake = Arc::new(Notify::new());
            self.followed.insert(instance.clone(), wake.clone());
            let at = InstanceKey {
                cluster: self.cluster.clone(),
                instance,
            };
            let (api, sender) = (self.api.clone(), self.sender.clone());
            self.api
                .tasks
                .spawn(follow(api, at, self.stage, wake, sender));
        }
    }
}

/// What is on record, then what comes, until nobody reads any more or the master stops.
async fn follow(
    api: OperatorApi,
    at: InstanceKey,
    stage: Option<usize>,
    wake: Arc<Notify>,
    sender: LogSender,
) {
    let mut seen = BTreeSet::new();
    loop {
        for run in runs(&api, &at, stage).await {
            let shown =
                async { !seen.insert(run.id) || one(&api, &run, true, &sender).await.is_some() };
            tokio::select! {
                more = shown => if !more { return },
                () = sender.closed() => return,
                () = api.stop.cancelled() => return,
            }
        }
        tokio::select! {
            () = wake.notified() => {}
            () = sender.closed() => return,
            () = api.stop.cancelled() => return,
        }
    }
}

/// Reads the output of a run. It may end while this looks, so the live source is taken first: it is asked for its end
/// after the record was, and holds what the record does not have yet.
async fn reader(api: &OperatorApi, run: &Run, live: bool) -> SpoolReader {
    let source = api.spools.read(run.id, None, true);
    let stored = api.store.small_spool(run.id).await.ok().flatten();
    let is_open = |world: &World| world.runs.contains_key(&run.id);
    let open = api.engine.read(&run.at.cluster, is_open);
    match (stored, open) {
        (None, true) if live => source,
        (None, true) => api.spools.read(run.id, None, false),
        (None, false) if source.has_ended() => source,
        (stored, _) => {
            // Nothing more will come of it: whoever waits for more is let go.
            api.spools.finish(run.id);
            api.outputs.read(run, stored)
        }
    }
}

/// As the file has it now; empty when there is no such stage any more.
fn stage_name(api: &OperatorApi, at: &InstanceKey, index: usize) -> String {
    let name = api.engine.read(&at.cluster, |world| {
        let stage = world.instance(at)?.stages.get(index)?;
        Some(stage.plan.name.clone())
    });
    name.unwrap_or_default()
}

/// What became of the output of one run.
#[derive(Default)]
struct ShownRun {
    /// What lacks of it, unless that was dropped on purpose.
    lack: Option<Lack>,
}

/// The output of one run. `None` when nobody reads any more.
async fn one(api: &OperatorApi, run: &Run, live: bool, sender: &LogSender) -> Option<ShownRun> {
    let RunKind::Stage { index, attempt } = run.what else {
        return Some(ShownRun::default());
    };
    let line = v1::LogLine {
        instance: run.at.instance.to_string(),
        stage: u32::try_from(index).unwrap_or(u32::MAX),
        name: stage_name(api, &run.at, index),
        attempt,
        ..v1::LogLine::default()
    };
    let mut reader = reader(api, run, live).await;
    let error = loop {
        let frames = match reader.next().await {
            Ok(Some(frames)) => frames,
            Ok(None) => break None,
            Err(error) => break Some(Chain(&error).to_string()),
        };
        for frame in frames {
            if let Some(line) = log_line(&line, frame) {
                sender.send(Ok(line)).await.ok()?;
            }
        }
    };
    let lack = api.lack(run, &ReadOutput::of(&reader, error));
    let Some(lack) = lack else {
        return Some(ShownRun::default());
    };
    let is_dropped = is_dropped(api, run).await;
    let text = match is_dropped {
        true => "its output is no longer kept".to_owned(),
        false => lack.text.clone(),
    };
    let note = format!("attempt {attempt}: {text}");
    sender.send(Ok(v1::LogLine { note, ..line })).await.ok()?;
    Some(ShownRun {
        lack: (!is_dropped).then_some(lack),
    })
}

/// Whether what a run printed is kept no longer, as its job says.
async fn is_dropped(api: &OperatorApi, run: &Run) -> bool {
    let job = api.store.job(run.job).await.ok().flatten();
    job.is_some_and(|job| job.output_dropped)
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
            line.note = format!("attempt {} {}", line.attempt, describe_stage_end(&ended));
        }
    }
    Some(line)
}
