//! What the words of `cp` mean. Pure, but for looking at whether what is to be copied is there.

use std::path::PathBuf;

use aot_proto::archive::{self, Source};

use super::super::error::Error;

/// How a remote path is written.
const HINT: &str = "one side is TARGET:/path, with an absolute path; ./a:/b is a path here";

/// What is copied where.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// To instances.
    In(In),
    /// From instances.
    Out(Out),
}

/// Files to instances.
#[derive(Debug, PartialEq, Eq)]
pub struct In {
    /// What is copied.
    pub sources: Vec<Source>,
    /// Which instances.
    pub target: String,
    /// Where to on them.
    pub path: String,
    /// It is a folder, made when missing.
    pub into: bool,
}

/// Files from instances.
#[derive(Debug, PartialEq, Eq)]
pub struct Out {
    /// Which instances.
    pub target: String,
    /// What is copied.
    pub paths: Vec<String>,
    /// Where to.
    pub to: PathBuf,
    /// It is a folder, made when missing.
    pub into: bool,
}

impl Out {
    /// Whether the target is the plain name of one instance: then no folder is made for it.
    pub fn is_straight(&self, instances: &[String]) -> bool {
        matches!(instances, [only] if *only == self.target)
    }
}

/// One word: a path here, or `TARGET:/path`.
#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    Here(&'a str),
    There(&'a str, &'a str),
}

/// The first `:/` splits, but not in a word that begins like a path.
fn word(text: &str) -> Word<'_> {
    if text.starts_with(['/', '.']) {
        return Word::Here(text);
    }
    match text.find(":/") {
        Some(at) if at > 0 => Word::There(&text[..at], &text[at + 1..]),
        _ => Word::Here(text),
    }
}

/// Reads `SRC... DST`.
///
/// # Errors
/// When not exactly one side is remote, sources are of several targets, or two of them have one name.
pub fn read(words: &[String]) -> Result<Way, Error> {
    let Some((to, from)) = words.split_last().filter(|(_, from)| !from.is_empty()) else {
        return Err(Error::usage("cp: SRC... and DST are wanted", HINT));
    };
    let from: Vec<Word<'_>> = from.iter().map(|text| word(text)).collect();
    let here = from.iter().filter(|word| matches!(word, Word::Here(_)));
    match (word(to), here.count()) {
        (Word::There(target, path), count) if count == from.len() => copy_in(&from, target, path),
        (Word::Here(to), 0) => copy_out(&from, to),
        (Word::There(..), _) => Err(Error::usage(
            "cp: both sides are on instances",
            "copy to a folder here first, then from there",
        )),
        (Word::Here(_), count) if count == from.len() => {
            Err(Error::usage("cp: neither side is on an instance", HINT))
        }
        (Word::Here(_), _) => Err(Error::usage(
            "cp: some sources are here and some on instances",
            HINT,
        )),
    }
}

/// Several things, or what is in a folder, need a folder.
fn copy_in(from: &[Word<'_>], target: &str, path: &str) -> Result<Way, Error> {
    let paths: Vec<PathBuf> = from
        .iter()
        .map(|word| match word {
            Word::Here(path) | Word::There(_, path) => PathBuf::from(path),
        })
        .collect();
    let sources = archive::sources(&paths)?;
    for source in &sources {
        source.path.metadata().map_err(|error| Error::Read {
            path: source.path.clone(),
            source: error,
        })?;
    }
    let content = sources.iter().any(|source| source.name.is_none());
    Ok(Way::In(In {
        into: path.ends_with('/') || sources.len() > 1 || content,
        sources,
        target: target.to_owned(),
        path: path.to_owned(),
    }))
}

fn copy_out(from: &[Word<'_>], to: &str) -> Result<Way, Error> {
    let mut targets: Vec<&str> = Vec::new();
    let mut paths = Vec::new();
    for word in from {
        if let Word::There(target, path) = word {
            targets.push(target);
            paths.push((*path).to_owned());
        }
    }
    targets.dedup();
    let [target] = targets[..] else {
        return Err(Error::usage(
            format!("cp: the sources are of {} targets", targets.len()),
            "name one target for all of them, like 'web1,web2:/path'",
        ));
    };
    let as_paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let sources = archive::sources(&as_paths)?;
    let content = sources.iter().any(|source| source.name.is_none());
    Ok(Way::Out(Out {
        target: target.to_owned(),
        into: to.ends_with('/') || paths.len() > 1 || content,
        paths,
        to: PathBuf::from(to),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_before_a_slash_splits() {
        for (text, wanted) in [
            ("web1:/etc", Word::There("web1", "/etc")),
            ("web1:/", Word::There("web1", "/")),
            ("pool:web:/etc/x", Word::There("pool:web", "/etc/x")),
            ("re:^web[0-9]:/a:/b", Word::There("re:^web[0-9]", "/a:/b")),
            ("web1:etc", Word::Here("web1:etc")),
            ("plain", Word::Here("plain")),
            ("./a:/b", Word::Here("./a:/b")),
            ("/a:/b", Word::Here("/a:/b")),
            (".env:/x", Word::Here(".env:/x")),
            (":/x", Word::Here(":/x")),
        ] {
            assert_eq!(word(text), wanted, "{text}");
        }
    }

    fn of(words: &[&str]) -> Result<Way, Error> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
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
                Way::In(copy) => assert_eq!((copy.into, &*copy.target), (wanted, "web*")),
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
                    assert!(copy.is_straight(&["web1".to_owned()]));
                    assert!(!copy.is_straight(&["web1".to_owned(), "web2".to_owned()]));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
