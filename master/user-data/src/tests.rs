//! The whole text: parts, limits, and what may not get in.

use aot_provider::contract::sample_spec;

use super::*;

fn boot() -> BootSpec {
    sample_spec("c", "u", 1).boot
}

fn text(user: Option<&str>) -> Result<String, Error> {
    let user = user.map(|text| UserPart {
        text,
        cluster: "hadoop",
        discovery_token: None,
        members: &[],
    });
    render(&boot(), user.as_ref()).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn the_script_has_no_placeholder_left_and_is_a_shell_script() {
    let script = script(&boot()).unwrap();
    assert!(script.starts_with("#!/bin/sh\n"));
    for name in [
        "@MASTERS@",
        "@CA@",
        "@TOKEN@",
        "@ROUTE@",
        "@SHAS@",
        "@TOML@",
        "@UNIT@",
    ] {
        assert!(SCRIPT.contains(name) && !script.contains(name), "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("boot.sh");
    std::fs::write(&path, script).unwrap();
    for shell in ["sh", "bash", "dash"] {
        if let Ok(output) = std::process::Command::new(shell)
            .arg("-n")
            .arg(&path)
            .output()
        {
            assert!(
                output.status.success(),
                "{shell}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

#[test]
fn the_settings_are_toml() {
    let table: toml::Table = format!("{}machine_id = \"i-1\"\n", toml(&boot()))
        .parse()
        .unwrap();
    assert_eq!(table["provider"].as_str(), Some("ec2"));
    assert_eq!(table["token"].as_str(), Some("00ff"));
    assert_eq!(table["route"].as_str(), Some(&*boot().route.to_string()));
    assert_eq!(table["master"][0].as_str(), Some("127.0.0.1:7440"));
    assert_eq!(
        table["ca_pem"].as_str().map(str::trim),
        Some(boot().ca_pem.trim())
    );
}

#[test]
fn the_users_part_lies_beside_ours() {
    let plain = text(None).unwrap();
    assert!(plain.contains("text/x-shellscript") && !plain.contains("text/cloud-config"));
    assert!(
        plain.len() < 10_000,
        "{} bytes leave too little for the user",
        plain.len()
    );
    let both = text(Some(
        "#cloud-config\nfqdn: $cluster_name.example\nx: $other\n",
    ))
    .unwrap();
    assert!(both.contains("Content-Type: text/cloud-config") && both.contains("filename=\"user\""));
    assert!(both.contains("fqdn: hadoop.example\nx: $other\n"));
    assert_eq!(both.matches(&format!("\n--{BOUNDARY}\n")).count(), 2);
    assert!(both.ends_with(&format!("\n--{BOUNDARY}--\n")));
    assert!(
        text(Some("#!/bin/sh\n"))
            .unwrap()
            .matches("text/x-shellscript")
            .count()
            == 2
    );
    assert_eq!(text(Some("hello")), Err(Error::UnknownPart));
}

#[test]
fn the_limit_is_exact_and_names_the_way_out() {
    let start = "#cloud-config\n#";
    let room = MAX_USER_DATA_BYTES - text(Some(start)).unwrap().len();
    let fits = format!("{start}{}", "x".repeat(room));
    assert_eq!(text(Some(&fits)).unwrap().len(), MAX_USER_DATA_BYTES);
    let error = text(Some(&format!("{fits}x"))).unwrap_err();
    assert_eq!(error, Error::TooBig(MAX_USER_DATA_BYTES + 1));
    assert!(error.to_string().contains("16385") && error.to_string().contains("cloud_config"));
}

#[test]
fn nothing_that_a_shell_would_read_gets_in() {
    let bad: [fn(&mut BootSpec); 8] = [
        |boot| boot.master = vec!["a'; reboot #".into()],
        |boot| boot.master.clear(),
        |boot| boot.join_token = "$(x)".into(),
        |boot| boot.join_token = String::new(),
        |boot| boot.ca_pem = "AOT_END".into(),
        |boot| boot.ca_pem = "@TOKEN@".into(),
        |boot| boot.agent_sha256.clear(),
        |boot| drop(boot.agent_sha256.insert("x;y".into(), "ab".repeat(32))),
    ];
    for (index, spoil) in bad.iter().enumerate() {
        let mut boot = boot();
        spoil(&mut boot);
        assert!(
            matches!(render(&boot, None), Err(Error::Unsafe(_))),
            "case {index}"
        );
    }
    assert_eq!(
        text(Some("#cloud-config\n==aot-user-data==")),
        Err(Error::Unsafe("a part has the MIME boundary in it"))
    );
}

#[test]
fn what_differs_is_a_template_of_its_own_kind() {
    let boot = BootSpec {
        user_part: Some("#cloud-config\nfqdn: $instance_name.$cluster_name\n".into()),
        ..boot()
    };
    let members = sample_spec("c", "u", 500).members;
    let text = for_batch(&boot, "hadoop", &members, None).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("Content-Type: text/jinja2"));
    let name = "web{{ ds.meta_data.ami_launch_index | int + 1 }}.hadoop";
    assert!(text.contains(&format!(
        "\n\n## template: jinja\n#cloud-config\nfqdn: {name}\n"
    )));
    let text = for_batch(&boot, "hadoop", &members[..1], None).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("text/cloud-config") && text.contains("\nfqdn: web1.hadoop\n"));
    let boot = BootSpec {
        user_part: Some("#include\nhttp://$private_ipv4/".into()),
        ..boot
    };
    let error = for_batch(&boot, "hadoop", &members, None).unwrap_err();
    assert!(error.to_string().contains("$private_ipv4"), "{error}");
}
