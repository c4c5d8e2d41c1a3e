//! The trial that preflight makes: whether this kernel lets us clone this machine. Runs in a process of its own, in name
//! spaces of its own, and leaves nothing behind.

use std::fs;
use std::io;
use std::path::Path;

use aot_model::problem::Problem;
use nix::sched::{CloneFlags, unshare};

use super::layers::Layer;
use super::prepare::Upper;
use super::record::Dirs;
use super::{mounts, userns};

/// Lays one overlay in a fresh folder `dir`, and removes the folder.
pub(super) fn probe(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let result = attempt(dir);
    // The mounts are in this process's own name space; what is below them is plain files.
    let cleaned = super::clone_dirs::remove_tree(dir);
    result.and(cleaned)
}

fn attempt(dir: &Path) -> io::Result<()> {
    let rootless = !rustix::process::geteuid().is_root();
    let step =
        |name: &str, error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    if rootless {
        userns::enter().map_err(|error| step("user namespace", error))?;
    }
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .map_err(|errno| step("namespaces", errno.into()))?;
    mounts::private()?;
    let dirs = Dirs(dir.to_owned());
    let lower = if rootless { "/etc" } else { "/" };
    let layer = Layer::over(Path::new(lower));
    Upper::new(&dirs, std::slice::from_ref(&layer), rootless)?;
    fs::create_dir_all(dirs.root())?;
    mounts::overlay(&dirs, &layer, &dirs.root(), rootless)
        .map_err(|error| step("overlay", error))?;
    nix::mount::umount(&dirs.root())?;
    Ok(())
}

/// What to enable, from what failed. `setting` reads a file below /proc/sys.
pub(super) fn problem(
    error: &str,
    root: bool,
    state_dir: &Path,
    setting: impl Fn(&str) -> Option<String>,
) -> Problem {
    let is = |name: &str, value: &str| setting(name).is_some_and(|found| found.trim() == value);
    let hint = if root && !error.starts_with("overlay") {
        "this looks like a container without CAP_SYS_ADMIN: run the master on the host, or in a privileged container".into()
    } else if root {
        format!(
            "the overlay needs a state directory on a plain disk file system such as ext4 or xfs, not {}: set AOT_STATE_DIR",
            state_dir.display()
        )
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "run `sysctl kernel.unprivileged_userns_clone=1` as root, or run the master as root".into()
    } else if is("user/max_user_namespaces", "0") {
        "run `sysctl user.max_user_namespaces=10000` as root, or run the master as root".into()
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "run `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root, or run the master as root".into()
    } else if error.starts_with("overlay") {
        format!(
            "overlays without root need Linux 5.11 or newer and a state directory with user.* attributes (ext4, xfs), \
             not {}: set AOT_STATE_DIR, or run the master as root",
            state_dir.display()
        )
    } else {
        "run the master as root, or allow unprivileged user namespaces".into()
    };
    Problem {
        message: format!("this machine cannot be cloned: {error}"),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_what_to_enable() {
        let cases: [(&str, bool, &str, &str); 7] = [
            ("namespaces: EPERM", true, "", "CAP_SYS_ADMIN"),
            ("overlay: EINVAL", true, "", "AOT_STATE_DIR"),
            (
                "user namespace: EPERM",
                false,
                "kernel/unprivileged_userns_clone=0",
                "unprivileged_userns_clone=1",
            ),
            (
                "user namespace: ENOSPC",
                false,
                "user/max_user_namespaces=0",
                "max_user_namespaces=10000",
            ),
            (
                "namespaces: EPERM",
                false,
                "kernel/apparmor_restrict_unprivileged_userns=1",
                "apparmor_restrict",
            ),
            ("overlay: EPERM", false, "", "5.11"),
            ("user namespace: EPERM", false, "", "as root"),
        ];
        for (error, root, sysctl, expected) in cases {
            let found = problem(error, root, Path::new("/s"), |name| {
                let (key, value) = sysctl.split_once('=')?;
                (key == name).then(|| format!("{value}\n"))
            });
            assert!(found.hint.contains(expected), "{error}: {}", found.hint);
            assert!(found.message.contains(error));
        }
    }
}
