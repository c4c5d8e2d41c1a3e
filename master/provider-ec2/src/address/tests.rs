//! Tests of `address`: which address goes where, and each way in which EC2 can say no.

use aot_provider::calls::Calls;
use aot_provider::{ErrorKind, Leftovers};
use proptest::prelude::*;

use super::*;
use crate::fake::{Replay, cluster};

fn machines(count: usize) -> Vec<(MachineId, InstanceName)> {
    (1..=count)
        .map(|number| {
            let id = format!("i-{number}").parse().unwrap();
            (id, format!("web{number}").parse().unwrap())
        })
        .collect()
}

fn ip(number: usize) -> ElasticIp {
    ElasticIp {
        allocation: format!("eipalloc-{number}"),
        address: format!("192.0.2.{number}"),
    }
}

fn address(number: usize, machine: Option<&str>, instance: Option<&str>) -> Ours {
    Ours {
        ip: ip(number),
        machine: machine.map(str::to_owned),
        associated: machine.is_some(),
        instance: instance.map(str::to_owned),
    }
}

fn taken(number: usize, retag: bool, from_gone: bool) -> AddressPlan {
    AddressPlan::Reuse {
        ip: ip(number),
        retag,
        from_gone,
    }
}

#[test]
fn which_address_goes_where() {
    let gone = BTreeSet::from(["i-99".to_owned()]);
    let interface_only = Ours {
        associated: true,
        ..address(1, None, Some("web1"))
    };
    for (addresses, wanted) in [
        (vec![], AddressPlan::Allocate),
        (
            vec![address(1, Some("i-1"), Some("web1"))],
            AddressPlan::Keep(ip(1)),
        ),
        (vec![address(1, None, Some("web1"))], taken(1, false, false)),
        (
            vec![address(1, Some("i-99"), Some("web1"))],
            taken(1, false, true),
        ),
        (
            vec![address(1, Some("i-98"), Some("web1"))],
            AddressPlan::Allocate,
        ),
        (vec![interface_only], AddressPlan::Allocate),
        (vec![address(1, None, Some("old7"))], taken(1, true, false)),
        (
            vec![address(1, None, Some("old7")), address(2, None, None)],
            taken(2, true, false),
        ),
        (
            vec![
                address(2, None, Some("old7")),
                address(1, None, Some("old8")),
            ],
            taken(1, true, false),
        ),
    ] {
        let (steps, spare) = decide(&addresses, &machines(1), &gone);
        assert_eq!((steps, spare.len()), (vec![wanted], 0), "{addresses:?}");
    }
}

#[test]
fn ones_own_goes_before_what_another_could_take() {
    let addresses = [
        address(1, None, Some("web2")),
        address(2, None, Some("old")),
    ];
    let (steps, _) = decide(&addresses, &machines(2), &BTreeSet::new());
    assert_eq!(steps, [taken(2, true, false), taken(1, false, false)]);
}

#[test]
fn surplus_of_an_instance_that_has_one_is_spare() {
    let addresses = [
        address(1, Some("i-1"), Some("web1")),
        address(2, None, Some("web1")),
        address(3, None, Some("web2")),
        address(4, None, Some("web2")),
    ];
    let (steps, spare) = decide(&addresses, &machines(2), &BTreeSet::new());
    assert_eq!(steps, [AddressPlan::Keep(ip(1)), taken(3, false, false)]);
    assert_eq!(spare["web1"], [ip(2)]);
    assert_eq!(spare["web2"], [ip(4)]);
}

proptest! {
    #[test]
    fn no_address_is_given_twice(
        rows in proptest::collection::vec((0..8_usize, 0..8_usize), 0..12),
        count in 1..5_usize,
    ) {
        let addresses: Vec<Ours> = rows
            .iter()
            .enumerate()
            .map(|(number, (machine, name))| {
                let machine = (*machine < 6).then(|| format!("i-{machine}"));
                let name = (*name < 6).then(|| format!("web{name}"));
                address(number, machine.as_deref(), name.as_deref())
            })
            .collect();
        let gone = BTreeSet::from(["i-5".to_owned()]);
        let (steps, spare) = decide(&addresses, &machines(count), &gone);
        prop_assert_eq!(steps.len(), count);
        let mut used: Vec<ElasticIp> = spare.into_values().flatten().collect();
        let released = used.len();
        for step in steps {
            match step {
                AddressPlan::Keep(ip) | AddressPlan::Reuse { ip, .. } => used.push(ip),
                AddressPlan::Allocate => {}
            }
        }
        for ip in &used[..released] {
            let it = addresses.iter().find(|it| it.ip == *ip).unwrap();
            prop_assert!(is_free(it, &gone), "only free ones are released");
        }
        let all = used.len();
        used.sort_by(|a, b| a.allocation.cmp(&b.allocation));
        used.dedup();
        prop_assert_eq!(used.len(), all);
    }
}

fn item(number: usize, machine: &str, instance: &str) -> String {
    let association = if machine.is_empty() {
        String::new()
    } else {
        format!(
            "<instanceId>{machine}</instanceId><associationId>eipassoc-{number}</associationId>"
        )
    };
    format!(
        "<item><allocationId>eipalloc-{number}</allocationId><publicIp>192.0.2.{number}</publicIp>{association}<tagSet><item><key>aot:cluster-uuid</key><value>uuid-1</value></item><item><key>aot:instance</key><value>{instance}</value></item></tagSet></item>"
    )
}

fn known(fake: &Replay, items: &[String]) {
    let items = items.concat();
    fake.ok(
        "DescribeAddresses",
        &format!("<addressesSet>{items}</addressesSet>"),
    );
}

const NEW: &str = "<allocationId>eipalloc-9</allocationId><publicIp>192.0.2.9</publicIp>";
const ASSOCIATED: &str = "<associationId>eipassoc-9</associationId>";

async fn given(fake: &Replay, count: usize) -> Vec<Given> {
    give(
        &fake.clients(Calls::default()),
        &cluster(),
        &machines(count),
    )
    .await
}

#[tokio::test]
async fn a_new_address_is_tagged_in_the_call_that_makes_it() {
    let fake = Replay::default();
    known(&fake, &[]);
    fake.ok("AllocateAddress", NEW)
        .ok("AssociateAddress", ASSOCIATED);
    let given = given(&fake, 1).await;
    assert_eq!(given[0].1.as_ref().unwrap(), &ip(9));
    let made = &fake.asked("AllocateAddress")[0];
    assert_eq!(made["Domain"], "vpc");
    assert_eq!(made["TagSpecification.1.ResourceType"], "elastic-ip");
    let tags: BTreeMap<&str, &str> = (1..=4)
        .map(|number| {
            let part =
                |part: &str| made[&format!("TagSpecification.1.Tag.{number}.{part}")].as_str();
            (part("Key"), part("Value"))
        })
        .collect();
    let wanted = [
        ("Name", "web1"),
        ("Cluster", "shop"),
        ("aot:cluster-uuid", "uuid-1"),
        ("aot:instance", "web1"),
    ];
    assert_eq!(tags, BTreeMap::from(wanted));
    let put = &fake.asked("AssociateAddress")[0];
    assert_eq!(put["InstanceId"], "i-1");
    assert_eq!(put["AllowReassociation"], "false");
}

#[tokio::test]
async fn what_is_there_costs_one_call() {
    let fake = Replay::default();
    known(&fake, &[item(1, "i-1", "web1"), item(2, "i-2", "web2")]);
    let given = given(&fake, 2).await;
    assert_eq!(given[1].1.as_ref().unwrap(), &ip(2));
    assert_eq!(fake.actions(), ["DescribeAddresses"]);
}

#[tokio::test]
async fn a_free_one_gets_a_new_name_and_a_surplus_one_goes() {
    let fake = Replay::default();
    known(
        &fake,
        &[
            item(1, "", "old"),
            item(2, "i-2", "web2"),
            item(3, "", "web2"),
        ],
    );
    fake.ok("CreateTags", "<return>true</return>")
        .ok("AssociateAddress", ASSOCIATED)
        .ok("ReleaseAddress", "<return>true</return>");
    let given = given(&fake, 2).await;
    assert_eq!(given[0].1.as_ref().unwrap(), &ip(1));
    let tagged = &fake.asked("CreateTags")[0];
    assert_eq!(
        (
            tagged["ResourceId.1"].as_str(),
            tagged["Tag.2.Value"].as_str()
        ),
        ("eipalloc-1", "web1")
    );
    let released = fake.asked("ReleaseAddress");
    assert_eq!(
        (released.len(), released[0]["AllocationId"].as_str()),
        (1, "eipalloc-3")
    );
}

#[tokio::test]
async fn one_on_a_terminated_machine_is_taken_from_it() {
    let fake = Replay::default();
    known(&fake, &[item(1, "i-77", "web1")]);
    fake.ok(
        "DescribeInstances",
        "<reservationSet><item><instancesSet><item><instanceId>i-77</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>terminated</name></instanceState><tagSet><item><key>aot:cluster-uuid</key><value>uuid-1</value></item></tagSet></item></instancesSet></item></reservationSet>",
    )
    .ok("AssociateAddress", ASSOCIATED);
    assert_eq!(given(&fake, 1).await[0].1.as_ref().unwrap(), &ip(1));
    assert_eq!(
        fake.asked("AssociateAddress")[0]["AllowReassociation"],
        "true"
    );
}

#[tokio::test]
async fn one_failure_is_that_machines_alone() {
    let fake = Replay::default();
    known(&fake, &[]);
    fake.refuse(
        "AllocateAddress",
        400,
        "AddressLimitExceeded",
        "The maximum number of addresses has been reached.",
    )
    .ok("AllocateAddress", NEW)
    .ok("AssociateAddress", ASSOCIATED);
    let given = given(&fake, 2).await;
    let (bad, good): (Vec<_>, Vec<_>) = given.iter().partition(|(_, result)| result.is_err());
    assert_eq!((bad.len(), good.len()), (1, 1));
    let error = bad[0].1.as_ref().unwrap_err();
    assert_eq!(
        (error.kind, error.leftovers),
        (ErrorKind::Quota, Leftovers::None)
    );
    assert!(error.message.contains("Service Quotas"), "{error}");
}

#[tokio::test]
async fn what_can_not_be_listed_fails_all() {
    let fake = Replay::default();
    fake.refuse("DescribeAddresses", 403, "UnauthorizedOperation", "no");
    let given = given(&fake, 2).await;
    assert!(
        given
            .iter()
            .all(|(_, result)| result.as_ref().unwrap_err().kind == ErrorKind::Denied)
    );
    assert_eq!(fake.actions().len(), 1);
}

#[tokio::test]
async fn an_association_that_fails_releases_nothing() {
    let fake = Replay::default();
    known(&fake, &[item(1, "", "web1"), item(2, "", "web1")]);
    fake.refuse(
        "AssociateAddress",
        400,
        "InvalidInstanceID",
        "not in a valid state",
    );
    let given = given(&fake, 1).await;
    assert_eq!(given[0].1.as_ref().unwrap_err().kind, ErrorKind::Invalid);
    assert!(fake.asked("ReleaseAddress").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_address_is_waited_for_until_ec2_knows_it() {
    for code in ["InvalidAllocationID.NotFound", "UnauthorizedOperation"] {
        let fake = Replay::default();
        known(&fake, &[]);
        fake.ok("AllocateAddress", NEW)
            .refuse("AssociateAddress", 400, code, "what address?")
            .ok("AssociateAddress", ASSOCIATED);
        let given = given(&fake, 1).await;
        assert!(given[0].1.is_ok(), "{code}: {given:?}");
        assert_eq!(fake.asked("AllocateAddress").len(), 1, "{code}");
        assert_eq!(fake.asked("AssociateAddress").len(), 2, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_found_is_not_waited_for() {
    let fake = Replay::default();
    known(&fake, &[item(1, "", "web1")]);
    fake.refuse("AssociateAddress", 400, "InvalidAllocationID.NotFound", "x");
    let given = given(&fake, 1).await;
    assert_eq!(given[0].1.as_ref().unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(fake.asked("AssociateAddress").len(), 1);
}
