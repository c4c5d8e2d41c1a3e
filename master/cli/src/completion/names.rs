//! The names that a master knows, asked for once and only when one is completed.

use std::sync::OnceLock;
use std::time::Duration;

use aot_proto::v1::{JobsRequest, StatusReply, StatusRequest};
use tonic::Request;

use super::super::CliEnv;
use super::super::dial::{Client, dial};

/// Longest wait for a master: whoever presses a key waits for it.
pub(super) const WITHIN: Duration = match cfg!(test) {
    false => Duration::from_millis(80),
    true => Duration::from_secs(1), // many tests run at once
};

/// How many jobs are offered, the newest first.
const JOBS: u32 = 50;

/// A name, and what it is, for shells that show that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KnownName {
    pub name: String,
    pub about: String,
}

impl KnownName {
    pub(super) fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
        }
    }
}

/// What the master knows; nothing where none answers.
#[derive(Default)]
pub(super) struct LiveNames {
    master: Option<(CliEnv, Option<String>)>,
    status: OnceLock<StatusReply>,
    jobs: OnceLock<Vec<KnownName>>,
}

impl LiveNames {
    /// Of the master of these settings.
    pub(super) fn new(env: CliEnv, cluster: Option<String>) -> Self {
        Self {
            master: Some((env, cluster)),
            ..Self::default()
        }
    }

    /// Instances, in the order of `list`.
    pub(super) fn instances(&self) -> Vec<KnownName> {
        let views = self.status().instances.iter();
        let name = |view: &aot_proto::v1::InstanceView| {
            let phase = aot_proto::v1::Phase::name_of(view.phase);
            KnownName::new(&view.name, phase)
        };
        views.map(name).collect()
    }

    /// Pools with an instance.
    pub(super) fn pools(&self) -> Vec<KnownName> {
        let pools = self.status().instances.iter().map(|view| view.pool.clone());
        distinct(pools, "pool")
    }

    /// Saved groups of the files.
    pub(super) fn groups(&self) -> Vec<KnownName> {
        let clusters = self.status().clusters.iter();
        let groups = clusters.flat_map(|cluster| &cluster.groups);
        let mut all: Vec<KnownName> = groups
            .map(|(name, target)| KnownName::new(format!("@{name}"), target))
            .collect();
        all.sort();
        all
    }

    /// Clusters.
    pub(super) fn clusters(&self) -> Vec<KnownName> {
        let clusters = self.status().clusters.iter();
        let name = |it: &aot_proto::v1::ClusterView| KnownName::new(&it.name, &it.provider);
        clusters.map(name).collect()
    }

    /// Stages, by their names.
    pub(super) fn stages(&self) -> Vec<KnownName> {
        let views = self.status().instances.iter();
        let stages = views.flat_map(|view| view.stage_views.iter().map(|it| it.name.clone()));
        distinct(stages, "stage")
    }

    /// The newest jobs.
    pub(super) fn jobs(&self) -> &[KnownName] {
        self.jobs.get_or_init(|| {
            self.ask(async |mut client, cluster| {
                let limit = JOBS;
                let request = JobsRequest { cluster, limit };
                let reply = client.jobs(Request::new(request)).await.ok()?;
                let jobs = reply.into_inner().jobs.into_iter();
                Some(
                    jobs.map(|job| KnownName::new(job.job_id, job.what))
                        .collect(),
                )
            })
        })
    }

    fn status(&self) -> &StatusReply {
        self.status.get_or_init(|| {
            self.ask(async |mut client, cluster| {
                let request = StatusRequest {
                    cluster,
                    ..StatusRequest::default()
                };
                let reply = client.status(Request::new(request)).await.ok()?;
                Some(reply.into_inner())
            })
        })
    }

    /// What a master answers, or nothing.
    fn ask<T: Default>(&self, what: impl AsyncFnOnce(Client, Option<String>) -> Option<T>) -> T {
        let answer = || {
            let (env, cluster) = self.master.as_ref()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            let asked = async {
                let client = dial(env, cluster.as_deref()).await.ok()?;
                what(client, cluster.clone()).await
            };
            let answer = runtime.block_on(async { tokio::time::timeout(WITHIN, asked).await });
            runtime.shutdown_background();
            answer.ok()?
        };
        answer().unwrap_or_default()
    }
}

/// Each once, in order, without the empty one.
fn distinct(names: impl Iterator<Item = String>, about: &str) -> Vec<KnownName> {
    let all: std::collections::BTreeSet<String> = names.filter(|name| !name.is_empty()).collect();
    all.into_iter()
        .map(|name| KnownName::new(name, about))
        .collect()
}
