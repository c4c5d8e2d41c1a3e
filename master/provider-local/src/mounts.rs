//! The file systems of a clone. Runs in the clone's pid 1, in a mount namespace that nobody else sees.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::inside::Inside;
use super::layers::{Layer, escape};
use super::record::Dirs;

/// Device nodes that programs expect; all of them harmless to share.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const NONE: Option<&str> = None;

/// A failed step, with what it was about.
fn at<T>(what: &str, path: &Path, result: nix::Result<T>) -> io::Result<T> {
    result.map_err(|errno| {
        io::Error::new(
            io::Error::from(errno).kind(),
            format!("{what} {}: {errno}", path.display()),
        )
    })
}

/// Keeps every later mount from showing anywhere else.
pub(super) fn private() -> io::Result<()> {
    at(
        "making mounts private below",
        Path::new("/"),
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE),
    )
}

/// Lays one layer over `target`.
pub(super) fn overlay(dirs: &Dirs, layer: &Layer, target: &Path, rootless: bool) -> io::Result<()> {
    let disk = dirs.disk().join(&layer.disk);
    let mut options = OsString::from("lowerdir=");
    options.push(escape(&layer.lower));
    options.push(",upperdir=");
    options.push(escape(&disk.join("upper")));
    options.push(",workdir=");
    options.push(escape(&disk.join("work")));
    if rootless {
        options.push(",userxattr");
    }
    let done = mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_os_str()),
    );
    at("laying an overlay over", &layer.lower, done)
}

/// Mounts all layers below the new root. Says on the console which ones it had to leave out.
pub(super) fn layers(dirs: &Dirs, layers: &[Layer], rootless: bool) -> io::Result<()> {
    let root = dirs.root();
    fs::create_dir_all(&root)?;
    if rootless {
        tmpfs(&root, "mode=755")?;
        copy_links(&root)?;
    }
    for layer in layers {
        let target = mount_point(&root, &layer.lower)?;
        let Err(error) = overlay(dirs, layer, &target, rootless) else {
            continue;
        };
        if layer.lower == Path::new("/") {
            return Err(error);
        }
        eprintln!("aot: {error}; this folder differs from the host's");
        if rootless {
            stand_in(dirs, layer, &target)?;
        }
    }
    Ok(())
}

/// Where no overlay is allowed: the host's folder read-only, or an empty one where that can't be read.
fn stand_in(dirs: &Dirs, layer: &Layer, target: &Path) -> io::Result<()> {
    let readable = fs::read_dir(&layer.lower).is_ok();
    let own = dirs.disk().join(&layer.disk).join("upper");
    let source = if readable { &layer.lower } else { &own };
    at(
        "binding",
        source,
        mount(
            Some(source),
            target,
            NONE,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NONE,
        ),
    )
}

/// Links such as `/lib` that `/` has.
fn copy_links(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, root.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// `/a/b` below the new root.
fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix("/")
        .map_or_else(|_| root.to_owned(), |rest| root.join(rest))
}

/// A path below the new root on which something is mounted: folders all the way. mount(2) follows links, and those of a
/// clone would lead it into its host: they give way.
fn mount_point(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let rest = path.strip_prefix("/").unwrap_or(path);
    Inside::open(root)?.enter_all(rest)?;
    Ok(root.join(rest))
}

fn tmpfs(target: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    at(
        "mounting a tmpfs on",
        target,
        mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options)),
    )
}

/// `/proc`, `/sys`, `/dev`, `/run`, `/tmp`.
pub(super) fn kernel(root: &Path, rootless: bool) -> io::Result<()> {
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        mount_point(root, Path::new(name))?;
    }
    tmpfs(&root.join("run"), "mode=755")?;
    tmpfs(&root.join("tmp"), "mode=1777")?;
    resolver(root)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    at(
        "mounting",
        &proc,
        mount(Some("proc"), &proc, Some("proc"), safe, NONE),
    )?;
    if !rootless {
        // Kernel settings are the host's: a clone may read them only.
        for name in ["sys", "sysrq-trigger"] {
            // Not every kernel has both.
            if proc.join(name).exists() {
                read_only(&proc.join(name))?;
            }
        }
    }
    let sys = root.join("sys");
    let done = if rootless {
        mount(
            Some("/sys"),
            &sys,
            NONE,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NONE,
        )
    } else {
        mount(
            Some("sysfs"),
            &sys,
            Some("sysfs"),
            safe | MsFlags::MS_RDONLY,
            NONE,
        )
    };
    at("mounting", &sys, done)?;
    devices(&root.join("dev"), rootless)
}

fn read_only(path: &Path) -> io::Result<()> {
    at(
        "binding",
        path,
        mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE),
    )?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    at(
        "making read-only",
        path,
        mount(NONE, path, NONE, flags, NONE),
    )
}

/// A small `/dev` with the host's harmless nodes and terminals of its own.
fn devices(dev: &Path, rootless: bool) -> io::Result<()> {
    // Not nodev: the nodes bound below have to work.
    let done = mount(
        Some("tmpfs"),
        dev,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=755"),
    );
    at("mounting a tmpfs on", dev, done)?;
    for node in NODES {
        let (from, to) = (Path::new("/dev").join(node), dev.join(node));
        fs::write(&to, "")?;
        at(
            "binding",
            &from,
            mount(Some(&from), &to, NONE, MsFlags::MS_BIND, NONE),
        )?;
    }
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(to, dev.join(link))?;
    }
    let (pts, shm) = (dev.join("pts"), dev.join("shm"));
    fs::create_dir(&pts)?;
    fs::create_dir(&shm)?;
    let options = if rootless {
        "newinstance,ptmxmode=0666,mode=620"
    } else {
        "newinstance,ptmxmode=0666,mode=620,gid=5"
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    at(
        "mounting",
        &pts,
        mount(Some("devpts"), &pts, Some("devpts"), flags, Some(options)),
    )?;
    tmpfs(&shm, "mode=1777")
}

/// Where `/etc/resolv.conf` leads into `/run`, what it says there is carried over.
fn resolver(root: &Path) -> io::Result<()> {
    let Ok(real) = fs::canonicalize("/etc/resolv.conf") else {
        return Ok(());
    };
    if !real.starts_with("/run") {
        return Ok(());
    }
    let target = below(root, &real);
    fs::create_dir_all(target.parent().expect("it lies below /run"))?;
    #[expect(clippy::disallowed_methods, reason = "a text file")]
    fs::copy(&real, &target).map(drop)
}

/// Makes the new root the only one: nothing of the host's mounts stays reachable.
pub(super) fn enter(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    at(
        "changing the root to",
        root,
        nix::unistd::pivot_root(".", "."),
    )?;
    at(
        "detaching",
        Path::new("/"),
        umount2(".", MntFlags::MNT_DETACH),
    )?;
    std::env::set_current_dir("/")
}
