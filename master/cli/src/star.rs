//! A star that the shell expanded before we saw it: `exec * ping` comes here as `exec Cargo.toml src ping`. Pure.

/// What to say of words that are files here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StarHint {
    /// What to do.
    pub text: String,
    /// There are several: no coincidence.
    pub is_sure: bool,
}

/// Of words from the TARGET on.
pub(crate) fn hint(words: &[String], is_file: impl Fn(&str) -> bool) -> Option<StarHint> {
    let files = words.iter().take_while(|word| is_file(word)).count();
    let first = words.first().filter(|_| files > 0)?;
    let what = match files {
        1 => format!("{first} is a file here"),
        _ => format!("{first} and the next {} are files here", more(files - 1)),
    };
    let text = format!("{what}: if you wrote *, the shell replaced it; quote it: '*'");
    Some(StarHint {
        text,
        is_sure: files > 1,
    })
}

fn more(words: usize) -> String {
    match words {
        1 => "word".to_owned(),
        more => format!("{more} words"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_files_were_a_star() {
        let said = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            hint(&words, |word| ["Cargo.toml", "docs", "src"].contains(&word))
        };
        let way = "if you wrote *, the shell replaced it; quote it: '*'";
        for (words, wanted) in [
            (&["web1", "ping"][..], None),
            (&["web1", "src"], None),
            (&[], None),
            (&["src", "ping"], Some("src is a file here")),
            (
                &["docs", "src", "ping"],
                Some("docs and the next word are files here"),
            ),
            (
                &["Cargo.toml", "docs", "src", "ping"],
                Some("Cargo.toml and the next 2 words are files here"),
            ),
        ] {
            let wanted = wanted.map(|what| StarHint {
                text: format!("{what}: {way}"),
                is_sure: what.ends_with("files here"),
            });
            assert_eq!(said(words), wanted, "{words:?}");
        }
    }
}
