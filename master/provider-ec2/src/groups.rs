//! Security groups: finds those that the file names, makes those that it wants, adds the rules that are missing. Called by
//! `prerequisites` and `preflight`; never removes a rule, and never changes a group whose action is `find`. Groups are made
//! in the VPCs of the pools that name them.
//!
//! A group is made with its tags in one call, so that a crash or a lost answer leaves one that the next try knows as ours.

mod ensure;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{ResourceType, SecurityGroup, Tag, TagSpecification};

pub(super) use self::ensure::ensure;
use super::error::invalid;
use super::lookup;
use super::rules::{self, Rule};
use aot_model::spec::{ClusterSpec, GroupAction, PoolSpec, SecurityGroupSpec};
use aot_provider::{
    Ask, ClusterRef, Prerequisites, ProviderError, ResolvedSubnet, Thing, ThingAction, ThingKind,
    tags,
};

/// VPC and name: no two groups share both.
pub(super) type GroupKey = (String, String);

/// What is to be done about one wanted group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is not there, and may be made.
    Make,
    /// It is there.
    Use {
        id: String,
        /// It carries the cluster's tag.
        ours: bool,
    },
    /// It can be neither; why.
    Refuse(String),
}

/// What the file wants, beside what there is.
pub(super) struct GroupSurvey<'a> {
    /// Groups of `security_groups:`, in each VPC where they are needed.
    wanted: BTreeMap<GroupKey, (&'a SecurityGroupSpec, Decision)>,
    /// Groups that are only named.
    named: BTreeSet<GroupKey>,
    /// What EC2 shows of both.
    shown: BTreeMap<GroupKey, SecurityGroup>,
}

/// Tags of what is not a machine but made for the cluster, in the call that makes it.
pub(super) fn our_tags(cluster: &ClusterRef, kind: ResourceType, name: &str) -> TagSpecification {
    let pairs = [
        (tags::NAME, name),
        ("Cluster", cluster.name.as_str()),
        (tags::CLUSTER_UUID, &cluster.uuid),
    ];
    let tags = pairs.map(|(key, value)| Tag::builder().key(key).value(value).build());
    TagSpecification::builder()
        .resource_type(kind)
        .set_tags(Some(tags.into()))
        .build()
}

/// VPCs where a pool's machines may go, as far as its subnets are known.
pub(super) fn vpcs(
    pool: &PoolSpec,
    subnets: &BTreeMap<String, ResolvedSubnet>,
) -> BTreeSet<String> {
    let vpc = |text: &str| subnets.get(text).map(|subnet| subnet.vpc.clone());
    if pool.machine.subnets.is_empty() {
        return vpc("").into_iter().collect();
    }
    let texts = pool.machine.subnets.iter();
    texts.filter_map(|text| vpc(text)).collect()
}

/// Where each wanted group is needed: in the VPCs of the pools that name it, and of the groups whose rules do; in those
/// of all pools when none names it.
fn wanted<'a>(
    spec: &'a ClusterSpec,
    subnets: &BTreeMap<String, ResolvedSubnet>,
) -> BTreeMap<GroupKey, &'a SecurityGroupSpec> {
    let mut wanted = BTreeMap::new();
    for group in &spec.security_groups {
        let names = |pool: &&PoolSpec| pool.machine.security_groups.contains(&group.name);
        let mut users: Vec<&PoolSpec> = spec.pools.iter().filter(names).collect();
        if users.is_empty() {
            users = spec.pools.iter().collect();
        }
        for vpc in users.iter().flat_map(|pool| vpcs(pool, subnets)) {
            wanted.insert((vpc, group.name.clone()), group);
        }
    }
    loop {
        let mut more = Vec::new();
        for ((vpc, _), group) in &wanted {
            for source in sources(group) {
                let key = (vpc.clone(), source.to_owned());
                let of_file = spec.security_groups.iter().find(|it| it.name == source);
                if let Some(of_file) = of_file.filter(|_| !wanted.contains_key(&key)) {
                    more.push((key, of_file));
                }
            }
        }
        if more.is_empty() {
            return wanted;
        }
        wanted.extend(more);
    }
}

/// Names of other groups in a group's rules.
fn sources(group: &SecurityGroupSpec) -> impl Iterator<Item = &str> {
    let texts = group
        .allow_inbound
        .iter()
        .filter_map(|it| it.group.as_deref());
    texts.filter(|text| !is_id(text))
}

/// Whether the file names a group by its id.
pub(super) fn is_id(text: &str) -> bool {
    text.starts_with("sg-")
}

/// What to do about a group; `uuid` is the cluster's, `None` before its first launch.
pub(super) fn decide(
    spec: &SecurityGroupSpec,
    vpc: &str,
    shown: Option<&SecurityGroup>,
    uuid: Option<&str>,
) -> Decision {
    let name = &spec.name;
    let Some(group) = shown else {
        return match spec.action {
            GroupAction::Create | GroupAction::FindOrCreate => Decision::Make,
            GroupAction::Find => Decision::Refuse(format!(
                "no security group {name:?} in {vpc}: create it, or let aot do so with action: find_or_create"
            )),
        };
    };
    let tag = |tag: &&Tag| tag.key() == Some(tags::CLUSTER_UUID);
    let owner = group.tags().iter().find(tag).and_then(Tag::value);
    let ours = uuid.is_some() && owner == uuid;
    let id = group.group_id().unwrap_or_default().to_owned();
    if spec.action == GroupAction::Create && !ours {
        // EC2 takes both spellings for one name.
        let twin = group.group_name().filter(|it| it != name);
        let twin = twin.map_or(String::new(), |it| format!("as {it:?}, "));
        return Decision::Refuse(format!(
            "security group {name:?} is in {vpc} already ({twin}{id}), and this cluster did not create it: use another \
             name, or action: find_or_create"
        ));
    }
    Decision::Use { id, ours }
}

impl<'a> GroupSurvey<'a> {
    /// Looks at what there is: one listing, whatever the number of groups. Of the pools, those of `ask.missing` count
    /// for groups that are only named; `prerequisites` knows the subnets.
    ///
    /// # Errors
    /// When EC2 can't be asked. What is wrong with the groups is in [`GroupSurvey::problems`].
    pub(crate) async fn new(
        client: &Client,
        ask: &Ask<'a>,
        prerequisites: &Prerequisites,
    ) -> Result<Self, ProviderError> {
        let wanted = wanted(ask.spec, &prerequisites.subnets);
        let mut named = BTreeSet::new();
        for pool in super::asked::missing_pools(ask) {
            for vpc in vpcs(pool, &prerequisites.subnets) {
                let names = pool.machine.security_groups.iter().filter(|it| !is_id(it));
                named.extend(names.map(|name| (vpc.clone(), name.clone())));
            }
        }
        for ((vpc, _), group) in &wanted {
            named.extend(sources(group).map(|name| (vpc.clone(), name.to_owned())));
        }
        named.retain(|key| !wanted.contains_key(key));
        let keys = wanted.keys().chain(&named).cloned().collect();
        let shown = lookup::groups(client, &keys).await?;
        let uuid = ask.cluster.map(|cluster| cluster.uuid.as_str());
        let decided = wanted.into_iter().map(|(key, spec)| {
            let decision = decide(spec, &key.0, shown.get(&key), uuid);
            (key, (spec, decision))
        });
        Ok(Self {
            wanted: decided.collect(),
            named,
            shown,
        })
    }

    /// All that stands in the way.
    pub(crate) fn problems(&self) -> Vec<ProviderError> {
        let mut problems = Vec::new();
        for (vpc, name) in self.named.iter().filter(|it| !self.shown.contains_key(*it)) {
            problems.push(invalid(format!(
                "no security group {name:?} in {vpc}: list it under security_groups to have it created"
            )));
        }
        for (key, (spec, decision)) in &self.wanted {
            if let Decision::Refuse(why) = decision {
                problems.push(invalid(why.clone()));
            }
            if let Err(error) = self.rules(key, spec, &key.1, &BTreeMap::new()) {
                problems.push(error);
            }
        }
        problems
    }

    /// Ids of those that are there.
    pub(crate) fn ids(&self) -> BTreeMap<GroupKey, String> {
        let id = |(key, group): (&GroupKey, &SecurityGroup)| {
            Some((key.clone(), group.group_id()?.to_owned()))
        };
        self.shown.iter().filter_map(id).collect()
    }

    /// The wanted rules of a group; `ids` are those made since the look.
    fn rules(
        &self,
        (vpc, name): &GroupKey,
        spec: &SecurityGroupSpec,
        own: &str,
        ids: &BTreeMap<GroupKey, String>,
    ) -> Result<Vec<Rule>, ProviderError> {
        let id = |text: &str| {
            let key = (vpc.clone(), text.to_owned());
            let shown = self.shown.get(&key).and_then(SecurityGroup::group_id);
            let known = ids.get(&key).map(String::as_str).or(shown);
            // Of one that is still to be made, the name.
            if text == name {
                own
            } else {
                known.unwrap_or(text)
            }
            .to_owned()
        };
        rules::wanted(spec, own, id)
            .map_err(|error| invalid(format!("security group {name:?}: {error}")))
    }

    /// What `ensure` would make and change.
    pub(crate) fn things(&self) -> Vec<Thing> {
        let mut things = Vec::new();
        for (key, (spec, decision)) in &self.wanted {
            let mut say = |action, kind, detail| {
                let name = spec.name.clone();
                things.push(Thing {
                    action,
                    kind,
                    name,
                    detail,
                });
            };
            let vpc = &key.0;
            match decision {
                Decision::Make => say(
                    ThingAction::Create,
                    ThingKind::SecurityGroup,
                    format!("in {vpc}"),
                ),
                Decision::Use { id, ours } => {
                    let whose = if *ours {
                        "made by this cluster"
                    } else {
                        "found"
                    };
                    say(
                        ThingAction::Keep,
                        ThingKind::SecurityGroup,
                        format!("{id} in {vpc}, {whose}"),
                    );
                }
                Decision::Refuse(why) => {
                    say(ThingAction::Keep, ThingKind::SecurityGroup, why.clone())
                }
            }
            let (own, have) = match (decision, self.shown.get(key)) {
                (Decision::Use { id, .. }, Some(group)) => (id.as_str(), group.ip_permissions()),
                _ => (spec.name.as_str(), &[][..]),
            };
            // What can't be read is among the problems.
            let wanted = self
                .rules(key, spec, own, &BTreeMap::new())
                .unwrap_or_default();
            for rule in rules::missing(&wanted, &rules::shown(have)) {
                match decision {
                    Decision::Make => say(ThingAction::Create, ThingKind::Rule, rule.to_string()),
                    Decision::Use { .. } if spec.action != GroupAction::Find => {
                        say(
                            ThingAction::Change,
                            ThingKind::Rule,
                            format!("{rule} is added to {own}"),
                        );
                    }
                    Decision::Use { .. } => say(
                        ThingAction::Keep,
                        ThingKind::Rule,
                        format!("{rule} is not in {own}, which is left alone (action: find)"),
                    ),
                    Decision::Refuse(_) => {}
                }
            }
        }
        things
    }
}

#[cfg(test)]
mod tests;
