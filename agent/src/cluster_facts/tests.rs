//! Every file, before, after, and with someone else's text in it.

use std::os::unix::fs::PermissionsExt;

use aot_proto::facts::{Hash, digest, entry, hash};

use super::files::own_ids;
use super::*;

/// The facts file of web1 alone.
const FILE: &str = "{\n  \"web1\": {\n    \"name\": \"web1\"\n  }\n}\n";

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

/// A peer as the master tells of it where keys of root are exchanged.
fn peer(n: usize, name: &str) -> Peer {
    Peer {
        name: name.to_owned(),
        hostname: format!("{name}.internal"),
        addresses: vec![format!("10.0.0.{n}"), "1.2.3.4".into()],
        ssh_host_keys: vec![format!("{KEY}{n} root@x")],
        public_keys: vec![
            format!("{KEY}{n} root@{name}"),
            format!("{KEY}u{n} admin@{name}"),
        ],
        main_user: "admin".to_owned(),
        user_keys: Vec::new(),
    }
}

/// The whole, of these peers.
fn of_peers(generation: u64, ssh: &str, peers: &[Peer]) -> ClusterFacts {
    let entry = |peer: &Peer| entry(&peer.name, &json!({"name": peer.name}), peer.clone());
    let entries: Vec<Bytes> = peers.iter().map(entry).collect();
    let hashes: Vec<Hash> = entries.iter().map(|entry| hash(entry)).collect();
    ClusterFacts {
        generation,
        complete: true,
        ssh: ssh.to_owned(),
        entries,
        digest: digest(ssh, hashes.iter()).to_vec(),
        ..ClusterFacts::default()
    }
}

fn facts(generation: u64, names: &[&str]) -> ClusterFacts {
    let peers = names.iter().enumerate().map(|(n, name)| peer(n, name));
    of_peers(generation, "", &peers.collect::<Vec<_>>())
}

#[test]
fn every_file_is_put_in_place_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    fs::create_dir(paths.root_home.join(".ssh")).unwrap();
    let authorized = paths.root_home.join(".ssh/authorized_keys");
    fs::write(&authorized, "ssh-rsa AAAA person").unwrap();
    fs::write(paths.etc_dir.join("hosts"), "127.0.0.1 localhost\n").unwrap();
    apply(&paths, "c", "web1", facts(1, &["web1", "web2"])).unwrap();
    apply(&paths, "c", "web1", facts(2, &["web1"])).unwrap();
    apply(&paths, "c", "web1", facts(2, &["web1"])).unwrap();
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("etc/cluster_facts.json"), FILE);
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
        state,
        json!({"generation": 2, "sha256": sha256_hex(FILE.as_bytes()), "complete": true, "missing": []})
    );
    let last = last_applied(&paths.state_dir).unwrap();
    assert_eq!(last.message(), &facts(2, &["web1"]));
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
    of_peers(generation, "users", &with_user_keys(main_user))
}

fn with_user_keys(main_user: &str) -> [Peer; 2] {
    [(0, "web1"), (1, "web2")].map(|(n, name)| Peer {
        public_keys: Vec::new(),
        user_keys: vec![format!("{KEY}u{n} admin@{name}")],
        main_user: main_user.to_owned(),
        ..peer(n, name)
    })
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
    let none = |generation| of_peers(generation, "none", &with_user_keys("admin"));
    apply(&paths, "c", "web1", of_users(1, "admin")).unwrap();
    check(false, true, false);
    assert!(!dir.path().join("root/.ssh").exists());
    apply(&paths, "c", "web1", root(2)).unwrap();
    check(true, false, false);
    apply(&paths, "c", "web1", of_users(3, "deploy")).unwrap();
    check(false, false, true);
    assert_eq!(read("root/.ssh/authorized_keys"), "", "no trace of it");
    apply(&paths, "c", "web1", of_users(4, "admin")).unwrap();
    check(false, true, false);
    apply(&paths, "c", "web1", none(5)).unwrap();
    check(false, false, false);
    for nobody in ["", "root", "unknown"] {
        apply(&paths, "c", "web1", of_users(6, nobody)).unwrap();
        check(false, false, false);
    }
}

#[test]
fn a_linked_file_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    fs::write(dir.path().join("real"), "x\n").unwrap();
    std::os::unix::fs::symlink("../real", paths.etc_dir.join("hosts")).unwrap();
    apply(&paths, "c", "web1", facts(1, &["web1"])).unwrap();
    assert!(paths.etc_dir.join("hosts").is_symlink());
    assert!(
        fs::read_to_string(dir.path().join("real"))
            .unwrap()
            .contains("10.0.0.0 web1")
    );
}

#[test]
fn a_change_is_applied_to_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    apply(&paths, "c", "web1", facts(4, &["web1", "web2"])).unwrap();
    // web2 has left, web3 has come.
    let peers = [peer(0, "web1"), peer(2, "web3")];
    let whole = of_peers(5, "", &peers);
    let change = ClusterFacts {
        base: 4,
        entries: whole.entries[1..].to_vec(),
        removed: vec!["web2".to_owned()],
        ..whole.clone()
    };
    let sha256 = apply(&paths, "c", "web1", change.clone()).unwrap();
    assert_eq!(
        read("etc/hosts"),
        "# BEGIN aot cluster c\n10.0.0.0 web1 web1.internal\n10.0.0.2 web3 web3.internal\n# END aot cluster c\n"
    );
    assert!(!read("root/.ssh/authorized_keys").contains("web2"));
    assert_eq!(
        sha256,
        sha256_hex(read("etc/cluster_facts.json").as_bytes())
    );
    assert_eq!(last_applied(&paths.state_dir).unwrap().message(), &whole);
    assert_eq!(last_generation(&paths.state_dir), 5);
    // One whose answer was lost is sent it once more.
    assert_eq!(apply(&paths, "c", "web1", change.clone()).unwrap(), sha256);
    // Without what it changes nothing is written; the whole, which comes then, is taken.
    fs::write(paths.state_dir.join(LAST_APPLIED), b"garbled").unwrap();
    assert_eq!(last_generation(&paths.state_dir), 0);
    let error = apply(
        &paths,
        "c",
        "web1",
        ClusterFacts {
            generation: 6,
            ..change
        },
    );
    assert!(matches!(
        error,
        Err(Error::BadChange(BadChange::Base { base: 4, have: 0 }))
    ));
    assert_eq!(apply(&paths, "c", "web1", whole).unwrap(), sha256);
}

#[test]
fn facts_that_were_garbled_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let mut bad = facts(1, &["web1"]);
    bad.digest[0] ^= 1;
    assert!(matches!(
        apply(&paths, "c", "web1", bad),
        Err(Error::BadChange(BadChange::Digest))
    ));
    assert_eq!(fs::read_dir(&paths.etc_dir).unwrap().count(), 0);
    assert!(last_applied(&paths.state_dir).is_none());
    // As an earlier version wrote them: a digest of another kind, and no entries.
    let old = ClusterFacts {
        generation: 3,
        ..ClusterFacts::default()
    };
    fs::write(paths.state_dir.join(LAST_APPLIED), old.encode_to_vec()).unwrap();
    assert_eq!(last_generation(&paths.state_dir), 0);
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    fs::create_dir(paths.etc_dir.join("hosts")).unwrap();
    let error = apply(&paths, "c", "web1", facts(1, &["web1"]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("etc/hosts"), "{error}");
}
