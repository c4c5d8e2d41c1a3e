//! The `local` provider against this machine's kernel: real clones with a script for an agent. Started as
//! `… machine-run FOLDER` or `… machine-init FOLDER` this program is a clone's supervisor or its pid 1.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aot_local::{LocalProvider, machine_init, machine_run};
use aot_provider::{
    Ask, ClientToken, ErrorKind, LaunchSpec, Leftovers, Lifecycle, Machine, MachineState,
    Prerequisites, Provider, contract,
};

/// The agent of these clones: says what it sees, then does what it is told by files in its clone.
const AGENT: &str = r#"#!/bin/sh
mkdir -p /var/lib/aot/seen; cd /var/lib/aot/seen || exit 1
hostname > hostname; cat /etc/hostname > etc-hostname; cat /etc/machine-id > machine-id
cat /etc/aot/boot_id > boot_id; echo "$$" > pid; echo "$*" > args
ls -d /proc/[0-9]* | wc -l > processes; grep -c aot- /proc/mounts > mounts
ls -A /root/.ssh | wc -l > ssh; ls /etc/ssh | grep -c ssh_host_ > hostkeys
ls -A "$(cat /etc/aot-test-state)" 2>/dev/null | wc -l > state
cat /etc/aot/agent.toml > toml; stat -c %a /etc/aot/agent.toml > mode
echo written > /etc/aot-test-written; echo "/$(cat boot_id)" >> boots
(echo x > /dev/null) 2>/dev/null && echo yes > null
(echo 1 > /proc/sys/kernel/panic_on_oops) 2>/dev/null || echo no > sysctl
echo "console says $(hostname)"; sync; touch ready
while :; do
  [ -e /var/lib/aot/do-reboot ] && rm /var/lib/aot/do-reboot && rm ready && reboot
  [ -e /var/lib/aot/do-exit ] && rm /var/lib/aot/do-exit && rm ready && exit 3
  sleep 0.05
done
"#;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("machine-run"), Some(dir)) => return machine_run(Path::new(dir)),
        (Some("machine-init"), Some(dir)) => return machine_init(Path::new(dir)),
        // Asked by test runners.
        (Some("--list"), _) => return ExitCode::SUCCESS,
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(checks());
    ExitCode::SUCCESS
}

async fn checks() {
    let rig = Rig::new();
    let problems = rig
        .provider
        .preflight(&Ask {
            spec: &cluster_file(),
            cluster: None,
            known: &Prerequisites::default(),
            missing: &BTreeMap::new(),
            advertise: &[],
            user_parts: &BTreeMap::new(),
            agents: &BTreeMap::new(),
        })
        .await;
    if !problems.is_empty() {
        println!("skipped, this kernel refuses: {problems:?}");
        assert!(problems.iter().all(|problem| !problem.hint.is_empty()));
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !rig.root.join("machines").exists(),
        "preflight makes nothing"
    );
    for (name, took) in [
        (
            "contract",
            timed(contract::check_all(
                &rig.provider,
                &rig.spec("contract", 3),
                true,
            ))
            .await,
        ),
        ("isolation", timed(isolation(&rig)).await),
        ("stop and start", timed(stop_and_start(&rig)).await),
        ("reboot", timed(reboot(&rig)).await),
        ("power loss", timed(power_loss(&rig)).await),
        ("supervisor killed", timed(supervisor_killed(&rig)).await),
        ("half made", timed(half_made(&rig)).await),
        ("errors", timed(errors(&rig)).await),
        ("ten", timed(ten(&rig)).await),
    ] {
        println!("ok: {name} ({took:?})");
    }
    assert_eq!(
        processes(&rig.root),
        Vec::<String>::new(),
        "no process is left"
    );
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").unwrap(),
        mounts,
        "no mount was seen outside"
    );
    for left in ["machines", "batches"] {
        assert_eq!(
            fs::read_dir(rig.root.join(left)).unwrap().count(),
            0,
            "{left} is empty"
        );
    }
    assert!(!Path::new("/etc/aot-test-written").exists());
}

async fn timed(check: impl Future<Output = ()>) -> Duration {
    let start = Instant::now();
    check.await;
    start.elapsed()
}

/// A state directory with a provider on it.
struct Rig {
    _folder: tempfile::TempDir,
    root: PathBuf,
    agent: PathBuf,
    provider: LocalProvider,
}

/// Ends what a failed check left running.
impl Drop for Rig {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.root.join("machines"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Some(pid) = supervisor(&entry.path()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            }
        }
    }
}

fn supervisor(dir: &Path) -> Option<rustix::process::Pid> {
    let pid = state(dir)?.get("supervisor_pid")?.as_i64()?;
    let known = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    known
        .contains(dir.to_str()?)
        .then(|| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?))?
}

fn state(dir: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(dir.join("state.json")).ok()?).ok()
}

impl Rig {
    fn new() -> Self {
        // On a disk: an overlay's upper folder must lie there for its data to stay.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = folder.path().join("local");
        let agent = folder.path().join("agent");
        fs::write(&agent, AGENT).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            provider: LocalProvider::new(root.clone()),
            root,
            agent,
            _folder: folder,
        }
    }

    fn spec(&self, uuid: &str, count: usize) -> LaunchSpec {
        let mut spec = contract::sample_spec("test", uuid, count);
        spec.boot.agent_path = self.agent.clone();
        spec
    }

    fn dir(&self, machine: &Machine) -> PathBuf {
        self.root.join("machines").join(machine.id.as_str())
    }

    /// A file inside, as the overlay's upper folder has it.
    fn inside(&self, machine: &Machine, path: &str) -> PathBuf {
        let disk = self.dir(machine).join("disk");
        if rustix::process::geteuid().is_root() {
            return disk.join("root/upper").join(path);
        }
        let (top, rest) = path.split_once('/').unwrap();
        let prefix = format!("at-{top}-");
        let layer = fs::read_dir(disk)
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .unwrap();
        layer.path().join("upper").join(rest)
    }

    fn seen(&self, machine: &Machine, name: &str) -> String {
        let path = self.inside(machine, &format!("var/lib/aot/seen/{name}"));
        fs::read_to_string(&path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    async fn launch(&self, uuid: &str, count: usize) -> Vec<Machine> {
        let token = ClientToken(format!("token-{uuid}"));
        let machines = self
            .provider
            .launch(&self.spec(uuid, count), &token)
            .await
            .unwrap();
        for machine in &machines {
            self.ready(machine).await;
        }
        machines
    }

    async fn ready(&self, machine: &Machine) {
        let path = self.inside(machine, "var/lib/aot/seen/ready");
        until("the agent is ready", || path.exists()).await;
    }

    /// Tells the agent inside to do something, and takes its "ready" away first where it would be stale.
    fn tell(&self, machine: &Machine, what: &str) {
        // Below a live overlay, only a file that nobody looked at before may appear; so from inside, by its process.
        let pid = state(&self.dir(machine)).unwrap()["init_pid"]
            .as_u64()
            .unwrap();
        fs::write(format!("/proc/{pid}/root/var/lib/aot/{what}"), "").unwrap();
    }

    async fn lifecycle(&self, machine: &Machine, action: Lifecycle, uuid: &str) {
        let cluster = self.spec(uuid, 1).cluster;
        self.provider
            .lifecycle(&cluster, action, std::slice::from_ref(&machine.id))
            .await
            .unwrap()
            .of_all()
            .unwrap();
    }

    async fn end(&self, uuid: &str) {
        let cluster = self.spec(uuid, 1).cluster;
        let all = contract::ids(&self.provider.describe(&cluster).await.unwrap().machines);
        let dirs: Vec<PathBuf> = all
            .iter()
            .map(|id| self.root.join("machines").join(id.as_str()))
            .collect();
        self.provider
            .lifecycle(&cluster, Lifecycle::Terminate, &all)
            .await
            .unwrap();
        for dir in dirs {
            let left: Vec<_> = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["machine.json"], "only the record stays");
        }
        let receipts = self.provider.cleanup(&cluster).await.unwrap();
        assert!(receipts.iter().all(|receipt| !receipt.left), "{receipts:?}");
    }

    async fn state(&self, uuid: &str) -> (MachineState, String) {
        let machines = self
            .provider
            .describe(&self.spec(uuid, 1).cluster)
            .await
            .unwrap();
        let machine = &machines.machines[0];
        (machine.state, machine.state_reason.clone())
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Processes of this machine whose command line names the folder.
fn processes(root: &Path) -> Vec<String> {
    let text = root.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains("machine-") && line.contains(text))
        .collect()
}

fn cluster_file() -> aot_model::spec::ClusterSpec {
    let local = aot_model::spec::ProviderKind::Local;
    aot_model::samples::file("test", local, Vec::new())
}

async fn isolation(rig: &Rig) {
    let machines = rig.launch("isolation", 3).await;
    let host_id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    for (index, machine) in machines.iter().enumerate() {
        let name = format!("web{}", index + 1);
        assert_eq!(rig.seen(machine, "hostname"), name);
        assert_eq!(rig.seen(machine, "etc-hostname"), name);
        assert_eq!(machine.private_dns.as_ref(), Some(&name));
        assert_eq!(rig.seen(machine, "args"), "run");
        assert!(
            rig.seen(machine, "pid").parse::<u32>().unwrap() < 10,
            "its own pid namespace and /proc"
        );
        assert!(rig.seen(machine, "processes").parse::<u32>().unwrap() < 10);
        assert_ne!(rig.seen(machine, "machine-id"), host_id.trim());
        assert_eq!(rig.seen(machine, "machine-id").len(), 32);
        assert_eq!(rig.seen(machine, "ssh"), "0", "none of the host's keys");
        if rustix::process::geteuid().is_root() {
            assert_eq!(rig.seen(machine, "hostkeys"), "0");
        }
        assert_eq!(rig.seen(machine, "null"), "yes");
        assert_eq!(
            rig.seen(machine, "sysctl"),
            "no",
            "kernel settings are the host's"
        );
        assert_eq!(rig.seen(machine, "mode"), "600");
        let toml: toml::Table = rig.seen(machine, "toml").parse().unwrap();
        assert_eq!(toml["machine_id"].as_str(), Some(machine.id.as_str()));
        assert_eq!(toml["token"].as_str(), Some("00ff"));
        assert_eq!(toml["route"].as_str().map(str::len), Some(21));
        assert_eq!(toml["boot_id_file"].as_str(), Some("/etc/aot/boot_id"));
        assert!(toml["ca_pem"].as_str().unwrap().starts_with("-----BEGIN"));
        assert!(rig.inside(machine, "etc/aot-test-written").exists());
    }
    assert!(
        !Path::new("/etc/aot-test-written").exists(),
        "the host's /etc is untouched"
    );
    let console = rig
        .provider
        .explain(
            &rig.spec("isolation", 1).cluster,
            std::slice::from_ref(&machines[1].id),
        )
        .await;
    let console = &console[&machines[1].id];
    assert!(console.contains("console says web2"), "{console}");
    let mut addresses: Vec<_> = machines
        .iter()
        .map(|machine| machine.private_ip.clone().unwrap())
        .collect();
    addresses.dedup();
    assert!(addresses.len() == 3 && addresses.iter().all(|address| address.starts_with("127.")));
    // An agent that dies is started again.
    rig.tell(&machines[0], "do-exit");
    let boots = rig.inside(&machines[0], "var/lib/aot/seen/boots");
    until("the agent is back", || {
        fs::read_to_string(&boots).is_ok_and(|text| text.lines().count() == 2)
    })
    .await;
    assert_eq!(rig.state("isolation").await.0, MachineState::Running);
    rig.end("isolation").await;
}

async fn stop_and_start(rig: &Rig) {
    let machine = rig.launch("stop", 1).await.remove(0);
    let first = rig.seen(&machine, "boot_id");
    rig.lifecycle(&machine, Lifecycle::Stop, "stop").await;
    assert_eq!(
        rig.state("stop").await,
        (MachineState::Stopped, "stopped by the operator".into())
    );
    fs::remove_file(rig.inside(&machine, "var/lib/aot/seen/ready")).unwrap();
    // A launch that is repeated does not start what was stopped.
    rig.provider
        .launch(&rig.spec("stop", 1), &ClientToken("token-stop".into()))
        .await
        .unwrap();
    assert_eq!(rig.state("stop").await.0, MachineState::Stopped);
    rig.lifecycle(&machine, Lifecycle::Start, "stop").await;
    rig.ready(&machine).await;
    assert_eq!(rig.state("stop").await.0, MachineState::Running);
    let second = rig.seen(&machine, "boot_id");
    assert_ne!(first, second);
    assert_eq!(
        rig.seen(&machine, "boots"),
        format!("/{first}\n/{second}"),
        "its data are still there"
    );
    rig.lifecycle(&machine, Lifecycle::Start, "stop").await;
    assert_eq!(
        rig.seen(&machine, "boot_id"),
        second,
        "a start of a running one does nothing"
    );
    rig.end("stop").await;
}

async fn reboot(rig: &Rig) {
    let machine = rig.launch("reboot", 1).await.remove(0);
    let first = rig.seen(&machine, "boot_id");
    let boots = rig.inside(&machine, "var/lib/aot/seen/boots");
    let booted = |count| until_lines(&boots, count);
    rig.tell(&machine, "do-reboot");
    booted(2).await;
    let second = rig.seen(&machine, "boot_id");
    assert_ne!(first, second);
    rig.lifecycle(&machine, Lifecycle::Reboot, "reboot").await;
    booted(3).await;
    assert_ne!(second, rig.seen(&machine, "boot_id"));
    assert_eq!(rig.state("reboot").await.0, MachineState::Running);
    assert_eq!(
        fs::read_to_string(rig.dir(&machine).join("boot_id"))
            .unwrap()
            .trim(),
        rig.seen(&machine, "boot_id")
    );
    rig.end("reboot").await;
}

async fn until_lines(path: &Path, count: usize) {
    let enough = || fs::read_to_string(path).is_ok_and(|text| text.lines().count() >= count);
    until("another boot", enough).await;
}

async fn power_loss(rig: &Rig) {
    let machine = rig.launch("power", 1).await.remove(0);
    let pid = state(&rig.dir(&machine)).unwrap()["init_pid"]
        .as_i64()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let cluster = rig.spec("power", 1).cluster;
    let machines = contract::wait_for(&rig.provider, &cluster, MachineState::Stopped).await;
    assert!(
        machines[0].state_reason.contains("lost power"),
        "{}",
        machines[0].state_reason
    );
    fs::remove_file(rig.inside(&machine, "var/lib/aot/seen/ready")).unwrap();
    rig.lifecycle(&machine, Lifecycle::Start, "power").await;
    rig.ready(&machine).await;
    assert_eq!(
        rig.seen(&machine, "boots").lines().count(),
        2,
        "what it wrote is still there"
    );
    rig.end("power").await;
}

async fn supervisor_killed(rig: &Rig) {
    let machine = rig.launch("killed", 1).await.remove(0);
    let init = state(&rig.dir(&machine)).unwrap()["init_pid"]
        .as_i64()
        .unwrap();
    let pid = supervisor(&rig.dir(&machine)).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("pid 1 died with its supervisor", || {
        !Path::new(&format!("/proc/{init}/root/etc")).exists()
    })
    .await;
    let cluster = rig.spec("killed", 1).cluster;
    let machines = contract::wait_for(&rig.provider, &cluster, MachineState::Stopped).await;
    assert!(
        machines[0].state_reason.contains("supervisor is gone"),
        "{}",
        machines[0].state_reason
    );
    rig.end("killed").await;
}

async fn half_made(rig: &Rig) {
    let machines = rig.launch("half", 2).await;
    let cluster = rig.spec("half", 1).cluster;
    rig.provider
        .lifecycle(&cluster, Lifecycle::Stop, &[machines[1].id.clone()])
        .await
        .unwrap();
    // As if the master had died while it made the second one.
    let dir = rig.dir(&machines[1]);
    for left in ["machine.json", "state.json", "prepared"] {
        fs::remove_file(dir.join(left)).unwrap();
    }
    fs::remove_file(rig.inside(&machines[1], "var/lib/aot/seen/ready")).unwrap();
    let again = rig.launch("half", 2).await;
    assert_eq!(contract::ids(&again), contract::ids(&machines));
    contract::wait_for(&rig.provider, &cluster, MachineState::Running).await;
    rig.end("half").await;
}

async fn errors(rig: &Rig) {
    let mut spec = rig.spec("errors", 1);
    spec.boot.agent_path = "/nonexistent".into();
    let token = ClientToken("token-errors".into());
    let error = rig.provider.launch(&spec, &token).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("/nonexistent"), "{error}");
    rig.launch("errors", 1).await;
    let error = rig
        .provider
        .launch(&rig.spec("errors", 2), &token)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.leftovers),
        (ErrorKind::Invalid, Leftovers::Unknown),
        "{error}"
    );
    let stranger = "local-00000000000000000".parse().unwrap();
    let cluster = rig.spec("errors", 1).cluster;
    for action in [
        Lifecycle::Start,
        Lifecycle::Stop,
        Lifecycle::Reboot,
        Lifecycle::Terminate,
    ] {
        let changed = rig
            .provider
            .lifecycle(&cluster, action, std::slice::from_ref(&stranger))
            .await
            .unwrap();
        assert_eq!(changed.unknown, std::slice::from_ref(&stranger));
        let error = changed.of_all().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
    let receipts = rig.provider.cleanup(&cluster).await.unwrap();
    assert!(
        receipts.iter().all(|receipt| receipt.left),
        "what runs is not cleaned up: {receipts:?}"
    );
    rig.end("errors").await;
}

async fn ten(rig: &Rig) {
    let token = ClientToken("token-ten".into());
    let start = Instant::now();
    let machines = rig
        .provider
        .launch(&rig.spec("ten", 10), &token)
        .await
        .unwrap();
    println!("ten clones: {:?}", start.elapsed());
    assert!(
        machines
            .iter()
            .all(|machine| machine.state == MachineState::Running)
    );
    rig.end("ten").await;
}
