use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::identity::test_authority::Authority;
use crate::identity::{ClientIdentity, new_key};
use crate::tls;

fn config(dir: &Path, machine: &str) -> Config {
    let text = format!(
        "master = [\"m:1\"]\nca_pem = \"x\"\nprovider = \"local\"\nmachine_id = \"{machine}\"\nstate_dir = {:?}\netc_dir = {:?}\nroot_home = {:?}\n",
        dir.join("state"),
        dir.join("etc"),
        dir.join("root"),
    );
    Config::parse(&text, &dir.join("agent.toml")).unwrap()
}

/// A folder as an agent of machine `i-old` leaves it.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in [
        "state/runs/run-1",
        "state/bundles",
        "etc/aot",
        "etc/ssh",
        "root/.ssh",
    ] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for file in [
        "state/tombstones",
        "state/cluster_facts.pb",
        "state/bundles/b",
        "etc/cluster_facts.json",
    ] {
        fs::write(at(file), "x").unwrap();
    }
    let block = "# BEGIN aot cluster c\nssh-ed25519 AAAA peer\n# END aot cluster c\n";
    fs::write(
        at("root/.ssh/authorized_keys"),
        format!("ssh-rsa AAAA person\n{block}"),
    )
    .unwrap();
    fs::write(at("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let authority = Authority::new();
    let key = new_key().unwrap();
    let pem = authority.sign(&key, "spiffe://m/cluster/c/instance/web1/i-old");
    let roots = tls::roots(&authority.pem).unwrap();
    let identity = ClientIdentity::check(key, &pem, &roots).unwrap();
    Vault::new(&at("state")).store(&identity).unwrap();
    dir
}

#[test]
fn all_that_is_of_another_machine_is_set_aside() {
    let dir = used();
    let at = |name: &str| dir.path().join(name);
    let config = config(dir.path(), "i-new");
    let vault = Vault::new(&config.state_dir);
    assert_eq!(claim(&config, &vault).unwrap().as_deref(), Some("i-old"));
    let names = |folder: &str| {
        let mut names: Vec<String> = fs::read_dir(at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("state"), ["bundles", "former", "machine"]);
    assert_eq!(
        names("state/former/i-old"),
        ["cluster_facts.pb", "identity.pem", "runs", "tombstones"]
    );
    let mode = fs::metadata(at("state/former"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let authorized = fs::read_to_string(at("root/.ssh/authorized_keys")).unwrap();
    assert!(
        authorized.contains("person") && !authorized.contains("peer"),
        "{authorized}"
    );
    assert!(!at("etc/cluster_facts.json").exists());
    assert_eq!(
        fs::read_to_string(at("etc/hosts")).unwrap(),
        "127.0.0.1 localhost\n",
        "there was no block in it"
    );
    assert_eq!(claim(&config, &vault).unwrap(), None, "once");
}

#[test]
fn the_machines_own_state_stays() {
    let dir = used();
    let config = config(dir.path(), "i-old");
    let vault = Vault::new(&config.state_dir);
    assert_eq!(claim(&config, &vault).unwrap(), None);
    assert!(vault.is_filled() && config.state_dir.join("runs/run-1").exists());
}

#[test]
fn a_cut_while_it_is_put_away_loses_and_believes_nothing() {
    let dir = used();
    let config = config(dir.path(), "i-new");
    let (state, vault) = (&config.state_dir, Vault::new(&config.state_dir));
    let former = state.join("former/i-old");
    fs::create_dir_all(&former).unwrap();
    fs::write(former.join(UNFINISHED), "").unwrap();
    fs::rename(state.join("runs"), former.join("runs")).unwrap();
    assert_eq!(claim(&config, &vault).unwrap().as_deref(), Some("i-old"));
    assert!(former.join("runs/run-1").exists() && former.join("identity.pem").exists());
    assert!(!former.join(UNFINISHED).exists() && !vault.is_filled());
}

#[test]
fn without_a_certificate_the_record_says_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = config(dir.path(), "i-old");
    fs::create_dir_all(first.state_dir.join("runs/run-1")).unwrap();
    let vault = Vault::new(&first.state_dir);
    assert_eq!(claim(&first, &vault).unwrap(), None, "nobody's until now");
    let second = config(dir.path(), "i-new");
    assert_eq!(claim(&second, &vault).unwrap().as_deref(), Some("i-old"));
    assert!(!first.state_dir.join("runs").exists());
}

/// A metadata service that calls the machine `i-new`.
async fn metadata(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await;
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ni-new";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    base
}

fn on_ec2(dir: &Path, machine: &str, imds: &str) -> String {
    format!(
        "master = [\"m:1\"]\nca_pem = \"x\"\nmachine_id = \"{machine}\"\nimds = \"{imds}\"\nstate_dir = {:?}\nboot_id_file = {:?}\n",
        dir.join("state"),
        dir.join("boot"),
    )
}

#[tokio::test]
async fn settings_of_another_machine_are_not_used_but_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let mut tasks = JoinSet::new();
    let base = metadata(&mut tasks).await;
    let old = Config::parse(&on_ec2(dir.path(), "i-old", &base), &file).unwrap();
    let waiting = own_settings(old);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "they were used");
    fs::write(&file, on_ec2(dir.path(), "i-new", &base)).unwrap();
    let own = tokio::time::timeout(Duration::from_secs(120), waiting)
        .await
        .unwrap();
    assert_eq!(own.machine_id.as_deref(), Some("i-new"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_metadata_service_is_waited_for_once_a_boot_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("boot"), "b1").unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    let nobody = "http://127.0.0.1:1";
    let file = dir.path().join("agent.toml");
    let config = || Config::parse(&on_ec2(dir.path(), "i-1", nobody), &file).unwrap();
    let waited = async || {
        let since = Instant::now();
        let own = own_settings(config()).await;
        assert_eq!(own.machine_id.as_deref(), Some("i-1"));
        since.elapsed()
    };
    let first = waited().await;
    assert!(first >= ASKED && first < 2 * ASKED, "{first:?}");
    claim(&config(), &Vault::new(&config().state_dir)).unwrap();
    assert_eq!(
        waited().await,
        Duration::ZERO,
        "it was found out in this boot"
    );
    fs::write(dir.path().join("boot"), "b2").unwrap();
    assert!(waited().await >= ASKED);
}
