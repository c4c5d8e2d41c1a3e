//! Every file, before, after, and with someone else's text in it.

use std::os::unix::fs::PermissionsExt;

use aot_proto::v1::Peer;

use super::files::own_ids;
use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbcd";

fn paths(dir: &Path) -> FactsPaths {
    let paths = FactsPaths {
        state_dir: dir.join("state"),
        etc_dir: dir.join("etc"),
        root_home: dir.join("root"),
    };
    for path in [&paths.state_dir, &paths.etc_dir, &paths.root_home] {
        fs::create_dir(path).unwrap();
    }
    paths
}

fn facts(generation: u64, names: &[&str]) -> ClusterFacts {
    let facts_json = format!("{{\"n\":{}}}", names.len()).into_bytes();
    ClusterFacts {
        generation,
        sha256: sha256_hex(&facts_json),
        facts_json,
        complete: true,
        missing: Vec::new(),
        ssh: String::new(),
        peers: names
            .iter()
            .enumerate()
            .map(|(n, name)| Peer {
                name: (*name).to_owned(),
                hostname: format!("{name}.internal"),
                addresses: vec![format!("10.0.0.{n}"), "1.2.3.4".into()],
                ssh_host_keys: vec![format!("{KEY}{n} root@x")],
                public_keys: vec![
                    format!("{KEY}{n} root@{name}"),
                    format!("{KEY}u{n} admin@{name}"),
                ],
                main_user: "admin".to_owned(),
                user_keys: Vec::new(),
            })
            .collect(),
    }
}

#[test]
fn every_file_is_put_in_place_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    fs::create_dir(paths.root_home.join(".ssh")).unwrap();
    let authorized = paths.root_home.join(".ssh/authorized_keys");
    fs::write(&authorized, "ssh-rsa AAAA person").unwrap();
    fs::write(paths.etc_dir.join("hosts"), "127.0.0.1 localhost\n").unwrap();
    apply(&paths, "c", "web1", &facts(1, &["web1", "web2"])).unwrap();
    apply(&paths, "c", "web1", &facts(2, &["web1"])).unwrap();
    apply(&paths, "c", "web1", &facts(2, &["web1"])).unwrap();
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("etc/cluster_facts.json"), "{\"n\":1}");
    assert_eq!(
        read("root/.ssh/authorized_keys"),
        format!(
            "ssh-rsa AAAA person\n# BEGIN aot cluster c\n{KEY}0 root@web1\n{KEY}u0 admin@web1\n# END aot cluster c\n"
        )
    );
    assert_eq!(
        read("etc/ssh/ssh_known_hosts"),
        format!(
            "# BEGIN aot cluster c\nweb1,web1.internal,10.0.0.0,1.2.3.4 {KEY}0\n# END aot cluster c\n"
        )
    );
    assert_eq!(
        read("etc/hosts"),
        "127.0.0.1 localhost\n# BEGIN aot cluster c\n10.0.0.0 web1 web1.internal\n# END aot cluster c\n"
    );
    let state: serde_json::Value =
        serde_json::from_str(&read("etc/aot/cluster_state.json")).unwrap();
    assert_eq!(
        (&state["generation"], &state["complete"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(last_applied(&paths.state_dir).unwrap(), facts(2, &["web1"]));
    let mode = |path: &str| {
        fs::metadata(dir.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (
            mode("etc/cluster_facts.json"),
            mode("etc/ssh/ssh_known_hosts"),
            mode("root/.ssh")
        ),
        (0o644, 0o644, 0o755)
    );
}

/// As the master sends it where only main users are to log in to one another.
fn of_users(generation: u64, main_user: &str) -> ClusterFacts {
    let mut facts = facts(generation, &["web1", "web2"]);
    facts.ssh = "users".to_owned();
    for (n, peer) in facts.peers.iter_mut().enumerate() {
        peer.public_keys.clear();
        peer.user_keys = vec![format!("{KEY}u{n} admin@{}", peer.name)];
        peer.main_user = main_user.to_owned();
    }
    facts
}

#[test]
fn keys_go_where_the_cluster_wants_them_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let (uid, gid) = own_ids();
    let line = |name: &str| {
        let home = dir.path().join(name);
        fs::create_dir(&home).unwrap();
        format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display())
    };
    let passwd = line("admin") + &line("deploy");
    fs::write(paths.etc_dir.join("passwd"), passwd).unwrap();
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap_or_default();
    let block = |lines: &str| format!("# BEGIN aot cluster c\n{lines}# END aot cluster c\n");
    let users = block(&format!("{KEY}u0 admin@web1\n{KEY}u1 admin@web2\n"));
    let check = |root: bool, admin: bool, deploy: bool| {
        assert_eq!(
            read("root/.ssh/authorized_keys").contains("root@web2"),
            root
        );
        let own = |has: bool| if has { users.as_str() } else { "" };
        assert_eq!(read("admin/.ssh/authorized_keys"), own(admin));
        assert_eq!(read("deploy/.ssh/authorized_keys"), own(deploy));
        assert!(
            read("etc/hosts").contains("web2"),
            "names are written in any case"
        );
        assert!(read("etc/ssh/ssh_known_hosts").contains("web2"));
    };
    let root = |generation| facts(generation, &["web1", "web2"]);
    let none = |generation| ClusterFacts {
        ssh: "none".to_owned(),
        ..of_users(generation, "admin")
    };
    apply(&paths, "c", "web1", &of_users(1, "admin")).unwrap();
    check(false, true, false);
    assert!(!dir.path().join("root/.ssh").exists());
    apply(&paths, "c", "web1", &root(2)).unwrap();
    check(true, false, false);
    apply(&paths, "c", "web1", &of_users(3, "deploy")).unwrap();
    check(false, false, true);
    assert_eq!(read("root/.ssh/authorized_keys"), "", "no trace of it");
    apply(&paths, "c", "web1", &of_users(4, "admin")).unwrap();
    check(false, true, false);
    apply(&paths, "c", "web1", &none(5)).unwrap();
    check(false, false, false);
    for nobody in ["", "root", "unknown"] {
        apply(&paths, "c", "web1", &of_users(6, nobody)).unwrap();
        check(false, false, false);
    }
}

#[test]
fn a_linked_file_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    fs::write(dir.path().join("real"), "x\n").unwrap();
    std::os::unix::fs::symlink("../real", paths.etc_dir.join("hosts")).unwrap();
    apply(&paths, "c", "web1", &facts(1, &["web1"])).unwrap();
    assert!(paths.etc_dir.join("hosts").is_symlink());
    assert!(
        fs::read_to_string(dir.path().join("real"))
            .unwrap()
            .contains("10.0.0.0 web1")
    );
}

#[test]
fn facts_that_were_garbled_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let mut bad = facts(1, &["web1"]);
    bad.facts_json.push(b' ');
    assert!(matches!(
        apply(&paths, "c", "web1", &bad),
        Err(Error::Digest { .. })
    ));
    assert_eq!(fs::read_dir(&paths.etc_dir).unwrap().count(), 0);
    assert!(last_applied(&paths.state_dir).is_none());
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    fs::create_dir(paths.etc_dir.join("hosts")).unwrap();
    let error = apply(&paths, "c", "web1", &facts(1, &["web1"]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("etc/hosts"), "{error}");
}
