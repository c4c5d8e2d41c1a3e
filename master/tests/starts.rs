//! No program is started while a child that was forked in the wrong moment still has it open for writing (ETXTBSY): in the
//! agent because it waits for such children, in tests because programs are written by a child of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(dir).expect("a folder of sources");
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Who unpacks a bundle waits for the children of the service that may hold a file of it, and so must know of them. The
/// other files are of programs that write no bundles.
#[test]
fn the_agents_service_starts_children_in_one_place() {
    let own = ["runner/spawn.rs", "shell/keeper.rs"];
    let mut files = Vec::new();
    sources(&root().join("agent/src"), &mut files);
    let (mut known, mut wrong) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let uses = code.contains("process::Command") || code.contains("process::{");
        if !uses || own.iter().any(|own| file.ends_with(own)) || file.ends_with("tests.rs") {
            continue;
        }
        for line in code.lines() {
            let starts = [".spawn()", ".output()", ".status()"];
            if line.contains("starts::start(|| ") {
                known += 1;
            } else if starts.iter().any(|start| line.contains(start)) {
                wrong.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "not through starts::start: {wrong:#?}");
    assert_eq!(known, 5, "the places that start children");
}

/// Files that a test makes executable itself. (`std::fs::copy` is refused by clippy.)
#[test]
fn a_test_makes_nothing_executable_that_is_started() {
    // How many, and why they may.
    let allowed = BTreeMap::from([
        (
            "agent/src/file_builtins/tests.rs",
            (1, "modes are compared"),
        ),
        ("agent/src/runner/spawn.rs", (1, "files are found")),
        ("agent/src/runner/spool/tests.rs", (2, "a spool")),
        ("agent/tests/agent/survival.rs", (1, "a spool")),
        ("master/bundle/src/tests.rs", (2, "a bundle is packed")),
        (
            "master/daemon/src/server/serve/state_dir.rs",
            (3, "a folder"),
        ),
        (
            "master/provider-local/tests/local_provider.rs",
            (1, "clones start a copy, and again when it is busy"),
        ),
        ("proto/archive/src/destination.rs", (1, "a folder")),
        ("proto/archive/src/merge/tests.rs", (1, "a folder")),
        ("proto/archive/src/samples.rs", (1, "archives are compared")),
        ("proto/host/src/files.rs", (1, "a folder")),
        ("tests/src/bundle.rs", (1, "a bundle is packed")),
        ("tests/tests/ec2/remote.rs", (1, "a folder is copied")),
        ("tests/tests/local/cp.rs", (1, "a folder is copied")),
        ("tests/tests/local/rootless.rs", (1, "a folder")),
    ]);
    let mut found = BTreeMap::new();
    for top in ["agent", "master", "proto", "tests"] {
        let mut files = Vec::new();
        sources(&root().join(top), &mut files);
        files.retain(|file| !file.ends_with("master/tests/starts.rs"));
        for file in files {
            let text = std::fs::read_to_string(&file).expect("reads");
            let name = file.strip_prefix(root()).expect("it is below");
            let name = name.display().to_string();
            let count = executables(test_code(&name, &text));
            if count > 0 {
                found.insert(name, count);
            }
        }
    }
    let allowed: BTreeMap<String, usize> = allowed
        .into_iter()
        .map(|(name, (count, _))| (name.to_owned(), count))
        .collect();
    assert_eq!(
        found, allowed,
        "aot_tests::programs installs what is started"
    );
}

/// What of a file is compiled for tests only.
fn test_code<'a>(name: &str, text: &'a str) -> &'a str {
    let is_test = name.starts_with("tests/")
        || name.contains("/tests/")
        || name.ends_with("tests.rs")
        || name.ends_with("samples.rs");
    if is_test {
        return text;
    }
    text.split_once("#[cfg(test)]").map_or("", |(_, test)| test)
}

/// Calls that set a mode which lets a file be run, or one that stands elsewhere.
fn executables(code: &str) -> usize {
    let calls = code.split("set_permissions(").skip(1);
    let statements = calls.filter_map(|rest| rest.split(';').next());
    statements
        .map(|call| call.rsplit_once("from_mode(").map_or("?", |(_, mode)| mode))
        .filter_map(|mode| mode.split(')').next())
        .filter(|mode| {
            let octal = mode.strip_prefix("0o").map(|n| u32::from_str_radix(n, 8));
            octal.is_none_or(|mode| mode.is_ok_and(|mode| mode & 0o111 != 0))
        })
        .count()
}

#[test]
fn an_executable_is_found_however_it_is_written() {
    let table = [
        (
            "fs::set_permissions(&a, Permissions::from_mode(0o755)).unwrap();",
            1,
        ),
        (
            "fs::set_permissions(\n    a,\n    Permissions::from_mode(0o4750),\n)?;",
            1,
        ),
        (
            "fs::set_permissions(at(a), Permissions::from_mode(mode)).unwrap();",
            1,
        ),
        (
            "fs::set_permissions(&a, Permissions::from_mode(0o644)).unwrap(); f(0o755);",
            0,
        ),
        ("let mode = metadata.permissions().mode();", 0),
        (
            "let mode = from_mode(0o755);\nfs::set_permissions(&a, mode).unwrap();",
            1,
        ),
    ];
    for (code, count) in table {
        assert_eq!(executables(code), count, "{code}");
    }
}
