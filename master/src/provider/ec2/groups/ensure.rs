//! Makes the groups that a survey found missing, and adds rules. Called by `ground` through `groups`; safe to repeat after
//! a crash or a lost answer at any call.

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{IpPermission, ResourceType};

use super::{Decision, Place, Survey, decide, our_tags};
use crate::model::file::{GroupAction, SecurityGroupSpec};
use crate::provider::ec2::client::call;
use crate::provider::ec2::error::{cut_off, invalid};
use crate::provider::ec2::lookup;
use crate::provider::ec2::rules::{self, Rule};
use crate::provider::{Ask, ClusterRef, ErrorKind, Ground, ProviderError};

/// What EC2 says of a group that is there already.
pub(super) const GROUP_DUPLICATE: &str = "InvalidGroup.Duplicate";
/// What EC2 says of a rule that is there already; none of the call's others is added then.
pub(super) const RULE_DUPLICATE: &str = "InvalidPermission.Duplicate";
/// What EC2 says of a group that it does not know, or not yet.
pub(super) const GROUP_UNKNOWN: &str = "InvalidGroup.NotFound";

/// Makes what is wanted and not there, adds missing rules, and notes the ids. Makes nothing when anything stands in the
/// way.
pub(in crate::provider::ec2) async fn ensure(
    client: &Client,
    ask: &Ask<'_>,
    ground: &mut Ground,
) -> Result<(), ProviderError> {
    let survey = Survey::new(client, ask, ground).await?;
    let problems = survey.problems().into_iter().enumerate();
    lookup::all(
        problems
            .map(|(at, error)| (at, Err::<(), _>(error)))
            .collect(),
    )?;
    let mut have: BTreeMap<Place, (String, Vec<IpPermission>)> = BTreeMap::new();
    for (place, group) in &survey.shown {
        let id = group.group_id().unwrap_or_default().to_owned();
        have.insert(place.clone(), (id, group.ip_permissions().to_vec()));
    }
    for (place, (spec, decision)) in &survey.wanted {
        if *decision == Decision::Make {
            let cluster = ask
                .cluster
                .ok_or_else(|| invalid("the cluster has no uuid yet"))?;
            let made = make(client, cluster, &place.0, spec).await?;
            let text = format!(
                "security group {} ({}) was made in {}",
                spec.name, made.0, place.0
            );
            ground.news.push(text);
            have.insert(place.clone(), made);
        }
    }
    let ids = have
        .iter()
        .map(|(place, (id, _))| (place.clone(), id.clone()))
        .collect();
    for (place, (spec, _)) in &survey.wanted {
        if spec.action == GroupAction::Find {
            continue;
        }
        let Some((id, permissions)) = have.get(place) else {
            continue;
        };
        let wanted = survey.rules(place, spec, id, &ids)?;
        let missing = rules::missing(&wanted, &rules::shown(permissions));
        authorize(client, spec, id, &missing).await?;
        let added = |rule: &Rule| format!("rule {rule} was added to security group {}", spec.name);
        ground.news.extend(missing.iter().map(added));
    }
    let kept = ids
        .into_iter()
        .map(|((vpc, name), id)| (Ground::group_key(&name, &vpc), id));
    ground.groups.extend(kept);
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
            let (vpcs, names) = ([vpc.to_owned()].into(), [spec.name.clone()].into());
            let mut shown = lookup::groups(client, &vpcs, &names).await?;
            let shown = shown.remove(&(vpc.to_owned(), spec.name.clone()));
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

/// Adds rules in one call; one by one when some of them have come to be there.
async fn authorize(
    client: &Client,
    spec: &SecurityGroupSpec,
    id: &str,
    missing: &[Rule],
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
    let result = match add(missing).await {
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
        // Made a moment ago, and not known everywhere: the next try finds it.
        if error.code.as_deref() == Some(GROUP_UNKNOWN) {
            error.kind = ErrorKind::Unavailable;
        }
        error
    })
}
