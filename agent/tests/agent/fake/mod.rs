//! A small master over real TLS, and a real agent process beside it. All state in a temporary folder.

mod api;
mod aws;
mod master;
mod rig;
mod run_result;
mod server;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use aot_proto::ids::RunId;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{ExecSpec, StageSpec, StartRun};

pub(crate) use aws::FakeAws;
pub(crate) use master::TunnelHalves;
pub(crate) use rig::{MACHINE, Rig};

pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Shims that have a run in this folder in hand.
pub(crate) fn shims(dir: &Path) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut open = open.into_iter().flatten().flatten();
        line.ends_with(b"\0shim\0")
            && open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(dir)))
    })
    .collect()
}

pub(crate) fn run_id(n: u128) -> String {
    RunId::from_parts(1_700_000_000_000, n).to_string()
}

/// `bash -c script`.
pub(crate) fn exec(n: u128, script: &str) -> StartRun {
    StartRun {
        run_id: run_id(n),
        what: Some(What::Exec(ExecSpec {
            argv: ["bash", "-c", script].map(str::to_owned).to_vec(),
            ..ExecSpec::default()
        })),
        env: BTreeMap::from([("EXTRA".to_owned(), "yes".to_owned())])
            .into_iter()
            .collect(),
        ..StartRun::default()
    }
}

/// Waits for what has no event: a process of someone else, a file.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes' state wakes nobody here"
)]
pub(crate) fn until(mut is_true: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_true() {
        assert!(start.elapsed().as_secs() < 120, "waited 120 s");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Writes a script that may be run. A child does: one of ours would hold it open while others start commands (ETXTBSY).
pub(crate) fn install(text: &str, path: &Path) {
    let mut plain = tempfile::NamedTempFile::new().unwrap();
    plain.write_all(text.as_bytes()).unwrap();
    let mut command = std::process::Command::new("install");
    command.args(["-m", "755"]).arg(plain.path()).arg(path);
    assert!(command.status().unwrap().success());
}

/// A bundle with this script: its SHA-256 and its bytes.
pub(crate) fn bundle(script: &str) -> (String, Vec<u8>) {
    bundle_of(&[("bootstrap.sh", script.as_bytes()), ("data", &[7; 20_000])])
}

/// A bundle of these files: its SHA-256 and its bytes.
pub(crate) fn bundle_of(files: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for (name, bytes) in files {
        add(name, bytes);
    }
    let bytes = tar.into_inner().unwrap();
    (aot_host::hash::sha256_hex(&bytes), bytes)
}

/// A run of a bundle as a stage.
pub(crate) fn stage(n: u128, sha: &str, bytes: u64) -> StartRun {
    let stage = StageSpec {
        index: 1,
        bundle_sha256: sha.into(),
        bundle_bytes: bytes,
        args: vec!["--level".into(), "a b".into()],
        attempt: 2,
        reboots: 1,
        ..StageSpec::default()
    };
    StartRun {
        run_id: run_id(n),
        what: Some(What::Stage(stage)),
        ..StartRun::default()
    }
}
