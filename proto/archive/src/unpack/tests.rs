//! A copy's archive lands in its folder and nowhere else, whatever is in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;
use tar::EntryType;

use crate::samples::*;
use crate::*;

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
            &[false],
            vec![
                item(EntryType::Directory, "d", ""),
                item(Symlink, "l", "d"),
                file("l/x", b"x"),
            ],
        ),
        (
            "through a link to nothing",
            both,
            vec![item(Symlink, "l", "d"), file("l/x", b"x")],
        ),
        (
            "through a loop of links",
            both,
            vec![
                item(Symlink, "l", "m"),
                item(Symlink, "m", "l"),
                file("l/x", b"x"),
            ],
        ),
        (
            "through a file",
            both,
            vec![file("x", b"f"), file("x/y", b"g")],
        ),
        (
            "a file over a folder",
            &[true],
            vec![file("d/x", b"f"), file("d", b"g")],
        ),
        (
            "a link over a folder",
            &[true],
            vec![file("d/x", b"f"), item(Symlink, "d", "x")],
        ),
        (
            "hard link to a link that would leave from there",
            &[true],
            vec![
                file("x", b"x"),
                item(Symlink, "a/l", "../x"),
                item(Link, "h", "a/l"),
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
                item(EntryType::Directory, "d", ""),
                file("d/x", b"x"),
                item(Symlink, "d/l", "../.."),
                file("d/l/y", b"y"),
            ],
        ),
        (
            "a folder over a link",
            &[false],
            vec![
                item(Symlink, "l", "d"),
                item(EntryType::Directory, "l/", ""),
            ],
        ),
        ("hard link out", both, vec![item(Link, "h", "../x")]),
        (
            "hard link to a link",
            &[false],
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
        ("no folder before it", &[false], vec![file("d/x", b"x")]),
        (
            "back in a folder that was left",
            &[false],
            vec![
                item(EntryType::Directory, "d", ""),
                file("e", b"x"),
                file("d/x", b"x"),
            ],
        ),
        ("a part", &[false], vec![file(".aot-part-1", b"x")]),
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
                other => panic!("{name}: {other:?}"),
            }
        }
    }
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
    assert_eq!(contents(&to.join("new")), contents(&app));
    let two = packed(&[other.clone(), app.clone()]).0;
    let result = unpack(&two[..], &folder, &rules);
    assert!(
        matches!(result, Err(Error::Write { .. } | Error::Refused { .. })),
        "{result:?}"
    );
}

#[test]
fn only_what_was_asked_for_is_unpacked() {
    use EntryType::{Directory, Link, Symlink};
    let asked = |tops: &[&str], rename: Option<&str>, items: &[SampleItem]| {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules {
            tops: Tops::from_names(tops.iter().copied()),
            rename: rename.map(Into::into),
            ..rules()
        };
        let result = unpack(&tar(items)[..], &Folder::open(dir.path()).unwrap(), &rules);
        (names(dir.path()), result.map(|totals| totals.files))
    };
    let good = [
        item(Directory, "report", ""),
        file("report/x", b"x"),
        file("b", b"y"),
    ];
    let (made, result) = asked(&["report", "b"], None, &good);
    assert_eq!((made.len(), result.unwrap()), (3, 2));
    assert!(asked(&["report"], Some("new"), &good[..2]).1.is_ok());
    let report = file("report", b"x");
    for (why, entry) in [
        ("another name", file(".bashrc", b"x")),
        ("in another folder", file(".ssh/authorized_keys", b"x")),
        ("another folder", item(Directory, ".ssh", "")),
        ("other letters", file("Report", b"x")),
        ("a blank more", file("report ", b"x")),
        ("other Unicode", file("re\u{301}port", b"x")),
        ("behind a dot", file("./.bashrc", b"x")),
        ("behind its own name", file("report/../.bashrc", b"x")),
        ("an absolute name", file("/report", b"x")),
        ("a link", item(Symlink, "report", "/etc/passwd")),
        (
            "a link with a slash",
            item(Symlink, "./report/", "/etc/passwd"),
        ),
        ("a hard link", item(Link, "report", ".bashrc")),
        ("a hard link to another", item(Link, ".bashrc", "report")),
        ("a pipe", item(EntryType::Fifo, "report", "")),
        ("the folder itself", item(Directory, "./", "")),
    ] {
        for items in [vec![entry.clone()], vec![report.clone(), entry.clone()]] {
            for rename in [None, Some("new")] {
                let (made, result) = asked(&["report"], rename, &items);
                assert!(
                    matches!(result, Err(Error::Refused { .. })),
                    "{why}: {result:?}"
                );
                let mine = rename.unwrap_or("report");
                assert!(made.iter().all(|name| name == mine), "{why}: {made:?}");
            }
        }
    }
}

fn any_item() -> impl Strategy<Value = SampleItem> {
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
    (kind, path.clone(), path, content).prop_map(|(kind, name, target, content)| SampleItem {
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
        let before = contents(dir.path());
        let rules = Rules { rename: rename.then(|| "c".into()), ..rules() };
        let bytes = tar(&items);
        let end = if cut < 2000 { bytes.len() } else { bytes.len().min(cut - 2000) };
        let into = Folder::open(&folder).unwrap();
        let _ = match bundle {
            true => unpack_bundle(&bytes[..end], &into, LIMITS).map(drop),
            false => unpack(&bytes[..end], &into, &rules).map(drop),
        };
        let mut after = contents(dir.path());
        after.retain(|name, _| !name.starts_with("in/"));
        prop_assert_eq!(
            after.iter().map(|(name, content)| (name, &content.2)).collect::<Vec<_>>(),
            before.iter().map(|(name, content)| (name, &content.2)).collect::<Vec<_>>()
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
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 512..3000)) {
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(&bytes[..], &Folder::open(dir.path()).unwrap(), &rules());
        prop_assert!(result.is_err());
        prop_assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
