//! Programs of Debian's packages that a test needs and that need not be installed: unpacked into a folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder in which these packages are unpacked, once for all tests that name the same folder for it.
///
/// # Errors
/// When there is no apt-get, or it can't bring them.
pub fn unpacked(cache: &Path, name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let (root, ready) = (cache.join(name), cache.join(format!("{name}.ready")));
    let lock = File::create(cache.join(format!("{name}.lock"))).map_err(|why| why.to_string())?;
    lock.lock().map_err(|why| why.to_string())?;
    if ready.exists() {
        return Ok(root);
    }
    let archives = cache.join(format!("{name}.deb"));
    for folder in [&root, &archives] {
        fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    }
    let words: Vec<&str> = ["download"].iter().chain(packages).copied().collect();
    apt(&archives, &words).or_else(|_| {
        apt(&archives, &["update"])?;
        apt(&archives, &words)
    })?;
    let entries = fs::read_dir(&archives).map_err(|why| why.to_string())?;
    for archive in entries.flatten() {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("-x").arg(archive.path()).arg(&root);
        well(&mut dpkg)?;
    }
    fs::write(&ready, "").map_err(|why| why.to_string())?;
    Ok(root)
}

fn apt(folder: &Path, words: &[&str]) -> Result<(), String> {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(words);
    well(apt.current_dir(folder))
}

fn well(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|why| format!("{command:?}: {why}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
