//! Archives and folders for tests: good ones, and ones that mean harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::*;

pub(super) const LIMITS: Limits = Limits {
    bytes: 10_000,
    entries: 100,
};

pub(super) fn rules() -> Rules {
    Rules {
        limits: LIMITS,
        tops: Tops::Any,
        rename: None,
    }
}

pub(super) fn open_rules() -> Rules {
    Rules {
        limits: Limits {
            bytes: 1 << 30,
            entries: 1000,
        },
        tops: Tops::Any,
        rename: None,
    }
}

#[derive(Debug, Clone)]
pub(super) struct SampleItem {
    pub(super) kind: EntryType,
    pub(super) name: String,
    pub(super) target: String,
    pub(super) content: Vec<u8>,
}

pub(super) fn item(kind: EntryType, name: &str, target: &str) -> SampleItem {
    SampleItem {
        kind,
        name: name.into(),
        target: target.into(),
        content: Vec::new(),
    }
}

pub(super) fn file(name: &str, content: &[u8]) -> SampleItem {
    SampleItem {
        content: content.to_vec(),
        ..item(EntryType::Regular, name, "")
    }
}

/// A tar of any entries, bad ones too: names are written as they are.
pub(super) fn tar(items: &[SampleItem]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..item.name.len()].copy_from_slice(item.name.as_bytes());
        header.as_old_mut().linkname[..item.target.len()].copy_from_slice(item.target.as_bytes());
        header.set_entry_type(item.kind);
        header.set_mode(0o6755);
        header.set_size(item.content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&item.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Unpacks as a bundle or as a copy.
pub(super) fn unpack_as(stream: &[u8], folder: &Folder, bundle: bool) -> Result<Totals, Error> {
    if bundle {
        unpack_bundle(stream, folder, LIMITS).map(|(_, totals)| totals)
    } else {
        unpack(stream, folder, &rules())
    }
}

pub(super) fn try_unpack(
    items: &[SampleItem],
    bundle: bool,
) -> (tempfile::TempDir, Result<Totals, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    fs::create_dir(&folder).unwrap();
    let result = unpack_as(&tar(items), &Folder::open(&folder).unwrap(), bundle);
    (dir, result)
}

/// Every path below `root`, sorted.
pub(super) fn names(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap();
            found.push(name.to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// As `Tree::listing`.
pub(super) fn on_disk(root: &Path) -> BTreeMap<PathBuf, String> {
    let what = |name: &String| {
        let path = root.join(name);
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            "d".to_owned()
        } else if meta.is_symlink() {
            format!("l{}", fs::read_link(&path).unwrap().display())
        } else {
            "f".to_owned()
        }
    };
    let all = names(root).into_iter();
    all.map(|name| (PathBuf::from(&name), what(&name)))
        .collect()
}

pub(super) fn packed(paths: &[PathBuf]) -> (Vec<u8>, Vec<String>) {
    let (mut bytes, mut notes) = (Vec::new(), Vec::new());
    let sources = sources(paths).unwrap();
    pack(&sources, &mut bytes, &mut |note| notes.push(note)).unwrap();
    (bytes, notes)
}

/// A folder `app` with everything that is copied.
pub(super) fn sample(at: &Path) -> PathBuf {
    let app = at.join("app");
    fs::create_dir_all(app.join("bin/empty")).unwrap();
    fs::write(app.join("bin/run"), vec![7; 600_001]).unwrap();
    fs::write(app.join("none"), "").unwrap();
    fs::write(app.join("n".repeat(255)), "long").unwrap();
    let deep = app.join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x"), "deep").unwrap();
    let link = app.join("bin/link");
    let _ = fs::remove_file(&link);
    symlink("/etc/hostname", &link).unwrap();
    let mode = |path: &str, mode| {
        fs::set_permissions(app.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("bin/run", 0o4755);
    mode("none", 0o600);
    mode("bin/empty", 0o700);
    mode("bin", 0o750);
    app
}

/// What must be the same on both sides: kind and mode, time, content.
pub(super) fn contents(root: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let content_of = |name: String| {
        let path = root.join(&name);
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        (name, (meta.mode() & !0o7000, meta.mtime(), content))
    };
    names(root).into_iter().map(content_of).collect()
}
