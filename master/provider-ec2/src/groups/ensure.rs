//! Makes the groups that a survey found missing, and adds rules. Called by `prerequisites` through `groups`; safe to repeat after
//! a crash or a lost answer at any call.

use std::collections::BTreeMap;

use aot_model::spec::{GroupAction, SecurityGroupSpec};
use aot_provider::{Ask, ClusterRef, Prerequisites, ProviderError};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{IpPermission, ResourceType};

use super::{Decision, GroupKey, GroupSurvey, decide, our_tags};
use crate::client::call;
use crate::error::{cut_off, invalid};
use crate::rules::{self, Rule};
use crate::{fresh, lookup};

/// What EC2 says of a group that is there already.
pub(super) const GROUP_DUPLICATE: &str = "InvalidGroup.Duplicate";
/// What EC2 says of a rule that is there already; none of the call's others is added then.
pub(super) const RULE_DUPLICATE: &str = "InvalidPermission.Duplicate";

/// Makes what is wanted and not there, adds missing rules, and notes the ids. Makes nothing when anything stands in the
/// way.
pub(crate) async fn ensure(
    client: &Client,
    ask: &Ask<'_>,
    prerequisites: &mut Prerequisites,
) -> Result<(), ProviderError> {
    let survey = GroupSurvey::new(client, ask, prerequisites).await?;
    let problems = survey.problems().into_iter().enumerate();
    lookup::all(
        problems
            .map(|(at, error)| (at, Err::<(), _>(error)))
            .collect(),
    )?;
    let mut have: BTreeMap<GroupKey, (String, Vec<IpPermission>)> = BTreeMap::new();
    for (key, group) in &survey.shown {
        let id = group.group_id().unwrap_or_default().to_owned();
        have.insert(key.clone(), (id, group.ip_permissions().to_vec()));
    }
    for (key, (spec, decision)) in &survey.wanted {
        if *decision == Decision::Make {
            let cluster = ask
                .cluster
                .ok_or_else(|| invalid("the cluster has no uuid yet"))?;
            let made = make(client, cluster, &key.0, spec).await?;
            let text = format!(
                "security group {} ({}) was made in {}",
                spec.name, made.0, key.0
            );
            prerequisites.notices.push(text);
            fresh::made(prerequisites, &made.0);
            have.insert(key.clone(), made);
        }
    }
    for (_, decision) in survey.wanted.values() {
        // Perhaps made just now all the same: by a call whose answer was lost, or before the master was restarted.
        if let Decision::Use { id, ours: true } = decision {
            fresh::made(prerequisites, id);
        }
    }
    let ids = have
        .iter()
        .map(|(key, (id, _))| (key.clone(), id.clone()))
        .collect();
    for (key, (spec, _)) in &survey.wanted {
        if spec.action == GroupAction::Find {
            continue;
        }
        let Some((id, permissions)) = have.get(key) else {
            continue;
        };
        let wanted = survey.rules(key, spec, id, &ids)?;
        let missing = rules::missing(&wanted, &rules::shown(permissions));
        let sources = missing.iter().filter_map(Rule::group);
        let is_new = fresh::any(prerequisites, sources.chain([id.as_str()]));
        authorize(client, spec, id, &missing, is_new).await?;
        let added = |rule: &Rule| format!("rule {rule} was added to security group {}", spec.name);
        prerequisites.notices.extend(missing.iter().map(added));
    }
    let kept = ids
        .into_iter()
        .map(|((vpc, name), id)| (Prerequisites::group_key(&name, &vpc), id));
    prerequisites.groups.extend(kept);
    Ok(())
}

/// Makes a group, or takes the one that an earlier try has made; with the rules it has.
async fn make(
    client: &Client,
    cluster: &ClusterRef,
    vpc: &str,
    spec: &SecurityGroupSpec,
) -> Result<(String, Vec<IpPermission>), ProviderError> {
    let request = client
        .create_security_group()
        .group_name(&spec.name)
        .description(format!("Cluster {}, made by aot", cluster.name))
        .vpc_id(vpc)
        .tag_specifications(our_tags(cluster, ResourceType::SecurityGroup, &spec.name));
    match call("CreateSecurityGroup", request.send()).await {
        Ok(answer) => {
            let id = answer.group_id().filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| cut_off("EC2 CreateSecurityGroup: the answer is cut off"))?;
            tracing::info!(group = id, name = spec.name, vpc, "security group made");
            Ok((id.to_owned(), Vec::new()))
        }
        Err(error) if error.code.as_deref() == Some(GROUP_DUPLICATE) => {
            let key = (vpc.to_owned(), spec.name.clone());
            let mut shown = lookup::groups(client, &[key.clone()].into()).await?;
            let shown = shown.remove(&key);
            match decide(spec, vpc, shown.as_ref(), Some(&cluster.uuid)) {
                Decision::Use { id, .. } => {
                    let permissions = shown.and_then(|group| group.ip_permissions);
                    Ok((id, permissions.unwrap_or_default()))
                }
                Decision::Refuse(why) => Err(invalid(why)),
                Decision::Make => Err(cut_off(format!(
                    "security group {:?} was made just now, and EC2 does not show it yet",
                    spec.name
                ))),
            }
        }
        Err(error) => Err(error),
    }
}

/// Adds rules in one call; one by one when some of them have come to be there. `is_new` = the group, or one that a rule
/// names, was made a moment ago.
async fn authorize(
    client: &Client,
    spec: &SecurityGroupSpec,
    id: &str,
    missing: &[Rule],
    is_new: bool,
) -> Result<(), ProviderError> {
    let add = |rules: &[Rule]| {
        let request = client
            .authorize_security_group_ingress()
            .group_id(id)
            .set_ip_permissions(Some(rules::permissions(rules)));
        call("AuthorizeSecurityGroupIngress", request.send())
    };
    if missing.is_empty() {
        return Ok(());
    }
    let first = match is_new {
        true => fresh::with_tags(|| add(missing)).await,
        false => add(missing).await,
    };
    let result = match first {
        Err(error) if error.code.as_deref() == Some(RULE_DUPLICATE) => {
            let mut result = Ok(());
            for rule in missing {
                match add(std::slice::from_ref(rule)).await {
                    Err(error) if error.code.as_deref() != Some(RULE_DUPLICATE) => {
                        result = Err(error);
                        break;
                    }
                    _ => {}
                }
            }
            result
        }
        other => other.map(drop),
    };
    result.map_err(|mut error| {
        error.message = format!("security group {:?} ({id}): {}", spec.name, error.message);
        match is_new && fresh::is(&error, &fresh::GROUP) {
            true => fresh::passes(error),
            false => error,
        }
    })
}
