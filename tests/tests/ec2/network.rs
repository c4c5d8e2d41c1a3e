//! What machines stand on: security groups with their rules, Elastic IPs and placement groups, made, found, shown and
//! taken away again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
/// What is there before the cluster is; the group's id.
const BEFORE: &str = "(ec2.create_placement_group(GroupName='theirs', Strategy='spread'),
 ec2.create_security_group(GroupName='theirs', Description='x', VpcId=args[0])['GroupId'])[1]";
/// Rules of the group `net`: protocol, ports, and from where.
const RULES: &str = "[f\"{p['IpProtocol']} {p.get('FromPort', '')} {p.get('ToPort', '')} {source}\"
 for g in ec2.describe_security_groups(Filters=[{'Name': 'group-name', 'Values': ['net']}])['SecurityGroups']
 for p in g['IpPermissions']
 for source in [r['CidrIp'] for r in p.get('IpRanges', [])] + [r['CidrIpv6'] for r in p.get('Ipv6Ranges', [])]
             + [r['GroupId'] for r in p.get('UserIdGroupPairs', [])]]";
const GROUPS: &str =
    "{g['GroupName']: g['GroupId'] for g in ec2.describe_security_groups()['SecurityGroups']}";
/// Groups of each machine, by its name.
const GROUPS_OF: &str = "{t['Value']: sorted(g['GroupName'] for g in i['SecurityGroups'])
 for r in ec2.describe_instances()['Reservations'] for i in r['Instances'] for t in i['Tags'] if t['Key'] == 'Name'}";
const PLACES: &str = "[g['GroupName'] for g in ec2.describe_placement_groups()['PlacementGroups']]";
const ADDRESSES: &str = "[{'ip': a['PublicIp'], 'id': a['AllocationId'], 'machine': a.get('InstanceId'),
 'tags': {t['Key']: t['Value'] for t in a.get('Tags', [])}} for a in ec2.describe_addresses()['Addresses']]";

fn file(dir: &Path, ami: &str, more: &str) -> PathBuf {
    let rest = format!(
        "launch: {{timeout: 240s}}
security_groups:
  - name: $cluster_name
    action: create
    allow_all_own_traffic: true
    allow_ssh_from: 203.0.113.0/24
    allow_inbound:
      - {{protocol: tcp, from_port: 8080, to_port: 8080, ip: 0.0.0.0/0}}
      - {{protocol: tcp, from_port: 8080, to_port: 8080, ip: '::/0'}}
      - {{protocol: udp, from_port: 53, to_port: 54, group: theirs}}
{more}  - {{name: theirs, action: find}}
instances:
  - name: front
    ec2_size: c5.large
    allocate_ip_address: true
    placement_group: ours
    security_groups: [$cluster_name]
pools:
  - name: web
    size: 2
    placement_group: theirs
    security_groups: [$cluster_name, theirs]
"
    );
    cluster_file(dir, "net", ami, &rest)
}

#[test]
fn groups_addresses_and_places_are_made_kept_and_taken_away() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "network", 7440);
    let dir = lab.dir().join("files");
    let theirs = lab.ec2(BEFORE, &[lab.info("vpc")]);
    let theirs = theirs.as_str().expect("a group's id").to_owned();
    let small = file(&dir, lab.ami(), "");
    let mut story = Story::default();

    story.step("plan shows what would be made, and makes nothing");
    let plan = plan(&master, &small);
    planned(&mut story, &plan);
    story.same(
        lab.ec2(GROUPS, &[])
            .as_object()
            .map(|all| all.contains_key("net")),
        Some(false),
        "no group is made",
    );
    story.same(
        lab.ec2(ADDRESSES, &[]).as_array().map(Vec::len),
        Some(0),
        "no address is allocated",
    );

    story.step("launch");
    master.launched(&small, 0);
    let group = groups_are_right(&mut story, &lab, &theirs);
    let address = address_is_right(&mut story, &lab, &master);

    story.step("a rule more: plan shows it, launch adds it");
    a_rule_more(&mut story, &lab, &master, &dir);

    story.step("the address outlives a stop");
    master.run(&["stop", "front", "--yes"]).expect(0);
    master.run(&["start", "front"]).expect(0);
    wait::until(
        || known_as(&lab, &master, &address),
        SOON,
        "everybody has the address of front",
    );
    let held = lab.ec2(ADDRESSES, &[]);
    story.same(
        held[0]["ip"].as_str(),
        Some(address.as_str()),
        "the same one",
    );
    story.same(held.as_array().map(Vec::len), Some(1), "and no second one");

    story.step("cleanup takes what we made, and leaves what we found");
    let allocation = held[0]["id"].as_str().unwrap_or_default();
    let made = [group.as_str(), allocation, "ours"].map(str::to_owned);
    cleans_up(&mut story, &lab, &master, &made, &theirs);
    master.stop();
    lab.end();
    story.end();
}

/// What `plan --json` says; its exit code is 0.
fn plan(master: &Master, file: &Path) -> Vec<Value> {
    let (code, lines) = master.json(&["plan", &file.display().to_string()]);
    assert_eq!(code, Some(0), "plan works: {lines:#?}");
    lines
}

/// `action kind name` of each thing of a plan.
fn things(plan: &[Value]) -> Vec<String> {
    let things = plan
        .iter()
        .map(|line| &line["thing"])
        .filter(|thing| thing.is_object());
    let word = |thing: &Value, key: &str| thing[key].as_str().unwrap_or_default().to_owned();
    things
        .map(|it| {
            format!(
                "{} {} {}",
                word(it, "action"),
                word(it, "kind"),
                word(it, "name")
            )
        })
        .collect()
}

fn planned(story: &mut Story, plan: &[Value]) {
    let things = things(plan);
    let count = |text: &str| things.iter().filter(|thing| *thing == text).count();
    for (thing, times) in [
        ("create security-group net", 1),
        ("create rule net", 5),
        ("keep security-group theirs", 1),
        ("create placement-group ours", 1),
        ("keep placement-group theirs", 1),
        ("allocate address front", 1),
    ] {
        story.check(
            count(thing) == times,
            &format!("{times} x {thing:?}"),
            &things,
        );
    }
    let instances = plan.iter().filter(|line| line["action"] == "create");
    story.same(instances.count(), 3, "three instances");
}

/// The group's id.
fn groups_are_right(story: &mut Story, lab: &Lab, theirs: &str) -> String {
    let groups = lab.ec2(GROUPS, &[]);
    let own = groups["net"]
        .as_str()
        .expect("the group is made")
        .to_owned();
    let rules: BTreeSet<String> = serde_json::from_value(lab.ec2(RULES, &[])).expect("a list");
    let wanted = [
        format!("-1   {own}"),
        "tcp 22 22 203.0.113.0/24".to_owned(),
        "tcp 8080 8080 0.0.0.0/0".to_owned(),
        "tcp 8080 8080 ::/0".to_owned(),
        format!("udp 53 54 {theirs}"),
    ];
    story.same(rules, BTreeSet::from(wanted), "the rules of the group");
    let of = lab.ec2(GROUPS_OF, &[]);
    let both = Value::from(vec!["net", "theirs"]);
    story.same(
        &of["front"],
        &Value::from(vec!["net"]),
        "the group of front",
    );
    story.same(
        (&of["web1"], &of["web2"]),
        (&both, &both),
        "the groups of web",
    );
    let places: BTreeSet<String> = serde_json::from_value(lab.ec2(PLACES, &[])).expect("a list");
    story.same(
        places,
        BTreeSet::from(["ours".to_owned(), "theirs".to_owned()]),
        "the placement groups",
    );
    own
}

/// The Elastic IP: there, tagged, and known to everybody.
fn address_is_right(story: &mut Story, lab: &Lab, master: &Master) -> String {
    let held = lab.ec2(ADDRESSES, &[]);
    story.same(held.as_array().map(Vec::len), Some(1), "one Elastic IP");
    let machine = master.machine("front");
    story.same(
        held[0]["machine"].as_str(),
        Some(machine.as_str()),
        "it is front's",
    );
    story.same(
        held[0]["tags"]["Cluster"].as_str(),
        Some("net"),
        "its tag Cluster",
    );
    story.same(
        held[0]["tags"]["Name"].as_str(),
        Some("front"),
        "its tag Name",
    );
    let address = held[0]["ip"].as_str().expect("an address").to_owned();
    wait::until(
        || known_as(lab, master, &address),
        SOON,
        "everybody has the address of front",
    );
    address
}

/// Whether status and the facts file of every machine have this public address of `front`.
fn known_as(lab: &Lab, master: &Master, address: &str) -> bool {
    let in_facts = |id: &String| {
        let text = lab.on(id, "cat /etc/cluster_facts.json").text();
        serde_json::from_str::<Value>(&text)
            .is_ok_and(|facts| facts["front"]["public_ip"] == address)
    };
    master.status("front")["public_ip"] == address && master.machine_ids().values().all(in_facts)
}

fn a_rule_more(story: &mut Story, lab: &Lab, master: &Master, dir: &Path) {
    let rule = "      - {protocol: tcp, from_port: 9090, to_port: 9090, ip: 198.51.100.0/24}\n";
    let more = file(dir, lab.ami(), rule);
    let lines = plan(master, &more);
    let changes: Vec<String> = things(&lines)
        .into_iter()
        .filter(|it| !it.starts_with("keep"))
        .collect();
    story.same(
        &changes,
        &vec!["change rule net".to_owned()],
        "one rule is to be added",
    );
    let calls = lab.calls("RunInstances");
    master.launched(&more, 0);
    story.same(lab.calls("RunInstances"), calls, "no machine is made");
    let rules = lab.ec2(RULES, &[]);
    let rules = rules.as_array().expect("a list");
    story.check(
        rules.contains(&"tcp 9090 9090 198.51.100.0/24".into()),
        "the rule is there",
        rules,
    );
    story.same(rules.len(), 6, "beside the others");
    story.same(
        things(&plan(master, &more))
            .iter()
            .filter(|it| !it.starts_with("keep"))
            .count(),
        0,
        "nothing more to do",
    );
}

fn cleans_up(story: &mut Story, lab: &Lab, master: &Master, made: &[String], theirs: &str) {
    let machines: Vec<String> = master.machine_ids().into_values().collect();
    let done = master.cleanup("net");
    story.same(done.code, Some(0), "cleanup");
    for thing in made.iter().chain(&machines) {
        story.check(
            done.text().contains(thing.as_str()),
            &format!("the receipt names {thing}"),
            &done,
        );
    }
    story.check(
        !done.text().contains(theirs),
        "it does not touch what was found",
        &done,
    );
    let left = lab.account("net");
    story.check(left.is_empty(), "nothing with our tag is left", &left);
    let groups = lab.ec2(GROUPS, &[]);
    story.check(groups.get("net").is_none(), "our group is gone", &groups);
    story.check(groups["theirs"] == theirs, "theirs is there", &groups);
    story.same(
        lab.ec2(PLACES, &[]),
        Value::from(vec!["theirs"]),
        "of the placement groups too",
    );
    story.same(
        lab.ec2(ADDRESSES, &[]),
        Value::Array(Vec::new()),
        "the address is released",
    );
}
