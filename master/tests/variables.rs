//! A variable of the environment that is set and is not UTF-8 is never taken for one that is not set, and ends no program: all of it is
//! read by `aot_host::environment`, or as the system has it (`var_os`, `vars_os`).

use std::path::{Path, PathBuf};

/// What else reads text: it says the same of both, or panics.
const BANNED: [&str; 4] = [
    "env::var(",
    "env::vars()",
    "env::args()",
    "use std::env::var",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = path.path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if path.is_dir() {
            // What only tests use, and what is built.
            if !matches!(&*name, "tests" | "contract" | "target" | "benches")
                && !name.starts_with('.')
            {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !matches!(&*name, "tests.rs" | "build.rs") {
            found.push(path);
        }
    }
}

/// The lines of a text that read so.
fn banned(text: &str) -> Vec<&str> {
    let code = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"));
    code.filter(|line| BANNED.iter().any(|it| line.contains(it)))
        .collect()
}

#[test]
fn text_of_the_environment_is_read_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for part in ["proto", "master", "agent"] {
        sources(&root.join(part), &mut files);
    }
    assert!(files.len() > 300, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert_eq!(banned(text), Vec::<&str>::new(), "{}", file.display());
    }
    assert_eq!(
        banned("// std::env::var(A)\nlet a = std::env::var(A).ok();\nlet b = env::var_os(B);"),
        ["let a = std::env::var(A).ok();"]
    );
}
