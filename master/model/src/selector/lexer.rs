//! Characters of an expression into words. A word ends at a blank, a comma or a closing parenthesis, unless it stands
//! inside brackets of its own (`web{1,2}`, `re:^(a|b)$`) or in double quotes.

/// Reads an expression character by character.
pub(super) struct Lexer {
    chars: Vec<char>,
    /// The next character.
    pub at: usize,
}

/// Characters that end a key of a tag or fact.
fn ends_key(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '~')
}

impl Lexer {
    pub(super) fn new(text: &str) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(crate) fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Takes this text when it stands next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let len = text.chars().count();
        let next = self.chars.get(self.at..self.at + len);
        let found = next.is_some_and(|next| next.iter().copied().eq(text.chars()));
        if found {
            self.at += len;
        }
        found
    }

    /// Takes a keyword that stands alone.
    pub(crate) fn eat_keyword(&mut self, word: &str) -> bool {
        let start = self.at;
        let alone = self.eat(word)
            && self
                .peek()
                .is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | ','));
        if !alone {
            self.at = start;
        }
        alone
    }

    /// The letters before a colon, when that is how the next word begins.
    pub(crate) fn eat_prefix(&mut self) -> Option<String> {
        let rest = &self.chars[self.at..];
        let len = rest.iter().position(|c| !c.is_ascii_alphabetic())?;
        if len == 0 || rest[len] != ':' {
            return None;
        }
        self.at += len + 1;
        Some(rest[..len].iter().collect())
    }

    /// A value: up to the end of the word, or in quotes.
    pub(super) fn value(&mut self) -> Result<String, (String, usize)> {
        self.read_until(|_| false)
    }

    /// The key of a tag or fact.
    pub(super) fn key(&mut self) -> Result<String, (String, usize)> {
        self.read_until(ends_key)
    }

    fn read_until(&mut self, ends: impl Fn(char) -> bool) -> Result<String, (String, usize)> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let start = self.at;
        let mut open: Vec<char> = Vec::new();
        while let Some(c) = self.peek() {
            if open.is_empty() && (c.is_whitespace() || matches!(c, ',' | ')') || ends(c)) {
                break;
            }
            match c {
                '\\' => self.at += 1,
                '[' if open.last() != Some(&']') => open.push(']'),
                '(' if open.last() != Some(&']') => open.push(')'),
                '{' if open.last() != Some(&']') => open.push('}'),
                c if open.last() == Some(&c) => {
                    open.pop();
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.chars.len());
        if let Some(close) = open.last() {
            return Err((format!("a {close} is missing"), start));
        }
        Ok(self.chars[start..self.at].iter().collect())
    }

    /// In double quotes; a backslash before a quote or a backslash takes it as it is.
    fn quoted(&mut self) -> Result<String, (String, usize)> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => return Ok(text),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                other => text.push(other),
            }
        }
        Err(("a quote that is never closed".to_owned(), start))
    }
}

/// The text as a value: bare when it reads back alike, else in quotes.
pub(super) fn quoted(text: &str) -> String {
    in_quotes_unless(text, reads_back(text, |lexer| lexer.value()))
}

/// The same for a key.
pub(super) fn quoted_key(text: &str) -> String {
    in_quotes_unless(text, reads_back(text, |lexer| lexer.key()))
}

/// Whether a name's pattern can stand without `name:`.
pub(super) fn is_plain_name(text: &str) -> bool {
    let word = ["and", "or", "not"].contains(&text);
    let first = !text.starts_with(['"', '(', '@']);
    !word
        && first
        && Lexer::new(text).eat_prefix().is_none()
        && reads_back(text, |lexer| lexer.value())
}

fn reads_back(text: &str, read: impl Fn(&mut Lexer) -> Result<String, (String, usize)>) -> bool {
    // With an end behind it, which a backslash or a bracket that is left open would swallow.
    let mut lexer = Lexer::new(&format!("{text})"));
    !text.is_empty() && read(&mut lexer).as_deref() == Ok(text) && lexer.peek() == Some(')')
}

fn in_quotes_unless(text: &str, bare: bool) -> String {
    if bare {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
