//! The contract of providers on EC2, or on what stands in for it: against the lab by itself, and against anything else where
//! `AOT_EC2=1`, with the AWS SDK's own settings (`AWS_ENDPOINT_URL` for a fake). `AOT_EC2_AMI`, `AOT_EC2_TYPE`,
//! `AOT_EC2_SUBNET` and `AOT_EC2_GROUP` say what to launch; `AOT_EC2_TOKENS=0` is for fakes that don't know client tokens.

use std::collections::BTreeMap;

use aot_ec2::Ec2Provider;
use aot_model::spec::{
    ClusterSpec, GroupAction, InboundRule, PoolSpec, ProviderKind, SecurityGroupSpec,
};
use aot_provider::calls::Calls;
use aot_provider::{Ask, ClientToken, ErrorKind, Leftovers, Prerequisites, Provider, contract};

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn wanted() -> bool {
    let wanted = setting("AOT_EC2").as_deref() == Some("1");
    if !wanted {
        println!("skipped: AOT_EC2=1 is not set");
    }
    wanted
}

fn spec(count: usize) -> aot_provider::LaunchSpec {
    let mut spec = contract::sample_spec(
        "contract",
        &ulid::Ulid::generate().to_string().to_lowercase(),
        count,
    );
    spec.machine.ami = Some(setting("AOT_EC2_AMI").unwrap_or_else(|| "al2023".into()));
    spec.instance_type = Some(setting("AOT_EC2_TYPE").unwrap_or_else(|| "t3.micro".into()));
    spec.subnet = setting("AOT_EC2_SUBNET");
    spec.machine.security_groups = setting("AOT_EC2_GROUP").into_iter().collect();
    spec
}

#[tokio::test]
async fn ec2_keeps_the_contract() {
    if !wanted() {
        return;
    }
    let provider = Ec2Provider::new(None, Calls::default());
    let tokens = setting("AOT_EC2_TOKENS").as_deref() != Some("0");
    let mut spec = spec(3);
    spec.machine.placement_group = Some(format!("near-{}", spec.cluster.uuid));
    let name = format!("own-{}", spec.cluster.uuid);
    spec.machine.security_groups.push(name.clone());
    let mut file = contract::sample_file(ProviderKind::Ec2, &spec);
    let inbound = |ip: Option<&str>, group: Option<&str>| InboundRule {
        protocol: "tcp".into(),
        from_port: Some(8080),
        to_port: Some(8090),
        ip: ip.map(str::to_owned),
        group: group.map(str::to_owned),
    };
    file.security_groups = vec![SecurityGroupSpec {
        name: name.clone(),
        action: GroupAction::Create,
        allow_all_own_traffic: true,
        allow_ssh_from: vec!["10.0.0.0/8".into(), "2001:db8::/32".into()],
        allow_inbound: vec![
            inbound(Some("192.0.2.1/32"), None),
            inbound(None, Some("default")),
        ],
    }];
    let spec = contract::prepared(&provider, &spec, &file).await.unwrap();
    assert_eq!(
        spec.prerequisites.groups.len(),
        2,
        "{:?}",
        spec.prerequisites.groups
    );
    contract::check_all(&provider, &spec, tokens).await;
}

#[tokio::test]
async fn what_does_not_exist_is_named_before_anything_is_made() {
    if !wanted() {
        return;
    }
    let provider = Ec2Provider::new(None, Calls::default());
    type Spoil = fn(&mut aot_provider::LaunchSpec);
    let cases: [(&str, Spoil); 4] = [
        ("no-such-group", |spec| {
            spec.machine.security_groups = vec!["no-such-group".into()]
        }),
        ("no-such-subnet", |spec| {
            spec.subnet = Some("no-such-subnet".into())
        }),
        ("no-such-image", |spec| {
            spec.machine.ami = Some("name:no-such-image*@self".into())
        }),
        ("ssm:/aws/x", |spec| {
            spec.machine.ami = Some("ssm:/aws/x".into())
        }),
    ];
    for (name, spoil) in cases {
        let mut spec = spec(1);
        spoil(&mut spec);
        let token = ClientToken(format!("wrong-{}", spec.cluster.uuid));
        let file = contract::sample_file(ProviderKind::Ec2, &spec);
        let prepare = contract::prepared(&provider, &spec, &file)
            .await
            .unwrap_err();
        // Nor does a launch that nobody prepared.
        let launch = provider.launch(&spec, &token).await.unwrap_err();
        for error in [&prepare, &launch] {
            assert_eq!(
                (error.kind, error.leftovers),
                (ErrorKind::Invalid, Leftovers::None),
                "{name}: {error}"
            );
        }
        assert!(prepare.message.contains(name), "{prepare}");
        let shown = provider.describe(&spec.cluster).await.unwrap();
        assert!(shown.machines.is_empty());
    }
}

#[tokio::test]
async fn preflight_tells_everything_at_once_and_makes_nothing() {
    if !wanted() {
        return;
    }
    let provider = Ec2Provider::new(None, Calls::default());
    let good = pool_of(&spec(3));
    assert_eq!(problems(&provider, &good).await, "");
    let mut bad = good.clone();
    let machine = &mut bad.machine;
    machine.ssh_key = Some("no-such-key".into());
    machine.security_groups = vec!["no-such-group".into(), "sg-0123456789abcdef0".into()];
    machine.types.push("t9.none".into());
    machine.instance_profile_name = Some("no-such-profile".into());
    let said = problems(&provider, &bad).await;
    let names = [
        "no-such-key",
        "no-such-group",
        "sg-0123456789abcdef0",
        "t9.none",
        "rofile",
    ];
    for name in names {
        assert!(said.contains(name), "{name}: {said}");
    }
    let mut bad = good.clone();
    bad.machine.ami = Some("ami-0123456789abcdef0".into());
    bad.machine.subnets = vec!["no-such-subnet".into()];
    let said = problems(&provider, &bad).await;
    for name in ["ami-0123456789abcdef0", "no-such-subnet"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    let tagged = provider.describe(&spec(1).cluster).await.unwrap().machines;
    assert!(tagged.is_empty(), "{tagged:?}");
}

fn pool_of(spec: &aot_provider::LaunchSpec) -> PoolSpec {
    contract::sample_file(ProviderKind::Ec2, spec)
        .pools
        .remove(0)
}

/// What preflight says of a cluster with this pool, a problem a line.
async fn problems(provider: &Ec2Provider, pool: &PoolSpec) -> String {
    let spec = ClusterSpec {
        pools: vec![pool.clone()],
        ..contract::sample_file(ProviderKind::Ec2, &spec(1))
    };
    let ask = Ask {
        spec: &spec,
        cluster: None,
        known: &Prerequisites::default(),
        missing: &[(pool.label().to_owned(), pool.members.len())].into(),
        advertise: &["198.51.100.1:7440".to_owned()],
        user_parts: &BTreeMap::new(),
        agents: &BTreeMap::new(),
    };
    let lines: Vec<String> = provider
        .preflight(&ask)
        .await
        .into_iter()
        .map(|it| format!("{} | {}", it.message, it.hint))
        .collect();
    println!("{}", lines.join("\n"));
    lines.join("\n")
}

/// The tests of this file once more, against the lab's API: here, where nobody has set up another one.
#[test]
fn all_of_this_holds_in_the_lab() {
    aot_tests::lab::again_inside();
}
