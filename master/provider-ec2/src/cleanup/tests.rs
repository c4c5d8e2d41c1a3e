//! Tests of `cleanup`, with `leftover` and `references`: what goes, what is waited for, what stays and why.

use aws_sdk_ec2::types::{Instance, InstanceState, InstanceStateName};

use super::*;
use crate::convert;
use crate::fake::Replay;

/// What all that is ours carries.
const TAGGED: &str =
    "<tagSet><item><key>aot:cluster-uuid</key><value>uuid-1</value></item></tagSet>";

const KINDS: [(&str, &str); 5] = [
    ("DescribeAddresses", "addressesSet"),
    ("DescribeNetworkInterfaces", "networkInterfaceSet"),
    ("DescribeVolumes", "volumeSet"),
    ("DescribeSecurityGroups", "securityGroupInfo"),
    ("DescribePlacementGroups", "placementGroupSet"),
];

/// Lists of all kinds, empty but for what is given.
fn lists(given: &[(&str, &str)]) -> Replay {
    let fake = Replay::default();
    for (action, set) in KINDS {
        let items: String = given
            .iter()
            .filter(|(of, _)| *of == action)
            .map(|(_, item)| format!("<item>{item}{TAGGED}</item>"))
            .collect();
        fake.ok(action, &format!("<{set}>{items}</{set}>"));
    }
    fake
}

fn group(id: &str, names: &[&str]) -> String {
    let pairs: String = names
        .iter()
        .map(|id| format!("<item><groupId>{id}</groupId></item>"))
        .collect();
    format!(
        "<groupId>{id}</groupId><groupName>name-{id}</groupName><ipPermissions><item><ipProtocol>tcp</ipProtocol><fromPort>22</fromPort><toPort>23</toPort><groups>{pairs}</groups><ipRanges><item><cidrIp>192.0.2.0/24</cidrIp></item></ipRanges></item></ipPermissions>"
    )
}

const DONE: &str = "<return>true</return>";
const PG: &str = "<groupId>pg-1</groupId><groupName>tight</groupName><state>available</state>";

fn terminated(id: &str) -> Machine {
    let name = InstanceStateName::Terminated;
    let instance = Instance::builder()
        .instance_id(id)
        .ami_launch_index(0)
        .state(InstanceState::builder().name(name).build())
        .build();
    convert::machine(&instance, "eu-west-1", None).unwrap()
}

async fn cleaned(fake: &Replay, patience: Duration) -> Vec<Receipt> {
    let machines = [terminated("i-1")];
    rest(&fake.client().await, "uuid-1", &machines, patience)
        .await
        .unwrap()
}

fn rows(receipts: &[Receipt]) -> Vec<(&str, &str, &str, bool)> {
    receipts
        .iter()
        .map(|it| (it.kind.as_str(), it.id.as_str(), it.state.as_str(), it.left))
        .collect()
}

#[tokio::test]
async fn every_kind_goes_in_its_order_and_has_a_receipt() {
    let fake = lists(&[
        (
            "DescribeAddresses",
            "<allocationId>eipalloc-1</allocationId><associationId>eipassoc-1</associationId>",
        ),
        (
            "DescribeNetworkInterfaces",
            "<networkInterfaceId>eni-1</networkInterfaceId><status>available</status>",
        ),
        (
            "DescribeVolumes",
            "<volumeId>vol-1</volumeId><status>available</status>",
        ),
        (
            "DescribeVolumes",
            "<volumeId>vol-2</volumeId><status>deleting</status>",
        ),
        ("DescribeSecurityGroups", &group("sg-1", &["sg-1", "sg-77"])),
        ("DescribePlacementGroups", PG),
    ]);
    let deletes = [
        "DisassociateAddress",
        "ReleaseAddress",
        "DeleteNetworkInterface",
        "DeleteVolume",
        "DeleteSecurityGroup",
        "DeletePlacementGroup",
    ];
    for action in deletes {
        fake.ok(action, DONE);
    }
    let receipts = cleaned(&fake, PATIENCE).await;
    assert_eq!(
        rows(&receipts),
        [
            ("address", "eipalloc-1", "released", false),
            ("network-interface", "eni-1", "deleted", false),
            ("volume", "vol-1", "deleted", false),
            ("volume", "vol-2", "deleting", false),
            ("security-group", "sg-1 (name-sg-1)", "deleted", false),
            ("placement-group", "pg-1 (tight)", "deleted", false),
        ]
    );
    assert_eq!(
        fake.actions()[5..],
        deletes,
        "no rule names another of ours"
    );
    assert_eq!(
        fake.asked("DisassociateAddress")[0]["AssociationId"],
        "eipassoc-1"
    );
    assert_eq!(
        fake.asked("ReleaseAddress")[0]["AllocationId"],
        "eipalloc-1"
    );
    assert_eq!(fake.asked("DeletePlacementGroup")[0]["GroupName"], "tight");
    for action in &fake.actions()[..5] {
        let asked = &fake.asked(action)[0];
        assert_eq!(asked["Filter.1.Name"], "tag:aot:cluster-uuid", "{action}");
        assert_eq!(asked["Filter.1.Value.1"], "uuid-1");
    }
}

#[tokio::test]
async fn groups_that_name_each_other_are_untied_first() {
    let fake = lists(&[
        (
            "DescribeSecurityGroups",
            &group("sg-1", &["sg-1", "sg-2", "sg-99"]),
        ),
        ("DescribeSecurityGroups", &group("sg-2", &["sg-1"])),
    ]);
    fake.ok("RevokeSecurityGroupIngress", DONE)
        .ok("DeleteSecurityGroup", DONE);
    let receipts = cleaned(&fake, PATIENCE).await;
    assert!(receipts.iter().all(|it| !it.left), "{receipts:?}");
    let revoked = fake.asked("RevokeSecurityGroupIngress");
    assert_eq!(revoked.len(), 2);
    let rule = &revoked[0];
    assert_eq!(rule["GroupId"], "sg-1");
    assert_eq!(rule["IpPermissions.1.FromPort"], "22");
    assert_eq!(rule["IpPermissions.1.Groups.1.GroupId"], "sg-2");
    let more = |part: &str| rule.keys().any(|key| key.contains(part));
    assert!(!more("Groups.2") && !more("IpRanges"), "{rule:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_waited_for() {
    let fake = lists(&[
        ("DescribeSecurityGroups", &group("sg-1", &[])),
        ("DescribePlacementGroups", PG),
        (
            "DescribeNetworkInterfaces",
            "<networkInterfaceId>eni-1</networkInterfaceId><status>in-use</status><attachment><instanceId>i-1</instanceId></attachment>",
        ),
        (
            "DescribeVolumes",
            "<volumeId>vol-1</volumeId><status>in-use</status><attachmentSet><item><instanceId>i-1</instanceId></item></attachmentSet>",
        ),
    ]);
    for (action, code) in [
        ("DeleteSecurityGroup", "DependencyViolation"),
        ("DeletePlacementGroup", "InvalidPlacementGroup.InUse"),
        ("DeleteNetworkInterface", "InvalidParameterValue"),
        ("DeleteVolume", "VolumeInUse"),
    ] {
        fake.refuse(action, 400, code, "it is currently in use")
            .ok(action, DONE);
    }
    let start = Instant::now();
    let receipts = cleaned(&fake, PATIENCE).await;
    assert!(receipts.iter().all(|it| !it.left), "{receipts:?}");
    assert_eq!(receipts.len(), 4);
    assert!(start.elapsed() >= FIRST_PAUSE && start.elapsed() < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_the_reason_is_said() {
    let fake = lists(&[
        ("DescribeSecurityGroups", &group("sg-1", &[])),
        (
            "DescribeVolumes",
            "<volumeId>vol-1</volumeId><status>available</status>",
        ),
    ]);
    fake.refuse(
        "DeleteSecurityGroup",
        400,
        "DependencyViolation",
        "resource sg-1 has a dependent object",
    )
    .ok("DeleteVolume", DONE);
    let start = Instant::now();
    let receipts = cleaned(&fake, PATIENCE).await;
    assert_eq!((receipts[0].left, receipts[1].left), (false, true));
    assert!(
        receipts[1].state.contains("dependent object"),
        "{receipts:?}"
    );
    assert!(start.elapsed() >= PATIENCE && start.elapsed() < PATIENCE * 2);
    assert_eq!(fake.asked("DeleteVolume").len(), 1);
    let tries = fake.asked("DeleteSecurityGroup").len();
    assert!((10..30).contains(&tries), "{tries}");
}

/// The next listings show nothing.
fn then_nothing(fake: &Replay) {
    for (action, set) in KINDS {
        fake.ok(action, &format!("<{set}/>"));
    }
}

#[tokio::test]
async fn what_is_gone_already_is_deleted() {
    let fake = lists(&[
        (
            "DescribeAddresses",
            "<allocationId>eipalloc-1</allocationId><associationId>eipassoc-1</associationId>",
        ),
        (
            "DescribeVolumes",
            "<volumeId>vol-1</volumeId><status>available</status>",
        ),
        ("DescribeSecurityGroups", &group("sg-1", &[])),
        ("DescribePlacementGroups", PG),
    ]);
    then_nothing(&fake);
    for (action, code) in [
        ("DisassociateAddress", "InvalidAssociationID.NotFound"),
        ("ReleaseAddress", "InvalidAllocationID.NotFound"),
        ("DeleteVolume", "InvalidVolume.NotFound"),
        ("DeleteSecurityGroup", "InvalidGroup.NotFound"),
        ("DeletePlacementGroup", "InvalidPlacementGroup.Unknown"),
    ] {
        fake.refuse(action, 400, code, "it does not exist");
    }
    let receipts = cleaned(&fake, PATIENCE).await;
    assert_eq!(receipts.len(), 4);
    assert!(receipts.iter().all(|it| !it.left), "{receipts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_others_use_or_may_not_be_deleted_stays() {
    let fake = lists(&[
        (
            "DescribeNetworkInterfaces",
            "<networkInterfaceId>eni-1</networkInterfaceId><status>in-use</status>",
        ),
        (
            "DescribeVolumes",
            "<volumeId>vol-1</volumeId><status>in-use</status><attachmentSet><item><instanceId>i-99</instanceId></item></attachmentSet>",
        ),
        (
            "DescribeVolumes",
            "<volumeId>vol-2</volumeId><status>available</status>",
        ),
    ]);
    fake.ok("DescribeInstances", &instances("i-99", "running"));
    fake.refuse("DeleteVolume", 403, "UnauthorizedOperation", "not you");
    let receipts = cleaned(&fake, PATIENCE).await;
    let states: Vec<_> = receipts
        .iter()
        .map(|it| (it.state.as_str(), it.left))
        .collect();
    assert_eq!(states[..2], [("in-use", true), ("in-use by i-99", true)]);
    assert!(states[2].0.contains("not you") && states[2].1);
    let tries = fake.asked("DeleteVolume").len();
    assert!((2..=6).contains(&tries), "{tries}");
    assert!(fake.asked("DeleteNetworkInterface").is_empty());
}

#[tokio::test]
async fn a_volume_that_went_with_its_machine_is_not_left_because_it_has_no_tags() {
    let volume = "<volumeId>vol-1</volumeId><status>available</status>";
    let fake = lists(&[("DescribeVolumes", volume)]);
    then_nothing(&fake);
    fake.refuse("DeleteVolume", 403, "UnauthorizedOperation", "no tags");
    let receipts = cleaned(&fake, PATIENCE).await;
    assert_eq!(rows(&receipts), [("volume", "vol-1", "deleted", false)]);
    assert_eq!(fake.asked("DeleteVolume").len(), 1);
}

fn instances(id: &str, state: &str) -> String {
    format!(
        "<reservationSet><item><instancesSet><item><instanceId>{id}</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>{state}</name></instanceState></item></instancesSet></item></reservationSet>"
    )
}

#[tokio::test]
async fn what_a_machine_held_that_ec2_no_longer_has_goes() {
    let volume = "<volumeId>vol-1</volumeId><status>in-use</status><attachmentSet><item><instanceId>i-77</instanceId></item></attachmentSet>";
    for shown in [
        "<reservationSet/>".to_owned(),
        instances("i-77", "terminated"),
    ] {
        let fake = lists(&[("DescribeVolumes", volume)]);
        fake.ok("DescribeInstances", &shown)
            .ok("DeleteVolume", DONE);
        let receipts = cleaned(&fake, PATIENCE).await;
        assert_eq!(rows(&receipts), [("volume", "vol-1", "deleted", false)]);
    }
    let fake = lists(&[("DescribeVolumes", volume)]);
    fake.refuse("DescribeInstances", 403, "UnauthorizedOperation", "no");
    let receipts = cleaned(&fake, PATIENCE).await;
    assert!(receipts[0].left, "it may be somebody's: {receipts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_too_new_to_be_known_is_deleted_all_the_same() {
    let fake = lists(&[("DescribeSecurityGroups", &group("sg-1", &[]))]);
    fake.refuse("DeleteSecurityGroup", 400, "InvalidGroup.NotFound", "what?")
        .ok("DeleteSecurityGroup", DONE);
    let receipts = cleaned(&fake, PATIENCE).await;
    assert!(!receipts[0].left, "{receipts:?}");
    assert_eq!(fake.asked("DeleteSecurityGroup").len(), 2);
}

#[tokio::test]
async fn without_a_whole_list_nothing_is_deleted() {
    let fake = Replay::default();
    fake.ok(
        "DescribeAddresses",
        "<addressesSet><item><allocationId>eipalloc-1</allocationId></item></addressesSet>",
    )
    .refuse(
        "DescribeNetworkInterfaces",
        403,
        "UnauthorizedOperation",
        "no",
    );
    let client = fake.client().await;
    assert!(rest(&client, "uuid-1", &[], PATIENCE).await.is_err());
    assert_eq!(
        fake.actions(),
        ["DescribeAddresses", "DescribeNetworkInterfaces"]
    );
}
