//! Shell patterns: `*`, `?`, `[a-c]`, `[!a]`, `{x,y}`. No path rules: names have no slashes.

/// Most flat patterns that braces may stand for.
const MAX_ALTERNATIVES: usize = 1024;

/// A pattern that matches a whole text.
#[derive(Debug, Clone)]
pub struct Glob {
    text: String,
    alternatives: Vec<Vec<Token>>,
}

#[derive(Debug, Clone)]
enum Token {
    Char(char),
    Any,
    One,
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl Glob {
    /// Reads a pattern. A backslash takes the next character as it is.
    ///
    /// # Errors
    /// What is wrong, and at which character, from 0.
    pub fn new(text: &str) -> Result<Self, (String, usize)> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let alternatives = sequence(&chars, &mut at, 0)?;
        if at < chars.len() {
            return Err(("a } that closes nothing".to_owned(), at));
        }
        Ok(Self {
            text: text.to_owned(),
            alternatives,
        })
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole text fits.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.alternatives.iter().any(|pattern| fits(pattern, &text))
    }
}

/// Reads up to the end, or to a `,` or `}` of the brace that it stands in; gives every flat pattern.
fn sequence(
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
            '[' => class(chars, at)?,
            '{' => {
                all = product(all, &brace(chars, at, depth + 1)?, start)?;
                continue;
            }
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

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One | Self::Any => true,
            Self::Class { not, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not
            }
        }
    }
}

/// Goes back to the last star only, so it takes at most pattern x text steps.
fn fits(pattern: &[Token], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(token) if token.takes(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    p = after;
                    t = from + 1;
                    star = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|token| matches!(token, Token::Any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        let cases = [
            ("*", "", true),
            ("*", "web1", true),
            ("web*", "web", true),
            ("web*", "we", false),
            ("*1", "web11", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("web[1-3]", "web2", true),
            ("web[1-3]", "web4", false),
            ("web[!1-3]", "web4", true),
            ("web[]]", "web]", true),
            ("web{1,2}", "web2", true),
            ("web{1,2}", "web12", false),
            ("{web,db}{1,2}", "db1", true),
            ("{a,b{c,d}}x", "bdx", true),
            ("web{,1}", "web", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ];
        for (pattern, text, fits) in cases {
            assert_eq!(
                Glob::new(pattern).expect(pattern).matches(text),
                fits,
                "{pattern} on {text}"
            );
        }
    }

    #[test]
    fn broken_patterns_say_where() {
        for (pattern, at) in [
            ("web[1", 3),
            ("web{1,2", 3),
            ("web}", 3),
            ("web\\", 3),
            ("[", 0),
        ] {
            assert_eq!(Glob::new(pattern).expect_err(pattern).1, at, "{pattern}");
        }
        let many = "{a,b,c,d,e,f,g,h}".repeat(8);
        assert!(Glob::new(&many).is_err(), "two million patterns");
        assert!(Glob::new(&"{".repeat(5000)).is_err(), "deep");
    }
}
