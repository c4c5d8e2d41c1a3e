//! Reads a pattern into the flat patterns that its braces stand for. Called by `Glob::new`; says what is wrong and where.

use super::Token;
use crate::selector::numbers::Numbers;

/// Most flat patterns that braces may stand for.
const MAX_ALTERNATIVES: usize = 1024;

/// Reads up to the end, or to a `,` or `}` of the brace that it stands in; gives every flat pattern.
pub(super) fn sequence(
    chars: &[char],
    at: &mut usize,
    depth: usize,
) -> Result<Vec<Vec<Token>>, (String, usize)> {
    let mut all: Vec<Vec<Token>> = vec![Vec::new()];
    while let Some(&c) = chars.get(*at) {
        let start = *at;
        *at += 1;
        let token = match c {
            '*' => Token::Any,
            '?' => Token::One,
            '[' => match numbers(chars, at, ']', Numbers::in_brackets)? {
                Some(numbers) => numbers,
                None => class(chars, at)?,
            },
            '{' => match dots(chars, at)? {
                Some(dots) => dots,
                None => {
                    all = product(all, &brace(chars, at, depth + 1)?, start)?;
                    continue;
                }
            },
            ',' | '}' if depth > 0 => {
                *at = start;
                break;
            }
            '}' => {
                *at = start;
                break;
            }
            '\\' => {
                let Some(&next) = chars.get(*at) else {
                    return Err(("a backslash with nothing after it".to_owned(), start));
                };
                *at += 1;
                Token::Char(next)
            }
            other => Token::Char(other),
        };
        all.iter_mut()
            .for_each(|pattern| pattern.push(token.clone()));
    }
    Ok(all)
}

fn brace(chars: &[char], at: &mut usize, depth: usize) -> Result<Vec<Vec<Token>>, (String, usize)> {
    let start = *at - 1;
    if depth > 8 {
        return Err(("braces are nested too deep".to_owned(), start));
    }
    let mut any = Vec::new();
    loop {
        any.extend(sequence(chars, at, depth)?);
        match chars.get(*at) {
            Some(',') => *at += 1,
            Some(_) => {
                *at += 1;
                return Ok(any);
            }
            None => return Err(("a { that is never closed".to_owned(), start)),
        }
    }
}

fn product(
    heads: Vec<Vec<Token>>,
    tails: &[Vec<Token>],
    start: usize,
) -> Result<Vec<Vec<Token>>, (String, usize)> {
    if heads.len() * tails.len() > MAX_ALTERNATIVES {
        return Err((
            format!("the braces stand for more than {MAX_ALTERNATIVES} patterns"),
            start,
        ));
    }
    let pairs = heads.iter().flat_map(|head| {
        tails
            .iter()
            .map(move |tail| [&head[..], &tail[..]].concat())
    });
    Ok(pairs.collect())
}

/// Numbers from here to the closing sign, when that is what stands there; it is passed then.
fn numbers(
    chars: &[char],
    at: &mut usize,
    close: char,
    read: impl Fn(&str) -> Option<Result<Numbers, String>>,
) -> Result<Option<Token>, (String, usize)> {
    let rest = &chars[*at..];
    let Some(length) = rest.iter().position(|c| *c == close) else {
        return Ok(None);
    };
    let text: String = rest[..length].iter().collect();
    let Some(numbers) = read(&text) else {
        return Ok(None);
    };
    let numbers = numbers.map_err(|why| (why, *at - 1))?;
    *at += length + 1;
    Ok(Some(Token::Numbers(numbers)))
}

/// `{13..20}`, or `{a..f}` of single letters.
fn dots(chars: &[char], at: &mut usize) -> Result<Option<Token>, (String, usize)> {
    if let [a, '.', '.', b, '}', ..] = chars[*at..]
        && a.is_ascii_alphabetic()
        && b.is_ascii_alphabetic()
    {
        *at += 5;
        return Ok(Some(Token::Class {
            not: false,
            ranges: vec![(a.min(b), a.max(b))],
        }));
    }
    numbers(chars, at, '}', Numbers::in_braces)
}

fn class(chars: &[char], at: &mut usize) -> Result<Token, (String, usize)> {
    let start = *at - 1;
    let not = matches!(chars.get(*at), Some('!' | '^'));
    *at += usize::from(not);
    let mut ranges = Vec::new();
    loop {
        let Some(&low) = chars.get(*at) else {
            return Err(("a [ that is never closed".to_owned(), start));
        };
        // A ] right after the bracket stands for itself.
        if low == ']' && !ranges.is_empty() {
            *at += 1;
            refuse_what_is_meant_as_numbers(&chars[start..*at], not, &ranges)
                .map_err(|why| (why, start))?;
            return Ok(Token::Class { not, ranges });
        }
        *at += 1;
        let high = match (chars.get(*at), chars.get(*at + 1)) {
            (Some('-'), Some(&high)) if high != ']' => {
                *at += 2;
                high
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

/// A class takes one character. What looks like a list of words or numbers would quietly mean something else.
fn refuse_what_is_meant_as_numbers(
    text: &[char],
    not: bool,
    ranges: &[(char, char)],
) -> Result<(), String> {
    let text: String = text.iter().collect();
    if let Some((low, high)) = ranges.iter().find(|(low, high)| low > high) {
        return Err(format!(
            "in {text} the range {low}-{high} is upside down (numbers are written [1-3,7], characters [abc])"
        ));
    }
    if ranges.len() > 1 && ranges.contains(&(',', ',')) {
        return Err(format!(
            "{text} has a comma (numbers are written [1-3,7], characters [abc], words {{web,db}})"
        ));
    }
    let inside = text.trim_matches(|c| matches!(c, '[' | ']' | '!' | '^'));
    let numbers = inside
        .split('-')
        .any(|part| part.len() > 1 && part.bytes().all(|b| b.is_ascii_digit()));
    match not && numbers {
        true => Err(format!(
            "{text} would leave out characters, not numbers: write `* and not name:node[{inside}]`"
        )),
        false => Ok(()),
    }
}
