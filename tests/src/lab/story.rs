//! A test as a story: steps with names, and checks that are all made before the test fails. What a later step stands on is
//! asserted at once; what is merely looked at is checked.

use std::fmt::Debug;
use std::time::Instant;

/// A story while it is told.
pub struct Story {
    step: &'static str,
    began: Instant,
    failed: Vec<String>,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            step: "",
            began: Instant::now(),
            failed: Vec::new(),
        }
    }
}

impl Story {
    /// What comes now.
    pub fn step(&mut self, name: &'static str) {
        let seconds = self.began.elapsed().as_secs_f32();
        eprintln!("[{seconds:6.1} s] {name}");
        self.step = name;
    }

    /// Notes a failure unless it is so; `seen` helps whoever reads it.
    pub fn check(&mut self, so: bool, what: &str, seen: impl Debug) {
        if !so {
            let text = format!("{}: {what}; seen: {seen:#?}", self.step);
            eprintln!("FAILED {text}");
            self.failed.push(text);
        }
    }

    /// Notes a failure unless both are the same.
    pub fn same<T: Debug + PartialEq<U>, U: Debug>(&mut self, seen: T, wanted: U, what: &str) {
        if seen != wanted {
            self.check(false, &format!("{what}, {wanted:?} is wanted"), seen);
        }
    }

    /// Fails the test when anything was noted.
    pub fn end(self) {
        assert!(
            self.failed.is_empty(),
            "{} checks failed:\n{}",
            self.failed.len(),
            self.failed.join("\n")
        );
    }
}

/// Writes a cluster.yml for provider ec2 in `dir`, with the usual defaults and `rest`; its path.
pub fn cluster_file(
    dir: &std::path::Path,
    name: &str,
    ami: &str,
    rest: &str,
) -> std::path::PathBuf {
    std::fs::create_dir_all(dir).expect("makes the folder");
    let path = dir.join("cluster.yml");
    let text = format!(
        "cluster: {name}\nprovider: ec2\n\
         defaults: {{ami: {ami}, ec2_size: t3.micro, owner: ops, user: admin}}\n{rest}"
    );
    std::fs::write(&path, text).expect("writes cluster.yml");
    path
}
