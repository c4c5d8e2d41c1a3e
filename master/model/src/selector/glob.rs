//! Shell patterns: `*`, `?`, `[a-c]`, `[!a]`, `{x,y}`, and number ranges: `[13-20]`, `{13..20}`. No path rules: names have
//! no slashes.

mod parse;

use super::numbers::Numbers;
use parse::sequence;

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
    /// As many digits as one of the numbers has.
    Numbers(Numbers),
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

    /// Whether one of the words fits.
    pub(crate) fn matches_any<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> bool {
        words.into_iter().any(|word| self.matches(word))
    }
}

impl Token {
    /// Of a token that takes exactly one character.
    fn matches_char(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One | Self::Any => true,
            Self::Numbers(_) => false, // takes several, see `reach`
            Self::Class { not, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not
            }
        }
    }
}

fn fits(pattern: &[Token], text: &[char]) -> bool {
    match pattern
        .iter()
        .any(|token| matches!(token, Token::Numbers(_)))
    {
        true => reach(pattern, text),
        false => fits_by_character(pattern, text),
    }
}

/// Follows every place of the text that the pattern can have come to, token by token: at most pattern x text x digits.
fn reach(pattern: &[Token], text: &[char]) -> bool {
    let mut places = vec![false; text.len() + 1];
    places[0] = true;
    for token in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in (0..=text.len()).filter(|at| places[*at]) {
            match token {
                Token::Any => next[at..].fill(true),
                Token::Numbers(numbers) => {
                    numbers
                        .lengths(&text[at..])
                        .for_each(|n| next[at + n] = true);
                }
                token if at < text.len() && token.matches_char(text[at]) => next[at + 1] = true,
                _ => {}
            }
            if matches!(token, Token::Any) {
                break; // all further places are reached
            }
        }
        places = next;
    }
    places[text.len()]
}

/// Goes back to the last star only, so it takes at most pattern x text steps.
fn fits_by_character(pattern: &[Token], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(token) if token.matches_char(text[t]) => {
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
            ("web[13-20]", "web1", false),
            ("web[13-20]", "web13", true),
            ("web[13-20]", "web20", true),
            ("web[13-20]", "web21", false),
            ("web[13-20]", "web013", false),
            ("web[13]", "web13", true),
            ("web[13]", "web1", false),
            ("web[1-3,7]", "web7", true),
            ("web[1-3,7]", "web4", false),
            ("n[01-12]", "n01", true),
            ("n[01-12]", "n1", false),
            ("n[01-12]", "n12", true),
            ("n[1-12]", "n01", false),
            ("n[098-102]", "n100", true),
            ("n[08-102]", "n100", true),
            ("n[08-102]", "n09", true),
            ("n[08-102]", "n009", false),
            ("n[0-10/5]", "n5", true),
            ("n[0-10/5]", "n6", false),
            ("r[1-2]n[10-12]x", "r2n11x", true),
            ("r[1-2]n[10-12]x", "r3n11x", false),
            ("*[10-12]", "n110", true),
            ("[0-9][0-9]", "42", true),
            ("n{13..20}", "n13", true),
            ("n{13..20}", "n12", false),
            ("n{20..13}", "n13", true),
            ("n{20..13..3}", "n14", true),
            ("n{20..13..3}", "n13", false),
            ("n{01..12}", "n02", true),
            ("n{01..12}", "n2", false),
            ("n{1..010}", "n001", true),
            ("db{a..c}", "dbb", true),
            ("{web,db}[1-12]", "db12", true),
            ("n[0-18446744073]", "n18446744073", true),
            ("n[0-9]", "n99999999999999999999999", false),
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
            ("web[20-13]", 3),
            ("web[1-]", 3),
            ("web[1,]", 3),
            ("web[1--2]", 3),
            ("web[01-002]", 3),
            ("web[1-3/0]", 3),
            ("web[99999999999999999999]", 3),
            ("web[3-20x]", 3),
            ("web[a,c]", 3),
            ("web[c-a]", 3),
            ("web[!13-20]", 3),
            ("web[!13]", 3),
        ] {
            assert_eq!(Glob::new(pattern).expect_err(pattern).1, at, "{pattern}");
        }
        let many = "{a,b,c,d,e,f,g,h}".repeat(8);
        assert!(Glob::new(&many).is_err(), "two million patterns");
        assert!(Glob::new(&"{".repeat(5000)).is_err(), "deep");
    }
}
