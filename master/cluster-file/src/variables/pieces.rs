//! What a text is made of: plain parts, `$cluster_name`, `${name}` and `${env:NAME}`. Pure.

/// The cluster's name, as files have it since before there were variables.
const CLUSTER_NAME: &str = "$cluster_name";
/// Begins the name of a variable of the environment.
const ENV: &str = "env:";

/// One part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// As it stands.
    Plain(&'a str),
    /// `$cluster_name`.
    ClusterName,
    /// `${net.subnet}`: the name.
    Variable(&'a str),
    /// `${env:HOME}`: the name.
    Env(&'a str),
    /// `${` with something else up to its brace; without one, up to the end.
    Bad { inside: &'a str, is_closed: bool },
}

impl Piece<'_> {
    /// As the file has it, to point at; empty for what is never pointed at.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Plain(_) | Self::ClusterName => String::new(),
            Self::Variable(name) => format!("${{{name}}}"),
            Self::Env(name) => format!("${{{ENV}{name}}}"),
            Self::Bad { inside, is_closed } => {
                format!("${{{inside}{}", if *is_closed { "}" } else { "" })
            }
        }
    }
}

/// The parts of a text, in order. `$$` is a plain dollar, and so is one with nothing behind it that means something.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, at) = rest.split_at(dollar);
        if !before.is_empty() {
            found.push(Piece::Plain(before));
        }
        rest = if let Some(after) = at.strip_prefix("$$") {
            found.push(Piece::Plain("$"));
            after
        } else if let Some(after) = at.strip_prefix(CLUSTER_NAME) {
            found.push(Piece::ClusterName);
            after
        } else if let Some(after) = at.strip_prefix("${") {
            let (inside, after) = match after.split_once('}') {
                Some((inside, after)) => (inside, Some(after)),
                None => (after, None),
            };
            found.push(braced(inside, after.is_some()));
            after.unwrap_or_default()
        } else {
            found.push(Piece::Plain("$"));
            &at[1..]
        };
    }
    if !rest.is_empty() {
        found.push(Piece::Plain(rest));
    }
    found
}

fn braced(inside: &str, is_closed: bool) -> Piece<'_> {
    let env = inside.strip_prefix(ENV);
    match env {
        _ if !is_closed => Piece::Bad { inside, is_closed },
        Some(name) if is_env_name(name) => Piece::Env(name),
        None if is_name(inside) => Piece::Variable(inside),
        _ => Piece::Bad { inside, is_closed },
    }
}

/// Whether a text names a variable, perhaps one inside another: `net.subnet`.
pub(crate) fn is_name(text: &str) -> bool {
    text.split('.').all(is_segment)
}

/// Whether a text is a name without dots.
pub(crate) fn is_segment(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.starts_with(first) && text.chars().all(rest)
}

fn is_env_name(text: &str) -> bool {
    is_segment(text) && !text.contains('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_braces_make_a_variable() {
        for (text, wanted) in [
            ("", vec![]),
            ("plain", vec![Piece::Plain("plain")]),
            ("${a}", vec![Piece::Variable("a")]),
            ("${net.sub-net}", vec![Piece::Variable("net.sub-net")]),
            ("${env:HOME}", vec![Piece::Env("HOME")]),
            ("$$", vec![Piece::Plain("$")]),
            ("$${a}", vec![Piece::Plain("$"), Piece::Plain("{a}")]),
            ("$$${a}", vec![Piece::Plain("$"), Piece::Variable("a")]),
            ("$", vec![Piece::Plain("$")]),
            ("^a$", vec![Piece::Plain("^a"), Piece::Plain("$")]),
            ("$HOME", vec![Piece::Plain("$"), Piece::Plain("HOME")]),
            (
                "$cluster_name-x",
                vec![Piece::ClusterName, Piece::Plain("-x")],
            ),
            (
                "$$cluster_name",
                vec![Piece::Plain("$"), Piece::Plain("cluster_name")],
            ),
        ] {
            assert_eq!(pieces(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_bad() {
        for (text, inside) in [
            ("${}", ""),
            ("${ a }", " a "),
            ("${HOME:-/root}", "HOME:-/root"),
            ("${a..b}", "a..b"),
            ("${1}", "1"),
            ("${env:}", "env:"),
            ("${env:A-B}", "env:A-B"),
            ("${ENV:A}", "ENV:A"),
        ] {
            let is_closed = true;
            assert_eq!(pieces(text), [Piece::Bad { inside, is_closed }], "{text}");
            assert_eq!(pieces(text)[0].written(), text);
        }
        let open = Piece::Bad {
            inside: "a",
            is_closed: false,
        };
        assert_eq!(open.written(), "${a");
        assert_eq!(pieces("${a"), [open]);
    }
}
