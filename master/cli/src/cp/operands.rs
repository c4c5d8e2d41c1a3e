//! What the words of `cp` mean. Pure, but for looking at whether what is to be copied is there.

use std::path::PathBuf;

use aot_archive::{Source, Tops};

use super::super::error::Error;

/// How a remote path is written.
const HINT: &str = "one side must be TARGET:/path, with an absolute path; ./a:/b is a local path";

/// What is copied where.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To instances.
    In(In),
    /// From instances.
    Out(CopyFrom),
}

/// Files to instances.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct In {
    /// What is copied.
    pub sources: Vec<Source>,
    /// Which instances.
    pub target: String,
    /// Where to on them.
    pub path: String,
    /// It is a folder, made when missing.
    pub into: bool,
    /// The last names of what is copied; none when what is in a folder is.
    pub names: Vec<String>,
}

/// Files from instances.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CopyFrom {
    /// Which instances.
    pub target: String,
    /// What is copied.
    pub paths: Vec<String>,
    pub to: PathBuf,
    /// It is a folder, made when missing.
    pub into: bool,
    /// What an instance may send.
    pub tops: Tops,
}

impl CopyFrom {
    /// Whether the target is the plain name of one instance: then no folder is made for it.
    pub(super) fn is_straight(&self, instances: &[String]) -> bool {
        matches!(instances, [only] if *only == self.target)
    }
}

/// One operand: a path here, or `TARGET:/path`.
#[derive(Debug, PartialEq, Eq)]
enum Operand<'a> {
    Here(&'a str),
    There(&'a str, &'a str),
}

/// The first `:/` splits, but not in one that begins like a path.
fn operand(text: &str) -> Operand<'_> {
    if text.starts_with(['/', '.']) {
        return Operand::Here(text);
    }
    match text.find(":/") {
        Some(at) if at > 0 => Operand::There(&text[..at], &text[at + 1..]),
        _ => Operand::Here(text),
    }
}

/// Reads `SRC... DST`.
///
/// # Errors
/// When not exactly one side is remote, sources are of several targets, or two of them have one name.
pub(super) fn read(words: &[String]) -> Result<Way, Error> {
    let Some((to, from)) = words.split_last().filter(|(_, from)| !from.is_empty()) else {
        return Err(Error::usage("cp: SRC... and DST are wanted", HINT));
    };
    if let Some(operand) = words.iter().find(|operand| operand.starts_with(":/")) {
        return Err(Error::usage(
            format!("cp: the target in {operand:?} is empty"),
            "name the instances; write a local path that begins like this as ./:/...",
        ));
    }
    let from: Vec<Operand<'_>> = from.iter().map(|text| operand(text)).collect();
    let here = from
        .iter()
        .filter(|operand| matches!(operand, Operand::Here(_)));
    match (operand(to), here.count()) {
        (Operand::There(target, path), count) if count == from.len() => {
            copy_in(&from, target, path)
        }
        (Operand::Here(to), 0) => copy_out(&from, to),
        (Operand::There(..), _) => Err(Error::usage(
            "cp: both sides are on instances",
            "copy to a local folder first, and from there to the instances",
        )),
        (Operand::Here(_), count) if count == from.len() => {
            Err(Error::usage("cp: neither side is on an instance", HINT))
        }
        (Operand::Here(_), _) => Err(Error::usage(
            "cp: some sources are local and some on instances",
            HINT,
        )),
    }
}

/// Several things, or what is in a folder, need a folder.
fn copy_in(from: &[Operand<'_>], target: &str, path: &str) -> Result<Way, Error> {
    let paths: Vec<PathBuf> = from
        .iter()
        .map(|operand| match operand {
            Operand::Here(path) | Operand::There(_, path) => PathBuf::from(path),
        })
        .collect();
    let sources = aot_archive::sources(&paths)?;
    for source in &sources {
        source.path.metadata().map_err(|error| Error::Read {
            path: source.path.clone(),
            source: error,
        })?;
    }
    let content = sources.iter().any(|source| source.name.is_none());
    Ok(Way::In(In {
        into: path.ends_with('/') || sources.len() > 1 || content,
        names: names(&sources),
        sources,
        target: target.to_owned(),
        path: path.to_owned(),
    }))
}

fn copy_out(from: &[Operand<'_>], to: &str) -> Result<Way, Error> {
    let mut targets: Vec<&str> = Vec::new();
    let mut paths = Vec::new();
    for operand in from {
        if let Operand::There(target, path) = operand {
            targets.push(target);
            paths.push((*path).to_owned());
        }
    }
    targets.dedup();
    let [target] = targets[..] else {
        return Err(Error::usage(
            format!("cp: the sources are on {} targets", targets.len()),
            "name one target for all of them, like 'web1,web2:/path'",
        ));
    };
    let as_paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let sources = aot_archive::sources(&as_paths)?;
    let content = sources.iter().any(|source| source.name.is_none());
    Ok(Way::Out(CopyFrom {
        target: target.to_owned(),
        into: to.ends_with('/') || paths.len() > 1 || content,
        paths,
        tops: Tops::of(&sources),
        to: PathBuf::from(to),
    }))
}

/// For the wire: the paths are text, so their last names are.
fn names(sources: &[Source]) -> Vec<String> {
    match Tops::of(sources) {
        Tops::Any => Vec::new(),
        Tops::Named(names) => names
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_before_a_slash_splits() {
        for (text, wanted) in [
            ("web1:/etc", Operand::There("web1", "/etc")),
            ("web1:/", Operand::There("web1", "/")),
            ("pool:web:/etc/x", Operand::There("pool:web", "/etc/x")),
            (
                "re:^web[0-9]:/a:/b",
                Operand::There("re:^web[0-9]", "/a:/b"),
            ),
            ("web1:etc", Operand::Here("web1:etc")),
            ("plain", Operand::Here("plain")),
            ("./a:/b", Operand::Here("./a:/b")),
            ("/a:/b", Operand::Here("/a:/b")),
            (".env:/x", Operand::Here(".env:/x")),
            (":/x", Operand::Here(":/x")),
        ] {
            assert_eq!(operand(text), wanted, "{text}");
        }
    }

    fn of(words: &[&str]) -> Result<Way, Error> {
        let words: Vec<String> = words.iter().map(|operand| (*operand).to_owned()).collect();
        read(&words)
    }

    #[test]
    fn exactly_one_side_is_on_instances() {
        for bad in [
            &["a"][..],
            &[],
            &["a", "b"],
            &["web1:/a", "web2:/b"],
            &["web1:/a", "here", "b"],
            &["web1:/a", "web2:/b", "here"],
            &["web1:/a/x", "web1:/b/x", "here"],
            &["web1:etc", "here"],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(
            of(&["/no/such/file", "web1:/a"]),
            Err(Error::Read { .. })
        ));
    }

    #[test]
    fn a_slash_several_or_a_content_need_a_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "x").expect("writes");
            path.display().to_string()
        };
        let (a, b) = (at("a"), at("b"));
        let inner = format!("{}/.", dir.path().display());
        for (words, wanted) in [
            (vec![&*a, "web*:/x"], false),
            (vec![&*a, "web*:/x/"], true),
            (vec![&*a, &*b, "web*:/x"], true),
            (vec![&*inner, "web*:/x"], true),
        ] {
            match of(&words).expect("is right") {
                Way::In(copy) => {
                    assert_eq!((copy.into, &*copy.target), (wanted, "web*"));
                    let named = words[0] != inner;
                    assert_eq!(copy.names.contains(&"a".to_owned()), named, "{words:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        for (words, wanted) in [
            (vec!["web1:/x", "y"], false),
            (vec!["web1:/x", "y/"], true),
            (vec!["web1:/x", "web1:/z", "y"], true),
            (vec!["web1:/", "y"], true),
        ] {
            match of(&words).expect("is right") {
                Way::Out(copy) => {
                    assert_eq!(copy.into, wanted, "{words:?}");
                    let any = words[..words.len() - 1]
                        .iter()
                        .any(|operand| operand.ends_with(":/"));
                    assert_eq!(copy.tops == Tops::Any, any, "{words:?}");
                    assert!(copy.is_straight(&["web1".to_owned()]));
                    assert!(!copy.is_straight(&["web1".to_owned(), "web2".to_owned()]));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
