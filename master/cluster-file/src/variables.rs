//! Variables of a cluster's file: `vars:`, files of them, `--set`, the environment. The tree that comes out has none left.

mod declared;
mod expand;
mod pieces;
mod scalar;
#[cfg(test)]
mod tests;

use aot_proto::ids::ClusterName;
use aot_proto::limits::MAX_VARS_BYTES;
use aot_proto::v1::Variables;

use crate::node::{Body, Node, ScalarKind};
use crate::record::nearest;
use crate::report::{Mistake, Report};
use declared::{Declared, FILE, VariableOrigin};
use expand::Expander;

/// Key of the variables at the top of the file.
const VARS: &str = "vars";
/// Key of the cluster's name.
const CLUSTER: &str = "cluster";
/// Stands for the name of a cluster whose name is not good.
const UNNAMED: &str = "cluster";

/// Puts all variables and `$cluster_name` in their places; `vars:` has then what was given beside the file too. Gives what
/// an operator should know.
///
/// # Errors
/// All problems of the file, or else those of one of the other places that variables came from.
pub(crate) fn expand(
    root: &mut Node,
    file: &str,
    text: &str,
    given: &Variables,
) -> Result<Vec<String>, Report> {
    let origin = VariableOrigin {
        name: file.to_owned(),
        text: text.to_owned(),
    };
    let declared = Declared::collect(origin, root.get(VARS), given);
    if !declared.problems.is_empty() {
        return Err(report(&declared, declared.problems.clone()));
    }
    // The name may be a variable, and all others may have the name in them.
    let named = root.get(CLUSTER).and_then(|node| {
        let mut expander = Expander::new(&declared, given, None);
        expander.entry(CLUSTER, node)
    });
    let name = named.as_ref().and_then(Node::text);
    let name = name.filter(|name| name.parse::<ClusterName>().is_ok());
    let mut expander = Expander::new(&declared, given, Some(name.unwrap_or(UNNAMED)));
    let all = expander.all();
    if let Body::Map(entries) = &mut root.body {
        for (key, value) in entries.iter_mut() {
            *key = expander.key(key);
            let expanded = match key.text().unwrap_or_default() {
                VARS => continue,
                key => expander.entry(key, value),
            };
            if let Some(expanded) = expanded {
                *value = expanded;
            }
        }
    }
    let (mut problems, used) = (expander.problems, expander.used);
    problems.extend(too_long(all.as_ref(), root).map(|mistake| (FILE, mistake)));
    if !problems.is_empty() {
        return Err(report(&declared, problems));
    }
    if let Some(named) = named {
        put(root, CLUSTER, named, false);
    }
    if let Some(all) = all.filter(|all| !matches!(&all.body, Body::Map(it) if it.is_empty())) {
        put(root, VARS, all, true);
    }
    let unused = |name: &&String| {
        let top = name.split('.').next().unwrap_or_default();
        !used.contains(top) && !declared.known.iter().any(|known| known == top)
    };
    let unused = declared.set.iter().filter(unused);
    Ok(unused.map(|name| unused_notice(name, &declared)).collect())
}

/// The machines are told of the variables, with each stage that has templates.
fn too_long(all: Option<&Node>, root: &Node) -> Option<Mistake> {
    let bytes = serde_json::to_string(all?).map_or(0, |text| text.len());
    let span = root.get(VARS).map_or(0..0, |vars| vars.span.clone());
    (bytes > MAX_VARS_BYTES).then(|| {
        let message =
            format!("the variables have {bytes} bytes; at most {MAX_VARS_BYTES} are allowed");
        Mistake::new(span, VARS, message).help("put long texts into the bundle")
    })
}

/// Puts a value under a key at the top, in the place of what is there.
fn put(root: &mut Node, name: &str, mut value: Node, may_add: bool) {
    let Body::Map(entries) = &mut root.body else {
        return;
    };
    let known = entries.iter_mut().find(|(key, _)| key.text() == Some(name));
    if let Some((_, old)) = known {
        value.span = old.span.clone();
        *old = value;
    } else if may_add {
        let (text, kind) = (name.to_owned(), ScalarKind::Text);
        let body = Body::Scalar { text, kind };
        entries.push((Node { span: 0..0, body }, value));
    }
}

fn unused_notice(name: &str, declared: &Declared) -> String {
    let near = nearest(name, declared.known.iter().map(String::as_str));
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    format!("--set {name}: the file neither declares nor uses this variable{near}")
}

/// The problems of the first origin that has any.
fn report(declared: &Declared, problems: Vec<(usize, Mistake)>) -> Report {
    let first = problems.iter().map(|(origin, _)| *origin).min();
    let origin = first.unwrap_or(FILE);
    let mistakes = problems.into_iter().filter(|(it, _)| *it == origin);
    let VariableOrigin { name, text } = &declared.origins[origin];
    Report::new(name, text.as_str(), mistakes.map(|(_, it)| it).collect())
}
