//! What `preflight` must ask AWS about a region: reads only, calls that grow with pages, never with machines. Calls that
//! don't need each other's answers run at once.

use std::collections::{BTreeMap, BTreeSet};

use aot_provider::{Ask, Prerequisites, ProviderError, ResolvedSubnet, ResolvedType};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Image;

use super::super::groups;
use super::super::image_lookup::{self, Finder, ImageKey};
use super::super::lookup::{self, Each};
use super::super::placement;
use super::super::prerequisites::image_keys;
use super::listing;
use super::region::{Net, SubnetAnswer};
use super::report::PreflightReport;

/// What is to be asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Instance types.
    pub types: BTreeSet<String>,
    /// Subnets: the file's text, and the id that it was found to mean, or else the text. The empty one stands for those
    /// of the default VPC.
    pub subnets: BTreeMap<String, String>,
    /// Key pairs.
    pub keys: BTreeSet<String>,
    pub snapshots: BTreeSet<String>,
    /// Placement groups.
    pub placement: BTreeSet<String>,
    /// Security groups by id.
    pub group_ids: BTreeSet<String>,
}

/// The answers of the first round. `None`: that call failed, and the report says so; nothing may be concluded from it.
#[derive(Debug, Default)]
pub(super) struct PreflightSurvey {
    pub types: Option<Each<String, ResolvedType>>,
    /// Type and zone of each offer.
    pub offers: Option<BTreeSet<(String, String)>>,
    /// Subnets by the file's text; several for the default VPC.
    pub subnets: Option<Each<String, Vec<SubnetAnswer>>>,
    /// VPCs by id.
    pub nets: Option<BTreeMap<String, Net>>,
    /// Key pairs that are there.
    pub keys: Option<BTreeSet<String>>,
    /// State of snapshots that are there.
    pub snapshots: Option<BTreeMap<String, String>>,
    /// Placement groups that are there.
    pub placement: Option<BTreeSet<String>>,
    /// Ids of security groups that are there.
    pub group_ids: Option<BTreeSet<String>>,
}

impl PreflightSurvey {
    /// Subnets that the file's text stands for, as far as they could be found.
    pub(crate) fn subnets_of(&self, text: &str) -> &[SubnetAnswer] {
        let found = self.subnets.as_ref().and_then(|subnets| subnets.get(text));
        found
            .and_then(|found| found.as_ref().ok())
            .map_or(&[], Vec::as_slice)
    }
}

/// The first round: all that can be asked from the file alone.
pub(super) async fn ask(
    ec2: &Client,
    questions: &Questions,
    report: &mut PreflightReport,
) -> PreflightSurvey {
    let (types, offers, subnets, nets, keys, snapshots, placement, group_ids) = futures::join!(
        lookup::types(ec2, &questions.types),
        listing::offers(ec2, &questions.types),
        listing::subnets(ec2, &questions.subnets),
        listing::nets(ec2, !questions.subnets.is_empty()),
        listing::keys(ec2, &questions.keys),
        listing::snapshots(ec2, &questions.snapshots),
        placement::find(ec2, &questions.placement),
        listing::group_ids(ec2, &questions.group_ids),
    );
    let subnets = report.record("subnets", "ec2:DescribeSubnets", subnets);
    let nets = report.record("VPCs", "ec2:DescribeVpcs", nets);
    PreflightSurvey {
        types: report.record("instance types", "ec2:DescribeInstanceTypes", types),
        offers: report.record(
            "where instance types are offered",
            "ec2:DescribeInstanceTypeOfferings",
            offers,
        ),
        subnets: subnets.map(|subnets| in_default_vpc(subnets, nets.as_ref())),
        nets,
        keys: report.record("key pairs", "ec2:DescribeKeyPairs", keys),
        snapshots: report.record("snapshots", "ec2:DescribeSnapshots", snapshots),
        placement: report.record(
            "placement groups",
            "ec2:DescribePlacementGroups",
            placement.map(|found| placement::names_of(&found)),
        ),
        group_ids: report.record("security groups", "ec2:DescribeSecurityGroups", group_ids),
    }
}

/// Without those default subnets that a fake shows in other VPCs than the default one.
fn in_default_vpc(
    mut subnets: Each<String, Vec<SubnetAnswer>>,
    nets: Option<&BTreeMap<String, Net>>,
) -> Each<String, Vec<SubnetAnswer>> {
    if let (Some(Ok(default)), Some(nets)) = (subnets.get_mut(""), nets) {
        default.retain(|subnet| nets.get(&subnet.vpc).is_none_or(|net| net.default));
    }
    subnets
}

/// What is wrong with security groups, and the ids of those that are there.
type GroupsShown = (Vec<ProviderError>, BTreeMap<groups::GroupKey, String>);

/// Answers of the second round, which needs types and VPCs.
#[derive(Default)]
pub(super) struct Second {
    /// Image ids.
    pub images: Option<Each<ImageKey, String>>,
    /// Images that are there, by id.
    pub shown: Option<BTreeMap<String, Image>>,
    /// What is wrong with security groups, and the ids of those that are there, by VPC and name.
    pub groups: Option<GroupsShown>,
}

/// The second round; `prerequisites` is what the first one found.
pub(super) async fn ask_again(
    finder: &Finder<'_>,
    ask: &Ask<'_>,
    prerequisites: &Prerequisites,
    report: &mut PreflightReport,
) -> Second {
    let (keys, known) = image_keys(ask, prerequisites);
    let images = async {
        let found = finder.find(&keys, &known).await?;
        let ids = found.values().filter_map(|id| id.as_ref().ok());
        let shown = image_lookup::describe(finder.ec2, &ids.cloned().collect()).await?;
        Ok((shown, found))
    };
    let groups = groups::GroupSurvey::new(finder.ec2, ask, prerequisites);
    let (images, groups) = futures::join!(images, groups);
    let (shown, images) = report
        .record("images", "ec2:DescribeImages", images)
        .unzip();
    let groups = report.record("security groups", "ec2:DescribeSecurityGroups", groups);
    Second {
        images,
        shown,
        groups: groups.map(|groups| (groups.problems(), groups.ids())),
    }
}

/// What the first round found, in the form that a launch call takes it from; what was known before stays.
pub(super) fn prerequisites(known: &Prerequisites, survey: &PreflightSurvey) -> Prerequisites {
    let mut prerequisites = known.clone();
    for (kind, found) in survey.types.iter().flatten() {
        if let Ok(found) = found {
            prerequisites
                .types
                .entry(kind.clone())
                .or_insert_with(|| found.clone());
        }
    }
    for (text, found) in survey.subnets.iter().flatten() {
        let Some(subnet) = found.as_ref().ok().and_then(|subnets| subnets.first()) else {
            continue;
        };
        // Of the default VPC's subnets EC2 chooses.
        let one = |value: &String| {
            if text.is_empty() {
                String::new()
            } else {
                value.clone()
            }
        };
        let subnet = ResolvedSubnet {
            id: one(&subnet.id),
            vpc: subnet.vpc.clone(),
            zone: one(&subnet.zone),
        };
        prerequisites.subnets.entry(text.clone()).or_insert(subnet);
    }
    prerequisites
}
