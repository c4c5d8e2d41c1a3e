//! No files of a crate import each other in a circle: each can be read after those that it builds on. A folder's own file and
//! what lies below it belong together and are not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Module = Vec<String>;

/// The files of a crate by their module.
fn modules(src: &Path, below: &Module, found: &mut BTreeMap<Module, PathBuf>) {
    for entry in std::fs::read_dir(src).expect("a folder").flatten() {
        let (path, mut module) = (entry.path(), below.clone());
        let name = path.file_stem().expect("a name").to_string_lossy();
        if path.is_dir() {
            if name != "tests" {
                module.push(name.into_owned());
                modules(&path, &module, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "tests" {
            if !matches!(&*name, "lib" | "main" | "mod") {
                module.push(name.into_owned());
            }
            found.insert(module, path);
        }
    }
}

/// All paths of a `use` without its groups: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn ungrouped(text: &str, found: &mut Vec<String>) {
    let Some(open) = text.find('{') else {
        let path = text.split(" as ").next().unwrap_or_default();
        found.push(path.trim().to_owned());
        return;
    };
    let inner = &text[open + 1..text.rfind('}').unwrap_or(text.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, sign) in inner.char_indices().chain([(inner.len(), ',')]) {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..at].trim();
                if !part.is_empty() {
                    ungrouped(&format!("{}{part}", text[..open].trim()), found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// What a file names of its own crate: in `use`, and in paths that begin with `crate` or `super`.
fn named(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next();
    let lines = code.unwrap_or_default().lines();
    let code: Vec<&str> = lines
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect();
    let code = code.join(" ");
    let mut found = Vec::new();
    for rest in code.split("use ").skip(1) {
        let path = rest.split(';').next().unwrap_or_default().trim();
        if ["crate::", "super::", "self::"]
            .iter()
            .any(|start| path.starts_with(start))
        {
            ungrouped(path, &mut found);
        }
    }
    for word in code.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':')) {
        if word.starts_with("crate::") || word.starts_with("super::") {
            found.push(word.to_owned());
        }
    }
    found
}

/// The file that a path leads to.
fn target(from: &Module, path: &str, all: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut at = from.clone();
    for (number, part) in path.split("::").map(str::trim).enumerate() {
        match part {
            "crate" if number == 0 => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            name => at.push(name.to_owned()),
        }
    }
    while !at.is_empty() && !all.contains_key(&at) {
        at.pop();
    }
    let related = at.starts_with(from) || from.starts_with(&at);
    (all.contains_key(&at) && !related).then_some(at)
}

/// Whether `to` is reached from `from`.
fn reaches(edges: &BTreeMap<Module, BTreeSet<Module>>, from: &Module, to: &Module) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut crates = vec![root.join("agent"), root.join("tests"), root.join("proto")];
    for folder in ["proto", "master"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
        crates.extend(entries.flatten().map(|entry| entry.path()));
    }
    crates.retain(|place| place.join("Cargo.toml").is_file());
    assert!(crates.len() > 12, "the crates were not found");
    for place in crates {
        let mut all = BTreeMap::new();
        modules(&place.join("src"), &Vec::new(), &mut all);
        let edges: BTreeMap<Module, BTreeSet<Module>> = all
            .iter()
            .map(|(module, file)| {
                let text = std::fs::read_to_string(file).expect("reads");
                let names = named(&text);
                let targets = names.iter().filter_map(|path| target(module, path, &all));
                (module.clone(), targets.collect())
            })
            .collect();
        let tied: Vec<String> = edges
            .keys()
            .filter(|module| reaches(&edges, module, module))
            .map(|module| module.join("::"))
            .collect();
        assert!(
            tied.is_empty(),
            "{}: a circle ties {tied:?}",
            place.display()
        );
    }
}

#[test]
fn a_circle_would_be_found() {
    let all: BTreeMap<Module, PathBuf> = ["a", "b"]
        .map(|name| (vec![name.to_owned()], PathBuf::new()))
        .into();
    let of = |text: &str, from: &str| -> BTreeSet<Module> {
        let from = vec![from.to_owned()];
        named(text)
            .iter()
            .filter_map(|path| target(&from, path, &all))
            .collect()
    };
    let edges = BTreeMap::from([
        (vec!["a".to_owned()], of("use super::{b::{X, Y}, c};", "a")),
        (
            vec!["b".to_owned()],
            of("fn f() { crate::a::g() } // crate::b", "b"),
        ),
    ]);
    let a = vec!["a".to_owned()];
    assert!(reaches(&edges, &a, &a));
}
