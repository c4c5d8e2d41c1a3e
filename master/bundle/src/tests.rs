//! Real files in a folder of their own.

use std::fs::{self, File, FileTimes};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

struct Rig {
    _folder: TempDir,
    root: PathBuf,
    store: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, store) = (folder.path().join("bundle"), folder.path().join("store"));
        fs::create_dir(&root).expect("a folder");
        Self {
            _folder: folder,
            root,
            store,
        }
    }

    fn with_script() -> Self {
        let rig = Self::new();
        rig.write("bootstrap.sh", "echo hello\n");
        rig
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn pack(&self) -> Result<Packed, BundleError> {
        pack(&BundleSource::Dir(self.root.clone()), &self.store)
    }

    fn tar(&self, bytes: &[u8]) -> BundleSource {
        let path = self.root.join("bundle.tar");
        fs::write(&path, bytes).expect("a file");
        BundleSource::Tar(path)
    }

    fn stored(&self) -> usize {
        fs::read_dir(&self.store).map_or(0, Iterator::count)
    }
}

#[test]
fn what_is_packed_says_whether_machines_render_some_of_it() {
    let rig = Rig::with_script();
    assert!(!rig.pack().expect("is packed").has_templates);
    rig.write("etc/x.conf.j2", "{{ instance }}");
    let folder = rig.pack().expect("is packed");
    let bytes = fs::read(&folder.path).expect("reads");
    let tar = pack(&rig.tar(&bytes), &rig.store).expect("is packed");
    assert!(folder.has_templates && tar.has_templates);
}

/// A tar with these entries: name, kind, where a link goes to.
fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, kind, to) in entries {
        let mut header = Header::new_gnu();
        // Written raw: the builder itself refuses what is tested here.
        header.as_gnu_mut().expect("a gnu header").name[..name.len()]
            .copy_from_slice(name.as_bytes());
        header.as_gnu_mut().expect("a gnu header").linkname[..to.len()]
            .copy_from_slice(to.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, std::io::empty()).expect("memory");
    }
    tar.into_inner().expect("memory")
}

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("memory");
    out.finish().expect("memory")
}

#[test]
fn a_folder_is_packed_under_its_hash() {
    let rig = Rig::with_script();
    rig.write("lib/a.sh", "a");
    symlink("lib/a.sh", rig.root.join("link")).expect("a link");
    let packed = rig.pack().expect("a good bundle");
    assert_eq!(packed.path, rig.store.join(&packed.sha256));
    let bytes = fs::read(&packed.path).expect("the packed file");
    assert_eq!(bytes.len() as u64, packed.bytes);
    let digest = aws_lc_rs::digest::digest(&SHA256, &bytes);
    assert_eq!(hex(digest.as_ref()), packed.sha256);
    assert_eq!(rig.stored(), 1, "nothing else is left there");
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<String> = archive
        .entries()
        .expect("a tar")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(names, ["bootstrap.sh", "lib", "lib/a.sh", "link"]);
    assert!(
        check(&BundleSource::Tar(packed.path)).is_ok(),
        "what is packed is good as a tar, too"
    );
}

#[test]
fn modes_say_only_whether_it_can_be_run() {
    let rig = Rig::with_script();
    rig.write("run", "x");
    fs::set_permissions(rig.root.join("run"), fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::set_permissions(
        rig.root.join("bootstrap.sh"),
        fs::Permissions::from_mode(0o600),
    )
    .expect("a mode");
    let bytes = fs::read(rig.pack().expect("a good bundle").path).expect("the packed file");
    let mut archive = tar::Archive::new(&bytes[..]);
    for entry in archive.entries().expect("a tar") {
        let header = entry.expect("an entry").header().clone();
        let mode = if header.path().expect("a path") == Path::new("run") {
            0o755
        } else {
            0o644
        };
        assert_eq!(header.mode().expect("a mode"), mode);
        assert_eq!(
            (header.mtime().ok(), header.uid().ok(), header.gid().ok()),
            (Some(0), Some(0), Some(0))
        );
    }
}

#[test]
fn a_changed_byte_or_name_gives_another_hash() {
    let rig = Rig::with_script();
    let first = rig.pack().expect("a good bundle").sha256;
    rig.write("bootstrap.sh", "echo hallo\n");
    let second = rig.pack().expect("a good bundle").sha256;
    rig.write("empty", "");
    let third = rig.pack().expect("a good bundle").sha256;
    assert!(first != second && second != third && first != third);
}

#[test]
fn folders_that_are_no_bundles_are_refused_by_name() {
    let refused = |rig: &Rig| {
        let error = rig.pack().expect_err("a bad bundle");
        assert!(!error.hint().is_empty());
        assert_eq!(rig.stored(), 0, "nothing is left behind");
        assert_eq!(
            check(&BundleSource::Dir(rig.root.clone()))
                .expect_err("a bad bundle")
                .to_string(),
            error.to_string()
        );
        error
            .to_string()
            .replace(&rig.root.display().to_string(), "ROOT")
    };
    assert_eq!(refused(&Rig::new()), "ROOT has no bootstrap.sh");
    let deep = Rig::new();
    deep.write("a/bootstrap.sh", "");
    assert!(deep.pack().is_ok(), "in the only folder at the top");
    deep.write("b", "");
    aot_host::removal::remove_tree(&deep.store).expect("the store");
    assert_eq!(refused(&deep), "ROOT has no bootstrap.sh");
    for (to, why) in [
        ("/etc/passwd", "is a link to an absolute path"),
        ("../secret", "is a link that leaves the bundle"),
        ("x/../../secret", "is a link with .. after a name"),
    ] {
        let rig = Rig::with_script();
        symlink(to, rig.root.join("leak")).expect("a link");
        assert_eq!(refused(&rig), format!("ROOT: the entry \"leak\" {why}"));
    }
    let rig = Rig::with_script();
    let _socket =
        std::os::unix::net::UnixListener::bind(rig.root.join("socket")).expect("a socket");
    assert_eq!(
        refused(&rig),
        "ROOT: the entry \"socket\" is not a file, a folder or a link"
    );
}

#[test]
fn a_file_is_no_folder_and_a_folder_no_file() {
    let rig = Rig::with_script();
    let script = rig.root.join("bootstrap.sh");
    assert!(matches!(
        check(&BundleSource::Dir(script)),
        Err(BundleError::Kind {
            wanted: "folder",
            ..
        })
    ));
    assert!(matches!(
        check(&BundleSource::Tar(rig.root.clone())),
        Err(BundleError::Kind { wanted: "file", .. })
    ));
    let gone = BundleSource::Tar(rig.root.join("gone"));
    assert!(matches!(
        pack(&gone, &rig.store),
        Err(BundleError::Io { doing: "read", .. })
    ));
    assert_eq!(rig.stored(), 0);
}

#[test]
fn tars_are_kept_as_they_are_in_all_three_formats() {
    let plain = tar_of(&[
        ("./", DIR, ""),
        ("./bootstrap.sh", FILE, ""),
        ("./a", EntryType::Symlink, "bootstrap.sh"),
    ]);
    let zstd = zstd::encode_all(&plain[..], 3).expect("memory");
    for bytes in [plain.clone(), gzip(&plain), zstd] {
        let rig = Rig::new();
        let source = rig.tar(&bytes);
        let packed = pack(&source, &rig.store).expect("a good tar");
        assert_eq!(fs::read(&packed.path).expect("the packed file"), bytes);
        let again = pack(&source, &rig.store).expect("the same again");
        assert_eq!((again, rig.stored()), (packed, 1));
    }
}

#[test]
fn tars_that_are_no_bundles_are_refused_by_entry() {
    let cases = [
        (vec![("a/b/bootstrap.sh", FILE, "")], "has no bootstrap.sh"),
        (
            vec![("a/bootstrap.sh", FILE, ""), ("b", FILE, "")],
            "has no bootstrap.sh",
        ),
        (
            vec![("bootstrap.sh", DIR, "")],
            "\"bootstrap.sh\" is not a file and does not lead to one",
        ),
        (
            vec![("bootstrap.sh", EntryType::Symlink, "missing.sh")],
            "\"bootstrap.sh\" is not a file and does not lead to one",
        ),
        (vec![("../x", FILE, "")], "\"../x\" has .. in its path"),
        (vec![("a/../../x", FILE, "")], "has .. in its path"),
        (
            vec![("/etc/cron.d/x", FILE, "")],
            "\"/etc/cron.d/x\" has an absolute path",
        ),
        (
            vec![("x", EntryType::Symlink, "/etc")],
            "\"x\" is a link to an absolute path",
        ),
        (
            vec![("a/x", EntryType::Symlink, "../../y")],
            "\"a/x\" is a link that leaves the bundle",
        ),
        (
            vec![("x", EntryType::Link, "/etc/shadow")],
            "\"x\" is a hard link that leaves the archive",
        ),
        (
            vec![("x", EntryType::Block, "")],
            "\"x\" is a device or a pipe",
        ),
        (
            vec![("x", EntryType::Fifo, "")],
            "\"x\" is a device or a pipe",
        ),
    ];
    for (entries, wanted) in cases {
        let rig = Rig::new();
        let error = pack(&rig.tar(&tar_of(&entries)), &rig.store)
            .expect_err(wanted)
            .to_string();
        assert!(error.contains(wanted), "{error} should say {wanted}");
        assert!(error.contains("bundle.tar"), "{error} should name the file");
        assert_eq!(rig.stored(), 0);
    }
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let plain = tar_of(&[("bootstrap.sh", FILE, "")]);
    let mut cut = gzip(&plain);
    cut.truncate(cut.len() - 4);
    let mut flipped = gzip(&plain);
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    let cases: [(&[u8], &str); 6] = [
        (&cut, "is damaged"),
        (&flipped, "is damaged"),
        (
            b"this is no tar at all, but it is longer than nothing",
            "is damaged",
        ),
        (b"\xfd7zXZ\0 and so on", "is packed with xz"),
        (b"PK\x03\x04 and so on", "is packed with zip"),
        (b"", "has no bootstrap.sh"),
    ];
    for (bytes, wanted) in cases {
        let rig = Rig::new();
        let error = check(&rig.tar(bytes)).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error} should say {wanted}");
    }
}

#[test]
fn what_unpacks_too_large_is_refused_without_reading_it() {
    let mut header = Header::new_gnu();
    header.set_path("bootstrap.sh").expect("a path");
    header.set_size(MAX_UNPACKED_BYTES + 1);
    header.set_entry_type(FILE);
    header.set_mode(0o644);
    header.set_cksum();
    let rig = Rig::new();
    let error = check(&rig.tar(header.as_bytes())).expect_err("too large");
    assert!(matches!(error, BundleError::TooLarge { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_same_tree_gives_the_same_bytes(
        files in prop::collection::btree_map("[a-c]{1,3}(/[x-z]{1,2}\\.t)?", "[a-z]{0,40}", 0..8),
        seconds in 1u64..1_000_000_000,
    ) {
        let (one, two) = (Rig::with_script(), Rig::with_script());
        let write = |rig: &Rig, name: &str, text: &str| {
            // `a` may be a file in one entry and a folder in another.
            let name = if name.contains('/') { format!("d-{name}") } else { name.to_owned() };
            rig.write(&name, text);
            rig.root.join(name)
        };
        files.iter().for_each(|(name, text)| drop(write(&one, name, text)));
        for (name, text) in files.iter().rev() {
            let path = write(&two, name, text);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let file = File::options().write(true).open(path).expect("the file");
            file.set_times(FileTimes::new().set_modified(time)).expect("a time");
        }
        let (one, two) = (one.pack().expect("a good bundle"), two.pack().expect("a good bundle"));
        prop_assert_eq!(one.sha256, two.sha256);
    }

    #[test]
    fn no_bytes_make_the_check_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), kind in 0..4) {
        let start: &[u8] = [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"", b"ustar"][kind as usize];
        bytes.splice(0..0, start.iter().copied());
        let rig = Rig::new();
        let mut read = Vec::new();
        let source = rig.tar(&bytes);
        File::open(source.path()).expect("the file").read_to_end(&mut read).expect("the bytes");
        prop_assert_eq!(&read, &bytes);
        prop_assert!(check(&source).is_err());
    }
}

/// The names in a packed bundle.
fn packed_names(rig: &Rig) -> Vec<String> {
    let packed = rig.pack().expect("packs");
    let file = File::open(packed.path).expect("opens");
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().expect("reads");
    let names = entries.map(|entry| {
        let entry = entry.expect("reads");
        let name = entry.path().expect("a name");
        name.to_string_lossy().into_owned()
    });
    names.collect()
}

#[test]
fn noise_is_left_out_and_changes_nothing() {
    let rig = Rig::with_script();
    rig.write("lib/a.py", "a");
    let before = rig.pack().expect("packs").sha256;
    for name in [
        ".git/HEAD",
        "lib/.git",
        ".DS_Store",
        "lib/.DS_Store",
        "bootstrap.sh~",
        "lib/.a.py.swp",
        "lib/__pycache__/a.pyc",
        ".aotignore",
        "lib/.aotignore",
    ] {
        rig.write(name, "# noise\n");
    }
    assert_eq!(rig.pack().expect("packs").sha256, before);
    assert_eq!(packed_names(&rig), ["bootstrap.sh", "lib", "lib/a.py"]);
}

#[test]
fn patterns_are_those_of_git_and_a_deeper_file_goes_first() {
    let rig = Rig::with_script();
    rig.write(
        ".aotignore",
        "# comments\n\n*.log\n/build/\ndocs/**/*.md\n!.DS_Store\n!keep.log\n",
    );
    rig.write("sub/.aotignore", "!*.log\n/only-here\n");
    for name in [
        "a.log",
        "keep.log",
        "build/x",
        "deep/build/x",
        "docs/a/b/c.md",
        ".DS_Store",
        "sub/b.log",
        "sub/only-here",
        "only-here",
        "sub/deep/only-here",
    ] {
        rig.write(name, "x");
    }
    assert_eq!(
        packed_names(&rig),
        [
            ".DS_Store",
            "bootstrap.sh",
            "deep",
            "deep/build",
            "deep/build/x",
            "docs",
            "docs/a",
            "docs/a/b",
            "keep.log",
            "only-here",
            "sub",
            "sub/b.log",
            "sub/deep",
            "sub/deep/only-here",
        ]
    );
}

#[test]
fn a_bad_pattern_names_its_file_and_line() {
    let rig = Rig::with_script();
    rig.write("sub/.aotignore", "*.log\n\na[z-a]\n");
    let error = rig.pack().expect_err("is refused");
    let text = error.to_string();
    let begins = format!("{}, line 3: ", rig.root.join("sub/.aotignore").display());
    assert!(
        text.starts_with(&begins) && text.contains("a[z-a]"),
        "{text}"
    );
    assert!(error.hint().contains(".gitignore"));
    assert!(check(&BundleSource::Dir(rig.root.clone())).is_err());

    let path = rig.root.join("sub/.aotignore");
    fs::write(&path, b"ok\n\xff\n").expect("writes");
    let text = rig.pack().expect_err("is refused").to_string();
    assert!(text.ends_with("line 2: is not UTF-8"), "{text}");
    fs::write(&path, vec![b'#'; (64 << 10) + 1]).expect("writes");
    assert!(matches!(rig.pack(), Err(BundleError::TooLarge { .. })));
    fs::remove_file(&path).expect("removes");
    symlink("/etc/passwd", &path).expect("links");
    assert!(matches!(rig.pack(), Err(BundleError::Kind { .. })));
}

#[test]
fn a_script_that_is_left_out_is_missed() {
    let rig = Rig::with_script();
    rig.write(".aotignore", "*.sh\n");
    assert!(matches!(rig.pack(), Err(BundleError::NoScript { .. })));
}

#[test]
fn what_changed_between_two_packed_bundles_is_listed() {
    let rig = Rig::with_script();
    rig.write("old.sh", "old\n");
    rig.write("run.sh", "run\n");
    symlink("run.sh", rig.root.join("link")).expect("links");
    let old = rig.pack().expect("packs");
    assert_eq!(list(&old.path).expect("lists").0.len(), 4);
    fs::remove_file(rig.root.join("old.sh")).expect("removes");
    rig.write("bootstrap.sh", "echo hello\necho more\n");
    rig.write("data/blob", "\0\0");
    let runs = fs::Permissions::from_mode(0o755);
    fs::set_permissions(rig.root.join("run.sh"), runs).expect("sets");
    let new = rig.pack().expect("packs");
    let lists = [&old, &new].map(|packed| list(&packed.path).expect("lists"));
    let want = [
        "bootstrap.sh 1 line",
        "+data/ (1 entry)",
        "-old.sh",
        "mode of run.sh",
    ];
    assert_eq!(changes(&lists[0], &lists[1]), want);
    assert_eq!(changes(&lists[1], &lists[1]), Vec::<String>::new());
    // Packed by somebody else: the same, whatever it is compressed with and however its names are written.
    let entries = [
        ("./", EntryType::Directory, ""),
        ("./bootstrap.sh", EntryType::Regular, ""),
    ];
    let tar = rig.tar(&gzip(&tar_of(&entries)));
    let other = list(tar.path()).expect("lists");
    let want = ["bootstrap.sh 1 line", "-link", "-old.sh", "-run.sh"];
    assert_eq!(changes(&lists[0], &other), want);
}
