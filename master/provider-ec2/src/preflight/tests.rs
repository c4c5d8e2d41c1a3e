//! The whole preflight against answers as EC2 words them.

use std::sync::{Arc, Mutex};

use aot_model::samples;
use aot_model::spec::{
    ClusterSpec, GroupAction, PoolSpec, ProviderKind, SecurityGroupSpec, VolumeSpec,
};
use aot_provider::ClusterRef;

use super::*;
use crate::fake;

/// A region that answers each operation with one text, whatever the parameters.
#[derive(Debug, Clone)]
struct Fake(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    answers: BTreeMap<String, (u16, String)>,
    /// Operation and body of each call.
    seen: Vec<(String, String)>,
}

fn refusal(code: &str, message: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>r</RequestID></Response>"
    )
}

impl Fake {
    /// Two zones, types of two architectures, an image, a subnet with 10 free addresses, a key pair, a group.
    fn new() -> Self {
        let answers = [
            (
                "DescribeAvailabilityZones",
                "<availabilityZoneInfo><item><zoneName>eu-1a</zoneName></item></availabilityZoneInfo>",
            ),
            (
                "DescribeInstanceTypes",
                "<instanceTypeSet><item><instanceType>t3.micro</instanceType><processorInfo><supportedArchitectures>\
                 <item>i386</item><item>x86_64</item></supportedArchitectures></processorInfo></item>\
                 <item><instanceType>m6g.large</instanceType><processorInfo><supportedArchitectures><item>arm64</item>\
                 </supportedArchitectures></processorInfo></item></instanceTypeSet>",
            ),
            (
                "DescribeInstanceTypeOfferings",
                "<instanceTypeOfferingSet><item><instanceType>t3.micro</instanceType><location>eu-1a</location></item>\
                 <item><instanceType>m6g.large</instanceType><location>eu-1b</location></item></instanceTypeOfferingSet>",
            ),
            (
                "DescribeSubnets",
                "<subnetSet><item><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId><state>available</state>\
                 <availabilityZone>eu-1a</availabilityZone><availableIpAddressCount>10</availableIpAddressCount>\
                 <mapPublicIpOnLaunch>true</mapPublicIpOnLaunch></item></subnetSet>",
            ),
            (
                "DescribeVpcs",
                "<vpcSet><item><vpcId>vpc-1</vpcId><cidrBlock>10.0.0.0/16</cidrBlock><isDefault>true</isDefault></item></vpcSet>",
            ),
            (
                "DescribeKeyPairs",
                "<keySet><item><keyName>key</keyName></item></keySet>",
            ),
            (
                "DescribeSecurityGroups",
                "<securityGroupInfo><item><groupId>sg-1</groupId><groupName>web</groupName><vpcId>vpc-1</vpcId></item></securityGroupInfo>",
            ),
            (
                "DescribeImages",
                "<imagesSet><item><imageId>ami-1</imageId><imageState>available</imageState><architecture>x86_64</architecture>\
                 </item></imagesSet>",
            ),
        ];
        let wrap = |(operation, inner): (&str, &str)| {
            let text = format!("<{operation}Response>{inner}</{operation}Response>");
            (operation.to_owned(), (200, text))
        };
        let fake = Self(Arc::new(Mutex::new(World {
            answers: answers.into_iter().map(wrap).collect(),
            seen: Vec::new(),
        })));
        fake.refuse(
            "RunInstances",
            412,
            "DryRunOperation",
            "Request would have succeeded",
        );
        fake
    }

    fn refuse(&self, operation: &str, status: u16, code: &str, message: &str) {
        let answer = (status, refusal(code, message));
        self.0
            .lock()
            .unwrap()
            .answers
            .insert(operation.to_owned(), answer);
    }

    fn replace(&self, operation: &str, from: &str, to: &str) {
        let mut world = self.0.lock().unwrap();
        let (_, text) = world.answers.get_mut(operation).unwrap();
        assert!(text.contains(from), "{text}");
        *text = text.replace(from, to);
    }

    fn calls(&self, operation: &str) -> Vec<String> {
        let world = self.0.lock().unwrap();
        let of = world.seen.iter().filter(|(name, _)| name == operation);
        of.map(|(_, body)| body.clone()).collect()
    }

    fn answer(&self, request: fake::Request) -> (u16, String) {
        let mut world = self.0.lock().unwrap();
        let answer = world.answers.get(&request.operation).cloned();
        let empty = (200, format!("<{}Response/>", request.operation));
        world.seen.push((request.operation, request.body));
        answer.unwrap_or(empty)
    }

    async fn examine(&self, asked: &Asked) -> Vec<Problem> {
        let fake = self.clone();
        let http = fake::http(move |request| Some(fake.answer(request)));
        let (ec2, ssm) = fake::clients("eu-1", &http);
        let finder = Finder {
            ec2: &ec2,
            ssm: &ssm,
        };
        let mut report = PreflightReport::default();
        asked.examine(&finder, &mut report).await;
        report.finish()
    }
}

/// What is launched, owned.
struct Asked {
    spec: ClusterSpec,
    cluster: Option<ClusterRef>,
    known: Prerequisites,
    missing: BTreeMap<String, usize>,
    advertise: Vec<String>,
    user_parts: BTreeMap<String, String>,
    agents: BTreeMap<String, String>,
}

impl Asked {
    fn new() -> Self {
        Self {
            spec: ClusterSpec {
                region: Some("eu-1".into()),
                ..samples::file("c", ProviderKind::Ec2, vec![pool("a", 3)])
            },
            cluster: None,
            known: Prerequisites::default(),
            missing: [("a".to_owned(), 3)].into(),
            advertise: vec!["198.51.100.1:7440".into()],
            user_parts: BTreeMap::new(),
            agents: ["x86_64", "aarch64"]
                .map(|arch| (arch.to_owned(), "0".repeat(64)))
                .into(),
        }
    }

    fn add(&mut self, label: &str, count: usize) -> &mut PoolSpec {
        self.spec.pools.push(pool(label, count));
        self.missing.insert(label.to_owned(), count);
        self.spec.pools.last_mut().unwrap()
    }

    async fn examine(&self, finder: &Finder<'_>, report: &mut PreflightReport) {
        let ask = Ask {
            spec: &self.spec,
            cluster: self.cluster.as_ref(),
            known: &self.known,
            missing: &self.missing,
            advertise: &self.advertise,
            user_parts: &self.user_parts,
            agents: &self.agents,
        };
        let sizes = check_file(report, &ask);
        examine(finder, "eu-1", &ask, &sizes, report).await;
    }
}

fn pool(label: &str, count: usize) -> PoolSpec {
    let mut spec = samples::pool(label, count);
    spec.machine.ami = Some("ami-1".into());
    spec.machine.types = vec!["t3.micro".into()];
    spec.machine.subnets = vec!["subnet-1".into()];
    spec.machine.ssh_key = Some("key".into());
    spec.machine.security_groups = vec!["web".into()];
    spec
}

fn group(name: &str, action: GroupAction) -> SecurityGroupSpec {
    SecurityGroupSpec {
        name: name.into(),
        action,
        allow_all_own_traffic: true,
        allow_ssh_from: Vec::new(),
        allow_inbound: Vec::new(),
    }
}

fn volume(kind: &str, snapshot: Option<&str>) -> VolumeSpec {
    VolumeSpec {
        device: "/dev/sdf".into(),
        size_gib: Some(10),
        kind: Some(kind.into()),
        iops: None,
        throughput: None,
        snapshot: snapshot.map(str::to_owned),
        encrypted: None,
        delete_on_termination: true,
        mount: None,
        fs: None,
    }
}

/// All problems as texts, each with its way out.
fn texts(problems: &[Problem]) -> Vec<String> {
    for problem in problems {
        assert!(
            !problem.hint.is_empty() && !problem.message.is_empty(),
            "{problem:?}"
        );
    }
    problems
        .iter()
        .map(|it| format!("{} | {}", it.message, it.hint))
        .collect()
}

#[tokio::test]
async fn nothing_stands_in_the_way_and_calls_do_not_grow_with_machines() {
    let (small, large) = (Fake::new(), Fake::new());
    large.replace("DescribeSubnets", ">10<", ">4000<");
    assert_eq!(small.examine(&Asked::new()).await, []);
    let mut many = Asked::new();
    many.spec.pools = vec![pool("a", 2000)];
    many.missing.insert("a".into(), 2000);
    assert_eq!(large.examine(&many).await, []);
    let count = |fake: &Fake| fake.0.lock().unwrap().seen.len();
    assert_eq!(count(&small), count(&large));
    let [body] = &large.calls("RunInstances")[..] else {
        panic!()
    };
    assert!(
        body.contains("DryRun=true") && body.contains("MinCount=2000"),
        "{body}"
    );
    assert!(
        body.contains("ImageId=ami-1") && body.contains("SecurityGroupId.1=sg-1"),
        "{body}"
    );
    for (operation, body) in &large.0.lock().unwrap().seen {
        assert!(
            operation.starts_with("Describe") || body.contains("DryRun=true"),
            "{operation}"
        );
    }
}

#[tokio::test]
async fn pools_that_need_no_machines_are_not_looked_at() {
    let fake = Fake::new();
    let mut asked = Asked::new();
    asked.add("b", 1).machine.ami = Some("ami-none".into());
    asked.missing.remove("b");
    assert_eq!(fake.examine(&asked).await, []);
}

#[tokio::test]
async fn user_data_is_a_filler_of_the_same_size() {
    use base64::Engine as _;
    let fake = Fake::new();
    let mut asked = Asked::new();
    asked.user_parts.insert(
        "a".into(),
        format!("#cloud-config\n# {}\n", "hush".repeat(300)),
    );
    assert_eq!(fake.examine(&asked).await, []);
    let filler = base64::engine::general_purpose::STANDARD.encode("#".repeat(300));
    let [body] = &fake.calls("RunInstances")[..] else {
        panic!()
    };
    assert!(body.contains(filler.trim_end_matches('=')), "{body}");
    let size = body
        .split("UserData=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .len();
    assert!((4000..22_000).contains(&size), "{size}");
    asked.user_parts.insert(
        "a".into(),
        format!("#cloud-config\n# {}\n", "x".repeat(17_000)),
    );
    let said = texts(&fake.examine(&asked).await);
    assert!(said[0].starts_with("\"a\": the user-data has"), "{said:?}");
}

type Spoil = fn(&Fake, &mut Asked);

#[tokio::test]
async fn each_fault_is_named_with_its_way_out() {
    let cases: &[(&str, Spoil)] = &[
        ("\"a\": no image is named | set `ami`", |_, asked| {
            asked.spec.pools[0].machine.ami = None
        }),
        ("neither ami-", |_, asked| {
            asked.spec.pools[0].machine.ami = Some("debian-1".into())
        }),
        ("\"a\": no image ami-2 in eu-1", |_, asked| {
            asked.spec.pools[0].machine.ami = Some("ami-2".into())
        }),
        ("image ami-1 is pending, not available", |fake, _| {
            fake.replace("DescribeImages", "available", "pending")
        }),
        (
            "image ami-1 is for arm64, and type t3.micro is x86_64 | set `ami` and `ec2_size`",
            |fake, _| fake.replace("DescribeImages", "x86_64", "arm64"),
        ),
        ("no instance type is named | set `ec2_size`", |_, asked| {
            asked.spec.pools[0].machine.types.clear()
        }),
        ("no instance type \"t9.huge\"", |_, asked| {
            asked.spec.pools[0].machine.types.push("t9.huge".into())
        }),
        (
            "\"a\": type t3.micro is x86_64, and the master has no agent for x86_64 | put aot-agent-x86_64",
            |_, asked| drop(asked.agents.remove("x86_64")),
        ),
        ("subnet subnet-1 is for IPv6 alone", |fake, _| {
            fake.replace(
                "DescribeSubnets",
                "<mapPublicIpOnLaunch>",
                "<ipv6Native>true</ipv6Native><mapPublicIpOnLaunch>",
            )
        }),
        ("t3.micro is not offered in eu-1a", |fake, _| {
            fake.replace(
                "DescribeInstanceTypeOfferings",
                "<location>eu-1a",
                "<location>eu-1c",
            )
        }),
        ("\"a\": no subnet \"subnet-2\"", |_, asked| {
            asked.spec.pools[0].machine.subnets = vec!["subnet-2".into()]
        }),
        ("subnet subnet-1 is not available", |fake, _| {
            fake.replace("DescribeSubnets", "<state>available", "<state>pending")
        }),
        (
            "no subnet is named, and eu-1 has no default VPC",
            |fake, asked| {
                fake.replace("DescribeVpcs", ">true<", ">false<");
                asked.spec.pools[0].machine.subnets.clear();
            },
        ),
        (
            "\"a\", \"b\": subnet subnet-1 has 10 free addresses, and 11 are needed",
            |_, asked| {
                let machine = asked.spec.pools[0].machine.clone();
                asked.add("b", 8).machine = machine;
            },
        ),
        ("\"a\": no key pair \"none\" in eu-1", |_, asked| {
            asked.spec.pools[0].machine.ssh_key = Some("none".into())
        }),
        ("no security group \"db\" in vpc-1", |_, asked| {
            asked.spec.pools[0].machine.security_groups = vec!["db".into()]
        }),
        ("\"a\": no security group sg-9", |_, asked| {
            asked.spec.pools[0].machine.security_groups = vec!["sg-9".into()]
        }),
        ("no security group \"db\" in vpc-1", |_, asked| {
            asked.spec.security_groups = vec![group("db", GroupAction::Find)]
        }),
        (
            "security group \"web\" is in vpc-1 already (sg-1)",
            |_, asked| asked.spec.security_groups = vec![group("web", GroupAction::Create)],
        ),
        ("volume /dev/sdf: io2 needs iops", |_, asked| {
            asked.spec.pools[0].machine.volumes = vec![volume("io2", None)]
        }),
        ("volume /dev/sdf: no snapshot snap-1 in eu-1", |_, asked| {
            asked.spec.pools[0].machine.volumes = vec![volume("gp3", Some("snap-1"))]
        }),
        (
            "machines in subnet-1 could not reach the master: 127.0.0.1:7440 is a loopback",
            |_, asked| asked.advertise = vec!["127.0.0.1:7440".into()],
        ),
        (
            "192.168.7.7:7440 is private and outside the VPC",
            |_, asked| asked.advertise = vec!["192.168.7.7:7440".into()],
        ),
        ("may not do iam:PassRole", |fake, _| {
            fake.refuse(
                "RunInstances",
                403,
                "UnauthorizedOperation",
                "not authorized to perform: iam:PassRole on resource",
            )
        }),
        ("EC2 would not launch t3.micro in subnet-1: ", |fake, _| {
            fake.refuse(
                "RunInstances",
                400,
                "InvalidParameterValue",
                "Value (x) for parameter iamInstanceProfile.name is invalid",
            )
        }),
        ("may not do ssm:GetParameter", |fake, asked| {
            asked.spec.pools[0].machine.ami = Some("ssm:/mine".into());
            let no = r#"{"__type":"AccessDeniedException","message":"no"}"#;
            fake.0
                .lock()
                .unwrap()
                .answers
                .insert("GetParameter".into(), (400, no.into()));
        }),
        ("image \"ssm:/mine\"", |fake, asked| {
            asked.spec.pools[0].machine.ami = Some("ssm:/mine".into());
            let none = r#"{"__type":"ParameterNotFound","message":"none"}"#;
            fake.0
                .lock()
                .unwrap()
                .answers
                .insert("GetParameter".into(), (400, none.into()));
        }),
    ];
    for (word, spoil) in cases {
        let (fake, mut asked) = (Fake::new(), Asked::new());
        spoil(&fake, &mut asked);
        let said = texts(&fake.examine(&asked).await);
        assert_eq!(said.len(), 1, "{word}: {said:?}");
        assert!(said[0].contains(word), "{word}: {said:?}");
    }
}

#[tokio::test]
async fn all_faults_are_told_at_once() {
    let (fake, mut asked) = (Fake::new(), Asked::new());
    fake.refuse(
        "RunInstances",
        400,
        "InvalidParameterValue",
        "Value (x) for parameter iamInstanceProfile.name is invalid",
    );
    let machine = &mut asked.spec.pools[0].machine;
    machine.ssh_key = Some("none".into());
    machine.security_groups.push("db".into());
    machine.volumes = vec![volume("ssd", None)];
    asked.add("b", 1).machine.types = vec!["t9.huge".into()];
    asked.advertise = vec!["0.0.0.0:7440".into()];
    let said = texts(&fake.examine(&asked).await).join("\n");
    for word in [
        "no key pair",
        "\"db\"",
        "\"ssd\"",
        "t9.huge",
        "0.0.0.0:7440",
        "instance_profile_name",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let [body] = &fake.calls("RunInstances")[..] else {
        panic!()
    };
    assert!(
        !body.contains("KeyName"),
        "what is not there is left out: {body}"
    );
}

#[tokio::test]
async fn lists_need_one_way_only() {
    let (fake, mut asked) = (Fake::new(), Asked::new());
    fake.replace(
        "DescribeSubnets",
        "</subnetSet>",
        "<item><subnetId>subnet-2</subnetId><vpcId>vpc-1</vpcId><state>available</state>\
         <availabilityZone>eu-1b</availabilityZone><availableIpAddressCount>10</availableIpAddressCount></item></subnetSet>",
    );
    let machine = &mut asked.spec.pools[0].machine;
    // Not in eu-1b, and no room in subnet-2 alone.
    machine.subnets = vec!["subnet-2".into(), "subnet-1".into()];
    fake.refuse(
        "RunInstances",
        400,
        "InsufficientInstanceCapacity",
        "none now",
    );
    assert_eq!(fake.examine(&asked).await, []);
    let [body] = &fake.calls("RunInstances")[..] else {
        panic!()
    };
    assert!(body.contains("SubnetId=subnet-1"), "{body}");
}

#[tokio::test]
async fn credentials_that_are_not_taken_are_one_problem() {
    for (code, status, word) in [
        ("AuthFailure", 401, "does not accept the AWS credentials"),
        ("RequestExpired", 400, "does not accept the AWS credentials"),
        ("InternalError", 500, "does not answer in eu-1"),
        ("RequestLimitExceeded", 503, "could not check the region"),
    ] {
        let fake = Fake::new();
        fake.refuse("DescribeAvailabilityZones", status, code, "no");
        let said = texts(&fake.examine(&Asked::new()).await);
        assert_eq!(said.len(), 1, "{code}: {said:?}");
        assert!(said[0].contains(word), "{said:?}");
        assert_eq!(fake.0.lock().unwrap().seen.len(), 1);
    }
    let fake = Fake::new();
    fake.refuse(
        "DescribeAvailabilityZones",
        403,
        "UnauthorizedOperation",
        "no",
    );
    assert_eq!(fake.examine(&Asked::new()).await, []);
    let fake = Fake::new();
    fake.replace(
        "DescribeAvailabilityZones",
        "<item><zoneName>eu-1a</zoneName></item>",
        "",
    );
    let said = texts(&fake.examine(&Asked::new()).await);
    assert!(
        said.len() == 1 && said[0].contains("EC2 has no region \"eu-1\""),
        "{said:?}"
    );
}

#[tokio::test]
async fn what_the_account_lacks_is_not_laid_on_the_credentials() {
    for code in ["OptInRequired", "PendingVerification", "Blocked"] {
        for operation in ["RunInstances", "DescribeAvailabilityZones"] {
            let fake = Fake::new();
            fake.refuse(operation, 401, code, "what EC2 says");
            let said = texts(&fake.examine(&Asked::new()).await);
            assert_eq!(said.len(), 1, "{code}: {said:?}");
            assert!(said[0].contains("what EC2 says"), "{said:?}");
            assert!(!said[0].contains("redentials"), "{said:?}");
        }
    }
}

#[tokio::test]
async fn a_failed_call_never_says_that_something_is_missing() {
    let operations = [
        ("DescribeInstanceTypes", "instance types"),
        ("DescribeInstanceTypeOfferings", "offered"),
        ("DescribeSubnets", "subnets"),
        ("DescribeVpcs", "VPCs"),
        ("DescribeKeyPairs", "key pairs"),
        ("DescribeSecurityGroups", "security groups"),
        ("DescribeImages", "images"),
        ("RunInstances", "whether EC2 would launch"),
    ];
    for (operation, what) in operations {
        let fake = Fake::new();
        fake.refuse(operation, 503, "RequestLimitExceeded", "slow down");
        let said = texts(&fake.examine(&Asked::new()).await);
        assert_eq!(said.len(), 1, "{operation}: {said:?}");
        assert!(
            said[0].starts_with("could not check ") && said[0].contains(what),
            "{operation}: {said:?}"
        );
        let fake = Fake::new();
        fake.refuse(
            operation,
            403,
            "UnauthorizedOperation",
            "You are not authorized",
        );
        let said = texts(&fake.examine(&Asked::new()).await);
        assert_eq!(said.len(), 1, "{operation}: {said:?}");
        assert!(
            said[0].contains(&format!("may not do ec2:{operation}")),
            "{operation}: {said:?}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_without_dry_runs_is_found_out() {
    let fake = Fake::new();
    let made = "<RunInstancesResponse><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></RunInstancesResponse>";
    fake.0
        .lock()
        .unwrap()
        .answers
        .insert("RunInstances".into(), (200, made.into()));
    let said = texts(&fake.examine(&Asked::new()).await);
    assert!(
        said.len() == 1 && said[0].contains("launched machines: i-1"),
        "{said:?}"
    );
}
