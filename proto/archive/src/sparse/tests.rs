//! Files with holes, there and back.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::samples::*;
use crate::*;

#[test]
fn holes_stay_holes() {
    use std::io::{Seek, SeekFrom, Write};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("from")).unwrap();
    fs::create_dir_all(at("to")).unwrap();
    let sparse = |name: &str, pieces: &[u64], size: u64| {
        let mut file = fs::File::create(at("from").join(name)).unwrap();
        for piece in pieces {
            file.seek(SeekFrom::Start(*piece)).unwrap();
            file.write_all(b"data").unwrap();
        }
        file.set_len(size).unwrap();
    };
    let many: Vec<u64> = (0..100).map(|n| n * (256 << 10)).collect();
    sparse("all", &[], 64 << 20);
    sparse("tail", &[0, (8 << 20) - 4], 8 << 20);
    sparse("many", &many, 64 << 20);
    sparse("odd", &[5, 1 << 20], (1 << 20) + 7);
    fs::write(at("from/plain"), vec![0; 100_000]).unwrap();
    let (bytes, _) = packed(&[at("from/.")]);
    unpack(&bytes[..], &Folder::open(&at("to")).unwrap(), &open_rules()).unwrap();
    let blocks = |path: &str| fs::metadata(at(path)).unwrap().blocks();
    for name in ["all", "tail", "many", "odd", "plain"] {
        let (from, to) = (format!("from/{name}"), format!("to/{name}"));
        assert!(
            fs::read(at(&from)).unwrap() == fs::read(at(&to)).unwrap(),
            "{name}"
        );
        // A file system without holes has nothing to keep.
        if blocks("from/all") == 0 {
            let most = blocks(&from) + 64;
            assert!(blocks(&to) <= most, "{name}: {} of {most}", blocks(&to));
            assert!(
                bytes.len() < 4 << 20,
                "the archive has the holes: {}",
                bytes.len()
            );
        }
    }
    if blocks("from/plain") > 0 {
        assert!(
            blocks("to/plain") > 0,
            "zeros that were written are written"
        );
    }
}

#[test]
fn sparse_files_of_posix_archives_are_read() {
    let tool = |args: &[&str]| {
        std::process::Command::new("tar")
            .args(args)
            .output()
            .is_ok_and(|done| done.status.success())
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(at("b")).unwrap();
    let mut big = b"head".to_vec();
    big.resize(1 << 20, 0);
    big.extend_from_slice(b"tail");
    let file = fs::File::create(at("b/big")).unwrap();
    file.set_len(big.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"head", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"tail", 1 << 20).unwrap();
    let limits = Limits {
        bytes: 10 << 20,
        entries: 9,
    };
    for (version, taken) in [("1.0", true), ("0.1", false), ("0.0", false)] {
        let sparse = format!("--sparse-version={version}");
        let args = [
            "--format=posix",
            "-S",
            &sparse,
            "-cf",
            &at("b.tar"),
            "-C",
            &at("b"),
            ".",
        ];
        if !tool(&args) {
            eprintln!("left out: there is no GNU tar here");
            return;
        }
        let bytes = fs::read(at("b.tar")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let unpacked = unpack_bundle(&bytes[..], &Folder::open(folder.path()).unwrap(), limits);
        let inspected = inspect(&bytes[..], limits, None);
        if taken {
            unpacked.unwrap();
            inspected.unwrap();
            assert!(fs::read(folder.path().join("big")).unwrap() == big);
        } else {
            let (one, two) = (
                unpacked.unwrap_err().to_string(),
                inspected.unwrap_err().to_string(),
            );
            assert_eq!(one, two);
            assert!(one.contains("big") && one.contains("sparse"), "{one}");
        }
    }
}
