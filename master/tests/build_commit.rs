//! The build script in checkouts of all kinds: it names their commit, and what cargo watches for it changes with every commit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The compiled script.
struct Script(tempfile::TempDir);

impl Script {
    fn compiled() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut compiler = Command::new(rustc);
        compiler
            .args(["--edition", "2024", "-o"])
            .arg(dir.path().join("script"))
            .arg(source);
        printed(&mut compiler);
        Self(dir)
    }

    /// Runs it as cargo does, below `root`: the commit that it names, and what is watched as it is now.
    fn run(&self, root: &Path) -> (String, BTreeMap<PathBuf, SystemTime>) {
        let package = root.join("master");
        let text = printed(Command::new(self.0.path().join("script")).current_dir(&package));
        let values =
            |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key));
        let commit = values("cargo:rustc-env=BUILD_COMMIT=").next();
        let watched = values("cargo:rerun-if-changed=").map(|path| {
            let path = package.join(path);
            let changed = newest(&path);
            (path, changed)
        });
        (commit.expect("says it").to_owned(), watched.collect())
    }
}

/// A folder with a checkout.
struct Checkout {
    dir: tempfile::TempDir,
    /// Where commits are made.
    root: PathBuf,
}

impl Checkout {
    /// A checkout with one commit on a branch in a folder of branches.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("root");
        sources_in(&root);
        let checkout = Self { dir, root };
        checkout.git(&["init", "--quiet", "--initial-branch=of/mine"]);
        checkout.git(&["add", "."]);
        checkout.commit();
        checkout
    }

    /// A worktree of that checkout, on another branch.
    fn worktree() -> Self {
        let mut checkout = Self::new();
        checkout.git(&["worktree", "add", "--quiet", "-b", "of/tree", "../tree"]);
        checkout.root = checkout.dir.path().join("tree");
        checkout
    }

    fn git(&self, args: &[&str]) -> String {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let mut git = Command::new("git");
        git.args(identity).args(args).current_dir(&self.root);
        printed(&mut git).trim().to_owned()
    }

    fn commit(&self) {
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "more"]);
    }

    fn packed(self) -> Self {
        self.git(&["pack-refs", "--all"]);
        self
    }

    fn detached(self) -> Self {
        self.git(&["checkout", "--quiet", "--detach"]);
        self
    }

    /// Git keeps no log of what HEAD was.
    fn logless(self) -> Self {
        self.git(&["config", "core.logAllRefUpdates", "false"]);
        let log = self.git(&["rev-parse", "--git-path", "logs/HEAD"]);
        fs::remove_file(self.root.join(log)).expect("removes");
        self
    }
}

/// What the script goes by.
fn sources_in(root: &Path) {
    fs::create_dir_all(root.join("master")).expect("a package");
    for file in ["Cargo.lock", "master/Cargo.toml"] {
        fs::write(root.join(file), "").expect("writes");
    }
}

/// What a command prints, without settings or a repository of whoever runs this.
fn printed(command: &mut Command) -> String {
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.output().expect("it runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// When it was changed last; of a folder, anything in it, as cargo has it.
fn newest(path: &Path) -> SystemTime {
    let about = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let changed = about.modified().expect("has a time");
    if !about.is_dir() {
        return changed;
    }
    let inside = fs::read_dir(path).expect("reads");
    inside
        .map(|entry| newest(&entry.expect("reads").path()))
        .fold(changed, SystemTime::max)
}

#[test]
fn what_is_watched_changes_with_every_commit() {
    let script = Script::compiled();
    for (what, checkout) in [
        ("a branch", Checkout::new()),
        ("a branch, no log", Checkout::new().logless()),
        ("packed", Checkout::new().packed()),
        ("packed, no log", Checkout::new().logless().packed()),
        ("detached", Checkout::new().detached()),
        ("a worktree", Checkout::worktree()),
        ("a packed worktree", Checkout::worktree().packed()),
        (
            "a packed worktree, no log",
            Checkout::worktree().logless().packed(),
        ),
        ("a detached worktree", Checkout::worktree().detached()),
    ] {
        // The second time there is a file of the branch again.
        for _ in 0..2 {
            let (commit, watched) = script.run(&checkout.root);
            let head = checkout.git(&["rev-parse", "--short=12", "HEAD"]);
            assert_eq!(commit, head, "{what}");
            checkout.commit();
            let changes = |(path, before): (&PathBuf, &SystemTime)| newest(path) > *before;
            assert!(watched.iter().any(changes), "{what}: {watched:?}");
        }
    }
}

#[test]
fn an_archive_in_a_checkout_of_something_else_has_no_commit_and_watches_nothing_of_git() {
    let checkout = Checkout::new();
    let root = checkout.root.join("archive");
    sources_in(&root);
    let (commit, watched) = Script::compiled().run(&root);
    assert_eq!(commit, "");
    let all: Vec<_> = watched.into_keys().collect();
    assert_eq!(all, [root.join("master/Cargo.toml")]);
}
