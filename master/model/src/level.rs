//! The level of records: what a master has to know so that nothing of them is lost by it. One of before would drop a field, or fail
//! at a kind, that came later. So what came with a level is begun only where records may have it, and no master is given records
//! of a level that it does not know; how a fleet comes to a level is in `store-postgres`.
//!
//! `tests/records.rs` has the shapes of all records beside the level.

use std::collections::BTreeMap;
use std::fmt;

use super::job::{Job, JobKind};
use super::pace::PacePolicy;
use super::spec::{ClusterSpec, PoolSpec, StageSpec};
use super::stage::StagePlan;
use super::task::Task;

/// The highest level that this program knows.
///
/// It is raised with what must not be lost and a master of before would drop. That is added here as an [`Addition`], and found in what
/// is asked for: the loop of a cluster begins it in records of at least its level alone.
///
/// - 1: what records had when masters came to share them.
/// - 2: variables and templates, secrets, changes at a pace, jobs of the kind `forward`.
pub const LEVEL: i32 = 2;

/// Something that came with a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addition {
    /// With which.
    pub level: i32,
    /// For a person, with its article.
    what: &'static str,
}

const VARIABLE: Addition = second("a variable");
const TEMPLATE: Addition = second("a template");
const SECRET: Addition = second("a secret");
const PACE: Addition = second("a pace");
const HEALTH: Addition = second("a health check");
const FORWARD: Addition = second("a forward");

const fn second(what: &'static str) -> Addition {
    Addition { level: 2, what }
}

impl Addition {
    /// Jobs of this kind are one.
    pub fn of_kind(kind: JobKind) -> Option<Self> {
        (kind == JobKind::Forward).then_some(FORWARD)
    }

    pub(crate) fn of_job(job: &Job) -> Option<Self> {
        Self::of_kind(job.kind)
    }

    pub(crate) fn of_task(task: &Task) -> Option<Self> {
        match task {
            Task::Command(exec) => (!exec.secrets.is_empty()).then_some(SECRET),
            Task::CopyIn(_) | Task::CopyOut(_) => None,
        }
    }

    /// Where an operator says how to go over instances.
    pub(crate) fn of_pace(pace: &PacePolicy) -> Option<Self> {
        (!pace.is_unsaid()).then_some(PACE)
    }

    pub(crate) fn of_file(spec: &ClusterSpec) -> Option<Self> {
        let of_stage = |stage: &StageSpec| !stage.secrets.is_empty() || stage.rerun_on_secret;
        let of_pool = |pool: &PoolSpec| {
            let secret = pool.stages.iter().any(of_stage).then_some(SECRET);
            let health = pool.health.is_some().then_some(HEALTH);
            secret.or(Self::of_pace(&pool.update)).or(health)
        };
        let secret = (!spec.secrets.is_empty()).then_some(SECRET);
        let variable = (!spec.vars.is_empty()).then_some(VARIABLE);
        let pools = || spec.pools.iter().find_map(of_pool);
        secret.or_else(pools).or(variable)
    }

    pub(crate) fn of_stages(stages: &BTreeMap<String, Vec<StagePlan>>) -> Option<Self> {
        let of_plan = |plan: &StagePlan| match plan.secrets.is_empty() {
            true => plan.templates.then_some(TEMPLATE),
            false => Some(SECRET),
        };
        stages.values().flatten().find_map(of_plan)
    }

    /// Why it is not begun in records of this level; `None` where it may be.
    pub fn refusal(self, level: i32) -> Option<LevelRefusal> {
        (level < self.level).then_some(LevelRefusal {
            addition: self,
            level,
        })
    }
}

/// Why something is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelRefusal {
    addition: Addition,
    level: i32,
}

impl fmt::Display for LevelRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Addition { level, what }, is) = (self.addition, self.level);
        write!(
            f,
            "the cluster's records are of level {is}, and {what} needs {level}: once all masters have this version, \
             `aot-master fleet level`"
        )
    }
}
