//! What `preflight` must ask AWS about a region: reads only, calls that grow with pages, never with machines. Calls that
//! don't need each other's answers run at once.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Image;

use super::super::ground::image_keys;
use super::super::groups;
use super::super::images::{self, Finder, Key};
use super::super::lookup::{self, Each};
use super::super::placement;
use super::listing;
use super::reach::Network;
use super::report::Report;
use crate::provider::{Ask, Ground, ProviderError, SubnetGround, TypeGround};

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
    /// Snapshots.
    pub snapshots: BTreeSet<String>,
    /// Placement groups.
    pub placement: BTreeSet<String>,
    /// Security groups by id.
    pub group_ids: BTreeSet<String>,
}

/// A subnet that machines may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its zone.
    pub zone: String,
    /// Addresses that are free.
    pub free: usize,
    /// It can be used.
    pub available: bool,
    /// Machines get public addresses there unless said.
    pub public: bool,
}

/// A VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Net {
    /// The region's default one.
    pub default: bool,
    /// Its networks.
    pub networks: Vec<Network>,
}

/// The answers of the first round. `None`: that call failed, and the report says so; nothing may be concluded from it.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Types.
    pub types: Option<Each<String, TypeGround>>,
    /// Type and zone of each offer.
    pub offers: Option<BTreeSet<(String, String)>>,
    /// Subnets by the file's text; several for the default VPC.
    pub places: Option<Each<String, Vec<Place>>>,
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

impl Survey {
    /// Subnets that the file's text stands for, as far as they could be found.
    pub fn places_of(&self, text: &str) -> &[Place] {
        let found = self.places.as_ref().and_then(|places| places.get(text));
        found
            .and_then(|found| found.as_ref().ok())
            .map_or(&[], Vec::as_slice)
    }
}

/// The first round: all that can be asked from the file alone.
pub(super) async fn ask(ec2: &Client, questions: &Questions, report: &mut Report) -> Survey {
    let (types, offers, places, nets, keys, snapshots, placement, group_ids) = futures::join!(
        lookup::types(ec2, &questions.types),
        listing::offers(ec2, &questions.types),
        listing::places(ec2, &questions.subnets),
        listing::nets(ec2, !questions.subnets.is_empty()),
        listing::keys(ec2, &questions.keys),
        listing::snapshots(ec2, &questions.snapshots),
        placement::find(ec2, &questions.placement),
        listing::group_ids(ec2, &questions.group_ids),
    );
    let places = report.take("subnets", "ec2:DescribeSubnets", places);
    let nets = report.take("VPCs", "ec2:DescribeVpcs", nets);
    Survey {
        types: report.take("instance types", "ec2:DescribeInstanceTypes", types),
        offers: report.take(
            "where instance types are offered",
            "ec2:DescribeInstanceTypeOfferings",
            offers,
        ),
        places: places.map(|places| in_default_vpc(places, nets.as_ref())),
        nets,
        keys: report.take("key pairs", "ec2:DescribeKeyPairs", keys),
        snapshots: report.take("snapshots", "ec2:DescribeSnapshots", snapshots),
        placement: report.take("placement groups", "ec2:DescribePlacementGroups", placement),
        group_ids: report.take("security groups", "ec2:DescribeSecurityGroups", group_ids),
    }
}

/// Without those default subnets that a fake shows in other VPCs than the default one.
fn in_default_vpc(
    mut places: Each<String, Vec<Place>>,
    nets: Option<&BTreeMap<String, Net>>,
) -> Each<String, Vec<Place>> {
    if let (Some(Ok(default)), Some(nets)) = (places.get_mut(""), nets) {
        default.retain(|place| nets.get(&place.vpc).is_none_or(|net| net.default));
    }
    places
}

/// What is wrong with security groups, and the ids of those that are there.
type GroupsShown = (Vec<ProviderError>, BTreeMap<groups::Place, String>);

/// Answers of the second round, which needs types and VPCs.
#[derive(Default)]
pub(super) struct Second {
    /// Image ids.
    pub images: Option<Each<Key, String>>,
    /// Images that are there, by id.
    pub shown: Option<BTreeMap<String, Image>>,
    /// What is wrong with security groups, and the ids of those that are there, by VPC and name.
    pub groups: Option<GroupsShown>,
}

/// The second round; `ground` is what the first one found.
pub(super) async fn ask_again(
    finder: &Finder<'_>,
    ask: &Ask<'_>,
    ground: &Ground,
    report: &mut Report,
) -> Second {
    let (keys, known) = image_keys(ask, ground);
    let images = async {
        let found = finder.find(&keys, &known).await?;
        let ids = found.values().filter_map(|id| id.as_ref().ok());
        let shown = images::describe(finder.ec2, &ids.cloned().collect()).await?;
        Ok((shown, found))
    };
    let groups = groups::Survey::new(finder.ec2, ask, ground);
    let (images, groups) = futures::join!(images, groups);
    let (shown, images) = report.take("images", "ec2:DescribeImages", images).unzip();
    let groups = report.take("security groups", "ec2:DescribeSecurityGroups", groups);
    Second {
        images,
        shown,
        groups: groups.map(|groups| (groups.problems(), groups.ids())),
    }
}

/// What the first round found, in the form that a launch call takes it from; what was known before stays.
pub(super) fn ground(known: &Ground, survey: &Survey) -> Ground {
    let mut ground = known.clone();
    for (kind, found) in survey.types.iter().flatten() {
        if let Ok(found) = found {
            ground
                .types
                .entry(kind.clone())
                .or_insert_with(|| found.clone());
        }
    }
    for (text, found) in survey.places.iter().flatten() {
        let Some(place) = found.as_ref().ok().and_then(|places| places.first()) else {
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
        let subnet = SubnetGround {
            id: one(&place.id),
            vpc: place.vpc.clone(),
            zone: one(&place.zone),
        };
        ground.subnets.entry(text.clone()).or_insert(subnet);
    }
    ground
}
