//! What is packed, what is left out, and what changes meanwhile.

use std::fs;
use std::os::unix::fs::symlink;

use crate::samples::*;
use crate::*;

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
    assert_eq!(contents(&to.join("app")), contents(&app));
    assert_eq!(names(&to).iter().filter(|n| n.contains(PART)).count(), 0);
    assert_eq!(packed(&[app]).0, bytes, "the same files are the same bytes");
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
fn what_the_kernel_makes_when_it_is_read_is_packed_as_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    // The size of the first is 0, that of the second a page.
    for path in ["/proc/version", "/sys/kernel/fscaps"] {
        let Ok(text) = fs::read(path) else {
            eprintln!("there is no {path} here");
            continue;
        };
        let (bytes, notes) = packed(&[path.into()]);
        assert!(notes.is_empty(), "{notes:?}");
        let totals = unpack(&bytes[..], &folder, &open_rules()).unwrap();
        let name = path.rsplit('/').next().unwrap();
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), text, "{path}");
        assert_eq!(totals.bytes, text.len() as u64);
    }
    // Of an ordinary file without a byte nothing is made up.
    fs::write(dir.path().join("empty"), "").unwrap();
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let (bytes, _) = packed(&[dir.path().join("empty")]);
    unpack(&bytes[..], &Folder::open(&to).unwrap(), &open_rules()).unwrap();
    assert_eq!(fs::read(to.join("empty")).unwrap(), b"");
}

#[test]
fn devices_are_left_out_with_a_warning_or_refused_when_named() {
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
    for (path, wanted) in [("fifo", "device"), ("nothing", "cannot read")] {
        let sources = sources(&[app.join(path)]).unwrap();
        let error = pack(&sources, Vec::new(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

/// Accepts the archive, and does something once it has got `after` bytes.
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
