//! The user's cloud-config beside ours: its variables on each machine, a discovery token that is asked for once, and a
//! CoreOS file that must pass through unharmed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::lab::web::Web;

/// Every variable, and braces that cloud-init must not take for a template.
const OURS: &str = r#"#cloud-config
write_files:
  - path: /etc/who
    permissions: "0640"
    content: |
      cluster=$cluster_name
      name=$instance_name
      private=$private_ipv4
      public=$public_ipv4
      token=$discovery_token
      braces={{ x }} {% y %} {# z #} ${HOME} $100
runcmd:
  - [sh, -c, "echo $instance_name > /etc/ran"]
"#;
/// As coreos-ec2 has it.
const COREOS: &str = r#"#cloud-config

coreos:
  etcd2:
    discovery: $coreos_discovery_token
    advertise-client-urls: http://$private_ipv4:2379,http://$private_ipv4:4001
    initial-advertise-peer-urls: http://$private_ipv4:2380
    listen-client-urls: http://0.0.0.0:2379,http://0.0.0.0:4001
    listen-peer-urls: http://$private_ipv4:2380,http://$private_ipv4:7001
  units:
    - name: fleet.service
      command: start

    - name: format-xvdb.service
      command: start
      content: |
        [Unit]
        Description=Formats the EBS drive
        After=dev-xvdb.device
        Requires=dev-xvdb.device

        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/usr/sbin/wipefs -f /dev/xvdb
        ExecStart=/usr/sbin/mkfs.ext4 /dev/xvdb

    - name: flanneld.service
      command: start
      drop-ins:
        - name: 50-network-config.conf
          content: |
            [Service]
            ExecStartPre=/usr/bin/etcdctl set /coreos.com/network/config '{ "Network": "10.1.0.0/16" }'
"#;
/// The last part of a machine's user-data: what the user gave.
const USER_PART: &str = r#"
import base64, boto3, email, json, sys, zlib
ec2 = boto3.client("ec2")
data = ec2.describe_instance_attribute(InstanceId=sys.argv[1], Attribute="userData")["UserData"]["Value"]
data = base64.b64decode(data)
if data[:2] == b"\x1f\x8b":
    data = zlib.decompress(data, 47)
parts = [part.get_payload(decode=True).decode() for part in email.message_from_bytes(data).walk() if not part.is_multipart()]
print(json.dumps([part for part in parts if "aot-agent" not in part]))
"#;

fn file(dir: &Path, ami: &str, web: &Web, size: usize) -> PathBuf {
    let rest = format!(
        "launch: {{timeout: 240s}}
discovery_url: '{}'
instances:
  - {{name: seed, cloud_config: coreos.yml}}
pools:
  - {{name: web, size: {size}, cloud_config: ours.yml}}
",
        web.url("/new?size=3")
    );
    let file = cluster_file(dir, "config", ami, &rest);
    std::fs::write(dir.join("ours.yml"), OURS).expect("writes");
    std::fs::write(dir.join("coreos.yml"), COREOS).expect("writes");
    file
}

#[test]
fn the_users_cloud_config_is_merged_and_its_variables_are_filled_in() {
    let Some(lab) = Lab::start() else { return };
    let web = Web::start(&lab, 8099);
    let master = Master::start(&lab, "config", 7440);
    let dir = lab.dir().join("files");
    let small = file(&dir, lab.ami(), &web, 2);
    let mut story = Story::default();

    story.step("plan asks for no token");
    master
        .run(&["plan", &small.display().to_string()])
        .expect(0);
    story.same(web.answers("/new").len(), 0, "no token is used up");

    story.step("launch: each member has its own name and addresses");
    master.launched(&small, 0);
    let tokens = web.answers("/new");
    story.same(tokens.len(), 1, "one token is asked for");
    let token = tokens[0]["token"].as_str().expect("a token").to_owned();
    members_are_right(&mut story, &lab, &master, &token);

    story.step("a CoreOS file passes unharmed but for the token");
    let parts = lab.python(USER_PART, &[&master.machine("seed")]);
    let wanted = COREOS.replace("$coreos_discovery_token", &token);
    story.same(
        parts.as_array().map(Vec::len),
        Some(1),
        "one part of the user's",
    );
    story.same(
        parts[0].as_str().map(str::trim_end),
        Some(wanted.trim_end()),
        "what CoreOS would read",
    );

    story.step("a member more: the same token, and no other is asked for");
    master.launched(&file(&dir, lab.ami(), &web, 3), 0);
    story.same(web.answers("/new").len(), 1, "one token in all");
    members_are_right(&mut story, &lab, &master, &token);

    story.same(master.cleanup("config").code, Some(0), "cleanup");
    master.stop();
    drop(web);
    lab.end();
    story.end();
}

/// What the machines of the pool made of the file.
fn members_are_right(story: &mut Story, lab: &Lab, master: &Master, token: &str) {
    let mut privates = BTreeSet::new();
    let ids = master.machine_ids();
    let members = ids.iter().filter(|(name, _)| name.starts_with("web"));
    for (name, id) in members {
        // The agent may be there before cloud-init comes to the last of its modules.
        lab.sure(id, "cloud-init status --wait > /dev/null || true");
        let status = master.status(name);
        let text = lab.sure(id, "cat /etc/who");
        let seen: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        for (key, wanted) in [
            ("cluster", "config"),
            ("name", name.as_str()),
            ("private", status["private_ip"].as_str().unwrap_or_default()),
            ("public", status["public_ip"].as_str().unwrap_or_default()),
            ("token", token),
            ("braces", "{{ x }} {% y %} {# z #} ${HOME} $100"),
        ] {
            story.same(
                seen.get(key).copied(),
                Some(wanted),
                &format!("{key} on {name}"),
            );
        }
        privates.insert(seen.get("private").copied().unwrap_or_default().to_owned());
        story.same(
            lab.sure(id, "cat /etc/ran; stat -c %a /etc/who"),
            format!("{name}\n640\n"),
            "the rest of the file",
        );
        story.same(
            lab.sure(id, "hostname").trim(),
            name.as_str(),
            "our own part was run",
        );
    }
    story.check(privates.len() >= 2, "each has its own address", &privates);
}
