//! Bundles: fetched (`fetch`), verified, and unpacked inside limits. Called by the runner, one at a time.
//!
//! An entry lands inside its folder or the bundle is refused: no absolute path, no `..`, no link that leaves the folder,
//! no writing through a link, no device. Sizes and counts are bounded while unpacking, whatever the headers say.

pub(crate) mod fetch;
mod templates;
mod unpack;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aot_archive::Limits;
use aot_host::chain::Chain;
use aot_host::files::shut_dir;
use aot_host::removal::{self, Scratch, mounts_from, remove_tree};
use aot_proto::limits::{MAX_BUNDLE_ENTRIES, MAX_UNPACKED_BYTES};
pub(crate) use templates::TemplateValues;
use unpack::BundleTree;
pub(crate) use unpack::{Error, unpack};

use crate::starts;

/// Begins the names of folders beside the stages that nobody needs.
const BESIDE: &str = ".aot-";
/// Most old folders that may stay because something is mounted in them; then such a stage is refused.
const MOST_KEPT: usize = 8;

/// A stage's folder, ready to be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Where `bootstrap.sh` is: at the top, or in the only folder there.
    pub script_folder: PathBuf,
    /// What the folder's old content became that could not be removed, for a person; empty mostly.
    pub note: String,
    /// SHA-256 of what its templates have become, hex; empty when they were not rendered.
    pub rendered: String,
}

/// What came of unpacking a bundle with templates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rendered {
    /// It is in its place.
    Ready(Unpacked),
    /// Its templates have become what they had become before, with this SHA-256: the old folder is as it was.
    Unchanged(String),
}

/// Unpacks `packed` into a fresh `folder` (mode 0700), which takes the place of the old one.
///
/// The old one is moved aside as it is, and only then removed. What a script has mounted below it is not ours: then it
/// stays there, mounts and all.
///
/// # Errors
/// When the bundle is refused or has no `bootstrap.sh`, when something is mounted on the folder itself, or when too many
/// old ones had to stay already; then the old folder is as it was.
pub(crate) fn unpack_stage(packed: &Path, folder: &Path) -> Result<Unpacked, Error> {
    FreshFolder::unpack(packed, folder)?.put(folder, String::new())
}

/// [`unpack_stage`] of a bundle whose templates are rendered with `values` before it is put in its place. Nothing is put there
/// when they become what has the digest `unless` (none when that is empty).
///
/// # Errors
/// As [`unpack_stage`]; when a template can't be rendered.
pub(crate) fn render_stage(
    packed: &Path,
    folder: &Path,
    values: &TemplateValues,
    unless: &str,
) -> Result<Rendered, Error> {
    let fresh = FreshFolder::unpack(packed, folder)?;
    let digest = templates::render_all(fresh.scratch.path(), &fresh.tree.templates, values)?;
    match digest == unless {
        true => Ok(Rendered::Unchanged(digest)),
        false => fresh.put(folder, digest).map(Rendered::Ready),
    }
}

/// A bundle that is unpacked beside the place that it will have.
struct FreshFolder {
    scratch: Scratch,
    tree: BundleTree,
    /// How many old folders had to stay.
    kept: usize,
}

impl FreshFolder {
    fn unpack(packed: &Path, folder: &Path) -> Result<Self, Error> {
        let parent = parent_of(folder)?;
        shut_dir(parent)?;
        let kept = remove_beside(parent)?;
        let scratch = Scratch::new_in(parent, &format!("{BESIDE}new-"))?;
        let limits = Limits {
            bytes: MAX_UNPACKED_BYTES,
            entries: MAX_BUNDLE_ENTRIES,
        };
        let tree = unpack(File::open(packed)?, scratch.path(), limits)?;
        Ok(Self {
            scratch,
            tree,
            kept,
        })
    }

    /// Puts it where it belongs.
    fn put(self, folder: &Path, rendered: String) -> Result<Unpacked, Error> {
        let parent = parent_of(folder)?;
        // The script runs programs of its bundle.
        starts::wait_for_earlier();
        let note = match folder.symlink_metadata() {
            Ok(_) => exchange(self.scratch, folder, parent, self.kept < MOST_KEPT)?,
            Err(_) => {
                fs::rename(self.scratch.path(), folder)?;
                self.scratch.persist();
                String::new()
            }
        };
        Ok(Unpacked {
            script_folder: folder.join(self.tree.script_folder),
            note,
            rendered,
        })
    }
}

fn parent_of(folder: &Path) -> io::Result<&Path> {
    let parent = folder.parent();
    parent.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Removes what is left beside the stages of earlier ones; how many folders had to stay.
fn remove_beside(parent: &Path) -> io::Result<usize> {
    let mut kept = 0;
    for stale in fs::read_dir(parent)?.flatten() {
        if !stale.file_name().to_string_lossy().starts_with(BESIDE) {
            continue;
        }
        if let Err(error) = remove_tree(&stale.path()) {
            tracing::warn!(error = %Chain(&error), "an old stage folder stays");
            kept += 1;
        }
    }
    Ok(kept)
}

/// Puts `fresh` in the place of `folder` and removes what was there; a note when that had to stay, which it `may`.
fn exchange(fresh: Scratch, folder: &Path, parent: &Path, may: bool) -> Result<String, Error> {
    let name = folder.file_name().unwrap_or_default();
    let real = parent.canonicalize()?.join(name);
    let mounts = mounts_from(&real)?;
    if let Some(mounted) = mounts.iter().find(|mounted| **mounted == real || !may) {
        return Err(removal::Error::Mounted(mounted.clone()).into());
    }
    let aside = Scratch::new_in(parent, &format!("{BESIDE}old-"))?;
    let old = aside.path().join(name);
    fs::rename(folder, &old)?;
    if let Err(error) = fs::rename(fresh.path(), folder) {
        fs::rename(&old, folder)?;
        return Err(error.into());
    }
    fresh.persist();
    let path = aside.path().to_owned();
    aside.persist();
    match remove_tree(&path) {
        Ok(()) => Ok(String::new()),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "an old stage folder stays");
            Ok(format!(
                "the folder of the stage's last run was moved to {}, and stays there: {}",
                old.display(),
                Chain(&error)
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_archive::NoScript;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn bundle(entries: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.finish().unwrap();
        file
    }

    #[test]
    fn a_stage_folder_is_fresh_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stages/stage-0");
        let first = bundle(&[("bootstrap.sh", "one"), ("old", "x")]);
        let unpacked = unpack_stage(first.path(), &folder).unwrap();
        assert_eq!(
            (unpacked.script_folder, unpacked.note),
            (folder.clone(), String::new())
        );
        let second = bundle(&[("pack/bootstrap.sh", "two"), ("pack/data/x", "y")]);
        assert_eq!(
            unpack_stage(second.path(), &folder).unwrap().script_folder,
            folder.join("pack")
        );
        assert!(!folder.join("old").exists());
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            fs::read_dir(dir.path().join("stages")).unwrap().count(),
            1,
            "something was left beside it"
        );
    }

    #[test]
    fn no_child_holds_a_file_of_a_stage_that_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let stages = dir.path().join("stages");
        let packed = bundle(&[("bootstrap.sh", "one")]);
        std::thread::scope(|scope| {
            let (ready, is_ready) = std::sync::mpsc::channel();
            let (packed, stages) = (packed.path(), &stages);
            // A child that may have been forked while bootstrap.sh was open.
            starts::start(|| {
                scope.spawn(move || {
                    unpack_stage(packed, &stages.join("stage-0")).unwrap();
                    ready.send(()).unwrap();
                });
                let early = is_ready.recv_timeout(Duration::from_millis(500));
                assert!(early.is_err(), "the child has not executed its program yet");
            });
            is_ready.recv().unwrap();
        });
    }

    #[test]
    fn a_bundle_without_a_script_leaves_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stages/stage-0");
        unpack_stage(bundle(&[("bootstrap.sh", "one")]).path(), &folder).unwrap();
        assert!(matches!(
            unpack_stage(bundle(&[("readme", "x")]).path(), &folder),
            Err(Error::NoScript(NoScript::Missing))
        ));
        let two = bundle(&[("a/bootstrap.sh", "x"), ("b/bootstrap.sh", "x")]);
        assert!(matches!(
            unpack_stage(two.path(), &folder),
            Err(Error::NoScript(NoScript::Missing))
        ));
        assert_eq!(
            fs::read_to_string(folder.join("bootstrap.sh")).unwrap(),
            "one"
        );
    }

    const NONE: Option<&str> = None;

    /// As in a thread of an agent, with mounts that nobody else sees and that end with it.
    fn with_own_mounts(test: impl FnOnce(&Path) + Send) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let ran = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                let own = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
                    .and_then(|()| mount(NONE, "/", NONE, private, NONE));
                if own.is_ok() {
                    test(&root);
                }
                own.is_ok()
            });
            inside.join().unwrap()
        });
        if !ran {
            eprintln!("skipped: mounting is not allowed here");
        }
    }

    fn bind(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).unwrap();
    }

    #[test]
    fn what_a_script_has_mounted_in_its_folder_survives_its_next_run() {
        with_own_mounts(|root| {
            let (data, stages) = (root.join("data"), root.join("stages"));
            let folder = stages.join("stage-0");
            fs::create_dir(&data).unwrap();
            fs::write(data.join("precious"), "x").unwrap();
            let packed = bundle(&[("bootstrap.sh", "one")]);
            unpack_stage(packed.path(), &folder).unwrap();
            for run in 0..MOST_KEPT {
                bind(&data, &folder.join("chroot/data"));
                fs::write(folder.join("mine"), "x").unwrap();
                let unpacked = unpack_stage(packed.path(), &folder).unwrap();
                assert!(unpacked.note.contains("chroot/data"), "{}", unpacked.note);
                assert!(folder.join("bootstrap.sh").exists() && !folder.join("mine").exists());
                assert!(data.join("precious").exists(), "run {run}");
            }
            // There is an end to it, and then nothing is touched.
            bind(&data, &folder.join("chroot/data"));
            fs::write(folder.join("mine"), "x").unwrap();
            let error = unpack_stage(packed.path(), &folder).unwrap_err();
            assert!(error.to_string().contains("stage-0/chroot/data"), "{error}");
            assert!(folder.join("mine").exists() && data.join("precious").exists());
            // Without its mounts all of it goes.
            for mounted in mounts_from(&stages).unwrap() {
                umount2(&mounted, MntFlags::MNT_DETACH).unwrap();
            }
            let unpacked = unpack_stage(packed.path(), &folder).unwrap();
            assert_eq!(unpacked.note, "");
            assert_eq!(fs::read_dir(&stages).unwrap().count(), 1);
            assert!(data.join("precious").exists());
        });
    }

    #[test]
    fn a_stage_folder_that_is_a_mount_point_is_refused_by_name() {
        with_own_mounts(|root| {
            let (data, folder) = (root.join("data"), root.join("stages/stage-0"));
            fs::create_dir(&data).unwrap();
            fs::write(data.join("precious"), "x").unwrap();
            bind(&data, &folder);
            let packed = bundle(&[("bootstrap.sh", "one")]);
            let error = unpack_stage(packed.path(), &folder).unwrap_err();
            assert!(error.to_string().contains("stages/stage-0"), "{error}");
            assert!(folder.join("precious").exists() && data.join("precious").exists());
        });
    }
}
