//! What is put in, what is left to the machine, and what comes out as it went in.

use proptest::prelude::*;

use super::*;

fn members(names: &[&str]) -> Vec<MemberSpec> {
    let member = |name: &&str| MemberSpec {
        name: name.parse().unwrap(),
        hostname: (*name).to_owned(),
    };
    names.iter().map(member).collect()
}

fn filled(text: &str, names: &[&str]) -> Result<String, Error> {
    let values = Values {
        cluster: "hadoop",
        token: Some("https://d/1"),
        members: &members(names),
    };
    fill(text, values)
}

/// The cloud-config of coreos-ec2, as its readme shows it in a launch.
const SEED: &str = r#"#cloud-config

coreos:
  etcd:
    discovery: $coreos_discovery_token
    addr: $private_ipv4:4001
    peer-addr: $private_ipv4:7001
  etcd2:
    discovery: $coreos_discovery_token
    advertise-client-urls: http://$private_ipv4:2379,http://$private_ipv4:4001
    initial-advertise-peer-urls: http://$private_ipv4:2380
    listen-client-urls: http://0.0.0.0:2379,http://0.0.0.0:4001
    listen-peer-urls: http://$private_ipv4:2380,http://$private_ipv4:7001
  units:
    - name: etcd.service
      command: start

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

    - name: media-ebs.mount
      command: start
      content: |
        [Unit]
        After=format-xvdb.service

        [Mount]
        What=/dev/xvdb
        Where=/media/ebs
        Type=ext4

    - name: flanneld.service
      command: start
      drop-ins:
        - name: 50-network-config.conf
          content: |
            [Service]
            ExecStartPre=/usr/bin/etcdctl set /coreos.com/network/config '{ "Network": "10.1.0.0/16" }'
"#;

#[test]
fn the_seed_s_cloud_config_passes_unharmed_but_for_its_token() {
    let expected = SEED.replace("$coreos_discovery_token", "https://d/1");
    assert_eq!(filled(SEED, &["p-1-1", "p-1-2"]).unwrap(), expected);
    let ours = SEED.replace("$coreos_discovery_token", "$discovery_token");
    assert_eq!(filled(&ours, &["p-1-1", "p-1-2"]).unwrap(), expected);
    assert!(wants_token(SEED) && wants_token(&ours) && !wants_token(&expected));
    let named = SEED.replace("fleet.service", "$instance_name.service");
    assert_eq!(
        filled(&named, &["a", "b"]),
        Err(Error::Differs("$instance_name".into()))
    );
    assert!(filled(&named, &["a"]).unwrap().contains("name: a.service"));
}

#[test]
fn what_is_the_same_everywhere_is_plain() {
    for (text, expected) in [
        (
            "#cloud-config\na: $cluster_name.x\n",
            "#cloud-config\na: hadoop.x\n",
        ),
        (
            "#!/bin/sh\necho $discovery_token",
            "#!/bin/sh\necho https://d/1",
        ),
        (
            "#include\nhttp://$cluster_name/",
            "#include\nhttp://hadoop/",
        ),
        // Longer names, braces and lone signs are somebody else's.
        (
            "$cluster_names ${cluster_name} $ $$",
            "$cluster_names ${cluster_name} $ $$",
        ),
        ("$$cluster_name$cluster_name", "$hadoophadoop"),
        ("#cloud-config\n{{ x }} {% y", "#cloud-config\n{{ x }} {% y"),
        ("", ""),
    ] {
        assert_eq!(filled(text, &["a", "b"]).unwrap(), expected);
    }
    assert_eq!(
        filled("#cloud-config\n- $instance_name", &["web1"]).unwrap(),
        "#cloud-config\n- web1"
    );
    let none = Values {
        cluster: "c",
        token: None,
        members: &[],
    };
    assert_eq!(fill("$discovery_token", none), Err(Error::NoToken));
}

#[test]
fn what_differs_becomes_a_template() {
    let text =
        "#cloud-config\nx: {{$private_ipv4}} ${#a} {%b {c}\ny: {$public_ipv4\nz: $instance_name\n";
    assert_eq!(
        filled(text, &["web1", "web2"]).unwrap(),
        "## template: jinja\n#cloud-config\n\
         x: {{ '{' }}{{ '{' }}{{ ds.meta_data.local_ipv4 }}}} ${{ '{' }}#a} {{ '{' }}%b {c}\n\
         y: {{ '{' }}{{ ds.meta_data.public_ipv4 | default('') }}\n\
         z: web{{ ds.meta_data.ami_launch_index | int + 1 }}\n"
    );
    assert_eq!(
        filled("#!/bin/sh\necho $private_ipv4 ${#x}\n", &["a"]).unwrap(),
        "## template: jinja\n#!/bin/sh\necho {{ ds.meta_data.local_ipv4 }} ${{ '{' }}#x}\n"
    );
    // One that is a template already keeps its own expressions.
    assert_eq!(
        filled(
            "## template: jinja\n#cloud-config\n{{ v1.region }} $private_ipv4\n",
            &["a"]
        )
        .unwrap(),
        "## template: jinja\n#cloud-config\n{{ v1.region }} {{ ds.meta_data.local_ipv4 }}\n"
    );
    for text in [
        "#include\nhttp://$private_ipv4/",
        "#cloud-boothook\necho $private_ipv4",
    ] {
        assert_eq!(
            filled(text, &["a"]),
            Err(Error::Differs("$private_ipv4".into()))
        );
    }
}

#[test]
fn names_take_little_room() {
    let index = "ds.meta_data.ami_launch_index | int";
    for (names, expected) in [
        (
            vec!["web1", "web2", "web3"],
            format!("web{{{{ {index} + 1 }}}}"),
        ),
        (
            vec!["web9", "web10", "web11"],
            format!("web{{{{ {index} + 9 }}}}"),
        ),
        (
            vec!["h09x", "h10x"],
            format!("h{{{{ '%02d' | format({index} + 9) }}}}x"),
        ),
        (
            vec!["h099", "h100"],
            format!("h{{{{ '%03d' | format({index} + 99) }}}}"),
        ),
        (vec!["db1", "db4"], format!("db{{{{ [1,4][{index}] }}}}")),
        (
            vec!["p-1-2", "p-1-1"],
            format!("p-1-{{{{ [2,1][{index}] }}}}"),
        ),
        (
            vec!["a1", "a01"],
            format!("{{{{ ['a1','a01'][{index}] }}}}"),
        ),
        (
            vec!["web", "db"],
            format!("{{{{ ['web','db'][{index}] }}}}"),
        ),
        (vec!["a", "a1"], format!("{{{{ ['a','a1'][{index}] }}}}")),
    ] {
        assert_eq!(name_expression(&members(&names)), expected, "{names:?}");
    }
    let many: Vec<String> = (1..=500).map(|number| format!("node{number:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(name_expression(&members(&many)).len() < 80);
}

/// What jinja makes of the text: expressions of ours, and nothing else, may begin anywhere.
fn rendered(mut template: &str) -> Option<String> {
    let mut out = String::new();
    while let Some(at) = ["{{", "{%", "{#"]
        .iter()
        .filter_map(|it| template.find(it))
        .min()
    {
        out.push_str(&template[..at]);
        let rest = template[at..].strip_prefix("{{ ")?;
        let (expression, after) = rest.split_once(" }}")?;
        out.push_str(match expression {
            "'{'" => "{",
            "ds.meta_data.local_ipv4" => "$private_ipv4",
            _ => return None,
        });
        template = after;
    }
    out.push_str(template);
    Some(out)
}

proptest! {
    #[test]
    fn the_users_braces_come_out_as_they_went_in(
        body in prop::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("{{"), Just("{%"), Just("{#"), Just("%"), Just("#"), Just("a"), Just("\n"),
                Just(" "), Just("$private_ipv4")
            ],
            0..24,
        ),
    ) {
        let text = format!("#cloud-config\n{} $private_ipv4", body.concat());
        let template = filled(&text, &["a", "b"]).unwrap();
        let template = template.strip_prefix("## template: jinja\n").unwrap();
        // A word that is longer than the variable is not a variable.
        prop_assert_eq!(rendered(template), Some(text));
    }

    #[test]
    fn numbered_names_are_the_names(start in 0_u32..1200, count in 2_usize..40, width in 1_usize..4) {
        let names: Vec<String> = (start..).take(count).map(|n| format!("n{n:0width$}-x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let expression = name_expression(&members(&names));
        let plus = format!("ds.meta_data.ami_launch_index | int + {start}");
        prop_assert!(expression.starts_with("n{{ ") && expression.ends_with(" }}-x"), "{}", expression);
        prop_assert!(expression.contains(&plus), "{}", expression);
    }
}
