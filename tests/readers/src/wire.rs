//! What both sides read: archives, frames, cluster facts.

use std::fs;
use std::path::{Path, PathBuf};

use aot_archive::{Folder, Limits, Rules, Tops};
use aot_proto::{facts, frame, v1};
use prost::Message;
use prost::bytes::Bytes;

/// What archives may hold here: little, so that a run is fast.
const LIMITS: Limits = Limits {
    bytes: 100_000,
    entries: 50,
};

/// A function of bytes.
pub type Entry = fn(&[u8]);

/// Every target here, by its name.
pub const TARGETS: [(&str, Entry); 4] = [
    ("frames", frames),
    ("bundle", bundle),
    ("copy", copy),
    ("facts", cluster_facts),
];

/// The frames of a spool. All readers are of one mind.
pub fn frames(data: &[u8]) {
    let all = frame::decode_all(data);
    let _ = frame::complete_frames(data, data.len());
    let mut bytes = Bytes::copy_from_slice(data);
    match (frame::split_off_all(&mut bytes), all) {
        (Ok(split), Ok((all, taken))) => {
            assert_eq!(split, all);
            assert_eq!(bytes.len(), data.len() - taken);
            let mut again = Vec::new();
            all.iter()
                .for_each(|frame| frame::encode(frame, &mut again));
            assert_eq!(frame::decode_all(&again).map(|(again, _)| again), Ok(all));
        }
        (Err(_), Err(_)) => {}
        (split, all) => panic!("{split:?} but {all:?}"),
    }
}

/// A bundle that anybody made, in any compression: looking at it and unpacking it are of one mind, and nothing of it
/// leads out of its folder.
pub fn bundle(data: &[u8]) {
    let looked = aot_archive::decompress(data)
        .map_err(|error| error.to_string())
        .and_then(|stream| {
            aot_archive::inspect(stream, LIMITS, None).map_err(|error| error.to_string())
        });
    let (outer, inner) = folders();
    let folder = Folder::open(&inner).expect("a folder");
    let unpacked = aot_archive::decompress(data)
        .map_err(|error| error.to_string())
        .and_then(|stream| {
            aot_archive::unpack_bundle(stream, &folder, LIMITS).map_err(|error| error.to_string())
        });
    match (looked, unpacked) {
        (Ok((looked, _)), Ok((tree, _))) => {
            assert_eq!(looked.script_folder(), tree.script_folder());
            if let Some(script) = looked.script_file() {
                let meta = inner.join(script).symlink_metadata().expect("the script");
                assert!(meta.is_file());
            }
        }
        (Err(looked), Err(unpacked)) => assert_eq!(looked, unpacked),
        (looked, unpacked) => panic!("{:?} but {:?}", looked.map(drop), unpacked.map(drop)),
    }
    let root = inner.canonicalize().expect("the folder");
    for path in below(&inner) {
        if let Ok(real) = path.canonicalize() {
            assert!(real.starts_with(&root), "{path:?} leads to {real:?}");
        }
    }
    only_inner(outer.path());
}

/// What an instance sends for `cp web1:/tmp/report .`: only that name is made, and not as a link.
pub fn copy(data: &[u8]) {
    let (outer, inner) = folders();
    let rules = Rules {
        limits: LIMITS,
        tops: Tops::from_names(["report"]),
        rename: None,
    };
    let folder = Folder::open(&inner).expect("a folder");
    let _ = aot_archive::unpack(data, &folder, &rules);
    for entry in fs::read_dir(&inner).expect("the folder").flatten() {
        assert_eq!(entry.file_name(), "report");
        assert!(!entry.file_type().expect("a kind").is_symlink());
    }
    only_inner(outer.path());
}

/// Cluster facts as an agent gets them, in one piece; and as it finds them in its state folder.
pub fn cluster_facts(data: &[u8]) {
    let mut joiner = facts::Joiner::default();
    if let Ok(piece) = v1::ClusterFactsPiece::decode(data) {
        let _ = joiner.step(&piece);
    }
    let piece = v1::ClusterFactsPiece {
        generation: 1,
        offset: 0,
        total_bytes: data.len() as u64,
        data: Bytes::copy_from_slice(data),
    };
    let _ = joiner.step(&piece);
    if let Ok(change) = v1::ClusterFacts::decode(data) {
        let _ = facts::Content::default().changed(change);
    }
}

/// A folder, and one in it that things are unpacked to.
fn folders() -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().expect("a folder");
    let inner = outer.path().join("in");
    fs::create_dir(&inner).expect("a folder");
    (outer, inner)
}

/// Nothing was made beside the inner folder.
fn only_inner(outer: &Path) {
    let names: Vec<_> = fs::read_dir(outer)
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["in"]);
}

fn below(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            found.push(entry.path());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    found
}
