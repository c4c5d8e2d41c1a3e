//! The variables that a file declares and what was given beside it, as one tree: who says what, and what wins.

use aot_proto::v1::Variables;

use super::pieces::{is_name, is_segment};
use super::scalar::{from_json, given};
use crate::node::{self, Body, Node};
use crate::report::Mistake;

/// The cluster's own file, among the origins.
pub(super) const FILE: usize = 0;
/// Most bytes of `--vars` files and `--set` together.
const MAX_GIVEN_BYTES: usize = 1 << 20;
/// Most of them.
const MAX_GIVEN: usize = 1000;
/// Most dots in the name of one that is set.
const MAX_DOTS: usize = 16;

/// Where variables come from: a file, or one `--set`.
#[derive(Debug)]
pub(super) struct VariableOrigin {
    /// As reports name it.
    pub name: String,
    /// What spans are in.
    pub text: String,
}

/// One variable, or a mapping of them.
#[derive(Debug, Clone)]
pub(super) struct VariableNode {
    /// Whose text its span is in.
    pub origin: usize,
    pub value: VariableValue,
}

#[derive(Debug, Clone)]
pub(super) enum VariableValue {
    /// Not yet expanded; never a mapping.
    Plain(Node),
    /// By name, in the order in which they were first given.
    Map(Vec<(String, VariableNode)>),
}

/// All variables, before any of them is expanded.
#[derive(Debug)]
pub(super) struct Declared {
    pub origins: Vec<VariableOrigin>,
    /// A mapping.
    pub root: VariableNode,
    /// Names that were given by `--set`.
    pub set: Vec<String>,
    /// Names at the top that the cluster's file or a file of variables declares.
    pub known: Vec<String>,
    /// What is wrong, with the origin that it is in.
    pub problems: Vec<(usize, Mistake)>,
}

impl Declared {
    /// From the cluster's file, then each file of variables, then each `--set`: what comes later wins, mapping by mapping.
    pub(super) fn collect(file: VariableOrigin, own: Option<&Node>, variables: &Variables) -> Self {
        let mut all = Self {
            origins: vec![file],
            root: mapping(FILE, Vec::new()),
            set: Vec::new(),
            known: Vec::new(),
            problems: Vec::new(),
        };
        if let Some(node) = own.filter(|node| !matches!(node.body, Body::Null)) {
            all.declare(node, FILE, "vars");
        }
        if is_too_much(variables) {
            let message =
                format!("--vars and --set are {MAX_GIVEN} at most, with {MAX_GIVEN_BYTES} bytes");
            all.problems.push((FILE, Mistake::new(0..0, "", message)));
            return all;
        }
        for file in &variables.files {
            let origin = all.origin(&file.path, &file.text);
            match read_file(&file.text) {
                Ok(node) if matches!(node.body, Body::Null) => {}
                Ok(node) => all.declare(&node, origin, ""),
                Err(mistake) => all.problems.push((origin, mistake)),
            }
        }
        if let VariableValue::Map(entries) = &all.root.value {
            all.known = entries.iter().map(|(name, _)| name.clone()).collect();
        }
        for set in &variables.set {
            all.set(set);
        }
        all
    }

    fn origin(&mut self, name: &str, text: &str) -> usize {
        self.origins.push(VariableOrigin {
            name: name.to_owned(),
            text: text.to_owned(),
        });
        self.origins.len() - 1
    }

    /// Adds a mapping of names to values.
    fn declare(&mut self, node: &Node, origin: usize, path: &str) {
        let Body::Map(entries) = &node.body else {
            let message = format!("wants a mapping of names to values, found {}", node.found());
            let mistake = Mistake::new(node.span.clone(), path, message);
            return self.problems.push((origin, mistake));
        };
        for (key, _) in entries {
            let name = key.text().unwrap_or_default();
            if !is_segment(name) {
                let message = format!("{name:?} is not a name for a variable");
                let mistake = Mistake::new(key.span.clone(), path, message)
                    .help("letters, digits, `_` and `-`, beginning with a letter or `_`");
                self.problems.push((origin, mistake));
            }
        }
        let variable = self.variable(node, origin, path);
        merge(&mut self.root, variable);
    }

    fn variable(&mut self, node: &Node, origin: usize, path: &str) -> VariableNode {
        let Body::Map(entries) = &node.body else {
            let value = VariableValue::Plain(node.clone());
            return VariableNode { origin, value };
        };
        let mut map: Vec<(String, VariableNode)> = Vec::new();
        let mut first_at: Vec<std::ops::Range<usize>> = Vec::new();
        for (key, value) in entries {
            let below = |name: &str| match path {
                "" => name.to_owned(),
                _ => format!("{path}.{name}"),
            };
            let Some(name) = key.text() else {
                let message = format!("wants a name as key, found {}", key.found());
                let mistake = Mistake::new(key.span.clone(), path, message);
                self.problems.push((origin, mistake));
                continue;
            };
            if let Some(at) = map.iter().position(|(known, _)| known == name) {
                let mistake = Mistake::new(key.span.clone(), below(name), "is given twice");
                let mistake = mistake.other(first_at[at].clone(), "first here");
                self.problems.push((origin, mistake));
                continue;
            }
            first_at.push(key.span.clone());
            let variable = self.variable(value, origin, &below(name));
            map.push((name.to_owned(), variable));
        }
        mapping(origin, map)
    }

    /// Adds one `key=value`.
    fn set(&mut self, text: &str) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if !text.contains('=') || !is_name(name) || name.matches('.').count() >= MAX_DOTS {
            let origin = self.origin("--set", text);
            let message = format!("{text:?} is not KEY=VALUE with the name of a variable");
            let mistake = Mistake::new(0..name.len(), "", message);
            let mistake = mistake.help("as in --set size=3, or --set net.subnet=a");
            return self.problems.push((origin, mistake));
        }
        let origin = self.origin(&format!("--set {name}"), value);
        let mut variable = self.variable(&given(value), origin, "");
        for segment in name.rsplit('.') {
            variable = mapping(origin, vec![(segment.to_owned(), variable)]);
        }
        self.set.push(name.to_owned());
        merge(&mut self.root, variable);
    }

    /// All names, also those inside of mappings, for suggestions.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect_names(&self.root, "", &mut names);
        names
    }
}

fn mapping(origin: usize, entries: Vec<(String, VariableNode)>) -> VariableNode {
    let value = VariableValue::Map(entries);
    VariableNode { origin, value }
}

/// Puts `from` over `into`: mappings are merged name by name, all else is replaced.
fn merge(into: &mut VariableNode, from: VariableNode) {
    match (&mut into.value, from.value) {
        (VariableValue::Map(have), VariableValue::Map(entries)) => {
            for (name, variable) in entries {
                match have.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => merge(known, variable),
                    None => have.push((name, variable)),
                }
            }
        }
        (_, value) => {
            let origin = from.origin;
            *into = VariableNode { origin, value };
        }
    }
}

fn collect_names(variable: &VariableNode, path: &str, names: &mut Vec<String>) {
    let VariableValue::Map(entries) = &variable.value else {
        return;
    };
    for (name, variable) in entries {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        collect_names(variable, &path, names);
        names.push(path);
    }
}

fn is_too_much(given: &Variables) -> bool {
    let files = given.files.iter().map(|file| file.text.len());
    let set = given.set.iter().map(String::len);
    let bytes: usize = files.chain(set).sum();
    given.files.len() + given.set.len() > MAX_GIVEN || bytes > MAX_GIVEN_BYTES
}

/// YAML, or JSON also where that is no YAML, such as with tabs before its keys.
fn read_file(text: &str) -> Result<Node, Mistake> {
    node::parse(text).or_else(|mistake| match serde_json::from_str(text) {
        Ok(value) => Ok(from_json(&value)),
        Err(_) => Err(mistake),
    })
}
