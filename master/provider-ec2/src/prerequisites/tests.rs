//! Preparing against a small region: what is found, what is made, how many calls it takes, and that a crash at any call
//! leaves nothing that the next try can't take up.

use aot_model::samples;
use aot_model::spec::{
    ClusterSpec, GroupAction, InboundRule, MachineSpec, ProviderKind, SecurityGroupSpec, VolumeSpec,
};
use aot_provider::{ClusterRef, ErrorKind, Leftovers, ResolvedType, ThingKind};

use super::*;
use crate::fake::{Fake, Fault, Group, Image};

pub(crate) struct Case {
    pub fake: Fake,
    clients: (Client, aws_sdk_ssm::Client),
    pub spec: ClusterSpec,
    pub cluster: ClusterRef,
    pub missing: BTreeMap<String, usize>,
    pub parts: BTreeMap<String, String>,
    pub known: Prerequisites,
    pub agents: BTreeMap<String, String>,
}

fn pool(name: &str, count: usize, machine: MachineSpec) -> PoolSpec {
    PoolSpec {
        machine,
        ..samples::pool(name, count)
    }
}

pub(crate) fn group(name: &str, action: GroupAction) -> SecurityGroupSpec {
    SecurityGroupSpec {
        name: name.into(),
        action,
        allow_all_own_traffic: true,
        allow_ssh_from: vec!["0.0.0.0/0".into()],
        allow_inbound: Vec::new(),
    }
}

/// Pool `web` of two types in two subnets of one VPC, in group `own`; pool `db` where EC2 puts it, in group `default`.
pub(crate) fn case() -> Case {
    let web = MachineSpec {
        ami: Some("debian-12".into()),
        types: vec!["m5.large".into(), "m6g.large".into()],
        subnets: vec!["subnet-a".into(), "blue".into()],
        security_groups: vec!["own".into()],
        allocate_ip_address: true,
        ..MachineSpec::default()
    };
    let db = MachineSpec {
        ami: Some("name:mine-*@self".into()),
        types: vec!["c3.large".into()],
        security_groups: vec!["default".into(), "sg-99".into()],
        placement_group: Some("near".into()),
        ..MachineSpec::default()
    };
    let fake = Fake::default();
    fake.with(|region| {
        region.types = vec![
            ("m5.large", "x86_64", 0, ""),
            ("m6g.large", "arm64", 0, ""),
            ("c3.large", "x86_64", 2, "unsupported"),
            ("i3.large", "x86_64", 1, "required"),
        ];
        region.subnets = vec![
            ("subnet-a", "vpc-1", "green"),
            ("subnet-b", "vpc-1", "blue"),
        ];
        region.default_vpc = Some("vpc-0");
        let image = |id, owner, name, arch, date| Image {
            id,
            owner,
            name,
            arch,
            date,
        };
        region.images = vec![
            image(
                "ami-x1",
                "136693071363",
                "debian-12-amd64-1",
                "x86_64",
                "2024-01-01",
            ),
            image(
                "ami-x2",
                "136693071363",
                "debian-12-amd64-2",
                "x86_64",
                "2025-01-01",
            ),
            image(
                "ami-x3",
                "136693071363",
                "debian-12-amd64-3",
                "x86_64",
                "2023-01-01",
            ),
            image(
                "ami-a1",
                "136693071363",
                "debian-12-arm64-1",
                "arm64",
                "2025-01-01",
            ),
            image("ami-m1", "self", "mine-1", "x86_64", "2025-01-01"),
        ];
        let arm = "/aws/service/debian/release/12/latest/arm64";
        region.parameters.insert(arm.into(), "ami-a1".into());
        region.groups.push(Group {
            id: "sg-d".into(),
            vpc: "vpc-0".into(),
            name: "default".into(),
            ..Group::default()
        });
    });
    Case {
        clients: fake.clients(),
        fake,
        spec: ClusterSpec {
            security_groups: vec![group("own", GroupAction::Create)],
            ..samples::file(
                "p-1",
                ProviderKind::Ec2,
                vec![pool("web", 3, web), pool("db", 1, db)],
            )
        },
        cluster: ClusterRef {
            name: "p-1".parse().unwrap(),
            uuid: "uuid-1".into(),
            region: None,
        },
        missing: [("web".to_owned(), 3), ("db".to_owned(), 1)].into(),
        parts: BTreeMap::new(),
        known: Prerequisites::default(),
        agents: BTreeMap::new(),
    }
}

impl Case {
    pub(crate) fn ask(&self) -> Ask<'_> {
        Ask {
            spec: &self.spec,
            cluster: Some(&self.cluster),
            known: &self.known,
            missing: &self.missing,
            advertise: &[],
            user_parts: &self.parts,
            agents: &self.agents,
        }
    }

    pub(crate) async fn prepare(&self) -> Result<Prerequisites, ProviderError> {
        let (ec2, ssm) = &self.clients;
        prepare_with(&Finder { ec2, ssm }, &self.ask()).await
    }

    pub(crate) async fn outline(&self) -> Vec<Thing> {
        let (ec2, ssm) = &self.clients;
        let finder = Finder { ec2, ssm };
        outline_with(&finder, &self.ask()).await.unwrap()
    }
}

fn expected() -> Prerequisites {
    let kind = |arch: &str, ephemeral_drives| ResolvedType {
        arch: arch.into(),
        ephemeral_drives,
    };
    let subnet = |id: &str, vpc: &str, zone: &str| ResolvedSubnet {
        id: id.into(),
        vpc: vpc.into(),
        zone: zone.into(),
    };
    Prerequisites {
        made_ms: BTreeMap::new(),
        notices: Vec::new(),
        images: [
            ("debian-12 arm64".into(), "ami-a1".into()),
            ("debian-12 x86_64".into(), "ami-x2".into()),
            ("name:mine-*@self x86_64".into(), "ami-m1".into()),
        ]
        .into(),
        types: [
            ("c3.large".into(), kind("x86_64", 2)),
            ("m5.large".into(), kind("x86_64", 0)),
            ("m6g.large".into(), kind("arm64", 0)),
        ]
        .into(),
        subnets: [
            (String::new(), subnet("", "vpc-0", "")),
            ("blue".into(), subnet("subnet-b", "vpc-1", "z")),
            ("subnet-a".into(), subnet("subnet-a", "vpc-1", "z")),
        ]
        .into(),
        groups: [
            ("vpc-0 default".into(), "sg-d".into()),
            ("vpc-1 own".into(), "sg-2".into()),
        ]
        .into(),
        discovery_token: None,
    }
}

#[tokio::test]
async fn everything_is_found_or_made_in_few_calls() {
    let mut case = case();
    let mut prerequisites = case.prepare().await.unwrap();
    let notices = std::mem::take(&mut prerequisites.notices);
    let made: Vec<String> = std::mem::take(&mut prerequisites.made_ms)
        .into_keys()
        .collect();
    assert_eq!(
        made,
        ["near", "sg-2"],
        "what may not be known everywhere yet"
    );
    assert_eq!(prerequisites, expected());
    assert_eq!(
        notices,
        [
            "security group own (sg-2) was made in vpc-1",
            "rule all traffic from sg-2 was added to security group own",
            "rule tcp 22 from 0.0.0.0/0 was added to security group own",
            "placement group near was made",
        ]
    );
    let made = case.fake.with(|region| region.groups[1].clone());
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        made.tags,
        [
            tag("Name", "own"),
            tag("Cluster", "p-1"),
            tag("aot:cluster-uuid", "uuid-1")
        ]
    );
    assert_eq!(made.rules, ["-1 , group=sg-2", "tcp 22,22 v4=0.0.0.0/0"]);
    assert_eq!(
        case.fake.with(|region| region.placements["near"].clone()),
        "uuid-1"
    );
    let first = case.fake.called();
    assert_eq!(
        first
            .iter()
            .filter(|call| *call == "DescribeInstanceTypes")
            .count(),
        1
    );
    assert_eq!(
        first
            .iter()
            .filter(|call| *call == "DescribeSecurityGroups")
            .count(),
        2,
        "one by names, and one for a name that may be spelt otherwise"
    );
    assert_eq!(
        first
            .iter()
            .filter(|call| *call == "AuthorizeSecurityGroupIngress")
            .count(),
        1
    );
    // A hundred times the machines are the same calls.
    let big = self::case();
    let mut big = Case {
        missing: [("web".to_owned(), 300), ("db".to_owned(), 100)].into(),
        ..big
    };
    big.spec.pools[0] = pool("web", 300, big.spec.pools[0].machine.clone());
    big.prepare().await.unwrap();
    assert_eq!(big.fake.called(), first);
    // Again: nothing is made, and what is known is only looked at.
    case.known = expected();
    let again = Prerequisites {
        made_ms: BTreeMap::new(),
        ..case.prepare().await.unwrap()
    };
    assert_eq!(again, expected());
    assert_eq!(
        case.fake.called(),
        [
            "DescribeImages",
            "DescribeImages",
            "DescribeSecurityGroups",
            "DescribePlacementGroups"
        ]
    );
}

#[tokio::test]
async fn a_failure_at_any_call_is_mended_by_the_next_try() {
    let calls = {
        let case = case();
        case.prepare().await.unwrap();
        case.fake.called()
    };
    for at in 0..calls.len() {
        if calls[at].starts_with("GetParameter") {
            continue;
        }
        for fault in [
            Fault::Lose,
            Fault::Refuse("InternalError"),
            Fault::Refuse("RequestLimitExceeded"),
        ] {
            let case = case();
            let name: &'static str = calls[at].clone().leak();
            let before = calls[..at].iter().filter(|call| *call == name).count();
            if before > 0 {
                continue; // the first of its kind stands for all
            }
            case.fake
                .with(|region| region.faults.push((name, fault.clone())));
            let error = case.prepare().await.unwrap_err();
            assert!(
                matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Throttled),
                "{name} {fault:?}: {error}"
            );
            let prerequisites = Prerequisites {
                notices: Vec::new(),
                made_ms: BTreeMap::new(),
                ..case.prepare().await.unwrap()
            };
            assert_eq!(prerequisites, expected(), "{name} {fault:?}");
            let groups = case.fake.with(|region| region.groups.clone());
            assert_eq!(groups.len(), 2, "{name} {fault:?}");
            assert_eq!(groups[1].rules.len(), 2, "{name} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_recorded_image_stays_until_it_is_gone() {
    let mut case = case();
    case.known = expected();
    case.known
        .images
        .insert("debian-12 x86_64".into(), "ami-x1".into());
    let prerequisites = case.prepare().await.unwrap();
    assert_eq!(prerequisites.images["debian-12 x86_64"], "ami-x1");
    case.fake
        .with(|region| region.images.retain(|image| image.id != "ami-x1"));
    let prerequisites = case.prepare().await.unwrap();
    assert_eq!(prerequisites.images["debian-12 x86_64"], "ami-x2");
    // A parameter is of no use when its image is not there.
    case.known = Prerequisites::default();
    case.fake.with(|region| {
        region
            .parameters
            .values_mut()
            .for_each(|id| *id = "ami-old".into())
    });
    assert_eq!(
        case.prepare().await.unwrap().images["debian-12 arm64"],
        "ami-a1"
    );
}

#[tokio::test]
async fn wrong_names_are_all_said_and_nothing_is_made() {
    type Spoil = fn(&mut Case);
    let cases: [(&[&str], Spoil); 7] = [
        (&["\"x.large\"", "\"y.large\""], |case| {
            case.spec.pools[0]
                .machine
                .types
                .extend(["x.large".into(), "y.large".into()]);
        }),
        (&["\"subnet-z\"", "\"red\""], |case| {
            case.spec.pools[0]
                .machine
                .subnets
                .extend(["subnet-z".into(), "red".into()]);
        }),
        (&["\"2\"", "2 subnets"], |case| {
            case.spec.pools[0].machine.subnets.push("2".into());
            case.fake.with(|region| {
                region
                    .subnets
                    .extend([("subnet-c", "vpc-1", "2"), ("subnet-d", "vpc-1", "2")]);
            });
        }),
        (&["default VPC"], |case| {
            case.fake.with(|region| region.default_vpc = None)
        }),
        (&["\"debian\"", "ssm:/x"], |case| {
            case.spec.pools[0].machine.ami = Some("debian".into());
            case.spec.pools[1].machine.ami = Some("ssm:/x".into());
        }),
        (&["\"nobody\"", "\"gone\"", "vpc-1"], |case| {
            case.spec.pools[1]
                .machine
                .security_groups
                .push("nobody".into());
            case.spec
                .security_groups
                .push(group("gone", GroupAction::Find));
        }),
        (&["\"own\"", "find_or_create"], |case| {
            case.fake.with(|region| {
                region.groups.push(Group {
                    id: "sg-o".into(),
                    vpc: "vpc-1".into(),
                    name: "own".into(),
                    ..Group::default()
                });
            });
        }),
    ];
    for (names, spoil) in cases {
        let mut case = case();
        spoil(&mut case);
        let error = case.prepare().await.unwrap_err();
        assert_eq!(
            (error.kind, error.leftovers),
            (ErrorKind::Invalid, Leftovers::None),
            "{error}"
        );
        for name in names {
            assert!(error.message.contains(name), "{name}: {error}");
        }
        assert!(
            case.fake
                .called()
                .iter()
                .all(|call| !call.starts_with("Create"))
        );
    }
}

#[tokio::test]
async fn groups_are_kept_even_when_no_machine_is_missing() {
    let mut case = case();
    case.missing.clear();
    case.spec.security_groups[0]
        .allow_inbound
        .push(InboundRule {
            protocol: "tcp".into(),
            from_port: Some(80),
            to_port: Some(80),
            ip: None,
            group: Some("own".into()),
        });
    let prerequisites = case.prepare().await.unwrap();
    assert_eq!(
        prerequisites.groups,
        [("vpc-1 own".to_owned(), "sg-2".to_owned())].into()
    );
    assert!(prerequisites.images.is_empty() && prerequisites.types.is_empty());
    // Own traffic covers port 80 from the group itself.
    assert_eq!(case.fake.with(|region| region.groups[1].rules.len()), 2);
    case.spec.security_groups.clear();
    case.fake.called();
    assert_eq!(case.prepare().await.unwrap(), Prerequisites::default());
    assert!(case.fake.called().is_empty());
}

#[tokio::test]
async fn a_token_is_fetched_once() {
    let mut case = case();
    case.missing.clear();
    case.spec.security_groups.clear();
    case.spec.discovery_url = Some("gopher://x".into());
    assert_eq!(case.prepare().await.unwrap().discovery_token, None);
    case.parts
        .insert("web".into(), "#cloud-config\na: $discovery_token\n".into());
    assert!(case.prepare().await.unwrap_err().message.contains("gopher"));
    case.known.discovery_token = Some("tok".into());
    assert_eq!(
        case.prepare().await.unwrap().discovery_token.as_deref(),
        Some("tok")
    );
}

#[tokio::test]
async fn an_outline_shows_what_would_be_made_and_makes_nothing() {
    let case = case();
    let lines = |things: Vec<Thing>| -> Vec<String> {
        let line = |it: Thing| format!("{} {} {}: {}", it.action, it.kind, it.name, it.detail);
        things.into_iter().map(line).collect()
    };
    assert_eq!(
        lines(case.outline().await),
        [
            "create security-group own: in vpc-1",
            "create rule own: all traffic from own",
            "create rule own: tcp 22 from 0.0.0.0/0",
            "create placement-group near: strategy cluster",
            "allocate address web: 3 Elastic IPs",
        ]
    );
    assert!(
        case.fake
            .called()
            .iter()
            .all(|call| call.starts_with("Describe"))
    );
    case.prepare().await.unwrap();
    case.fake.with(|region| region.groups[1].rules.truncate(1));
    assert_eq!(
        lines(case.outline().await),
        [
            "keep security-group own: sg-2 in vpc-1, made by this cluster",
            "change rule own: tcp 22 from 0.0.0.0/0 is added to sg-2",
            "keep placement-group near: found",
            "allocate address web: 3 Elastic IPs",
        ]
    );
}

#[tokio::test]
async fn an_outline_says_where_a_second_disk_is_made_in_place_of_the_root() {
    let volume = |device: &str| VolumeSpec {
        device: device.into(),
        size_gib: Some(30),
        kind: None,
        iops: None,
        throughput: None,
        snapshot: None,
        encrypted: None,
        delete_on_termination: true,
        mount: None,
        fs: None,
    };
    for (device, told) in [
        ("/dev/sda1", true),
        ("/dev/xvda", false),
        ("/dev/sdf", false),
    ] {
        let mut case = case();
        case.spec.pools[0].machine.volumes = vec![volume(device)];
        let things = case.outline().await;
        let disks = things
            .iter()
            .filter(|thing| thing.kind == ThingKind::Volume);
        let texts: Vec<String> = disks
            .map(|it| format!("{} {}", it.name, it.detail))
            .collect();
        assert_eq!(texts.len(), usize::from(told), "{device}: {texts:?}");
        if told {
            for word in ["web /dev/sda1", "second disk", "/dev/xvda"] {
                assert!(texts[0].contains(word), "{texts:?}");
            }
        }
        let looks = case.fake.called();
        let asks = looks.iter().any(|call| call == "DescribeImages");
        assert_eq!(
            asks,
            device != "/dev/sdf",
            "only where there is such a name"
        );
    }
}
