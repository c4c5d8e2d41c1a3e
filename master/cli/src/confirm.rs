//! Asks before something is destroyed. Only in a terminal; elsewhere `--yes` answers beforehand.

use std::io::Write as _;

use super::Ctx;
use super::error::Error;

/// Most names in a question.
const MAX_NAMED: usize = 10;

/// Asks `question`, unless `yes`.
///
/// # Errors
/// When nobody can be asked, or the answer is not yes.
pub(crate) fn confirm(ctx: &mut Ctx<'_>, yes: bool, question: &str) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !ctx.env.interactive {
        return Err(Error::usage(
            format!("{question}? This needs confirmation, and there is no terminal to ask on"),
            "pass --yes",
        ));
    }
    write!(ctx.io.stderr, "{question}? [y/N] ")?;
    ctx.io.stderr.flush()?;
    let mut answer = String::new();
    ctx.io.stdin.read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Declined),
    }
}

/// `web1, web2 and 3 more`.
pub(crate) fn named(names: &[&str]) -> String {
    let mut text = names[..names.len().min(MAX_NAMED)].join(", ");
    if names.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMED));
    }
    text
}
