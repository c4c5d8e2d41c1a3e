//! What of a folder is no part of its bundle: what editors, systems and git leave in any folder, and what `.aotignore` names, in
//! the words of gitignore(5). A deeper file goes before those above it, and all of them before the defaults.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{BundleError, open, too_large};

/// Names what is left out of the folder in which it lies, and of those below. Never packed itself.
pub const IGNORE_FILE: &str = ".aotignore";

/// Left out of every folder, unless a pattern with `!` brings them back.
const DEFAULTS: [&str; 5] = [".git", ".DS_Store", "*~", "*.swp", "__pycache__"];

/// Longest file of patterns.
const MAX_BYTES: u64 = 64 << 10;

/// The patterns that count in one folder of a bundle.
pub(super) struct IgnoreRules {
    /// From the top down, each with the folder that it is about.
    levels: Vec<(PathBuf, Gitignore)>,
}

impl IgnoreRules {
    /// What is left out everywhere.
    pub(super) fn defaults() -> Result<Self, BundleError> {
        let rules = read(Path::new("the defaults"), &DEFAULTS.join("\n"))?;
        Ok(Self {
            levels: vec![(PathBuf::new(), rules)],
        })
    }

    /// Reads the patterns of a folder in the bundle at `root`; they count until [`IgnoreRules::leave`].
    ///
    /// # Errors
    /// When they can't be read, or one of them is no pattern.
    pub(super) fn enter(&mut self, root: &Path, inside: &Path) -> Result<(), BundleError> {
        let path = root.join(inside).join(IGNORE_FILE);
        let meta = fs::symlink_metadata(&path).map_err(BundleError::io("read", &path))?;
        if !meta.is_file() {
            return Err(BundleError::Kind {
                path,
                wanted: "file",
            });
        }
        let mut bytes = Vec::new();
        open(&path)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(BundleError::io("read", &path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(too_large(&path, "bytes", MAX_BYTES));
        }
        let text = std::str::from_utf8(&bytes).map_err(|bad| {
            let before = &bytes[..bad.valid_up_to()];
            BundleError::Pattern {
                line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
                what: "is not UTF-8".to_owned(),
                path: path.clone(),
            }
        })?;
        self.levels.push((inside.to_owned(), read(&path, text)?));
        Ok(())
    }

    /// Forgets the patterns that were read last.
    pub(super) fn leave(&mut self) {
        self.levels.pop();
    }

    /// Whether this is no part of the bundle. Of what is in a folder that is left out nobody asks.
    pub(super) fn leave_out(&self, inside: &Path, is_dir: bool) -> bool {
        for (folder, rules) in self.levels.iter().rev() {
            let below = inside.strip_prefix(folder).unwrap_or(inside);
            match rules.matched(below, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

/// Patterns, one a line; errors call them `path`.
fn read(path: &Path, text: &str) -> Result<Gitignore, BundleError> {
    let mut builder = GitignoreBuilder::new("");
    let bad = |line, error: &ignore::Error| BundleError::Pattern {
        path: path.to_owned(),
        line,
        what: error.to_string(),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (place, line) in text.lines().enumerate() {
        let added = builder.add_line(None, line);
        added.map_err(|error| bad(place + 1, &error))?;
    }
    let rules = builder.build();
    rules.map_err(|error| bad(text.lines().count().max(1), &error))
}
