//! Bounds: archives that are too much, too deep, or cut.

use tar::EntryType;

use crate::samples::*;
use crate::*;

#[test]
fn a_bomb_is_stopped() {
    let many: Vec<SampleItem> = (0..101).map(|n| file(&format!("f{n}"), b"")).collect();
    assert!(matches!(
        try_unpack(&many, true).1,
        Err(Error::TooMany(100))
    ));
    let big = [file("a", &[0; 6000]), file("b", &[0; 6000])];
    assert!(matches!(try_unpack(&big, false).1, Err(Error::TooBig { name, .. }) if name == "b"));
    let name = SampleItem {
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
        let result = unpack(&whole[..cut], &folder, &rules());
        assert!(
            matches!(result, Err(Error::Garbled(_))),
            "{cut}: {result:?}"
        );
        assert_eq!(names(dir.path()), [""; 0], "{cut}");
    }
}

#[test]
fn a_size_that_lies_does_no_harm() {
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
        ..rules()
    };
    let folder = Folder::open(dir.path()).unwrap();
    assert!(unpack(&header.as_bytes()[..], &folder, &rules).is_err());
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn depth_and_names_are_bounded_in_time_and_memory() {
    // One name of 30,000 folders, as a long name of GNU tar and as a pax record.
    let deep = "a/".repeat(30_000);
    let long = SampleItem {
        content: deep.clone().into_bytes(),
        ..item(EntryType::GNULongName, "././@LongLink", "")
    };
    let begun = std::time::Instant::now();
    for bundle in [true, false] {
        let (dir, result) = try_unpack(&[long.clone(), file("x", b"")], bundle);
        let Err(Error::Refused { name, why }) = result else {
            panic!("{result:?}");
        };
        assert!(name.len() < 300 && why.contains("200"), "{name} {why}");
        assert_eq!(
            names(&dir.path().join("in")),
            [""; 0],
            "nothing is made of it"
        );
        // As deep as the packer goes, and no deeper, also through links.
        let at = |depth: usize| {
            let name = |n: usize| "d/".repeat(n);
            let of = |n: usize| SampleItem {
                content: name(n).into_bytes(),
                ..item(EntryType::GNULongName, "././@LongLink", "")
            };
            let mut items = Vec::new();
            for n in 1..=depth {
                items.extend([of(n), item(EntryType::Directory, "d", "")]);
            }
            let limits = Limits {
                entries: 1000,
                ..LIMITS
            };
            let dir = tempfile::tempdir().unwrap();
            let folder = Folder::open(dir.path()).unwrap();
            let bytes = tar(&items);
            match bundle {
                true => unpack_bundle(&bytes[..], &folder, limits).map(drop),
                false => unpack(&bytes[..], &folder, &Rules { limits, ..rules() }).map(drop),
            }
        };
        at(200).unwrap();
        assert!(matches!(at(202), Err(Error::Refused { .. })));
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    // Folders that no entry describes count as well.
    let many: Vec<SampleItem> = (0..60).map(|n| file(&format!("d{n}/f"), b"")).collect();
    assert!(matches!(
        try_unpack(&many, true).1,
        Err(Error::TooMany(100))
    ));
}
