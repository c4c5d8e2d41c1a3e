//! The text of cluster.yml into the model, and the daemon's own settings. Called by the daemon (`run`) and by the
//! offline commands; never touches the network, and files only in `check_files`.

#![warn(unreachable_pub)]

mod files;
mod node;
mod raw;
mod read;
mod record;
mod report;
mod resolve;
mod schema;
mod syntax;
#[cfg(test)]
mod tests;
mod variables;

use std::io;
use std::path::Path;

use aot_model::spec::ClusterSpec;
use aot_proto::ids::ClusterName;
pub use aot_proto::v1::Variables;

pub use files::{FileProblem, check_files, file_problems};
pub use record::nearest;
pub use report::{Mistake, Report};

use node::Node;
use raw::RawFile;
use read::{FromNode, Reader};

/// Most instances of one cluster.
pub const MAX_INSTANCES: usize = 20_000;

/// A file that is good.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What it wants.
    pub spec: ClusterSpec,
    /// For a person: keys that were accepted and ignored, `cluster.yml:12: ...`.
    pub notices: Vec<String>,
    /// The file with every variable in its place.
    pub expanded: ExpandedFile,
}

impl Parsed {
    /// Line and column at which the text of the cluster's file, which lies at `path`, names this other file.
    pub fn place_of(&self, file: &Path, text: &str, path: &Path) -> Option<(usize, usize)> {
        let base = base_dir(path);
        let is_it = |name: &str| base.join(name).components().eq(file.components());
        let span = self.expanded.0.span_of(&is_it)?;
        Some(report::position(text, span.start))
    }
}

/// A file with every variable in its place.
#[derive(Debug, Clone)]
pub struct ExpandedFile(Node);

impl ExpandedFile {
    /// As YAML, which reads like the file but has no comments.
    ///
    /// # Errors
    /// What YAML can't say.
    pub fn to_yaml(&self) -> io::Result<String> {
        serde_saphyr::to_string(&self.0).map_err(io::Error::other)
    }

    /// As data.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
}

/// Reads the text of a cluster.yml that lies at `path` (absolute: relative paths in the file start at its folder), with
/// nothing given beside it. Opens no file.
///
/// # Errors
/// All problems of the text at once.
pub fn parse(text: &str, path: &Path) -> Result<Parsed, Report> {
    parse_with(text, path, &Variables::default())
}

/// [`parse`] with what was given beside the file.
///
/// # Errors
/// All problems of the text at once, or those of what was given.
pub fn parse_with(text: &str, path: &Path, variables: &Variables) -> Result<Parsed, Report> {
    let file = path.display().to_string();
    let report = |problems| Report::new(&file, text, problems);
    let mut root = node::parse(text).map_err(|problem| report(vec![problem]))?;
    let mut notices = variables::expand(&mut root, &file, text, variables)?;
    let mut reader = Reader::default();
    let name = cluster_name(&root, &mut reader);
    let raw = RawFile::from_node(&root, &mut reader);
    let mut build = resolve::Build::new(base_dir(path), reader.problems);
    let spec = raw.and_then(|raw| build.cluster(name, &raw));
    match spec {
        Some(spec) if build.problems.is_empty() => {
            let place = |start| report::position(text, start).0;
            let more = build
                .notices
                .iter()
                .map(|(at, note)| format!("{file}:{}: {}: {note}", place(at.span.start), at.path));
            notices.extend(more);
            Ok(Parsed {
                spec,
                notices,
                expanded: ExpandedFile(root),
            })
        }
        _ => Err(report(build.problems)),
    }
}

/// JSON Schema (2020-12) of cluster.yml.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(RawFile);
    schema.insert("title".to_owned(), "aot cluster.yml".into());
    let mut schema = schema.to_value();
    schema::complete(&mut schema);
    schema
}

/// The cluster's name.
fn cluster_name(root: &Node, reader: &mut Reader) -> Option<ClusterName> {
    let node = root.get("cluster")?;
    match node.text()?.parse::<ClusterName>() {
        Ok(name) => Some(name),
        Err(bad) => {
            let at = reader.under_key("cluster", |reader| reader.at(node));
            reader.push(at.problem(bad.to_string()));
            None
        }
    }
}

/// The folder of the file, absolute.
fn base_dir(path: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}
