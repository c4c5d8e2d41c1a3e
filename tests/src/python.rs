//! Programs from PyPI, each in a Python of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs' folder of a Python that has a package, as in `ansible-core==2.19.14`; made once below `cache`.
///
/// # Panics
/// When it can't be made.
#[track_caller]
pub fn programs(cache: &Path, package: &str) -> PathBuf {
    let name = package.replace("==", "-");
    let (venv, ready) = (cache.join(&name), cache.join(format!("{name}.ready")));
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("a lock");
    lock.lock().expect("others make it within their time");
    if !ready.exists() {
        well(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        );
        let pip = ["-m", "pip", "install", "--quiet", package];
        well(Command::new(venv.join("bin/python")).args(pip));
        fs::write(&ready, "").expect("a mark");
    }
    venv.join("bin")
}

#[track_caller]
fn well(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
