//! What distinguishes two bundles, in few words each: `+new.sh`, `-old.sh`, `bootstrap.sh 12 lines`, `mode of run.sh`. Pure.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use aot_proto::plural;

use super::listing::{BundleList, ListedContent, ListedEntry};

/// The differences in the order of their paths. What is in a folder that is new, or gone, is counted with it.
pub fn changes(old: &BundleList, new: &BundleList) -> Vec<String> {
    let paths: BTreeSet<&Path> = old.0.keys().chain(new.0.keys()).map(|p| &**p).collect();
    let mut found = Vec::new();
    for path in paths {
        match (old.0.get(path), new.0.get(path)) {
            (None, Some(entry)) => found.extend(of_one('+', path, entry, new, old)),
            (Some(entry), None) => found.extend(of_one('-', path, entry, old, new)),
            (Some(old), Some(new)) => found.extend(differences(path, old, new)),
            (None, None) => {} // it is of one of them
        }
    }
    found
}

/// An entry that only one of the two has; `None` where its folder says so.
fn of_one(
    sign: char,
    path: &Path,
    entry: &ListedEntry,
    has: &BundleList,
    lacks: &BundleList,
) -> Option<String> {
    let is_new_folder = |folder: &Path| {
        let is_folder = |list: &BundleList| {
            let entry = list.0.get(folder);
            entry.is_some_and(|it| it.content == ListedContent::Folder)
        };
        is_folder(has) && !lacks.0.contains_key(folder)
    };
    if path.ancestors().skip(1).any(is_new_folder) {
        return None;
    }
    let name = shown(path);
    if entry.content != ListedContent::Folder {
        return Some(format!("{sign}{name}"));
    }
    let below = has.0.range(path.to_owned()..).skip(1);
    let below = below.take_while(|(inner, _)| inner.starts_with(path));
    Some(match below.count() {
        0 => format!("{sign}{name}/"),
        many => format!("{sign}{name}/ ({})", plural::count(many, "entry")),
    })
}

/// What changed about an entry that both have.
fn differences(path: &Path, old: &ListedEntry, new: &ListedEntry) -> Vec<String> {
    use ListedContent as C;
    let name = shown(path);
    let content = match (&old.content, &new.content) {
        (C::Folder, C::Folder) => None,
        (C::Link(before), C::Link(now)) => {
            (before != now).then(|| format!("{name} leads elsewhere"))
        }
        (C::File { sha256, .. }, C::File { sha256: now, .. }) if sha256 == now => None,
        (
            C::File { bytes, text, .. },
            C::File {
                bytes: size,
                text: now,
                ..
            },
        ) => {
            let lines = text.as_ref().zip(now.as_ref());
            Some(match lines.map(|(text, now)| changed_lines(text, now)) {
                Some(lines) if lines > 0 => format!("{name} {}", plural::count(lines, "line")),
                _ if bytes == size => format!("content of {name}"),
                _ => format!("{name} {bytes} to {}", plural::count(*size, "byte")),
            })
        }
        (_, C::Folder) => Some(format!("{name} is a folder now")),
        (_, C::Link(_)) => Some(format!("{name} is a link now")),
        (_, C::File { .. }) => Some(format!("{name} is a file now")),
    };
    // A link has none of its own, and what became something else has others anyway.
    let is_same_kind = std::mem::discriminant(&old.content) == std::mem::discriminant(&new.content);
    let has_mode = is_same_kind && !matches!(new.content, C::Link(_));
    let mode = (has_mode && old.mode != new.mode).then(|| format!("mode of {name}"));
    content.into_iter().chain(mode).collect()
}

/// How many lines were put in or taken out, whichever is more: a line that was changed is one. 0 where only their order or their
/// ends are others.
fn changed_lines(old: &str, new: &str) -> usize {
    let mut counts: HashMap<&str, i64> = HashMap::new();
    for line in new.lines() {
        *counts.entry(line).or_default() += 1;
    }
    for line in old.lines() {
        *counts.entry(line).or_default() -= 1;
    }
    let sum = |signed: i64| {
        let these = counts.values().map(|count| count * signed);
        these.filter(|count| *count > 0).sum::<i64>()
    };
    usize::try_from(sum(1).max(sum(-1))).unwrap_or(0)
}

/// As it is, unless it has anything that is not plainly a name: then quoted, and nothing in it is more than text.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%=~".contains(c);
    match text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(text: &str) -> ListedEntry {
        let text = text.to_owned();
        ListedEntry {
            mode: 0o644,
            content: ListedContent::File {
                bytes: text.len() as u64,
                sha256: text.clone().into_bytes(), // as good as any
                text: Some(text),
            },
        }
    }

    fn binary(bytes: u64, sha256: u8) -> ListedEntry {
        ListedEntry {
            mode: 0o644,
            content: ListedContent::File {
                bytes,
                sha256: vec![sha256],
                text: None,
            },
        }
    }

    fn folder() -> ListedEntry {
        ListedEntry {
            mode: 0o755,
            content: ListedContent::Folder,
        }
    }

    fn link(to: &str) -> ListedEntry {
        ListedEntry {
            mode: 0o777,
            content: ListedContent::Link(to.into()),
        }
    }

    fn list(entries: &[(&str, ListedEntry)]) -> BundleList {
        let entry = |(name, entry): &(&str, ListedEntry)| (PathBuf::from(name), entry.clone());
        BundleList(entries.iter().map(entry).collect())
    }

    #[test]
    fn each_difference_has_its_words() {
        let runs = |text| ListedEntry {
            mode: 0o755,
            ..file(text)
        };
        for (old, new, want) in [
            (vec![], vec![("a", file("x"))], vec!["+a"]),
            (vec![("a", file("x"))], vec![], vec!["-a"]),
            (vec![("a", file("x"))], vec![("a", file("x"))], vec![]),
            (
                vec![("a", file("1\n2\n3\n"))],
                vec![("a", file("1\ntwo\n3\n4\n"))],
                vec!["a 2 lines"],
            ),
            (
                vec![("a", file("1\n2\n"))],
                vec![("a", runs("1\n"))],
                vec!["a 1 line", "mode of a"],
            ),
            (
                vec![("a", file("x"))],
                vec![("a", runs("x"))],
                vec!["mode of a"],
            ),
            (
                vec![("a", file("1\n2"))],
                vec![("a", file("2\n1"))],
                vec!["content of a"],
            ),
            (
                vec![("a", binary(7, 1))],
                vec![("a", binary(9, 2))],
                vec!["a 7 to 9 bytes"],
            ),
            (
                vec![("a", link("x"))],
                vec![("a", link("y"))],
                vec!["a leads elsewhere"],
            ),
            (
                vec![("a", link("x"))],
                vec![("a", file("x"))],
                vec!["a is a file now"],
            ),
            (
                vec![("a", file("x"))],
                vec![("a", link("x"))],
                vec!["a is a link now"],
            ),
        ] {
            assert_eq!(changes(&list(&old), &list(&new)), want, "{old:?} {new:?}");
        }
    }

    #[test]
    fn a_folder_that_is_new_or_gone_is_one_difference() {
        let old = list(&[("lib", folder()), ("lib/a", file("a"))]);
        let git = [
            (".git", folder()),
            (".git/x", folder()),
            (".git/x/y", file("y")),
        ];
        let mut new = list(&git);
        new.0.extend(old.0.clone());
        new.0.insert("lib/b".into(), file("b"));
        assert_eq!(changes(&old, &new), ["+.git/ (2 entries)", "+lib/b"]);
        assert_eq!(changes(&new, &old), ["-.git/ (2 entries)", "-lib/b"]);
        let empty = list(&[("e", folder())]);
        assert_eq!(changes(&list(&[]), &empty), ["+e/"]);
        let file = list(&[("e", file("e")), ("e.txt", file("e"))]);
        let said = ["e is a folder now", "-e.txt"];
        assert_eq!(changes(&file, &empty), said);
    }

    #[test]
    fn a_name_says_nothing_but_itself() {
        let new = list(&[
            ("a\n\u{1b}[31mb", file("")),
            ("two words", file("")),
            ("\u{e4}.sh", file("")),
        ]);
        let want = [r#"+"a\n\u{1b}[31mb""#, r#"+"two words""#, "+\u{e4}.sh"];
        assert_eq!(changes(&list(&[]), &new), want);
    }
}
