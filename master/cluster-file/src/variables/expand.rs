//! Puts the values of variables in their places. Every place is visited, whatever is wrong at others. Pure.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use aot_proto::v1::Variables;

use super::declared::{Declared, FILE, VariableNode, VariableValue};
use super::pieces::{Piece, pieces};
use super::scalar::plain;
use crate::node::{Body, MAX_DEPTH, Node, ScalarKind};
use crate::record::nearest;
use crate::report::Mistake;

/// Most variables that use one another, one inside the next.
const MAX_CHAIN: usize = 32;
/// Most levels of all values that are being expanded, one inside the next: each costs some of the stack.
const MAX_NESTED: usize = 2 * MAX_DEPTH;
/// Most bytes of values that are put in their places, so that a short file can't become a long one by doubling.
const MAX_EXPANDED_BYTES: usize = 4 << 20;
/// What a value counts for besides its text.
const NODE_BYTES: usize = 32;
/// Problems that have a suggestion: searching for one costs time.
const MAX_SUGGESTED: usize = 100;

/// Expands the values of one file.
pub(super) struct Expander<'a> {
    declared: &'a Declared,
    given: &'a Variables,
    /// What `$cluster_name` stands for; `None` leaves it as it is.
    cluster: Option<&'a str>,
    /// Values by the name they are used by; `None` = there is a problem with it, which was noted.
    done: HashMap<String, Option<Node>>,
    /// The variables whose values are being expanded.
    open: Vec<String>,
    /// Whose text is being expanded, where in it, and how deep.
    origin: usize,
    path: Vec<String>,
    level: usize,
    /// How deep over all variables that are being expanded.
    depth: usize,
    bytes: usize,
    /// What is wrong, with the origin that it is in.
    pub problems: Vec<(usize, Mistake)>,
    /// Names at the top that were used.
    pub used: BTreeSet<String>,
}

impl<'a> Expander<'a> {
    pub(super) fn new(
        declared: &'a Declared,
        given: &'a Variables,
        cluster: Option<&'a str>,
    ) -> Self {
        Self {
            declared,
            given,
            cluster,
            done: HashMap::new(),
            open: Vec::new(),
            origin: FILE,
            path: Vec::new(),
            level: 0,
            depth: 0,
            bytes: 0,
            problems: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    /// Every variable with its value.
    pub(super) fn all(&mut self) -> Option<Node> {
        let VariableValue::Map(entries) = &self.declared.root.value else {
            return None;
        };
        let mut all = Vec::new();
        for (name, _) in entries {
            let value = self.variable(name, &(0..0));
            all.push(value.map(|value| (key(name), value)));
        }
        let entries: Option<Vec<_>> = all.into_iter().collect();
        entries.map(|entries| Node {
            span: 0..0,
            body: Body::Map(entries),
        })
    }

    /// What stands under a key at the top of the cluster's file.
    pub(super) fn entry(&mut self, key: &str, value: &Node) -> Option<Node> {
        self.below(key.to_owned(), |own| own.node(value))
    }

    /// A key with the cluster's name in it.
    pub(super) fn key(&self, key: &Node) -> Node {
        let mut key = key.clone();
        if let (Body::Scalar { text, .. }, Some(name)) = (&mut key.body, self.cluster)
            && text.contains("$cluster_name")
        {
            *text = text.replace("$cluster_name", name);
        }
        key
    }

    fn below<T>(&mut self, step: String, expand: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        self.level += 1;
        self.depth += 1;
        let expanded = expand(self);
        self.depth -= 1;
        self.level -= 1;
        self.path.pop();
        expanded
    }

    fn node(&mut self, node: &Node) -> Option<Node> {
        let body = match &node.body {
            Body::Null => Body::Null,
            Body::Scalar { text, kind } if !text.contains('$') => Body::Scalar {
                text: text.clone(),
                kind: *kind,
            },
            Body::Scalar { text, .. } => return self.text(node, text),
            Body::Seq(items) => {
                let mut all = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    all.push(self.below(format!("[{index}]"), |own| own.node(item)));
                }
                Body::Seq(all.into_iter().collect::<Option<_>>()?)
            }
            Body::Map(entries) => {
                let mut all = Vec::new();
                for (key, value) in entries {
                    let key = self.key(key);
                    let step = format!(".{}", key.text().unwrap_or_default());
                    let value = self.below(step, |own| own.node(value));
                    all.push(value.map(|value| (key, value)));
                }
                Body::Map(all.into_iter().collect::<Option<_>>()?)
            }
        };
        let span = node.span.clone();
        Some(Node { span, body })
    }

    /// A text with a dollar in it. One that is nothing but a variable is what that is, number, list or mapping.
    fn text(&mut self, node: &Node, text: &str) -> Option<Node> {
        let pieces = pieces(text);
        if let [piece @ (Piece::Variable(_) | Piece::Env(_))] = &pieces[..] {
            let mut value = self.value(node, piece)?;
            if self.level + depth(&value) > MAX_DEPTH {
                let message = format!("values are nested more than {MAX_DEPTH} deep here");
                return self.wrong(self.place(node, piece), message, None);
            }
            value.place(&node.span);
            return Some(value);
        }
        let mut parts = Vec::new();
        for piece in &pieces {
            parts.push(match piece {
                Piece::Plain(text) => Some((*text).to_owned()),
                Piece::ClusterName => Some(self.cluster.unwrap_or("$cluster_name").to_owned()),
                _ => self.part(node, piece),
            });
        }
        let text = parts.into_iter().collect::<Option<String>>()?;
        self.count(node, text.len())?;
        Some(Node {
            span: node.span.clone(),
            body: Body::Scalar {
                text,
                kind: ScalarKind::Text,
            },
        })
    }

    /// The value of a variable among other text.
    fn part(&mut self, node: &Node, piece: &Piece<'_>) -> Option<String> {
        let value = self.value(node, piece)?;
        if let Some(text) = value.text() {
            return Some(text.to_owned());
        }
        let written = piece.written();
        let message = format!("{written} is {}, which text can't hold", value.found());
        let help = format!("a value that is nothing but {written} can");
        self.wrong(self.place(node, piece), message, Some(help))
    }

    /// The value that `piece` of `node` stands for.
    fn value(&mut self, node: &Node, piece: &Piece<'_>) -> Option<Node> {
        let place = self.place(node, piece);
        let written = piece.written();
        let value = match piece {
            Piece::Env(name) => self.environment(name, &place)?,
            Piece::Variable(name) => {
                let top = name.split('.').next().unwrap_or_default();
                self.used.insert(top.to_owned());
                self.variable(name, &place)?
            }
            _ => {
                let message = format!("{written} does not name a variable");
                let help = "${name} and ${env:NAME} are known, and `$${` is a plain `${`";
                return self.wrong(place, message, Some(self.with_shell(help.to_owned())));
            }
        };
        if matches!(value.body, Body::Null) {
            let help = match piece {
                Piece::Variable(name) => Some(format!("give it with --set {name}=VALUE")),
                _ => None,
            };
            return self.wrong(place, format!("{written} has no value"), help);
        }
        self.count(node, size(&value))?;
        Some(value)
    }

    /// The value of a variable of the environment.
    fn environment(&mut self, name: &str, place: &Range<usize>) -> Option<Node> {
        if let Some(value) = self.given.env.get(name) {
            return Some(plain(value));
        }
        let (message, help) = match self.given.not_utf8.iter().any(|it| it == name) {
            true => (
                format!("the environment variable {name:?} is not UTF-8"),
                "give it as UTF-8: a file has no other text".to_owned(),
            ),
            false => (
                format!("the environment has no variable {name:?}"),
                format!(
                    "export {name} before the command (sudo passes few variables on), or write `$${{` for a plain `${{`"
                ),
            ),
        };
        self.wrong(place.clone(), message, Some(help))
    }

    /// The value of a variable, used at `place`. `None` = a problem, which was noted.
    fn variable(&mut self, name: &str, place: &Range<usize>) -> Option<Node> {
        if let Some(done) = self.done.get(name) {
            return done.clone();
        }
        if let Some(at) = self.open.iter().position(|open| open == name) {
            let mut cycle = self.open[at..].to_vec();
            cycle.push(name.to_owned());
            let message = format!(
                "variables use each other in a cycle: {}",
                cycle.join(" -> ")
            );
            return self.wrong(place.clone(), message, None);
        }
        if self.open.len() >= MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} variables use one another");
            return self.wrong(place.clone(), message, None);
        }
        if self.depth > MAX_NESTED {
            let message = format!("values are nested more than {MAX_NESTED} deep here");
            return self.wrong(place.clone(), message, None);
        }
        let value = match self.find(name) {
            NamePlace::Declared(variable) => self.resolve(name, variable),
            NamePlace::Inside(outer) => {
                let outside = self.variable(outer, place)?;
                let inside = name[outer.len() + 1..].split('.');
                let mut at = Some(&outside);
                for step in inside {
                    at = at.and_then(|at| at.get(step));
                }
                match at {
                    Some(found) => Some(found.clone()),
                    None => return self.unknown(name, place.clone()),
                }
            }
            NamePlace::Nowhere => return self.unknown(name, place.clone()),
        };
        self.done.insert(name.to_owned(), value.clone());
        value
    }

    fn find<'n>(&self, name: &'n str) -> NamePlace<'a, 'n> {
        let mut at = &self.declared.root;
        let mut end = 0;
        for segment in name.split('.') {
            match &at.value {
                VariableValue::Map(entries) => {
                    match entries.iter().find(|(known, _)| known == segment) {
                        Some((_, variable)) => at = variable,
                        None => return NamePlace::Nowhere,
                    }
                }
                VariableValue::Plain(_) => return NamePlace::Inside(&name[..end - 1]),
            }
            end += segment.len() + 1;
        }
        NamePlace::Declared(at)
    }

    fn resolve(&mut self, name: &str, variable: &'a VariableNode) -> Option<Node> {
        self.open.push(name.to_owned());
        let before = (self.origin, std::mem::take(&mut self.path), self.level);
        self.level = name.matches('.').count() + 1;
        let value = self.declared_value(name, variable);
        (self.origin, self.path, self.level) = before;
        self.open.pop();
        value
    }

    fn declared_value(&mut self, name: &str, variable: &'a VariableNode) -> Option<Node> {
        match &variable.value {
            VariableValue::Plain(node) => {
                self.origin = variable.origin;
                self.path = vec![match variable.origin {
                    FILE => format!("vars.{name}"),
                    _ => name.to_owned(),
                }];
                let mut value = self.node(node)?;
                if variable.origin != FILE {
                    value.place(&(0..0));
                }
                Some(value)
            }
            VariableValue::Map(entries) => {
                let mut all = Vec::new();
                self.level += 1;
                for (below, variable) in entries {
                    let value = self.declared_value(&format!("{name}.{below}"), variable);
                    all.push(value.map(|value| (key(below), value)));
                }
                self.level -= 1;
                let body = Body::Map(all.into_iter().collect::<Option<_>>()?);
                Some(Node { span: 0..0, body })
            }
        }
    }

    fn unknown<T>(&mut self, name: &str, place: Range<usize>) -> Option<T> {
        let names = match self.problems.len() < MAX_SUGGESTED {
            true => self.declared.names(),
            false => Vec::new(),
        };
        let help = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean ${{{near}}}?"),
            None if name == "cluster_name" => "did you mean $cluster_name, without braces?".into(),
            None => format!(
                "declare it under `vars:`, or give --set {name}=VALUE; `$${{` is a plain `${{`"
            ),
        };
        let help = self.with_shell(help);
        self.wrong(place, format!("no variable {name:?}"), Some(help))
    }

    /// A help, and another where a shell's own variable is likely meant.
    fn with_shell(&self, help: String) -> String {
        let path = self.path.concat();
        match path.contains(".args[") || path.contains(".env.") {
            true => format!("{help} (for bash's own variables write $${{NAME}})"),
            false => help,
        }
    }

    /// Counts what is put in its place.
    fn count(&mut self, node: &Node, bytes: usize) -> Option<()> {
        let had_room = self.bytes <= MAX_EXPANDED_BYTES;
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes <= MAX_EXPANDED_BYTES {
            true => Some(()),
            false if !had_room => None,
            false => {
                let message = "with its variables the file has more than 4 MiB";
                self.wrong(node.span.clone(), message.to_owned(), None)
            }
        }
    }

    /// Where a piece stands in the text; the whole node when its source is written otherwise.
    fn place(&self, node: &Node, piece: &Piece<'_>) -> Range<usize> {
        let text = &self.declared.origins[self.origin].text;
        let source = text.get(node.span.clone()).unwrap_or_default();
        let written = piece.written();
        match source.find(&written) {
            Some(at) => node.span.start + at..node.span.start + at + written.len(),
            None => node.span.clone(),
        }
    }

    fn wrong<T>(&mut self, span: Range<usize>, message: String, help: Option<String>) -> Option<T> {
        let mut mistake = Mistake::new(span, self.path.concat(), message);
        mistake.help = help;
        self.problems.push((self.origin, mistake));
        None
    }
}

/// Where a name leads.
enum NamePlace<'a, 'n> {
    Declared(&'a VariableNode),
    /// Into the value of this outer name, perhaps.
    Inside(&'n str),
    Nowhere,
}

fn key(name: &str) -> Node {
    let (text, kind) = (name.to_owned(), ScalarKind::Text);
    let body = Body::Scalar { text, kind };
    Node { span: 0..0, body }
}

fn depth(node: &Node) -> usize {
    match &node.body {
        Body::Null | Body::Scalar { .. } => 0,
        Body::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Body::Map(entries) => 1 + entries.iter().map(|(_, it)| depth(it)).max().unwrap_or(0),
    }
}

fn size(node: &Node) -> usize {
    NODE_BYTES
        + match &node.body {
            Body::Null => 0,
            Body::Scalar { text, .. } => text.len(),
            Body::Seq(items) => items.iter().map(size).sum(),
            Body::Map(entries) => entries.iter().map(|(key, it)| size(key) + size(it)).sum(),
        }
}
