//! What a word without a prefix may stand for besides an instance, and what was meant by one that means nobody. Pure.

use super::Target;
use super::glob::Glob;

/// Longest word that a name is sought for: no name is longer.
const MAX_NAME_CHARS: usize = 64;

/// Stands for every instance, where neither an instance nor a pool has this name.
const ALL: &str = "all";

/// The names of a cluster, as words of a target may say them.
#[derive(Clone, Copy)]
pub struct ClusterWords<'a> {
    /// Whether an instance has this name.
    pub is_instance: &'a dyn Fn(&str) -> bool,
    /// Whether a pool has it.
    pub is_pool: &'a dyn Fn(&str) -> bool,
}

impl ClusterWords<'_> {
    /// Of no cluster: each word is the name of an instance.
    pub(super) const NONE: ClusterWords<'static> = ClusterWords {
        is_instance: &|_| true,
        is_pool: &|_| false,
    };

    /// What a word means. An instance goes before a pool of the same name, so that a file that gains a pool changes the
    /// meaning of no command.
    pub(super) fn meaning(&self, word: Glob) -> Target {
        let text = word.as_str();
        let is_pool = (self.is_pool)(text);
        if !is_pool && text != ALL || (self.is_instance)(text) {
            return Target::Name(word);
        }
        match is_pool {
            true => Target::Pool(word),
            false => Glob::new("*").map_or(Target::Name(word), Target::Name),
        }
    }
}

/// What may have been meant by an expression that means nobody: `instances` and `pools` are the names that there are.
pub fn hint_for_nobody<'a>(
    text: &str,
    instances: impl Iterator<Item = &'a str>,
    pools: impl Iterator<Item = &'a str>,
) -> Option<String> {
    if let Some(written) = without_marks(text) {
        return Some(format!("to leave instances out, write '{written}'"));
    }
    let (prefix, word) = match text.trim().split_once(':') {
        Some((prefix @ ("name" | "pool"), word)) => (prefix, word),
        Some(_) => return None,
        None => ("", text.trim()),
    };
    let near = |names: &mut dyn Iterator<Item = &'a str>| nearest(word, names);
    let (mut instances, mut pools) = (instances, pools);
    let found = match prefix {
        "pool" => near(&mut pools),
        "name" => near(&mut instances),
        _ => near(&mut instances.chain(pools)),
    };
    let (_, found) = found?;
    let colon = if prefix.is_empty() { "" } else { ":" };
    Some(format!("did you mean {prefix}{colon}{found}?"))
}

/// `!web3` and `web*,!web3`, as Ansible writes them, in words.
fn without_marks(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let (not, yes): (Vec<&str>, Vec<&str>) = parts.iter().partition(|part| part.starts_with('!'));
    if not.is_empty() || not.contains(&"!") || parts.contains(&"") {
        return None;
    }
    let not = not.iter().map(|part| format!("not {}", &part[1..]));
    let yes = match yes[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(format!("({})", yes.join(","))),
    };
    Some(yes.into_iter().chain(not).collect::<Vec<_>>().join(" and "))
}

/// The name that differs from a word in least, if it is hardly another one.
fn nearest<'a>(word: &str, names: &mut dyn Iterator<Item = &'a str>) -> Option<(usize, &'a str)> {
    // Two letters of a short word are half of it.
    let most = match word.chars().count() {
        0..=5 => 1,
        6..=MAX_NAME_CHARS => 2,
        _ => return None,
    };
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
}

#[cfg(test)]
mod tests {
    use super::super::parse_in;
    use super::*;
    use std::collections::BTreeMap;

    /// Of a cluster with an instance `lead` and pools `web` (web1, web2) and `lead`.
    fn meaning(text: &str) -> String {
        let words = ClusterWords {
            is_instance: &|name| ["lead", "web1", "web2"].contains(&name),
            is_pool: &|name| ["web", "lead"].contains(&name),
        };
        let groups = BTreeMap::from([("front".to_owned(), "web".to_owned())]);
        format!("{:?}", parse_in(text, &groups, words).expect(text))
    }

    #[test]
    fn a_pool_is_meant_by_its_name_where_no_instance_has_it() {
        let plain = |text: &str| {
            format!(
                "{:?}",
                super::super::parse(text, &BTreeMap::new()).expect(text)
            )
        };
        for (text, wanted) in [
            ("web", "pool:web"),
            ("web,lead", "pool:web,lead"),
            ("web and not web1", "pool:web and not web1"),
            ("lead", "lead"),
            ("name:web", "name:web"),
            ("web*", "web*"),
            ("nobody", "nobody"),
            ("all", "*"),
            ("all and not web", "* and not pool:web"),
            ("name:all", "name:all"),
        ] {
            assert_eq!(meaning(text), plain(wanted), "{text}");
        }
        assert!(meaning("@front").contains("Pool"), "in a saved group too");
    }

    fn hint(text: &str) -> Option<String> {
        let instances = ["lead", "web1", "web2", "worker1"].into_iter();
        hint_for_nobody(text, instances, ["web", "worker"].into_iter())
    }

    #[test]
    fn what_was_meant_is_guessed_from_what_there_is() {
        for (text, wanted) in [
            ("wbe1", Some("did you mean web1?")),
            ("wroker", Some("did you mean worker?")),
            ("pool:wrker", Some("did you mean pool:worker?")),
            ("name:laed", Some("did you mean name:lead?")),
            ("db", None),
            ("fact:os.name=x", None),
            ("!web1", Some("to leave instances out, write 'not web1'")),
            (
                "web,!web1, !web2",
                Some("to leave instances out, write 'web and not web1 and not web2'"),
            ),
            (
                "a,b,!c",
                Some("to leave instances out, write '(a,b) and not c'"),
            ),
            ("!", None),
        ] {
            assert_eq!(hint(text).as_deref(), wanted, "{text}");
        }
    }
}
