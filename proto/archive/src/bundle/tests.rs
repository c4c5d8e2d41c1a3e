//! Bundles as GNU tar would unpack them, and as `inspect` has announced them.

use std::fs;

use proptest::prelude::*;
use tar::EntryType;

use crate::samples::*;
use crate::*;

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

/// Mostly such as bundles have, so that many are taken.
fn bundle_item() -> impl Strategy<Value = SampleItem> {
    let part = prop::sample::select(vec!["a", "b", "c", "bootstrap.sh"]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let up = prop::sample::select(vec!["", "", "", "../", "../../", "./"]);
    let target = (up, path.clone()).prop_map(|(up, path)| format!("{up}{path}"));
    let kind = prop::sample::select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Symlink,
        EntryType::Link,
    ]);
    let slash = prop::sample::select(vec!["", "", "", "/"]);
    (kind, path, target, slash).prop_map(|(kind, name, target, slash)| SampleItem {
        kind,
        name: format!("{name}{slash}"),
        target: if kind == EntryType::Link {
            target.replace("../", "")
        } else {
            target
        },
        content: if kind == EntryType::Regular && slash.is_empty() {
            vec![7; 9]
        } else {
            Vec::new()
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Inspecting a bundle and unpacking it agree: both take it or both refuse it, for the same reason, and what
    /// is on disk is what the model has.
    #[test]
    fn a_bundle_is_unpacked_as_it_was_inspected(
        items in prop::collection::vec(bundle_item(), 1..14),
        cut in 0usize..20_000,
    ) {
        let bytes = tar(&items);
        let bytes = &bytes[..bytes.len().min(cut.max(2000))];
        let dir = tempfile::tempdir().unwrap();
        let unpacked = unpack_bundle(bytes, &Folder::open(dir.path()).unwrap(), LIMITS);
        match (inspect(bytes, LIMITS, None), unpacked) {
            (Ok((inspected, _)), Ok((tree, _))) => {
                prop_assert_eq!(on_disk(dir.path()), tree.listing());
                prop_assert_eq!(inspected.listing(), tree.listing());
                if let Some(script) = inspected.script_file() {
                    prop_assert!(dir.path().join(script).symlink_metadata().unwrap().is_file());
                }
            }
            (Err(inspected), Err(unpacked)) => prop_assert_eq!(inspected.to_string(), unpacked.to_string()),
            (inspected, unpacked) => prop_assert!(false, "{:?} but {:?}", inspected.is_ok(), unpacked.map(drop)),
        }
    }
}

#[test]
fn what_gnu_tar_unpacks_is_unpacked() {
    use EntryType::{Directory, Link, Regular, Symlink};
    type Wanted = &'static [(&'static str, &'static str)];
    let cases: [(&str, Vec<SampleItem>, Wanted); 7] = [
        (
            "through a link to a folder",
            vec![
                item(Directory, "rel1", ""),
                item(Symlink, "current", "rel1"),
                file("current/app", b"x"),
            ],
            &[("rel1", "d"), ("current", "lrel1"), ("rel1/app", "f")],
        ),
        (
            "a folder over a link",
            vec![
                item(Symlink, "lib", "usr"),
                item(Directory, "lib", ""),
                file("lib/x", b"x"),
            ],
            &[("lib", "d"), ("lib/x", "f")],
        ),
        (
            "a folder over a file",
            vec![file("x", b"f"), item(Directory, "x/", "")],
            &[("x", "d")],
        ),
        (
            "a hard link to a link",
            vec![
                file("c", b"x"),
                item(Symlink, "l", "c"),
                item(Link, "h", "l"),
            ],
            &[("c", "f"), ("l", "lc"), ("h", "lc")],
        ),
        (
            "a folder as V7 tar wrote it",
            vec![item(Regular, "lib/", ""), file("lib/f", b"x")],
            &[("lib", "d"), ("lib/f", "f")],
        ),
        (
            "a link out of a folder that is reached through a link",
            vec![
                file("a/b/x", b"x"),
                item(Symlink, "s", "a/b"),
                item(Symlink, "s/l", "../../y"),
                file("y", b"y"),
            ],
            &[
                ("a", "d"),
                ("a/b", "d"),
                ("a/b/l", "l../../y"),
                ("a/b/x", "f"),
                ("s", "la/b"),
                ("y", "f"),
            ],
        ),
        (
            "a file over a link",
            vec![file("f", b"1"), item(Symlink, "l", "f"), file("l", b"2")],
            &[("f", "f"), ("l", "f")],
        ),
    ];
    for (name, items, wanted) in cases {
        let (dir, result) = try_unpack(&items, true);
        assert!(result.is_ok(), "{name}: {result:?}");
        let wanted = wanted
            .iter()
            .map(|(path, what)| (path.into(), (*what).into()));
        assert_eq!(on_disk(&dir.path().join("in")), wanted.collect(), "{name}");
    }
}
