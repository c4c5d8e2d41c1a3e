//! What a clone makes of its own files leads its host nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use aot_tests::rig::Rig;

/// A folder of this machine that clones see too, with nothing in it; gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new("/var/tmp").join(format!("aot-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it is there").flatten();
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(name).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = fs::remove_file(self.0.join(name)); // what a failed test left
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_clone_that_puts_links_in_place_of_folders_writes_nothing_on_its_host() {
    let mut rig = Rig::local();
    let host = Folder::new("links");
    let folder = host.0.display();
    rig.bundle(
        "links",
        &format!(
            r#"
if [ "$AOT_REBOOTS" = 0 ]; then
  cp -a /etc/aot/. {folder}/
  rm -rf /etc/aot
  ln -s {folder} /etc/aot
  umount /run || true
  rmdir /run && ln -s {folder} /run
  echo before > {folder}/before
  exit 194
fi
[ -s /etc/aot/boot_id ] && [ -d /run ] && [ ! -L /run ]
"#
        ),
    );
    rig.cluster("\ncluster: links\nprovider: local\ninstances: [{name: a, bootstrap_sequence: [{dir: links}]}]\n");
    rig.launch().expect(0);
    assert_eq!(
        host.names(),
        Vec::<String>::new(),
        "nothing came to the host"
    );
    assert!(rig.sh("a", &format!("ls {folder}")).contains("boot_id"));
    assert_eq!(rig.clean(), Vec::<String>::new());
}
