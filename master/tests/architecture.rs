//! Keeps the imports between the master's modules pointing one way, and the crates apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What each module may use of the master itself. Everything may use `files`; all may use aot_proto.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("files", &[][..]),
        ("model", &[]),
        ("config", &["model", "provider", "bundle"]),
        ("bundle", &["model"]),
        ("provider", &["model"]),
        ("store", &["model"]),
        ("enrol", &["model"]),
        ("session", &["model"]),
        (
            "run",
            &[
                "model", "config", "bundle", "provider", "store", "enrol", "session",
            ],
        ),
        (
            "server",
            &["model", "provider", "store", "enrol", "session", "run"],
        ),
        ("offline", &["config", "model", "provider"]),
        ("cli", &["view"]),
        ("view", &[]),
    ])
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir)
        .expect("a folder of sources")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The modules of the crate that a file's code names.
fn named(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for rest in line.split("crate::").skip(1) {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            names.push(rest[..end].to_owned());
        }
    }
    names
}

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = allowed();
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).expect("below src");
        let first = relative.iter().next().expect("a file").to_string_lossy();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let may = allowed
            .get(module)
            .unwrap_or_else(|| panic!("module {module} has no rule here"));
        for name in named(&std::fs::read_to_string(&file).expect("reads")) {
            if name != module && name != "files" && !may.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_decides_does_no_io() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model");
    let mut files = Vec::new();
    sources(&model, &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        for word in [
            "tokio::",
            "std::fs",
            "std::net",
            "SystemTime::now",
            "Instant::now",
            "rusqlite",
            "aws_",
        ] {
            let used = text.lines().any(|line| {
                !line.trim_start().starts_with("//")
                    && line.contains(word)
                    && !line.contains("aws_lc_rs")
            });
            assert!(!used, "{} uses {word}", file.display());
        }
    }
}

#[test]
fn only_the_store_knows_sql_and_only_the_ec2_provider_knows_aws() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        let place = file
            .strip_prefix(&src)
            .expect("below src")
            .display()
            .to_string();
        assert!(
            !text.contains("rusqlite") || place.starts_with("store/"),
            "{place} knows SQL"
        );
        assert!(
            !text.contains("aws_sdk_") || place.starts_with("provider/ec2"),
            "{place} knows AWS"
        );
    }
}

#[test]
fn master_and_agent_never_see_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read =
        |name: &str| std::fs::read_to_string(root.join(name).join("Cargo.toml")).expect("reads");
    assert!(!read("master").contains("aot-agent"));
    assert!(!read("agent").contains("aot-master"));
    assert!(!read("agent").contains("aws-sdk"));
    assert!(!read("proto").contains("tokio"));
}
