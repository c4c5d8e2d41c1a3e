//! Many names in few words: `web[1-9,12],db1`. Pure; used by the closing line and the folded view of exec.

use std::collections::{BTreeMap, BTreeSet};

/// Longest text of [`ranges`], characters, before the rest is only counted.
const MAX_CHARS: usize = 400;

/// Most runs of numbers behind one stem, before the rest is only counted.
const MAX_RUNS: usize = 60;

/// A name without its last number, and that number's digits when such numbers begin with zeros.
type Stem<'a> = (&'a str, usize);

/// Sorts `web2` before `web10`: the text without its last number, then the number.
pub(super) fn by_number(name: &str) -> (&str, u64, &str) {
    let (stem, number) = split(name);
    (stem, number.unwrap_or_default(), name)
}

/// The names, in their order, with numbers that follow one another joined. What would be too long is counted.
pub fn ranges<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let padded: BTreeSet<Stem<'_>> = names
        .iter()
        .map(|name| (split(name).0, name))
        .filter(|(stem, name)| name[stem.len()..].starts_with('0'))
        .map(|(stem, name)| (stem, name.len() - stem.len()))
        .filter(|(_, digits)| *digits > 1)
        .collect();
    let mut stems: BTreeMap<Stem<'_>, Vec<Option<u64>>> = BTreeMap::new();
    for name in names {
        let (stem, number) = split(name);
        let key = (stem, name.len() - stem.len());
        let key = if padded.contains(&key) {
            key
        } else {
            (stem, 0)
        };
        stems.entry(key).or_default().push(number);
    }
    let mut text = String::new();
    let mut left_out = 0;
    for (stem, mut numbers) in stems {
        numbers.sort_unstable();
        numbers.dedup();
        let part = one_stem(stem, &numbers);
        if !text.is_empty() && text.len() + part.len() > MAX_CHARS {
            left_out += numbers.len();
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&part);
    }
    if left_out > 0 {
        text.push_str(&format!(" and {left_out} more"));
    }
    text
}

/// The name without the number at its end, and the number. A number that is too big for one is part of the name.
fn split(name: &str) -> (&str, Option<u64>) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match name[stem.len()..].parse() {
        Ok(number) => (stem, Some(number)),
        Err(_) => (name, None),
    }
}

fn one_stem((stem, padded): Stem<'_>, numbers: &[Option<u64>]) -> String {
    let digits = |number: u64| format!("{number:0padded$}");
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut alone = None;
    for number in numbers {
        match (number, runs.last_mut()) {
            (None, _) => alone = Some(stem.to_owned()),
            (Some(number), Some((_, end))) if *number == *end + 1 => *end = *number,
            (Some(number), _) => runs.push((*number, *number)),
        }
    }
    let rest: u64 = runs.iter().skip(MAX_RUNS).map(|(a, b)| b - a + 1).sum();
    runs.truncate(MAX_RUNS);
    let numbered = match &runs[..] {
        [] => None,
        [(only, end)] if only == end => Some(format!("{stem}{}", digits(*only))),
        _ => {
            let parts: Vec<String> = runs
                .iter()
                .map(|(first, end)| match first == end {
                    true => digits(*first),
                    false => format!("{}-{}", digits(*first), digits(*end)),
                })
                .collect();
            Some(format!("{stem}[{}]", parts.join(",")))
        }
    };
    let parts: Vec<String> = alone.into_iter().chain(numbered).collect();
    let text = parts.join(",");
    match rest {
        0 => text,
        rest => format!("{text} and {rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_that_follow_one_another_are_joined() {
        for (names, want) in [
            (&["web1"][..], "web1"),
            (&["web1", "web2"], "web[1-2]"),
            (&["web12", "web1", "web3", "web2"], "web[1-3,12]"),
            (&["db1", "web10", "web9", "lead"], "db1,lead,web[9-10]"),
            (&["n01", "n02", "n10", "n9"], "n9,n[01-02,10]"),
            (&["n0", "n1", "n2"], "n[0-2]"),
            (&["n", "n1", "n2"], "n,n[1-2]"),
            (&["x99999999999999999999"], "x99999999999999999999"),
            (&[], ""),
        ] {
            assert_eq!(ranges(names.iter().copied()), want);
        }
    }

    #[test]
    fn too_many_are_counted() {
        let names: Vec<String> = (0..1000).map(|n| format!("name{n}-x")).collect();
        let text = ranges(names.iter().map(String::as_str));
        assert!(
            text.len() < MAX_CHARS + 20 && text.ends_with(" more"),
            "{text}"
        );
    }

    /// What a text of [`ranges`] stands for.
    fn expand(text: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find([',', '[']).unwrap_or(rest.len());
            let stem = &rest[..end];
            if !rest[end..].starts_with('[') {
                names.push(stem.to_owned());
                rest = rest[end..].trim_start_matches(',');
                continue;
            }
            let close = rest.find(']').expect("closed");
            for part in rest[end + 1..close].split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let width = first.len();
                for number in
                    first.parse::<u64>().expect("a number")..=last.parse().expect("a number")
                {
                    let padded = first.starts_with('0') && width > 1;
                    names.push(match padded {
                        true => format!("{stem}{number:0width$}"),
                        false => format!("{stem}{number}"),
                    });
                }
            }
            rest = rest[close + 1..].trim_start_matches(',');
        }
        names
    }

    proptest! {
        #[test]
        fn no_name_is_lost_and_none_is_made_up(names in prop::collection::btree_set("[ab]-?(0{0,2}[1-9]{1,2}|0)?", 0..12)) {
            let text = ranges(names.iter().map(String::as_str));
            let mut back = expand(&text);
            back.sort();
            let want: Vec<String> = names.into_iter().collect();
            prop_assert_eq!(back, want, "{}", text);
        }
    }
}
