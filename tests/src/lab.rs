//! Drives the EC2 lab (`tests/lab`): starts it, asks and spoils what is in it, and shows at the end that nothing of it is
//! left. For the `ec2_*` tests. Never looks inside the product: that is `master`'s, and only through the command line.

pub mod account;
pub mod dice;
pub mod master;
pub mod story;
pub mod web;

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Output, Running};
use crate::wait;

/// Longest time for a lab to come up, its image included when that has to be made first.
const UP: Duration = Duration::from_secs(900);
/// Longest time for it to go.
const DOWN: Duration = Duration::from_secs(120);
/// Longest time for one of its commands.
const VERB: Duration = Duration::from_secs(180);
/// All tests of one program.
const AGAIN: Duration = Duration::from_secs(600);

/// A lab that is up. It goes with this value, and by itself when the test's process ends in any way.
pub struct Lab {
    child: Child,
    lifeline: Option<ChildStdin>,
    dir: TempDir,
    info: Value,
    ended: bool,
}

/// What `lab.py ps` says of one machine.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Machine {
    /// `i-...`.
    pub id: String,
    /// The API's word for its state.
    pub state: String,
    /// Whether it really runs.
    pub running: bool,
    /// How often it has booted; `None` once it is terminated.
    pub boots: Option<u32>,
}

/// What the API has of one cluster, by its tag.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Cloud {
    /// Instances that are not terminated.
    pub instances: Vec<Instance>,
    /// Instances that are, by id.
    pub terminated: Vec<String>,
    /// Volumes that are there, by id.
    pub volumes: Vec<String>,
    /// Network interfaces that are there, by id.
    pub interfaces: Vec<String>,
}

/// One instance as DescribeInstances shows it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Instance {
    /// `i-...`.
    pub id: String,
    /// Its reservation: one RunInstances call made all that share it.
    pub reservation: String,
    /// ClientToken of the call.
    pub token: String,
    /// Its type.
    pub kind: String,
    /// HttpTokens of its metadata options.
    pub http_tokens: String,
    /// Its tags.
    pub tags: std::collections::BTreeMap<String, String>,
}

const CLOUD: &str = r#"
import boto3, json, sys
ec2, gone = boto3.client("ec2"), ("terminated", "shutting-down")
mine = [{"Name": "tag:Cluster", "Values": [sys.argv[1]]}]
seen = [(r, i) for p in ec2.get_paginator("describe_instances").paginate(Filters=mine)
        for r in p["Reservations"] for i in r["Instances"]]
print(json.dumps({
    "instances": [{"id": i["InstanceId"], "reservation": r["ReservationId"], "token": i.get("ClientToken", ""),
                   "kind": i["InstanceType"], "http_tokens": i["MetadataOptions"]["HttpTokens"],
                   "tags": {t["Key"]: t["Value"] for t in i.get("Tags", [])}}
                  for r, i in seen if i["State"]["Name"] not in gone],
    "terminated": [i["InstanceId"] for r, i in seen if i["State"]["Name"] == "terminated"],
    "volumes": [v["VolumeId"] for v in ec2.describe_volumes(Filters=mine)["Volumes"]],
    "interfaces": [n["NetworkInterfaceId"] for n in ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]]}))
"#;

/// A line of output, with a deadline: reading has none.
fn first_line(output: ChildStdout) -> String {
    let (done, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        done.send(read.map(|_| line))
    });
    let line = line.recv_timeout(UP).expect("the lab comes up in time");
    line.expect("its output can be read")
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/lab.py")
}

impl Lab {
    /// Starts a lab of its own. `None`, with the reason on stderr, where labs can't be.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with options of `lab.py up`, such as `--no-machines`.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: the EC2 lab needs root");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("aot-ec2-")
            .tempdir()
            .expect("a folder for the lab");
        let mut child = Command::new("python3")
            .arg(script())
            .arg("--state")
            .arg(dir.path().join("lab"))
            .args(["up", "--foreground"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let lifeline = child.stdin.take();
        let info = first_line(child.stdout.take().expect("is piped"));
        let info = serde_json::from_str(&info).expect("the lab says in JSON that it is ready");
        Some(Self {
            child,
            lifeline,
            dir,
            info,
            ended: false,
        })
    }

    /// A folder for the test's own files; it goes with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The image that machines boot.
    pub fn ami(&self) -> &str {
        self.info("ami")
    }

    /// A text of what `lab.py up` prints: `vpc`, `subnet`, ...
    pub fn info(&self, name: &str) -> &str {
        let text = self.info[name].as_str();
        text.unwrap_or_else(|| panic!("the lab says no {name}"))
    }

    /// A folder with the certificate of the lab's region, as the master wants it.
    pub fn certificates(&self) -> PathBuf {
        let folder = self.dir.path().join("certificates");
        let file = folder.join("us-east-1.pem");
        if !file.exists() {
            std::fs::create_dir_all(&folder).expect("makes the folder");
            let bytes = std::fs::read(self.info("imds_cert")).expect("the certificate");
            std::fs::write(&file, bytes).expect("copies the certificate");
        }
        folder
    }

    /// A subnet of the default VPC: that of a zone (`us-east-1a`), or `private_subnet`, `small_subnet`.
    pub fn subnet(&self, of: &str) -> &str {
        let found = self.info["subnets"][of].as_str();
        let found = found.or_else(|| self.info[of].as_str());
        found.unwrap_or_else(|| panic!("the lab has no subnet {of}"))
    }

    fn lab_py(&self) -> Command {
        let mut command = Command::new("python3");
        command
            .arg(script())
            .arg("--state")
            .arg(self.dir.path().join("lab"));
        command
    }

    /// `program` in the lab's network with the AWS variables set. It ends with the thread that starts it.
    pub fn inside(&self, program: &Path) -> Command {
        self.run_as(&[], program)
    }

    fn run_as(&self, who: &[&str], program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "python3"])
            .arg(script())
            .arg("--state")
            .arg(self.dir.path().join("lab"))
            .arg("run")
            .args(who)
            .arg("--")
            .arg(program);
        command
    }

    /// A command of `lab.py`: its output. A failure ends the test.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> String {
        let mut command = self.lab_py();
        command.args(words);
        Running::start(command).finish(VERB).expect(0).text()
    }

    /// The same without a process of its own, for what is asked often: a request to the lab itself, and its answer.
    ///
    /// # Panics
    /// When the lab says that it can't.
    #[track_caller]
    pub fn ask(&self, request: &Value) -> Value {
        let socket = self.dir.path().join("lab/control");
        let mut stream = UnixStream::connect(socket).expect("the lab listens");
        writeln!(stream, "{request}").expect("the lab reads");
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line);
        read.expect("the lab answers");
        let answer: Value = serde_json::from_str(&line).expect("answers are JSON");
        assert!(answer.get("ok").is_some(), "{request}: {answer}");
        answer["ok"].clone()
    }

    /// A bash script as root on a machine, whatever its agent does.
    #[track_caller]
    pub fn on(&self, machine: &str, script: &str) -> Output {
        let mut command = self.lab_py();
        command.args(["exec", machine, "--", "bash", "-c", script]);
        Running::start(command).finish(VERB)
    }

    /// The same, when it has to succeed: its standard output.
    #[track_caller]
    pub fn sure(&self, machine: &str, script: &str) -> String {
        self.on(machine, script).expect(0).text()
    }

    /// Runs a second agent on a machine, with the machine's settings after `change` (a script that knows `$dir`, a folder of
    /// its own, and `$config`), until a line of it matches `word` (grep -Ei), two minutes at most: what it said.
    #[track_caller]
    pub fn second_agent(&self, machine: &str, name: &str, change: &str, word: &str) -> String {
        let script = format!(
            "set -eu; dir=/run/second-{name} config=/run/second-{name}/agent.toml
mkdir -p $dir/etc $dir/root; cp /etc/aot/agent.toml $config
sed -i \"1i state_dir = \\\"$dir/state\\\"\\netc_dir = \\\"$dir/etc\\\"\\nroot_home = \\\"$dir/root\\\"\" $config
{change}
timeout 120 /usr/local/bin/aot-agent run --config $config > $dir/said 2>&1 &
agent=$!
until grep -Eiq '{word}' $dir/said || ! kill -0 $agent; do sleep 0.1; done
sleep 1 # what it does after that shows too
kill $agent || true
wait $agent || true
cat $dir/said"
        );
        self.sure(machine, &script)
    }

    /// What the API has of a cluster.
    #[track_caller]
    pub fn cloud(&self, cluster: &str) -> Cloud {
        serde_json::from_value(self.python(CLOUD, &[cluster])).expect("has the shape of a Cloud")
    }

    /// A Python script with boto3, as one who may all: the JSON document that it prints.
    #[track_caller]
    pub fn python(&self, script: &str, words: &[&str]) -> Value {
        self.python_as(&["--admin"], script, words)
    }

    /// The same as the one under test: with `--policy` that one may do what the policy allows.
    #[track_caller]
    pub fn restricted(&self, script: &str, words: &[&str]) -> Value {
        self.python_as(&[], script, words)
    }

    #[track_caller]
    fn python_as(&self, who: &[&str], script: &str, words: &[&str]) -> Value {
        let python = PathBuf::from(self.info["python"].as_str().expect("a python with boto3"));
        let mut command = self.run_as(who, &python);
        command.args(["-c", script]).args(words);
        let asked = Running::start(command).finish(VERB);
        serde_json::from_str(&asked.expect(0).text()).expect("the script prints JSON")
    }

    /// Every machine that ever was.
    pub fn machines(&self) -> Vec<Machine> {
        serde_json::from_str(&self.verb(&["ps"])).expect("JSON of ps")
    }

    /// One machine.
    pub fn machine(&self, id: &str) -> Machine {
        let found = self.machines().into_iter().find(|m| m.id == id);
        found.unwrap_or_else(|| panic!("the lab has no machine {id}"))
    }

    /// How many calls of `action` the API has answered; of all actions when it is empty. A dry run is not a call: EC2 answers
    /// it with HTTP status 412.
    pub fn calls(&self, action: &str) -> usize {
        let log = self.api_log().into_iter();
        log.filter(|call| action.is_empty() || call["action"] == action)
            .filter(|call| call["status"] != 412)
            .count()
    }

    /// How many calls of `action` have worked.
    pub fn made(&self, action: &str) -> usize {
        let log = self.api_log().into_iter();
        log.filter(|call| call["action"] == action && call["status"] == 200)
            .count()
    }

    /// Every call that the API has answered, as `lab.py api-log` tells it.
    #[track_caller]
    pub fn api_log(&self) -> Vec<Value> {
        let log = self.verb(&["api-log"]);
        let parse = |line| serde_json::from_str(line).expect("JSON of api-log");
        log.lines().map(parse).collect()
    }

    /// How many calls of `action` were answered at or after a moment, a number of seconds since 1970.
    pub fn calls_since(&self, action: &str, since: f64) -> usize {
        let log = self.api_log().into_iter();
        log.filter(|call| call["action"] == action && call["status"] != 412)
            .filter(|call| call["time"].as_f64().is_some_and(|time| time >= since))
            .count()
    }

    /// Runs all tests of this very program once more, in this lab's network and with this environment.
    #[track_caller]
    pub fn run_again(&self, env: &[(&str, &str)]) {
        let mut command = self.inside(&std::env::current_exe().expect("it has a path"));
        command
            .envs(env.iter().copied())
            .args(["--test-threads", "1", "--nocapture"]);
        Running::start(command).finish(AGAIN).expect(0);
    }

    /// Ends it, and shows that nothing is left: no process, mount, loop device or file. No request was sent that EC2's own
    /// model objects to.
    pub fn end(mut self) {
        let bad = self.verb(&["bad-requests"]);
        self.take_down();
        // What was killed with its namespace may take a moment to be gone.
        let _ = wait::maybe(|| self.leftovers().is_empty().then_some(()), DOWN);
        let left = self.leftovers();
        assert!(left.is_empty(), "the lab left behind: {left:#?}");
        assert!(bad.is_empty(), "requests that EC2 would not take:\n{bad}");
    }

    fn take_down(&mut self) {
        self.ended = true;
        drop(self.lifeline.take());
        let gone = wait::maybe(|| self.child.try_wait().expect("is ours"), DOWN);
        if gone.is_none() {
            eprintln!("the lab does not end; killing it");
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// What still speaks of the lab's folder.
    fn leftovers(&self) -> Vec<String> {
        let folder = self.dir.path();
        let needle = folder.display().to_string();
        let mut left = Vec::new();
        if folder.join("lab").exists() {
            left.push(format!("folder {needle}/lab"));
        }
        let processes = process::that_mention(folder).into_iter();
        left.extend(processes.map(|(pid, command)| format!("process {pid}: {command}")));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("reads");
        let mounts = mounts.lines().filter(|line| line.contains(&needle));
        left.extend(mounts.map(|line| format!("mount {line}")));
        for device in std::fs::read_dir("/sys/block").expect("reads").flatten() {
            let file = device.path().join("loop/backing_file");
            let file = std::fs::read_to_string(file).unwrap_or_default();
            if file.contains(&needle) {
                left.push(format!("{:?} of {}", device.file_name(), file.trim()));
            }
        }
        left
    }
}

/// Runs all tests of this very program once more, in the network of a lab without machines and with `AOT_EC2=1`: for tests
/// that speak to EC2 by the AWS SDK's own settings. Does nothing where that is set already.
#[track_caller]
pub fn again_inside() {
    if std::env::var("AOT_EC2").as_deref() == Ok("1") {
        return; // this is that other time
    }
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    lab.run_again(&[("AOT_EC2", "1"), ("AOT_EC2_AMI", lab.ami())]);
    lab.end();
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.take_down(); // a test failed: its own message is what matters
        for (pid, command) in process::that_mention(self.dir.path()) {
            eprintln!("killing {pid}: {command}");
            process::kill_hard(pid);
        }
    }
}
