//! A folder of a clone's files, as its host reaches it: one name at a time, and never through a link. What a clone wrote
//! there is the clone's, and its links lead into itself; followed by its host they would lead into the host. So a path
//! is one open folder after the other, or as the clone itself would see it (openat2(2), RESOLVE_IN_ROOT). That is against
//! accidents: root in a clone is root of the host.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags, fchmod, fchown, fsetxattr,
};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open folder.
pub(super) struct Inside(OwnedFd);

impl Inside {
    /// Opens a folder whose path is the host's own, such as an upper folder or the place where a root is mounted.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, FOLDER, Mode::empty())?))
    }

    /// The folder that the clone sees at `path` below this one, its root: links lead where they lead inside
    /// (openat2(2), RESOLVE_IN_ROOT).
    pub(crate) fn seen_at(&self, path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(Self(fs::openat2(
            &self.0,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?))
    }

    /// The folder `name` in it. Made when there is none, then `fresh` dresses it; a link or file that has the name goes.
    pub(crate) fn enter(
        &self,
        name: &OsStr,
        fresh: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<Self> {
        match fs::openat(&self.0, name, FOLDER, Mode::empty()) {
            Ok(fd) => return Ok(Self(fd)),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => self.drop_file(name)?,
            Err(error) => return Err(error.into()),
        }
        fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o755))?;
        let made = Self(fs::openat(&self.0, name, FOLDER, Mode::empty())?);
        fresh(&made)?;
        Ok(made)
    }

    /// [`Inside::enter`] for each name of a path that has plain names alone; new folders stay as mkdir(2) makes them.
    pub(crate) fn enter_all(&self, path: &Path) -> io::Result<Self> {
        let mut folder = Self(self.0.try_clone()?);
        for part in path.components() {
            let Component::Normal(name) = part else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            folder = folder.enter(name, |_| Ok(()))?;
        }
        Ok(folder)
    }

    /// Removes a file or link; as good when there is none.
    pub(crate) fn drop_file(&self, name: &OsStr) -> io::Result<()> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file in the place of whatever file or link has the name.
    pub(crate) fn write(&self, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.drop_file(name)?;
        let mut file = File::from(fs::openat(&self.0, name, NEW_FILE, Mode::RUSR)?);
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Puts a second name of the host's file `from` here, or a copy where that cannot be.
    pub(crate) fn link(&self, from: &Path, name: &OsStr, mode: u32) -> io::Result<()> {
        self.drop_file(name)?;
        match fs::linkat(CWD, from, &self.0, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(_) => self.write(name, &std::fs::read(from)?, mode),
        }
    }

    /// Names in it that `is_meant` picks are removed.
    pub(crate) fn drop_files(&self, is_meant: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if is_meant(&name) {
                self.drop_file(OsStr::new(&*name))?;
            }
        }
        Ok(())
    }

    /// The path of a name in it that leads nowhere else, for whoever wants one.
    pub(crate) fn path_of(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.0.as_raw_fd().to_string())
            .join(name)
    }

    /// Sets its mode.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Sets an extended attribute.
    pub(crate) fn set_attribute(&self, name: &str, value: &[u8]) -> io::Result<()> {
        Ok(fsetxattr(&self.0, name, value, XattrFlags::empty())?)
    }

    /// Gives it mode and owner of a folder of the host, where there is one.
    pub(crate) fn dress_like(&self, model: &Path, rootless: bool) -> io::Result<()> {
        let Ok(model) = std::fs::metadata(model) else {
            return Ok(());
        };
        if rootless {
            return self.set_mode(model.mode() & 0o1777 | 0o700);
        }
        let (uid, gid) = (Uid::from_raw(model.uid()), Gid::from_raw(model.gid()));
        fchown(&self.0, Some(uid), Some(gid))?;
        self.set_mode(model.mode() & 0o7777)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, create_dir_all, read_dir, read_to_string};
    use std::os::unix::fs::symlink;

    /// A host folder with one file in it, and a clone's folder whose `name` is a link to it.
    fn linked(name: &str) -> (tempfile::TempDir, Inside) {
        let dir = tempfile::tempdir().expect("a folder");
        let (host, clone) = (dir.path().join("host"), dir.path().join("clone"));
        create_dir(&host).expect("makes");
        create_dir(&clone).expect("makes");
        std::fs::write(host.join("file"), "the host's").expect("writes");
        symlink(&host, clone.join(name)).expect("links");
        let inside = Inside::open(&clone).expect("opens");
        (dir, inside)
    }

    fn is_untouched(dir: &Path) {
        let names = read_dir(dir.join("host")).expect("reads").count();
        assert_eq!(names, 1, "nothing came, nothing went");
        let text = read_to_string(dir.join("host/file")).expect("reads");
        assert_eq!(text, "the host's");
    }

    #[test]
    fn a_link_in_place_of_a_folder_gives_way_and_is_not_followed() {
        let (dir, inside) = linked("aot");
        let folder = inside.enter_all(Path::new("aot/deep")).expect("enters");
        folder
            .write(OsStr::new("file"), b"the clone's", 0o640)
            .expect("writes");
        is_untouched(dir.path());
        let written = dir.path().join("clone/aot/deep/file");
        assert_eq!(read_to_string(&written).expect("reads"), "the clone's");
        let mode = written.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(inside.enter_all(Path::new("../host")).is_err());
    }

    #[test]
    fn a_link_in_place_of_a_file_gives_way_and_is_not_followed() {
        let (dir, inside) = linked("aot");
        let clone = dir.path().join("clone");
        symlink(dir.path().join("host/file"), clone.join("boot_id")).expect("links");
        inside
            .write(OsStr::new("boot_id"), b"x", 0o644)
            .expect("writes");
        inside
            .link(&dir.path().join("host/file"), OsStr::new("aot"), 0o755)
            .expect("links");
        inside
            .drop_files(|name| name == "boot_id")
            .expect("removes");
        is_untouched(dir.path());
        assert!(!clone.join("boot_id").exists() && clone.join("aot").is_file());
    }

    #[test]
    fn what_a_clone_sees_lies_below_its_root() {
        let (dir, inside) = linked("aot");
        // The link names a path of the host: inside, the same path is another place.
        let absolute = dir.path().join("host");
        assert!(
            inside.seen_at(Path::new("aot")).is_err(),
            "it has no such folder"
        );
        let own = dir
            .path()
            .join("clone")
            .join(absolute.strip_prefix("/").expect("absolute"));
        create_dir_all(&own).expect("makes");
        let seen = inside.seen_at(Path::new("aot")).expect("its own");
        seen.write(OsStr::new("file"), b"the clone's", 0o644)
            .expect("writes");
        is_untouched(dir.path());
        assert_eq!(
            read_to_string(own.join("file")).expect("reads"),
            "the clone's"
        );
        symlink("../../../../../../../..", dir.path().join("clone/up")).expect("links");
        let top = inside.seen_at(Path::new("up")).expect("stays in its root");
        top.write(OsStr::new("top"), b"", 0o644).expect("writes");
        assert!(dir.path().join("clone/top").exists());
    }
}
