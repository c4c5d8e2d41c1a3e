//! Puts values into the user's part of user-data. Pure.
//!
//! All machines of a batch share one text. What differs between them is left to cloud-init, which fills jinja templates
//! on the machine (its documentation, "Instance metadata", "Using instance-data": `ds.meta_data` has what the metadata
//! service says, with `_` for `-` in keys). The user's own braces come out as they are. A part
//! with a `coreos:` key keeps `$private_ipv4` and `$public_ipv4`: CoreOS and Flatcar replace them themselves.

use aot_model::spec::MemberSpec;

use super::Error;

/// First line of a template (cloud-init, "User data formats").
const JINJA: &str = "## template: jinja";
/// Place in the batch, from 0: a text in the metadata.
const INDEX: &str = "ds.meta_data.ami_launch_index | int";

/// What can be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Cluster,
    Token,
    Name,
    Private,
    Public,
}

/// Names in the text; the last one is that of coreos-ec2's files.
const NAMES: [(&str, Variable); 6] = [
    ("$cluster_name", Variable::Cluster),
    ("$discovery_token", Variable::Token),
    ("$instance_name", Variable::Name),
    ("$private_ipv4", Variable::Private),
    ("$public_ipv4", Variable::Public),
    ("$coreos_discovery_token", Variable::Token),
];

/// What the variables stand for in one batch.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// `$cluster_name`.
    pub cluster: &'a str,
    /// `$discovery_token`, when there is one.
    pub token: Option<&'a str>,
    /// The machine with launch index N is member N.
    pub members: &'a [MemberSpec],
}

#[derive(Debug, PartialEq)]
enum TemplatePiece<'t> {
    Text(&'t str),
    Variable(Variable, &'t str),
}

/// Whether a part needs a discovery token.
pub fn wants_token(text: &str) -> bool {
    let token =
        |piece: &TemplatePiece<'_>| matches!(piece, TemplatePiece::Variable(Variable::Token, _));
    pieces(text).iter().any(token)
}

/// The text with its variables filled in, or turned into a template where machines differ.
///
/// A CoreOS part (`coreos:` at its top) keeps its addresses: CoreOS and Flatcar fill them in themselves.
///
/// # Errors
/// When a part of another kind than cloud-config, script or template names what differs, or there is no token.
pub fn fill(text: &str, values: Values<'_>) -> Result<String, Error> {
    let coreos =
        text.starts_with("#cloud-config") && text.lines().any(|line| line.starts_with("coreos:"));
    let mut filled = vec![Filled::Same(String::new())];
    let mut differs = None;
    for piece in pieces(text) {
        let (variable, name) = match piece {
            TemplatePiece::Text(text) => {
                push(&mut filled, text);
                continue;
            }
            TemplatePiece::Variable(variable, name) => (variable, name),
        };
        let expression = match (variable, values.members) {
            (Variable::Cluster, _) => {
                push(&mut filled, values.cluster);
                continue;
            }
            (Variable::Token, _) => {
                push(&mut filled, values.token.ok_or(Error::NoToken)?);
                continue;
            }
            (Variable::Name, [one]) => {
                push(&mut filled, one.name.as_str());
                continue;
            }
            (Variable::Private | Variable::Public, _) if coreos => {
                push(&mut filled, name);
                continue;
            }
            (Variable::Name, members) => name_expression(members),
            (Variable::Private, _) => "{{ ds.meta_data.local_ipv4 }}".to_owned(),
            (Variable::Public, _) => "{{ ds.meta_data.public_ipv4 | default('') }}".to_owned(),
        };
        differs.get_or_insert_with(|| name.to_owned());
        filled.push(Filled::Differs(expression));
        filled.push(Filled::Same(String::new()));
    }
    let template = text.starts_with(JINJA);
    let may_become = text.starts_with("#!") || (text.starts_with("#cloud-config") && !coreos);
    match differs {
        None => Ok(joined(&filled, false)),
        Some(_) if template => Ok(joined(&filled, false)),
        Some(_) if may_become => Ok(format!("{JINJA}\n{}", joined(&filled, true))),
        Some(name) => Err(Error::Differs(name)),
    }
}

enum Filled {
    Same(String),
    Differs(String),
}

/// Adds to the last piece, which is always text.
fn push(filled: &mut [Filled], more: &str) {
    if let Some(Filled::Same(text)) = filled.last_mut() {
        text.push_str(more);
    }
}

fn joined(filled: &[Filled], escape: bool) -> String {
    let mut whole = String::new();
    for (at, piece) in filled.iter().enumerate() {
        match piece {
            Filled::Same(text) if escape => escaped(text, at + 1 < filled.len(), &mut whole),
            Filled::Same(text) | Filled::Differs(text) => whole.push_str(text),
        }
    }
    whole
}

/// Text that jinja gives out as it is. Raw blocks would eat the line end after them (cloud-init trims blocks), so each
/// brace that would begin something is an expression of its own.
fn escaped(text: &str, before_expression: bool, whole: &mut String) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let begins = match chars.peek() {
            Some(next) => matches!(next, '{' | '%' | '#'),
            None => before_expression,
        };
        if c == '{' && begins {
            whole.push_str("{{ '{' }}");
        } else {
            whole.push(c);
        }
    }
}

fn pieces(text: &str) -> Vec<TemplatePiece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(found) = text[at..].find('$') {
        at += found;
        let rest = &text[at..];
        let word = rest[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .map_or(rest, |end| &rest[..=end]);
        match NAMES.iter().find(|(name, _)| *name == word) {
            Some((name, variable)) => {
                pieces.push(TemplatePiece::Text(&text[start..at]));
                pieces.push(TemplatePiece::Variable(*variable, name));
                at += word.len();
                start = at;
            }
            None => at += 1,
        }
    }
    pieces.push(TemplatePiece::Text(&text[start..]));
    pieces
}

/// The name of member `ami-launch-index`, as short as may be: hundreds of members stay a few bytes while their numbers
/// follow each other, and a list of numbers otherwise.
fn name_expression(members: &[MemberSpec]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    numbered(&names).unwrap_or_else(|| {
        let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!("{{{{ [{}][{INDEX}] }}}}", quoted.join(","))
    })
}

/// For names that differ in one number.
fn numbered<'n>(names: &[&'n str]) -> Option<String> {
    let first = *names.first()?;
    let same = |name: &&str, reverse: bool| {
        let equal = |(a, b): &(char, char)| a == b;
        if reverse {
            first
                .chars()
                .rev()
                .zip(name.chars().rev())
                .take_while(equal)
                .count()
        } else {
            first.chars().zip(name.chars()).take_while(equal).count()
        }
    };
    // Names are ASCII.
    let front = names.iter().map(|name| same(name, false)).min()?;
    let back = names.iter().map(|name| same(name, true)).min()?;
    let digit = |c: char| c.is_ascii_digit();
    let prefix = first[..front].trim_end_matches(digit);
    let suffix = first[first.len() - back..].trim_start_matches(digit);
    let middle = |name: &'n str| name.strip_prefix(prefix)?.strip_suffix(suffix);
    let texts: Vec<&str> = names
        .iter()
        .map(|name| middle(name))
        .collect::<Option<_>>()?;
    let width = texts
        .iter()
        .find(|text| text.starts_with('0'))
        .map_or(1, |text| text.len());
    let numbers: Vec<u32> = texts
        .iter()
        .map(|text| text.parse().ok())
        .collect::<Option<_>>()?;
    let same = |(text, number): (&&str, &u32)| **text == format!("{number:0width$}");
    if !texts.iter().zip(&numbers).all(same) {
        return None;
    }
    let start = numbers[0];
    let follow = (start..)
        .zip(&numbers)
        .all(|(expected, number)| expected == *number);
    let number = if follow {
        format!("{INDEX} + {start}")
    } else {
        let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        format!("[{}][{INDEX}]", list.join(","))
    };
    Some(if width > 1 {
        format!("{prefix}{{{{ '%0{width}d' | format({number}) }}}}{suffix}")
    } else {
        format!("{prefix}{{{{ {number} }}}}{suffix}")
    })
}

#[cfg(test)]
mod tests;
