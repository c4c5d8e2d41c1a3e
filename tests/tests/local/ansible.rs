//! Ansible through the agents, beside Ansible over ssh: a playbook has the same results on the same machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_tests::process::Running;
use aot_tests::python;
use aot_tests::rig::{LIMIT, Output, Rig, master_program};
use aot_tests::sshd::{PORT, Sshd};
use serde_json::Value;

/// The newest that Debian 12's Python can run.
const ANSIBLE: &str = "ansible-core==2.19.14";

/// A playbook is half a hundred tasks, each a Python on every machine.
const PLAYBOOK: Duration = Duration::from_secs(900);

/// Two clusters, which both have a `web1`, so that a host is not called as its instance.
const CLUSTERS: [(&str, &str); 2] = [
    ("blue", "pools: [{name: web, size: 1}]"),
    (
        "green",
        "pools: [{name: web, size: 1}], instances: [{name: lone}]",
    ),
];

const HOSTS: [&str; 3] = ["lone", "web1.blue", "web1.green"];

/// Takes back what the playbook does.
const UNDO: &str =
    "rm -rf /srv/story; userdel -r story; rm -rf /root/.ansible /root/.ansible_async";

/// What lies where the playbook works: kinds, modes, owners, sizes, contents. Nothing may be left of how it got there; what an
/// asynchronous task came in removes itself a moment after it has said its result.
const FOUND: &str = "n=0; while ls -d /root/.ansible/tmp/ansible-tmp-* >/dev/null 2>&1 && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done; \
                     cd / && find srv/story home/story root/.ansible/tmp tmp var/tmp -printf '%y %m %u %g %p %l\\n' | sort \
                     && find srv/story home/story -type f -exec sha256sum {} + | sort";

/// A line per task and host, by both, and what lies on each machine, and here, in the end.
#[derive(PartialEq)]
struct Played {
    results: BTreeMap<(String, String), Vec<Value>>,
    found: BTreeMap<String, String>,
    fetched: BTreeMap<PathBuf, Vec<u8>>,
}

struct Ansible<'r> {
    rig: &'r Rig,
    programs: PathBuf,
    key: Option<PathBuf>,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in it")
}

fn scripts(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ansible");
    path.join(name).display().to_string()
}

impl<'r> Ansible<'r> {
    fn new(rig: &'r Rig) -> Self {
        let programs = python::programs(Path::new(env!("CARGO_TARGET_TMPDIR")), ANSIBLE);
        Self {
            rig,
            programs,
            key: None,
        }
    }

    /// One of Ansible's programs on all hosts, with nothing of this machine's settings. `ssh` as `AOT_INVENTORY_SSH` has it.
    fn run(&self, program: &str, ssh: &str, words: &[&str], records: &Path) -> Output {
        let packaged = repository().join("packaging/ansible");
        let mut command = self.rig.program(self.programs.join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ANSIBLE_") {
                command.env_remove(name);
            }
        }
        let path = |name: &str| self.rig.dir().join(name);
        command
            .env("ANSIBLE_CONFIG", self.rig.file("ansible.cfg", ""))
            .env("ANSIBLE_HOME", path("ansible"))
            .env(
                "ANSIBLE_CONNECTION_PLUGINS",
                packaged.join("connection_plugins"),
            )
            .env("ANSIBLE_CALLBACK_PLUGINS", scripts("callback_plugins"))
            .env("ANSIBLE_CALLBACKS_ENABLED", "records")
            .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
            .env("ANSIBLE_PIPELINING", "true")
            .env("ANSIBLE_FORKS", "10")
            .env("ANSIBLE_SSH_USETTY", "false")
            .env("ANSIBLE_REMOTE_USER", "root")
            .env("ANSIBLE_REMOTE_PORT", PORT.to_string())
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", path("ways"))
            .env("AOT_MASTER", master_program())
            .env("AOT_INVENTORY_SSH", ssh)
            .env("RECORDS", records);
        if let Some(key) = &self.key {
            command.env("ANSIBLE_PRIVATE_KEY_FILE", key);
        }
        command.arg("-i").arg(packaged.join("aot-inventory"));
        let output = Running::start({
            command.args(words);
            command
        });
        let output = output.finish(PLAYBOOK);
        self.hang_up();
        output
    }

    /// Ends the connections that ssh keeps for a minute.
    fn hang_up(&self) {
        let open = fs::read_dir(self.rig.dir().join("ways"));
        for socket in open.into_iter().flatten().flatten() {
            let mut exit = self.rig.program("ssh");
            exit.args(["-O", "exit", "-o"])
                .arg(format!("ControlPath={}", socket.path().display()))
                .arg("there");
            Running::start(exit).finish(LIMIT);
        }
    }

    /// The whole playbook, on machines on which it has not been.
    fn site(&self, way: &str, ssh: &str) -> Played {
        self.everywhere(UNDO);
        let records = self.rig.dir().join(format!("{way}.json"));
        let fetched = self.rig.dir().join("fetched");
        let bytes = self.rig.dir().join("bytes");
        let vars = serde_json::json!({"bytes": bytes, "fetched": fetched}).to_string();
        let words = [scripts("site.yml"), "-e".to_owned(), vars];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.run("ansible-playbook", ssh, &words, &records);
        output.expect(0);
        let played = Played {
            results: results(&records),
            found: self.everywhere(FOUND),
            fetched: files(&fetched),
        };
        aot_host::removal::remove_tree(&fetched).expect("ours");
        played
    }

    /// What a line of the shell prints on each host.
    fn everywhere(&self, line: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (cluster, _) in CLUSTERS {
            let words = [
                "--json",
                "--cluster",
                cluster,
                "exec",
                "*",
                "--",
                "sh",
                "-c",
                line,
            ];
            for ended in self.rig.cli(words).json() {
                if let (Some(name), Some(said)) =
                    (ended["instance"].as_str(), ended["stdout"].as_str())
                {
                    all.insert(format!("{name}.{cluster}"), said.to_owned());
                }
            }
        }
        assert_eq!(all.len(), HOSTS.len(), "{all:?}");
        all
    }
}

fn results(records: &Path) -> BTreeMap<(String, String), Vec<Value>> {
    let text = fs::read_to_string(records).expect("the callback wrote it");
    let mut results: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let name = |key: &str| line[key].as_str().expect("a name").to_owned();
        let of = (name("task"), name("host"));
        results.entry(of).or_default().push(line);
    }
    results
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("fetched").flatten() {
            match entry.file_type().expect("its kind").is_dir() {
                true => folders.push(entry.path()),
                false => drop(found.insert(entry.path(), fs::read(entry.path()).expect("reads"))),
            }
        }
    }
    found
}

fn launched() -> Rig {
    let rig = Rig::local();
    for (cluster, instances) in CLUSTERS {
        rig.cluster(&format!(
            "{{cluster: {cluster}, provider: local, {instances}}}\n"
        ));
        rig.launch().expect(0);
    }
    // Bytes that no text has, more than one piece of a copy.
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(rig.dir().join("bytes"), bytes).expect("written");
    rig
}

/// The one result of a task on a host.
#[track_caller]
fn result<'p>(played: &'p Played, task: &str, host: &str) -> &'p Value {
    let of = (task.to_owned(), host.to_owned());
    let results = played.results.get(&of);
    let results = results.unwrap_or_else(|| panic!("{task} never ran on {host}"));
    assert_eq!(results.len(), 1, "{task} on {host}");
    &results[0]
}

/// What a playbook is used for came about, on each host.
fn assert_done(played: &Played) {
    for host in HOSTS {
        let of = |task: &str| result(played, task, host);
        let failed = of("failure");
        assert_eq!(failed["outcome"], "failed");
        assert_eq!(failed["result"]["rc"], 17, "{failed}");
        assert_eq!(failed["result"]["stderr"], "why", "{failed}");
        assert_eq!(of("as another")["result"]["stdout_lines"][0], "story");
        assert_eq!(of("become root")["result"]["stdout"], "root");
        assert_eq!(of("forbidden to another")["outcome"], "failed");
        assert_eq!(of("its end")["result"]["stdout"], "2");
        assert_eq!(of("restarted")["result"]["stdout"], "restarted");
        assert_eq!(
            of("on another")["result"]["stdout"],
            "lone",
            "not on {host} itself"
        );
        assert_eq!(of("login")["result"]["stdout_lines"][1], "/root");
        let own = of("facts")["result"]["ansible_facts"]["ansible_hostname"].clone();
        assert_eq!(own, host.split('.').next().expect("its name"));
    }
    assert_eq!(
        played.fetched.len(),
        2 * HOSTS.len(),
        "{:?}",
        played.fetched.keys()
    );
    assert!(played.fetched.values().all(|bytes| !bytes.is_empty()));
}

#[track_caller]
fn assert_same(way: &str, one: &Played, other: &Played) {
    let keys = |played: &Played| played.results.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(one), keys(other), "{way}: tasks and hosts");
    for (of, results) in &one.results {
        assert_eq!(results, &other.results[of], "{way}: {of:?}");
    }
    for (host, found) in &one.found {
        assert_eq!(found, &other.found[host], "{way}: files of {host}");
    }
    assert!(one.fetched == other.fetched, "{way}: fetched files");
}

#[test]
fn a_playbook_through_the_agents_does_what_it_does_over_ssh() {
    let mut rig = launched();
    let mut ansible = Ansible::new(&rig);
    let agents = ansible.site("agents", "");
    assert_done(&agents);
    match Sshd::found(&rig, Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(sshd) => {
            for (cluster, _) in CLUSTERS {
                sshd.start(&rig, cluster);
            }
            ansible.key = Some(sshd.key);
            assert_same("ssh", &agents, &ansible.site("ssh", "direct"));
            let nothing = rig.dir().join("ping.json");
            let ping = ansible.run("ansible", "agents", &["all", "-m", "ping"], &nothing);
            assert_eq!(
                ping.text().matches("pong").count(),
                HOSTS.len(),
                "{}",
                ping.shown()
            );
        }
        Err(why) => eprintln!("SKIPPED: a playbook over ssh, {why}"),
    }
    // A host that is down is unreachable, and holds up no other.
    rig.cli(["--cluster", "green", "stop", "lone", "--yes"])
        .expect(0);
    let records = rig.dir().join("down.json");
    let down = ansible.run("ansible", "", &["all", "-m", "ping"], &records);
    down.expect(4);
    assert!(
        down.text().contains("lone | UNREACHABLE"),
        "{}",
        down.shown()
    );
    assert_eq!(down.text().matches("pong").count(), 2, "{}", down.shown());
    assert_eq!(rig.clean(), Vec::<String>::new());
}

#[test]
fn the_example_runs_its_playbook_on_each_machine_for_itself() {
    let mut rig = Rig::local();
    let example = repository().join("examples/ansible/cluster.yml");
    let launch = ["launch", "--json", "--yes"].map(str::to_owned);
    let launch = launch.into_iter().chain([example.display().to_string()]);
    rig.cli_within(PLAYBOOK, launch).expect(0);
    for name in ["web1", "web2"] {
        let page = rig.sh(name, "cat /srv/site/index.html");
        let title = format!("<h1>{name} of web, ");
        assert!(page.starts_with(&title), "{page}");
        for peer in ["web1", "web2"] {
            assert!(page.contains(&format!("<p>{peer}: 127.")), "{page}");
        }
    }
    // What is as it should be stays so, and Ansible is not installed again.
    let again = ["apply", "web1", "--from", "site"];
    rig.cli_within(PLAYBOOK, again).expect(0);
    let logs = rig.cli(["logs", "web1"]);
    let said = logs.expect(0).text();
    assert!(said.contains("changed=0"), "{}", logs.shown());
    assert_eq!(said.matches("installing").count(), 1, "{}", logs.shown());
    assert_eq!(rig.sh("web1", "wc -l < /srv/site/published"), "1");
    assert_eq!(rig.clean(), Vec::<String>::new());
}
