//! The user-data script as a machine runs it: against a real TLS server, with only one of curl, wget and python3 there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aot_proto::route::Route;
use aot_provider::BootSpec;
use aot_user_data::render;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const AGENT: &[u8] = b"#!/bin/sh\necho agent\n";
const LIMIT: Duration = Duration::from_secs(120);
const TOKEN: &str = "00ffcafe";

/// What was asked, as `METHOD PATH`, with the body.
type Log = Arc<Mutex<Vec<(String, String)>>>;

/// How this master misbehaves.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    /// The first agent that it hands out is another.
    WrongFirst,
}

struct Request {
    line: String,
    headers: String,
    body: String,
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut headers, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 || header == "\r\n" {
            break;
        }
        let lower = header.to_ascii_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        headers.push_str(&lower);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.rsplit_once(' ')?.0.to_owned();
    Some(Request {
        line,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

fn respond(stream: &mut impl Write, status: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.flush();
}

/// Answers every connection in turn, until the test's process ends.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

fn imds() -> SocketAddr {
    serve(|mut stream| {
        let Some(request) = read_request(&mut stream) else {
            return;
        };
        let with_token = request
            .headers
            .contains("x-aws-ec2-metadata-token: session");
        match request.line.as_str() {
            "PUT /latest/api/token" => respond(&mut stream, "200 OK", b"session"),
            "GET /latest/meta-data/instance-id" if with_token => {
                respond(&mut stream, "200 OK", b"i-0abc")
            }
            _ => respond(&mut stream, "401 Unauthorized", b""),
        }
    })
}

/// A master with a CA of its own; only TLS 1.3, as the real one.
fn master(mood: Mood, log: Log) -> (SocketAddr, String) {
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    // OpenSSL takes a leaf that is named as its issuer for self-signed.
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name
        .push(rcgen::DnType::CommonName, "master");
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = serve(move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let Some(request) = read_request(&mut stream) else {
            return;
        };
        let shown = [
            format!("authorization: bearer {TOKEN}\r\n"),
            format!("x-aot-route: {}\r\n", route()),
        ];
        let known = shown.iter().all(|line| request.headers.contains(line));
        let mut log = log.lock().unwrap();
        let before = log
            .iter()
            .filter(|(line, _)| line.starts_with("GET"))
            .count();
        log.push((request.line.clone(), request.body));
        match request.line.as_str() {
            _ if !known => respond(&mut stream, "401 Unauthorized", b""),
            "POST /v1/boot" => respond(&mut stream, "204 No Content", b""),
            _ if mood == Mood::WrongFirst && before == 0 => {
                respond(&mut stream, "200 OK", b"other")
            }
            line if line == format!("GET /v1/agent/{}", sha()) => {
                respond(&mut stream, "200 OK", AGENT)
            }
            _ => respond(&mut stream, "404 Not Found", b""),
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (address, ca_pem)
}

fn route() -> Route {
    Route::of(&"hadoop".parse().unwrap())
}

fn sha() -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, AGENT);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A folder that has the tools that every machine has, and one that fetches. `None` when this machine has not got it.
fn tools(folder: &Path, tool: &str) -> Option<PathBuf> {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let everywhere =
        "sh cat sed rm cp mv mkdir chmod mktemp tr cut head sleep sha256sum printf grep";
    let search = std::env::var("PATH").unwrap();
    let find = |name: &str| {
        search
            .split(':')
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.exists())
    };
    for name in everywhere.split(' ') {
        symlink(find(name)?, bin.join(name)).unwrap();
    }
    let real = if tool == "python3" {
        find_python(&search)?
    } else {
        find(tool)?
    };
    symlink(real, bin.join(tool)).unwrap();
    let systemctl = folder.join("systemctl.sh");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}/systemctl.log\n",
        folder.display()
    );
    fs::write(&systemctl, script).unwrap();
    // By a child: a file of ours may be held open by another test's child when it is to be run (ETXTBSY).
    let mut install = Command::new("install");
    install
        .args(["-m", "755"])
        .arg(&systemctl)
        .arg(bin.join("systemctl"));
    assert!(install.status().unwrap().success());
    fs::remove_file(systemctl).unwrap();
    Some(bin)
}

/// Not a version manager's stand-in, which needs more tools.
fn find_python(search: &str) -> Option<PathBuf> {
    let candidates = search
        .split(':')
        .map(|dir| Path::new(dir).join("python3"))
        .filter(|path| path.exists());
    let real = candidates.filter_map(|path| path.canonicalize().ok());
    real.into_iter()
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")))
}

struct Ran {
    folder: tempfile::TempDir,
    output: Output,
    log: Vec<(String, String)>,
}

fn run(tool: &str, mood: Mood, arch: &str) -> Option<Ran> {
    run_on(tool, mood, arch, &Machine::default())
}

/// What the script finds.
#[derive(Default)]
struct Machine {
    /// Shell lines before it, in its folder and with mounts of its own.
    mounts: &'static str,
    /// Files below its root, from earlier.
    files: Vec<(&'static str, String)>,
    /// Nobody answers for the metadata service.
    no_imds: bool,
    /// The script has run there before.
    again: bool,
}

fn run_on(tool: &str, mood: Mood, arch: &str, machine: &Machine) -> Option<Ran> {
    let folder = tempfile::tempdir().unwrap();
    let Some(bin) = tools(folder.path(), tool) else {
        println!("skipped: no {tool} here");
        return None;
    };
    let log = Log::default();
    let (address, ca_pem) = master(mood, Arc::clone(&log));
    // The first address answers nobody: no test is given that port.
    let dead = SocketAddr::from(([127, 0, 0, 1], 1));
    let boot = BootSpec {
        master: vec![dead.to_string(), address.to_string()],
        route: route(),
        ca_pem,
        join_token: TOKEN.into(),
        agent_sha256: BTreeMap::from([
            ("x86_64".into(), sha()),
            ("aarch64".into(), "0".repeat(64)),
        ]),
        agent_path: PathBuf::new(),
        user_part: None,
    };
    let user_data = String::from_utf8(render(&boot, None).unwrap()).unwrap();
    let script = user_data
        .split_once("\n\n#!")
        .unwrap()
        .1
        .rsplit_once("\n--==")
        .unwrap()
        .0;
    let path = folder.path().join("boot.sh");
    fs::write(&path, format!("#!{script}")).unwrap();
    let shell = if Path::new("/usr/bin/dash").exists() {
        "/usr/bin/dash"
    } else {
        "/bin/sh"
    };
    let root = folder.path().join("root");
    for (name, text) in &machine.files {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let asked = match machine.no_imds {
        true => dead,
        false => imds(),
    };
    let mut output = None;
    for _ in 0..1 + u32::from(machine.again) {
        let mut command = match machine.mounts {
            "" => Command::new(shell),
            lines => {
                let mut command = Command::new("/usr/bin/unshare");
                let then = format!(
                    "set -e\n{lines}\nPATH={}\nexec {shell} \"$0\"",
                    bin.display()
                );
                command.args(["-m", "/bin/sh", "-c", &then]);
                command
            }
        };
        let path_variable = match machine.mounts {
            "" => bin.as_os_str().to_owned(),
            _ => std::env::var_os("PATH").unwrap(),
        };
        let child = command
            .arg(&path)
            .env_clear()
            .current_dir(folder.path())
            .env("PATH", path_variable)
            .env("TMPDIR", folder.path())
            .env("AOT_ROOT", &root)
            .env("AOT_IMDS", format!("http://{asked}"))
            .env("AOT_TRIES", "2")
            .env("AOT_ARCH", arch)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let Some(first) = output.replace(ended(child)) {
            let first: Output = first;
            assert!(first.status.success(), "{first:?}");
        }
    }
    let output = output.unwrap();
    let log = log.lock().unwrap().clone();
    Some(Ran {
        folder,
        output,
        log,
    })
}

/// Its end; a script that runs too long is ended, and the test with it.
fn ended(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    if let Ok(output) = told.recv_timeout(LIMIT) {
        return output.unwrap();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    panic!(
        "not done in time: {}",
        String::from_utf8_lossy(&told.recv().unwrap().unwrap().stderr)
    );
}

fn steps(ran: &Ran) -> Vec<String> {
    let beacons = ran.log.iter().filter(|(line, _)| line == "POST /v1/boot");
    beacons
        .map(|(_, body)| {
            let beacon: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(beacon["machine_id"], "i-0abc");
            beacon["step"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn installs_with(tool: &str) {
    let Some(ran) = run(tool, Mood::Good, "x86_64") else {
        return;
    };
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(ran.output.status.success(), "{said}");
    assert_eq!(
        steps(&ran),
        [
            "started",
            "agent-download",
            "agent-checksum",
            "config-written",
            "service-started"
        ],
        "{said}"
    );
    let root = ran.folder.path().join("root");
    assert_eq!(
        fs::read(root.join("usr/local/bin/aot-agent")).unwrap(),
        AGENT
    );
    assert_eq!(mode(&root.join("usr/local/bin/aot-agent")), 0o755);
    assert_eq!(mode(&root.join("etc/aot/agent.toml")), 0o600);
    let settings: toml::Table = fs::read_to_string(root.join("etc/aot/agent.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(settings["machine_id"].as_str(), Some("i-0abc"));
    assert_eq!(settings["token"].as_str(), Some(TOKEN));
    assert_eq!(settings["route"].as_str(), Some(&*route().to_string()));
    let unit = fs::read_to_string(root.join("etc/systemd/system/aot-agent.service")).unwrap();
    assert!(unit.contains("KillMode=process") && unit.contains("Restart=always"));
    let asked = fs::read_to_string(ran.folder.path().join("systemctl.log")).unwrap();
    assert_eq!(asked, INSTALLED);
    assert!(!said.contains(TOKEN), "the token is not on the console");
    let left: Vec<_> = fs::read_dir(ran.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 4, "no secret lies about: {left:?}");
}

/// What is asked of systemd.
const INSTALLED: &str = "daemon-reload\nenable aot-agent.service\nrestart aot-agent.service\n";

/// Whether this test may have mounts of its own.
fn may_mount() -> bool {
    let tried = Command::new("/usr/bin/unshare")
        .args(["-m", "/bin/sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        println!("skipped: mounting is not allowed here");
    }
    may
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_installs_with_curl_alone() {
    installs_with("curl");
}

#[test]
fn it_installs_with_wget_alone() {
    installs_with("wget");
}

#[test]
fn it_installs_with_python_alone() {
    installs_with("python3");
}

#[test]
fn a_wrong_agent_is_refused_reported_and_asked_for_again() {
    let Some(ran) = run("curl", Mood::WrongFirst, "x86_64") else {
        return;
    };
    assert!(ran.output.status.success());
    let reported = ran
        .log
        .iter()
        .any(|(_, body)| body.contains("\"failed\"") && body.contains("SHA-256"));
    assert!(reported, "{:?}", ran.log);
    assert_eq!(
        fs::read(ran.folder.path().join("root/usr/local/bin/aot-agent")).unwrap(),
        AGENT
    );
}

#[test]
fn an_unknown_architecture_is_reported() {
    let Some(ran) = run("curl", Mood::Good, "riscv64") else {
        return;
    };
    assert_eq!(ran.output.status.code(), Some(1));
    assert_eq!(steps(&ran), ["started", "failed"]);
    assert!(ran.log.iter().any(|(_, body)| body.contains("riscv64")));
}

const READ_ONLY_USR: &str = "mkdir -p root/usr/local/bin root/opt
mount --bind root/usr root/usr
mount -o remount,bind,ro root/usr";

#[test]
fn where_usr_is_read_only_or_nothing_there_may_run_the_agent_goes_elsewhere() {
    if !may_mount() {
        return;
    }
    let noexec = "mkdir -p root/usr/local/bin root/opt/bin
mount -t tmpfs -o noexec tmpfs root/usr/local
mount -t tmpfs -o ro tmpfs root/opt/bin";
    for (mounts, place) in [(READ_ONLY_USR, "opt/bin"), (noexec, "opt/aot/bin")] {
        let machine = Machine {
            mounts,
            ..Machine::default()
        };
        let Some(ran) = run_on("curl", Mood::Good, "x86_64", &machine) else {
            return;
        };
        let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
        assert!(ran.output.status.success(), "{said}");
        let root = ran.folder.path().join("root");
        let agent = root.join(place).join("aot-agent");
        assert_eq!(fs::read(&agent).unwrap(), AGENT, "{said}");
        let unit = fs::read_to_string(root.join("etc/systemd/system/aot-agent.service")).unwrap();
        let start = format!("ExecStart=/{place}/aot-agent run --config /etc/aot/agent.toml\n");
        assert!(unit.contains(&start), "{unit}");
        assert_eq!(unit.matches("ExecStart=").count(), 1);
    }
}

#[test]
fn where_it_can_be_put_nowhere_the_reason_is_reported() {
    if !may_mount() {
        return;
    }
    let machine = Machine {
        mounts: "mkdir -p root\nmount --bind root root\nmount -o remount,bind,ro root",
        ..Machine::default()
    };
    let Some(ran) = run_on("curl", Mood::Good, "x86_64", &machine) else {
        return;
    };
    assert_eq!(ran.output.status.code(), Some(1));
    let (_, last) = ran.log.last().expect("a beacon");
    assert!(
        last.contains("cannot install the agent") && last.contains("Read-only"),
        "{last}"
    );
}

#[test]
fn a_machine_that_is_set_up_is_left_as_it_is() {
    let machine = Machine {
        again: true,
        ..Machine::default()
    };
    let Some(ran) = run_on("curl", Mood::Good, "x86_64", &machine) else {
        return;
    };
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(
        ran.output.status.success() && said.contains("set up already"),
        "{said}"
    );
    let fetched = ran.log.iter().filter(|(line, _)| line.starts_with("GET"));
    assert_eq!(fetched.count(), 1, "once, at the first boot");
    let asked = fs::read_to_string(ran.folder.path().join("systemctl.log")).unwrap();
    let then = "is-enabled -q aot-agent.service\nstart aot-agent.service\n";
    assert_eq!(asked, format!("{INSTALLED}{then}"));
}

#[test]
fn a_machine_made_of_anothers_image_stops_that_agent_and_sets_up_its_own() {
    let machine = Machine {
        files: vec![
            (
                "etc/aot/agent.toml",
                "token = \"old\"\nmachine_id = \"i-0ab\"\n".to_owned(),
            ),
            ("usr/local/bin/aot-agent", "old".to_owned()),
        ],
        ..Machine::default()
    };
    let Some(ran) = run_on("curl", Mood::Good, "x86_64", &machine) else {
        return;
    };
    assert!(ran.output.status.success(), "{:?}", ran.output);
    let root = ran.folder.path().join("root");
    let toml = fs::read_to_string(root.join("etc/aot/agent.toml")).unwrap();
    assert!(
        toml.contains("machine_id = \"i-0abc\"") && !toml.contains("old"),
        "{toml}"
    );
    assert_eq!(
        fs::read(root.join("usr/local/bin/aot-agent")).unwrap(),
        AGENT
    );
    let asked = fs::read_to_string(ran.folder.path().join("systemctl.log")).unwrap();
    assert_eq!(asked, format!("stop aot-agent.service\n{INSTALLED}"));
}

#[test]
fn without_a_metadata_service_it_says_so_and_gives_up() {
    let machine = Machine {
        no_imds: true,
        ..Machine::default()
    };
    let Some(ran) = run_on("curl", Mood::Good, "x86_64", &machine) else {
        return;
    };
    assert_eq!(ran.output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(said.contains("HttpEndpoint"), "{said}");
    let (_, last) = ran.log.last().expect("a beacon");
    assert!(
        last.contains("gave up") && last.contains("HttpEndpoint"),
        "{last}"
    );
}
