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
mod syntax;
#[cfg(test)]
mod tests;

use std::path::Path;

use aot_model::spec::ClusterSpec;
use aot_proto::ids::ClusterName;

pub use files::check_files;
pub use record::nearest;
pub use report::{Mistake, Report};

use raw::RawFile;
use read::{FromNode, Reader};

/// Most instances of one cluster.
pub const MAX_INSTANCES: usize = 10_000;

/// A file that is good.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What it wants.
    pub spec: ClusterSpec,
    /// For a person: keys that were accepted and ignored, `cluster.yml:12: ...`.
    pub notices: Vec<String>,
}

/// Reads the text of a cluster.yml that lies at `path` (absolute: relative paths in the file start at its folder).
/// Opens no file.
///
/// # Errors
/// All problems of the text at once.
pub fn parse(text: &str, path: &Path) -> Result<Parsed, Report> {
    let file = path.display().to_string();
    let report = |problems| Report::new(&file, text, problems);
    let mut root = node::parse(text).map_err(|problem| report(vec![problem]))?;
    let mut reader = Reader::default();
    let name = cluster_name(&mut root, &mut reader);
    let raw = RawFile::from_node(&root, &mut reader);
    let mut build = resolve::Build::new(base_dir(path), reader.problems);
    let spec = raw.and_then(|raw| build.cluster(name, &raw));
    match spec {
        Some(spec) if build.problems.is_empty() => {
            let place = |start| report::position(text, start).0;
            let notices = build
                .notices
                .iter()
                .map(|(at, note)| format!("{file}:{}: {}: {note}", place(at.span.start), at.path));
            Ok(Parsed {
                spec,
                notices: notices.collect(),
            })
        }
        _ => Err(report(build.problems)),
    }
}

/// JSON Schema (2020-12) of cluster.yml.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(RawFile);
    schema.insert("title".to_owned(), "aot cluster.yml".into());
    schema.to_value()
}

/// The cluster's name, put in for `$cluster_name` everywhere else.
fn cluster_name(root: &mut node::Node, reader: &mut Reader) -> Option<ClusterName> {
    let given = root
        .get("cluster")
        .and_then(|node| Some((node.clone(), node.text()?.to_owned())));
    let name = given.and_then(|(node, text)| match text.parse::<ClusterName>() {
        Ok(name) => Some(name),
        Err(bad) => {
            let at = reader.under_key("cluster", |reader| reader.at(&node));
            reader.push(at.problem(bad.to_string()));
            None
        }
    });
    root.replace(
        "$cluster_name",
        name.as_ref().map_or("cluster", ClusterName::as_str),
    );
    name
}

/// The folder of the file, absolute.
fn base_dir(path: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}
