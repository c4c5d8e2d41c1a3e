//! Which instances a request means: a target, less an exclusion, cut at a limit. Every request that takes a target goes
//! through here, so that `list` shows exactly what the others would take. Decides nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aot_model::cluster::Cluster;
use aot_model::facts;
use aot_model::instance::Instance;
use aot_model::phase::Phase;
use aot_model::selector::{self, ClusterWords, Subject, Target, TargetError};
use aot_proto::fault;
use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1;
use tonic::Status;

use super::OperatorApi;

/// As an operator said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Selection<'a> {
    /// An expression; `None` means all. An empty one is refused.
    pub target: Option<&'a str>,
    /// An expression whose instances are left out; `None` means none. An empty one is refused.
    pub exclude: Option<&'a str>,
    /// How many at most, the first in natural order; 0 means all.
    pub limit: u32,
}

impl Selection<'_> {
    /// Whether nothing was said: all instances.
    pub(super) fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.target.unwrap_or("*"))?;
        if let Some(exclude) = self.exclude {
            write!(f, " --exclude {exclude:?}")?;
        }
        if self.limit > 0 {
            write!(f, " --limit {}", self.limit)?;
        }
        Ok(())
    }
}

impl<'a> From<&'a str> for Selection<'a> {
    fn from(target: &'a str) -> Self {
        Self {
            target: Some(target),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a String> for Selection<'a> {
    fn from(target: &'a String) -> Self {
        target.as_str().into()
    }
}

macro_rules! said_by {
    ($target:expr; $($request:ident),*) => {$(
        impl<'a> From<&'a v1::$request> for Selection<'a> {
            fn from(request: &'a v1::$request) -> Self {
                Self {
                    target: $target(&request.target),
                    exclude: request.exclude.as_deref(),
                    limit: request.limit,
                }
            }
        }
    )*};
}

// Requests whose target must be given, and those whose target may be left out.
said_by!(Some; ExecRequest, LogsRequest, TerminateRequest, LifecycleRequest, WaitRequest, CopyRequest);
said_by!(Option::as_deref; TargetRequest, StatusRequest, ApplyRequest);

/// The selection of a request that must name its target, though its message would do without.
pub(super) fn required(request: &v1::TargetRequest) -> Result<Selection<'_>, Status> {
    match request.target {
        Some(_) => Ok(request.into()),
        None => Err(Status::invalid_argument(
            "say which instances: the target is empty",
        )),
    }
}

impl OperatorApi {
    /// The instances that a request means, in natural order; never none.
    pub(super) fn targets<'a>(
        &self,
        cluster: &ClusterName,
        selection: impl Into<Selection<'a>>,
    ) -> Result<Vec<InstanceName>, Status> {
        let selection = selection.into();
        self.engine.read(cluster, |world| {
            let cluster = world
                .clusters
                .get(cluster)
                .ok_or_else(|| Status::not_found("the cluster is gone"))?;
            let names = matching(cluster, selection)?;
            match names.is_empty() {
                true => Err(none(cluster, selection)),
                false => Ok(names),
            }
        })
    }
}

/// Names of the instances that a selection means, in natural order; maybe none.
pub(super) fn matching(
    cluster: &Cluster,
    selection: Selection<'_>,
) -> Result<Vec<InstanceName>, Status> {
    let pools = pools(cluster);
    let parsed = |what, text: Option<&str>| {
        text.map(|text| parse(cluster, &pools, what, text))
            .transpose()
    };
    let wanted = parsed("target", selection.target)?;
    let left_out = parsed("--exclude", selection.exclude)?;
    let mut names: Vec<InstanceName> = cluster
        .instances
        .values()
        .filter(|it| it.wanted || it.has_machine() || it.phase != Phase::Gone)
        .filter(|it| {
            wanted
                .as_ref()
                .is_none_or(|target| means(target, cluster, it))
        })
        .filter(|it| {
            !left_out
                .as_ref()
                .is_some_and(|target| means(target, cluster, it))
        })
        .map(|it| it.name.clone())
        .collect();
    names.sort_by_cached_key(|name| natural(name.as_str()));
    if selection.limit > 0 {
        names.truncate(usize::try_from(selection.limit).unwrap_or(usize::MAX));
    }
    Ok(names)
}

/// That a selection means nobody, and what was left out of it.
pub(super) fn none(cluster: &Cluster, selection: Selection<'_>) -> Status {
    let name = &cluster.spec.name;
    let Selection {
        target, exclude, ..
    } = selection;
    let alone = Selection {
        target,
        ..Selection::default()
    };
    let all = matching(cluster, alone).unwrap_or_default();
    let exclude = exclude.unwrap_or_default();
    let names = || {
        let some: Vec<&str> = all.iter().take(NAMED).map(InstanceName::as_str).collect();
        let more = match all.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", some.join(", "))
    };
    let message = match (all.len(), target) {
        (0, None) => format!("cluster {name} has no instances"),
        (0, Some(target)) => {
            let message = format!("no instance of cluster {name} matches {target:?}");
            let hint = hint(cluster, target);
            return fault::nobody(message, target, hint.unwrap_or_default());
        }
        (_, None) => format!(
            "nothing is left of cluster {name}: --exclude {exclude:?} leaves out {}",
            names()
        ),
        (_, Some(target)) => format!(
            "nothing is left of {target:?} in cluster {name}: --exclude {exclude:?} leaves out {}",
            names()
        ),
    };
    Status::not_found(message)
}

/// What may have been meant by a target that means nobody.
fn hint(cluster: &Cluster, target: &str) -> Option<String> {
    let instances = cluster.instances.keys().map(InstanceName::as_str);
    selector::hint_for_nobody(target, instances, pools(cluster).into_iter())
}

/// Names of pools: those of the file, and of what is left of others.
fn pools(cluster: &Cluster) -> BTreeSet<&str> {
    let of_file = cluster
        .spec
        .pools
        .iter()
        .filter_map(|pool| pool.name.as_ref());
    let left = cluster.instances.values().filter_map(|it| it.pool.as_ref());
    of_file.chain(left).map(|name| name.as_str()).collect()
}

/// Whether an instance has this name, or will have it: the file may name one that was not launched yet.
fn is_instance(cluster: &Cluster, name: &str) -> bool {
    let mut members = cluster.spec.instances();
    name.parse()
        .is_ok_and(|name| cluster.instances.contains_key::<InstanceName>(&name))
        || members.any(|(_, member)| member.name.as_str() == name)
}

/// Most names in a message.
const NAMED: usize = 10;

fn parse(
    cluster: &Cluster,
    pools: &BTreeSet<&str>,
    what: &str,
    text: &str,
) -> Result<Target, Status> {
    let words = ClusterWords {
        is_instance: &|name| is_instance(cluster, name),
        is_pool: &|name| pools.contains(name),
    };
    selector::parse_in(text, &cluster.spec.groups, words)
        .map_err(|error| fault_in(what, text, &error))
}

/// A fault in an expression, or in the group that it names.
fn fault_in(what: &str, text: &str, error: &TargetError) -> Status {
    let mut starts = error.text.char_indices().map(|(at, _)| at);
    let at = starts.nth(error.column - 1).unwrap_or(error.text.len());
    let named_by = match error.is_of(text) {
        true => String::new(),
        false => text.to_owned(),
    };
    let fault = v1::TargetFault {
        what: what.to_owned(),
        message: error.message.clone(),
        hint: error.hint(text),
        named_by,
        ..v1::TargetFault::default()
    };
    fault::target(&error.text, at, fault)
}

fn means(target: &Target, cluster: &Cluster, instance: &Instance) -> bool {
    let none = BTreeMap::new();
    let facts = target
        .asks_facts()
        .then(|| facts::for_targets(cluster, instance));
    target.matches(&Subject {
        name: instance.name.as_str(),
        pool: instance.pool.as_ref().map(|pool| pool.as_str()),
        state: instance.state(),
        phase: instance.phase.as_str(),
        tags: instance
            .machine
            .as_ref()
            .map_or(&none, |machine| &machine.tags),
        attested: facts.as_ref().map(|(attested, _)| attested),
        claimed: facts.as_ref().map(|(_, claimed)| claimed),
    })
}

/// Orders web2 before web10.
pub(super) fn natural(name: &str) -> (String, u64, String) {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, number) = name.split_at(name.len() - digits);
    (
        stem.to_owned(),
        number.parse().unwrap_or(0),
        name.to_owned(),
    )
}

#[cfg(test)]
mod tests;
