//! Archives there and back, and archives that mean harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tar::EntryType;

use super::*;

const LIMITS: Limits = Limits {
    bytes: 10_000,
    entries: 100,
};

fn rules(bundle: bool) -> Rules {
    Rules {
        limits: LIMITS,
        bundle,
        rename: None,
    }
}

#[derive(Debug, Clone)]
struct Item {
    kind: EntryType,
    name: String,
    target: String,
    content: Vec<u8>,
}

fn item(kind: EntryType, name: &str, target: &str) -> Item {
    Item {
        kind,
        name: name.into(),
        target: target.into(),
        content: Vec::new(),
    }
}

fn file(name: &str, content: &[u8]) -> Item {
    Item {
        content: content.to_vec(),
        ..item(EntryType::Regular, name, "")
    }
}

/// A tar of any entries, bad ones too: names are written as they are.
fn tar(items: &[Item]) -> Vec<u8> {
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

fn try_unpack(items: &[Item], bundle: bool) -> (tempfile::TempDir, Result<Totals, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    fs::create_dir(&folder).unwrap();
    let result = unpack(
        &tar(items)[..],
        &Folder::open(&folder).unwrap(),
        &rules(bundle),
    );
    (dir, result)
}

#[test]
fn what_could_leave_the_folder_is_refused() {
    use EntryType::{Block, Char, Fifo, Link, Symlink};
    let both = [true, false].as_slice();
    for (name, kinds, items) in [
        ("absolute", both, vec![file("/abs", b"x")]),
        ("dots", both, vec![file("a/../../x", b"x")]),
        (
            "absolute link",
            &[true],
            vec![item(Symlink, "l", "/etc/passwd")],
        ),
        ("link up", &[true], vec![item(Symlink, "d/l", "../../x")]),
        (
            "link up after a name",
            &[true],
            vec![
                item(Symlink, "a/b/k", "../.."),
                item(Symlink, "m", "a/b/k/.."),
            ],
        ),
        (
            "through a link",
            both,
            vec![
                item(EntryType::Directory, "d", ""),
                item(Symlink, "l", "d"),
                file("l/x", b"x"),
            ],
        ),
        (
            "through a link that leaves",
            &[false],
            vec![item(Symlink, "l", ".."), file("l/x", b"x")],
        ),
        (
            "through a link in a folder",
            &[false],
            vec![
                file("d/x", b"x"),
                item(Symlink, "d/l", "../.."),
                file("d/l/y", b"y"),
            ],
        ),
        (
            "a folder over a link",
            both,
            vec![
                item(Symlink, "l", "d"),
                item(EntryType::Directory, "l/", ""),
            ],
        ),
        ("hard link out", both, vec![item(Link, "h", "../x")]),
        (
            "hard link to a link",
            both,
            vec![item(Symlink, "l", "d"), item(Link, "h", "l")],
        ),
        (
            "hard link to nothing",
            both,
            vec![item(Link, "h", "nothing")],
        ),
        (
            "hard link",
            &[false],
            vec![file("f", b"x"), item(Link, "h", "f")],
        ),
        ("character device", both, vec![item(Char, "c", "")]),
        ("block device", both, vec![item(Block, "b", "")]),
        ("pipe", both, vec![item(Fifo, "f", "")]),
        (
            "sparse",
            &[false],
            vec![item(EntryType::GNUSparse, "s", "")],
        ),
        (
            "the folder itself",
            both,
            vec![file("./", b"x"), file(".", b"x")],
        ),
    ] {
        let last = items.last().unwrap().name.clone();
        for bundle in kinds {
            match try_unpack(&items, *bundle).1 {
                Err(Error::Refused { name: refused, .. }) => assert!(
                    last.contains(&refused) || refused == "./",
                    "{name}: {refused}"
                ),
                // A sparse entry of a plain header is damaged to the reader already.
                Err(Error::Garbled(_)) if name == "sparse" => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn links_of_a_bundle_that_stay_are_made() {
    let items = [
        file("a/x", b"1"),
        item(EntryType::Symlink, "b", "a/x"),
        item(EntryType::Link, "c", "a/x"),
        item(EntryType::Link, "c", "c"),
        file("a/x", b"2"),
    ];
    let (dir, result) = try_unpack(&items, true);
    result.unwrap();
    let read = |name: &str| fs::read(dir.path().join("in").join(name)).unwrap();
    assert_eq!(read("b"), b"2");
    assert_eq!(
        read("c"),
        b"1",
        "a file is replaced, not written through its other name"
    );
    assert_eq!(names(&dir.path().join("in")), ["a", "a/x", "b", "c"]);
}

#[test]
fn a_bomb_is_stopped() {
    let many: Vec<Item> = (0..101).map(|n| file(&format!("f{n}"), b"")).collect();
    assert!(matches!(
        try_unpack(&many, true).1,
        Err(Error::TooMany(100))
    ));
    let big = [file("a", &[0; 6000]), file("b", &[0; 6000])];
    assert!(matches!(try_unpack(&big, false).1, Err(Error::TooBig { name, .. }) if name == "b"));
    let name = Item {
        content: vec![b'a'; 5 << 20],
        ..item(EntryType::GNULongName, "././@LongLink", "")
    };
    assert!(matches!(
        try_unpack(&[name, file("x", b"")], true).1,
        Err(Error::Garbled(_))
    ));
}

#[test]
fn a_stream_that_is_cut_leaves_no_half_file() {
    let whole = tar(&[file("a", &[0; 6000])]);
    for cut in [100, 512, 3000, 512 + 5999] {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let result = unpack(&whole[..cut], &folder, &rules(false));
        assert!(
            matches!(result, Err(Error::Garbled(_))),
            "{cut}: {result:?}"
        );
        assert_eq!(names(dir.path()), [""; 0], "{cut}");
    }
}

#[test]
fn a_size_that_lies_is_no_harm() {
    let mut header = tar::Header::new_gnu();
    header.set_path("a").unwrap();
    header.set_size(u64::MAX >> 1);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules {
        limits: Limits {
            bytes: u64::MAX,
            entries: 10,
        },
        ..rules(false)
    };
    let folder = Folder::open(dir.path()).unwrap();
    assert!(unpack(&header.as_bytes()[..], &folder, &rules).is_err());
    assert_eq!(names(dir.path()), [""; 0]);
}

/// Every path below `root`, sorted.
fn names(root: &Path) -> Vec<String> {
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

fn packed(paths: &[PathBuf]) -> (Vec<u8>, Vec<String>) {
    let (mut bytes, mut notes) = (Vec::new(), Vec::new());
    let sources = sources(paths).unwrap();
    pack(&sources, &mut bytes, &mut |note| notes.push(note)).unwrap();
    (bytes, notes)
}

fn open_rules() -> Rules {
    Rules {
        limits: Limits {
            bytes: 1 << 30,
            entries: 1000,
        },
        bundle: false,
        rename: None,
    }
}

/// A folder `app` with everything that is copied.
fn sample(at: &Path) -> PathBuf {
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
fn looks(root: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let look = |name: String| {
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
    names(root).into_iter().map(look).collect()
}

#[test]
fn a_folder_goes_there_byte_exact_with_modes_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let app = sample(dir.path());
    let (bytes, notes) = packed(std::slice::from_ref(&app));
    assert!(notes.is_empty(), "{notes:?}");
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let totals = unpack(&bytes[..], &Folder::open(&to).unwrap(), &open_rules()).unwrap();
    assert_eq!(totals.files, 4);
    assert_eq!(looks(&to.join("app")), looks(&app));
    assert_eq!(names(&to).iter().filter(|n| n.contains(PART)).count(), 0);
    assert_eq!(packed(&[app]).0, bytes, "the same files are the same bytes");
}

#[test]
fn what_is_there_is_kept_or_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let app = sample(dir.path());
    let to = dir.path().join("to");
    fs::create_dir_all(to.join("app/bin")).unwrap();
    fs::write(to.join("app/bin/mine"), "mine").unwrap();
    fs::write(to.join("app/none"), "old").unwrap();
    fs::hard_link(to.join("app/none"), to.join("other")).unwrap();
    let mode = fs::metadata(to.join("app/bin")).unwrap().mode();
    let (bytes, _) = packed(&[app]);
    unpack(&bytes[..], &Folder::open(&to).unwrap(), &open_rules()).unwrap();
    assert_eq!(fs::read(to.join("app/bin/mine")).unwrap(), b"mine");
    assert_eq!(fs::read(to.join("app/none")).unwrap(), b"");
    assert_eq!(
        fs::read(to.join("other")).unwrap(),
        b"old",
        "not through another name"
    );
    assert_eq!(
        fs::metadata(to.join("app/bin")).unwrap().mode(),
        mode,
        "a folder that is there keeps its mode"
    );
}

#[test]
fn links_that_are_there_are_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let app = sample(dir.path());
    let (to, aside) = (dir.path().join("to"), dir.path().join("aside"));
    fs::create_dir_all(to.join("app")).unwrap();
    fs::create_dir(&aside).unwrap();
    symlink(&aside, to.join("app/bin")).unwrap();
    let (bytes, _) = packed(&[app]);
    let result = unpack(&bytes[..], &Folder::open(&to).unwrap(), &open_rules());
    assert!(matches!(result, Err(Error::Refused { .. })), "{result:?}");
    assert_eq!(names(&aside), [""; 0]);
}

#[test]
fn one_thing_can_have_a_new_name_and_two_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let app = sample(dir.path());
    let other = dir.path().join("other");
    fs::write(&other, "x").unwrap();
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let rules = Rules {
        rename: Some("new".into()),
        ..open_rules()
    };
    let folder = Folder::open(&to).unwrap();
    unpack(&packed(std::slice::from_ref(&app)).0[..], &folder, &rules).unwrap();
    assert_eq!(looks(&to.join("new")), looks(&app));
    let two = packed(&[other.clone(), app.clone()]).0;
    let result = unpack(&two[..], &folder, &rules);
    assert!(
        matches!(result, Err(Error::Write { .. } | Error::Refused { .. })),
        "{result:?}"
    );
}

#[test]
fn a_path_that_ends_in_a_dot_is_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let (bytes, _) = packed(&[dir.path().join("app/.")]);
    unpack(&bytes[..], &Folder::open(&to).unwrap(), &open_rules()).unwrap();
    assert_eq!(names(&to), names(&dir.path().join("app")));
    for (path, name) in [
        ("a/b", Some("b")),
        ("a/b/", Some("b")),
        (".", None),
        ("..", None),
        ("/", None),
        ("a/..", None),
    ] {
        let found = sources(&[path.into()]).unwrap().remove(0).name;
        assert_eq!(found, name.map(Into::into), "{path}");
    }
    assert!(matches!(
        sources(&["a/x".into(), "b/x".into()]),
        Err(PackError::SameName(name)) if name == "x"
    ));
    assert!(matches!(sources(&["".into()]), Err(PackError::NoName(_))));
}

#[test]
fn a_link_that_is_named_is_followed_and_one_inside_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("real"), "text").unwrap();
    symlink("real", at("current")).unwrap();
    fs::create_dir(at("to")).unwrap();
    let folder = Folder::open(&at("to")).unwrap();
    unpack(&packed(&[at("current")]).0[..], &folder, &open_rules()).unwrap();
    let meta = at("to/current").symlink_metadata().unwrap();
    assert!(meta.is_file());
    assert_eq!(fs::read(at("to/current")).unwrap(), b"text");
}

#[test]
fn devices_are_left_out_with_a_word_or_refused_when_named() {
    let dir = tempfile::tempdir().unwrap();
    let app = sample(dir.path());
    let _socket = std::os::unix::net::UnixListener::bind(app.join("sock")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        app.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let (_, notes) = packed(std::slice::from_ref(&app));
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("fifo") && notes[1].contains("sock"));
    for (path, wanted) in [("fifo", "device"), ("nothing", "nothing: No such file")] {
        let sources = sources(&[app.join(path)]).unwrap();
        let error = pack(&sources, Vec::new(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

/// Takes the archive, and does something when it has taken so much.
struct Meddler<F: FnMut()> {
    after: usize,
    meddle: Option<F>,
}

impl<F: FnMut()> std::io::Write for Meddler<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.after = self.after.saturating_sub(bytes.len());
        if self.after == 0
            && let Some(mut meddle) = self.meddle.take()
        {
            meddle();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_named_and_one_that_grows_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy");
    let open = || fs::OpenOptions::new().write(true).open(&path).unwrap();
    let meddled = |meddle: &dyn Fn()| {
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let mut notes = Vec::new();
        let out = Meddler {
            after: 4096,
            meddle: Some(meddle),
        };
        let sources = sources(std::slice::from_ref(&path)).unwrap();
        let result = pack(&sources, out, &mut |note| notes.push(note));
        (result, notes)
    };
    let shorter = || open().set_len(5000).unwrap();
    let touched = || open().set_modified(std::time::UNIX_EPOCH).unwrap();
    for meddle in [&shorter as &dyn Fn(), &touched] {
        let error = meddled(meddle).0.unwrap_err();
        assert!(matches!(error, PackError::Changed(_)), "{error}");
        assert!(error.to_string().contains("busy"), "{error}");
    }
    let (result, notes) = meddled(&|| open().set_len(2 << 20).unwrap());
    assert_eq!(result.unwrap().bytes, 1 << 20);
    assert!(
        notes[0].contains("busy") && notes[0].contains("1048576"),
        "{notes:?}"
    );
}

#[test]
fn a_folder_beside_its_place_is_merged_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("new/both/closed")).unwrap();
    fs::write(at("new/both/x"), "new").unwrap();
    fs::write(at("new/both/closed/y"), "y").unwrap();
    fs::set_permissions(at("new/both/closed"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::create_dir_all(at("to/both")).unwrap();
    fs::write(at("to/both/x"), "old").unwrap();
    fs::write(at("to/both/kept"), "kept").unwrap();
    let (from, to) = (
        Folder::open(&at("new")).unwrap(),
        Folder::open(&at("to")).unwrap(),
    );
    merge(&from, &to).unwrap();
    assert_eq!(fs::read(at("to/both/x")).unwrap(), b"new");
    assert_eq!(
        names(&at("to")),
        [
            "both",
            "both/closed",
            "both/closed/y",
            "both/kept",
            "both/x"
        ]
    );
    assert_eq!(
        fs::metadata(at("to/both/closed")).unwrap().mode() & 0o777,
        0o555
    );
    assert_eq!(names(&at("new")), [""; 0]);
    // A link where a folder is to go, and a folder where a file is to go.
    fs::create_dir_all(at("new/l/in")).unwrap();
    symlink(dir.path(), at("to/l")).unwrap();
    assert!(merge(&from, &to).unwrap_err().to_string().contains("l: "));
    fs::remove_dir_all(at("new/l")).unwrap();
    fs::write(at("new/both"), "a file").unwrap();
    assert!(merge(&from, &to).is_err());
    assert!(at("to/both/kept").exists());
}

fn any_item() -> impl Strategy<Value = Item> {
    let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", "/", "a/b", "../.."]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::Continuous,
    ]);
    let content = prop::collection::vec(any::<u8>(), 0..50);
    (kind, path.clone(), path, content).prop_map(|(kind, name, target, content)| Item {
        kind,
        name,
        target,
        content: if kind == EntryType::Regular {
            content
        } else {
            Vec::new()
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is in an archive, wherever it is cut, and whatever name it is given: nothing appears beside the folder,
    /// and in a bundle nothing leads out of it.
    #[test]
    fn no_entry_ever_lands_outside(
        items in prop::collection::vec(any_item(), 1..12),
        bundle: bool,
        rename: bool,
        cut in 0usize..4000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("in");
        fs::create_dir(&folder).unwrap();
        // What a link that leaves could reach.
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("b"), "mine").unwrap();
        let before = looks(dir.path());
        let rules = Rules { rename: rename.then(|| "c".into()), ..rules(bundle) };
        let bytes = tar(&items);
        let end = if cut < 2000 { bytes.len() } else { bytes.len().min(cut - 2000) };
        let _ = unpack(&bytes[..end], &Folder::open(&folder).unwrap(), &rules);
        let mut after = looks(dir.path());
        after.retain(|name, _| !name.starts_with("in/"));
        prop_assert_eq!(
            after.iter().map(|(name, look)| (name, &look.2)).collect::<Vec<_>>(),
            before.iter().map(|(name, look)| (name, &look.2)).collect::<Vec<_>>()
        );
        let root = folder.canonicalize().unwrap();
        for name in names(&root) {
            prop_assert!(!name.contains(PART), "{} is left", name);
            if bundle && let Ok(real) = root.join(&name).canonicalize() {
                prop_assert!(real.starts_with(&root), "{} leads to {:?}", name, real);
            }
        }
    }

    /// A stream of noise is refused, and makes nothing.
    #[test]
    fn noise_is_no_archive(bytes in prop::collection::vec(any::<u8>(), 512..3000)) {
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(&bytes[..], &Folder::open(dir.path()).unwrap(), &rules(false));
        prop_assert!(result.is_err());
        prop_assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
