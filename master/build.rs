//! Gives both programs of the master the commit that they are built from, `BUILD_COMMIT`: empty outside of a checkout, where
//! the version has to do. Used by `aot-master` and `aot-masterd` alone, so that a commit rebuilds nothing else.
//! `master/tests/build_commit.rs` runs it in checkouts of all kinds.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout's root, from the folder of the crate that is built.
const ROOTS: [&str; 2] = ["..", "../.."];

fn main() {
    // Without any, cargo would run this again for every change of the crate.
    println!("cargo:rerun-if-changed=Cargo.toml");
    let is_root = |root: &&&str| Path::new(root).join("Cargo.lock").is_file();
    let root = ROOTS.iter().find(is_root);
    // The checkout's own, not one of a folder around an unpacked archive.
    let root = root.filter(|root| Path::new(root).join(".git").exists());
    let commit = root.and_then(|root| {
        // Every commit and checkout writes the log, where one is kept.
        for path in ["HEAD", "logs/HEAD", "packed-refs"] {
            rerun_on(git_path(root, path).filter(|file| file.exists()));
        }
        if let Some(branch) = git(root, &["symbolic-ref", "-q", "HEAD"]) {
            rerun_on(git_path(root, &branch).and_then(nearest));
        }
        git(root, &["rev-parse", "--short=12", "HEAD"])
    });
    println!(
        "cargo:rustc-env=BUILD_COMMIT={}",
        commit.unwrap_or_default()
    );
}

/// Has this run again when a file changes, or anything in a folder. One that is missing would have it run each time.
fn rerun_on(file: Option<PathBuf>) {
    if let Some(file) = file {
        println!("cargo:rerun-if-changed={}", file.display());
    }
}

/// Where git has a file of its own: the checkout's, or the repository's that a worktree belongs to.
fn git_path(root: &str, path: &str) -> Option<PathBuf> {
    let file = git(root, &["rev-parse", "--git-path", path])?;
    Some(Path::new(root).join(file))
}

/// The file of a branch; where it is packed, and has none until the next commit, the folder that will have it.
fn nearest(file: PathBuf) -> Option<PathBuf> {
    let mut places = file.ancestors();
    places.find(|place| place.exists()).map(Path::to_owned)
}

/// What git prints; nothing when it fails, or isn't there.
fn git(root: &str, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(args).output();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
