//! What stages are printing: asked of the master for the few instances of which it is shown.

use std::future::pending;
use std::pin::Pin;
use std::time::{Duration, Instant};

use aot_proto::v1::last_lines_reply::Line;
use aot_proto::v1::{InstanceView, LastLinesReply, LastLinesRequest, StageState};
use tonic::{Code, Response, Status};

use super::dial::{Client, about, within};

/// How often it is asked while someone looks on.
const EVERY: Duration = Duration::from_secs(1);

/// How long an answer is waited for. Without one nothing is shown: all else is more important.
const ANSWER: Duration = Duration::from_secs(5);

type PrintingAnswer = Pin<Box<dyn Future<Output = Result<Response<LastLinesReply>, Status>>>>;

/// The question that is under way, if one is.
#[derive(Default)]
pub(crate) struct PrintingQuery {
    answer: Option<PrintingAnswer>,
    asked: Option<Instant>,
    /// The master is older than the question.
    is_refused: bool,
}

impl PrintingQuery {
    /// Asks, unless it was asked a moment ago, or about nobody.
    pub(crate) fn ask(
        &mut self,
        client: &Client,
        cluster: &str,
        instances: impl FnOnce() -> Vec<String>,
    ) {
        let is_early = self.asked.is_some_and(|at| at.elapsed() < EVERY);
        if self.is_refused || self.answer.is_some() || is_early {
            return;
        }
        self.asked = Some(Instant::now());
        let instances = instances();
        if instances.is_empty() {
            return;
        }
        let (mut client, cluster) = (client.clone(), cluster.to_owned());
        self.answer = Some(Box::pin(async move {
            ask(&mut client, &cluster, instances).await
        }));
    }

    /// The answer; never done without a question. Cancel safe.
    pub(crate) async fn answered(&mut self) -> Vec<Line> {
        let Some(answer) = &mut self.answer else {
            return pending().await;
        };
        let answer = answer.await;
        self.answer = None;
        match answer {
            Ok(reply) => reply.into_inner().lines,
            Err(status) => {
                self.is_refused |= status.code() == Code::Unimplemented;
                Vec::new()
            }
        }
    }
}

async fn ask(
    client: &mut Client,
    cluster: &str,
    instances: Vec<String>,
) -> Result<Response<LastLinesReply>, Status> {
    let request = LastLinesRequest {
        cluster: Some(cluster.to_owned()),
        instances,
    };
    client
        .last_lines(about(cluster, within(ANSWER, request)))
        .await
}

/// What the stages print that run on these instances of a cluster, those first that have run longest; nothing where that can't be
/// learnt.
pub(crate) async fn printed_last(
    client: &mut Client,
    cluster: &str,
    views: &[&InstanceView],
) -> Vec<Line> {
    let ran = |view: &&InstanceView| {
        let mut stages = view.stage_views.iter();
        let stage = stages.find(|stage| stage.state() == StageState::Running)?;
        Some((stage.ms, view.name.clone()))
    };
    let mut running: Vec<(u64, String)> = views.iter().filter_map(ran).collect();
    if running.is_empty() {
        return Vec::new();
    }
    running.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
    running.truncate(aot_proto::limits::MAX_LAST_LINES);
    let instances = running.into_iter().map(|(_, name)| name).collect();
    match ask(client, cluster, instances).await {
        Ok(reply) => reply.into_inner().lines,
        Err(_) => Vec::new(), // an older master, or one that is gone: what is known is shown
    }
}
