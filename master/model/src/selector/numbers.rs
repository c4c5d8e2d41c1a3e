//! Number ranges inside a pattern: `[13-20]`, `[1-3,7]`, `[01-12]`, `[0-10/2]` as ClusterShell reads them, `{13..20}` as
//! bash does. They stay ranges, compared with the digits of a name and never expanded, so `[0-4000000000]` costs nothing. What
//! ClusterShell refuses (a range upside down, zeros of different lengths) is refused. Pure.

/// Digits of the longest number that fits in 64 bits.
const MAX_DIGITS: usize = 19;

/// Numbers that may stand at one place of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers(Vec<Range>);

/// From `first` to `last`, each `step`th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    step: u64,
    /// Digits of every number, filled with zeros at the left; 0 = as it is, without zeros in front.
    digits: usize,
}

impl Numbers {
    /// What stands between `[` and `]`; `None` when that is a class of characters and no list of numbers.
    ///
    /// # Errors
    /// What is wrong with a list of numbers.
    pub(crate) fn in_brackets(text: &str) -> Option<Result<Self, String>> {
        let listed = |c: char| c.is_ascii_digit() || matches!(c, '-' | ',' | '/');
        if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(listed) {
            return None;
        }
        Some(
            text.split(',')
                .map(in_list)
                .collect::<Result<_, _>>()
                .map(Self),
        )
    }

    /// What stands between `{` and `}`; `None` when it is not two or three numbers with two dots between them.
    ///
    /// # Errors
    /// What is wrong with such a range.
    pub(crate) fn in_braces(text: &str) -> Option<Result<Self, String>> {
        let parts: Vec<&str> = text.split("..").collect();
        let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !matches!(parts.len(), 2 | 3) || !parts.iter().all(numeric) {
            return None;
        }
        Some(in_dots(&parts).map(|range| Self(vec![range])))
    }

    /// How many of the text's first characters can be one of these numbers.
    pub(super) fn lengths<'a>(&'a self, text: &'a [char]) -> impl Iterator<Item = usize> + 'a {
        let digits = text
            .iter()
            .take(MAX_DIGITS)
            .take_while(|c| c.is_ascii_digit());
        digits
            .scan(0u64, |number, digit| {
                *number = *number * 10 + u64::from(digit.to_digit(10)?);
                Some(*number)
            })
            .enumerate()
            .map(|(index, number)| (index + 1, number))
            .filter(|(length, number)| self.0.iter().any(|range| range.has(*number, *length, text)))
            .map(|(length, _)| length)
    }
}

impl Range {
    fn has(self, number: u64, length: usize, text: &[char]) -> bool {
        let zeros = length > 1 && text.first() == Some(&'0');
        let written = match self.digits {
            0 => !zeros,
            digits => length == digits || (length > digits && !zeros),
        };
        written
            && (self.first..=self.last).contains(&number)
            && (number - self.first).is_multiple_of(self.step)
    }
}

/// `7`, `13-20`, `0-10/2` of a list. Both ends are written with as many digits when one of them begins with a zero.
fn in_list(part: &str) -> Result<Range, String> {
    let (ends, step) = match part.split_once('/') {
        Some((ends, step)) => (ends, number(step)?),
        None => (part, 1),
    };
    let (first, last) = ends.split_once('-').unwrap_or((ends, ends));
    let range = Range {
        first: number(first)?,
        last: number(last)?,
        step,
        digits: padding(first, last)?,
    };
    if range.first > range.last {
        return Err(format!("the range {part} is upside down"));
    }
    if step == 0 {
        return Err(format!("the range {part} has steps of 0"));
    }
    Ok(range)
}

/// bash counts down as well, and fills up to the longer of both ends.
fn in_dots(parts: &[&str]) -> Result<Range, String> {
    let (from, to) = (number(parts[0])?, number(parts[1])?);
    let step = parts.get(2).map_or(Ok(1), |step| number(step))?.max(1);
    let padded = parts[..2].iter().any(|end| zero_in_front(end));
    let digits = match padded {
        true => parts[0].len().max(parts[1].len()),
        false => 0,
    };
    // Counted from the first one named, also where that is the larger.
    let (first, last) = match from <= to {
        true => (from, to),
        false => (from - (from - to) / step * step, from),
    };
    Ok(Range {
        first,
        last,
        step,
        digits,
    })
}

fn zero_in_front(number: &str) -> bool {
    number.len() > 1 && number.starts_with('0')
}

fn padding(first: &str, last: &str) -> Result<usize, String> {
    match (zero_in_front(first), zero_in_front(last)) {
        (false, false) => Ok(0),
        _ if first.len() == last.len() => Ok(first.len()),
        (true, false) if first.len() < last.len() => Ok(first.len()),
        _ => Err(format!(
            "{first} and {last} are filled with zeros to different lengths"
        )),
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text.len() {
        0 => Err("a number is missing".to_owned()),
        1..=MAX_DIGITS => text.parse().map_err(|_| format!("{text} is not a number")),
        _ => Err(format!("{text} is too large a number")),
    }
}
