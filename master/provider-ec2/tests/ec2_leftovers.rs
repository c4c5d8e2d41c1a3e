//! What the provider does with things of a cluster besides machines, against the lab by itself, and against anything else
//! where `AOT_EC2=1`, like `ec2_provider`.

use std::collections::BTreeMap;

use aot_ec2::Ec2Provider;
use aot_provider::calls::Calls;
use aot_provider::{ClusterRef, Lifecycle, Provider, Receipt, Tagged};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    DomainType, IpPermission, PlacementStrategy, ResourceType, Tag, TagSpecification,
    UserIdGroupPair,
};

/// A cluster that nobody has, and a client to make things of it with.
async fn begin() -> Option<(ClusterRef, Client, Ec2Provider)> {
    if std::env::var("AOT_EC2").as_deref() != Ok("1") {
        println!("skipped: AOT_EC2=1 is not set");
        return None;
    }
    let cluster = ClusterRef {
        name: "leftovers".parse().unwrap(),
        uuid: ulid::Ulid::generate().to_string().to_lowercase(),
        region: None,
    };
    let settings = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let provider = Ec2Provider::new(None, Calls::default());
    Some((cluster, Client::new(&settings), provider))
}

fn tagged_as(kind: ResourceType, cluster: &ClusterRef) -> TagSpecification {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    TagSpecification::builder()
        .resource_type(kind)
        .tags(tag("Cluster", cluster.name.as_str()))
        .tags(tag("aot:cluster-uuid", &cluster.uuid))
        .build()
}

/// One thing of each kind; two groups that name each other.
async fn make(client: &Client, cluster: &ClusterRef) {
    let mut groups = Vec::new();
    for name in ["one", "two"] {
        let request = client
            .create_security_group()
            .group_name(format!("{}-{name}", cluster.uuid))
            .description("test")
            .tag_specifications(tagged_as(ResourceType::SecurityGroup, cluster));
        groups.push(request.send().await.unwrap().group_id.unwrap());
    }
    for (group, other) in [(&groups[0], &groups[1]), (&groups[1], &groups[0])] {
        let rule = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(22)
            .to_port(22)
            .user_id_group_pairs(UserIdGroupPair::builder().group_id(other).build());
        let request = client
            .authorize_security_group_ingress()
            .group_id(group)
            .ip_permissions(rule.build());
        request.send().await.unwrap();
    }
    let request = client
        .create_placement_group()
        .group_name(format!("{}-tight", cluster.uuid))
        .strategy(PlacementStrategy::Cluster)
        .tag_specifications(tagged_as(ResourceType::PlacementGroup, cluster));
    request.send().await.unwrap();
    let request = client
        .allocate_address()
        .domain(DomainType::Vpc)
        .tag_specifications(tagged_as(ResourceType::ElasticIp, cluster));
    request.send().await.unwrap();
    let zones = client.describe_availability_zones().send().await.unwrap();
    let zone = zones.availability_zones()[0].zone_name().unwrap();
    let request = client
        .create_volume()
        .availability_zone(zone)
        .size(1)
        .tag_specifications(tagged_as(ResourceType::Volume, cluster));
    request.send().await.unwrap();
}

async fn shown(provider: &Ec2Provider, cluster: &ClusterRef) -> Vec<Tagged> {
    let mut tagged = provider.tagged().await.unwrap();
    tagged.retain(|thing| thing.uuid == cluster.uuid && !thing.gone);
    tagged
}

fn kinds<'a>(all: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut kinds = BTreeMap::new();
    for kind in all {
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[tokio::test]
async fn all_that_carries_the_tag_goes_and_nothing_else() {
    let Some((cluster, client, provider)) = begin().await else {
        return;
    };
    let other = ClusterRef {
        uuid: format!("{}-other", cluster.uuid),
        ..cluster.clone()
    };
    make(&client, &cluster).await;
    make(&client, &other).await;
    let wanted = BTreeMap::from([
        ("address", 1),
        ("placement-group", 1),
        ("security-group", 2),
        ("volume", 1),
    ]);
    let before = shown(&provider, &cluster).await;
    assert_eq!(kinds(before.iter().map(|thing| thing.kind)), wanted);
    let receipts = provider.cleanup(&cluster).await.unwrap();
    assert_eq!(kinds(receipts.iter().map(|it| it.kind.as_str())), wanted);
    let left: Vec<&Receipt> = receipts.iter().filter(|receipt| receipt.left).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(shown(&provider, &cluster).await.is_empty());
    let others = shown(&provider, &other).await;
    assert_eq!(kinds(others.iter().map(|thing| thing.kind)), wanted);
    let receipts = provider.cleanup(&other).await.unwrap();
    assert!(receipts.iter().all(|it| !it.left), "{receipts:?}");
    assert!(provider.cleanup(&cluster).await.unwrap().is_empty());
}

#[tokio::test]
async fn ids_that_ec2_does_not_know_are_told() {
    let Some((cluster, _, provider)) = begin().await else {
        return;
    };
    let ids = ["i-0123456789abcdef0".parse().unwrap()];
    let unknown = provider.lifecycle(&cluster, Lifecycle::Terminate, &ids);
    assert_eq!(unknown.await.unwrap().unknown, ids);
    let changed = provider.lifecycle(&cluster, Lifecycle::Stop, &ids).await;
    let error = changed.unwrap().of_all().unwrap_err();
    assert!(error.message.contains(ids[0].as_str()), "{error}");
}

/// The tests of this file once more, against the lab's API: here, where nobody has set up another one.
#[test]
fn all_of_this_holds_in_the_lab() {
    aot_tests::lab::again_inside();
}
