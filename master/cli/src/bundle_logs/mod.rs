//! `bundle-logs`: what a report needs, in one file: log, settings, versions, states, jobs, events, and what `doctor` finds. Each
//! part is what a command prints as JSON, bounded, and goes through [`scrub`] before it is packed. Starts no master.

mod pack;
mod scrub;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use time::macros::format_description;
use tokio::process::Command;
use tokio::time::timeout;

use super::args::Command as Action;
use super::error::{Error, Exit};
use super::{CliEnv, Ctx};
use crate::view::{Out, Streams};
use pack::{ReportPart, packed, write_new};
use scrub::Scrubber;

/// Most bytes of a part; of a longer one its end is packed.
const MOST_OF_A_PART: usize = 4 << 20;

/// How long one part may take: doctor asks providers.
const WITHIN: Duration = Duration::from_secs(300);

/// How long the journal may take.
const JOURNAL: Duration = Duration::from_secs(30);

/// Jobs that are listed.
const JOBS: &str = "500";

const README: &str = "\
What aot-master bundle-logs has collected, for a report.

Left out: what commands and stages printed, the words of commands after the
first, cluster files, bundles, keys. What looks like a password, a token or a
key is replaced by [removed]. Names of clusters and machines, addresses, paths
and operators are in it: read it before you give it away.
";

/// Packs it, and prints where it is.
///
/// # Errors
/// When the file is there already, or can't be written.
pub(crate) async fn bundle_logs(ctx: &mut Ctx<'_>, file: Option<PathBuf>) -> Result<Exit, Error> {
    let file = file.unwrap_or_else(|| default_name(aot_host::clock::unix_ms()));
    if file.exists() {
        return Err(Error::usage(
            format!("{} is there already", file.display()),
            "name another file: aot-master bundle-logs FILE",
        ));
    }
    let scrubber = Scrubber::of(&ctx.env.state_dir, variables());
    let mut parts = vec![ReportPart::new("README.txt", README.as_bytes().to_vec())];
    for (name, text) in collected(ctx).await {
        let text = scrubber.cleaned(&text);
        parts.push(ReportPart::new(&name, last_of(text.into_bytes())));
    }
    let written = packed(&parts).and_then(|bytes| write_new(&file, &bytes).map(|()| bytes.len()));
    let bytes = written.map_err(|source| Error::Write {
        path: file.clone(),
        source,
    })?;
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    if ctx.json {
        let line = json!({"file": file, "bytes": bytes, "parts": names});
        ctx.print(&line.to_string())?;
    } else {
        ctx.note(&format!("in it: {}", names.join(", ")))?;
        ctx.note("names and addresses are in it: read it before you give it away")?;
        ctx.print(&file.display().to_string())?;
    }
    Ok(Exit::Well)
}

/// Those of this process. What of a value is not UTF-8 is as it would be in a text.
fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// `aot-report-20261201T073000Z.tar.gz`.
fn default_name(now_ms: u64) -> PathBuf {
    let shape = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = i64::try_from(now_ms / 1000).unwrap_or_default();
    let now = time::OffsetDateTime::from_unix_timestamp(now);
    let when = now.ok().and_then(|now| now.format(&shape).ok());
    format!("aot-report-{}.tar.gz", when.unwrap_or_default()).into()
}

/// The end of what is too long, from the next line on.
fn last_of(bytes: Vec<u8>) -> Vec<u8> {
    let Some(start) = bytes.len().checked_sub(MOST_OF_A_PART) else {
        return bytes;
    };
    let rest = &bytes[start..];
    let line = rest.iter().position(|byte| *byte == b'\n');
    rest[line.map_or(0, |end| end + 1)..].to_vec()
}

/// Every part by its name, as text.
async fn collected(ctx: &Ctx<'_>) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    if let Some(settings) = &ctx.env.settings {
        parts.push(("config.jsonl".to_owned(), settings.clone()));
    }
    let commands: [(&str, &[&str]); 6] = [
        ("version.jsonl", &["version"]),
        ("doctor.jsonl", &["doctor"]),
        ("status.jsonl", &["status"]),
        ("agents.jsonl", &["agents"]),
        ("masters.jsonl", &["masters"]),
        ("jobs.jsonl", &["jobs", "-n", JOBS]),
    ];
    for (name, words) in commands {
        let text = of_command(ctx.env, words).await;
        if name == "status.jsonl" {
            for cluster in clusters(&text) {
                let words = ["events", "--cluster", &cluster];
                let events = of_command(ctx.env, &words).await;
                parts.push((format!("events-{cluster}.jsonl"), events));
            }
        }
        parts.push((name.to_owned(), text));
    }
    parts.extend(logs(ctx.env).await);
    parts
}

/// The clusters of what `status --json` printed.
fn clusters(status: &str) -> Vec<String> {
    let lines = status.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["cluster"].as_str().map(str::to_owned)
    });
    let mut names: Vec<String> = lines.collect();
    names.sort();
    names.dedup();
    names
}

/// What a command prints as JSON, and what it says besides.
async fn of_command(env: &CliEnv, words: &[&str]) -> String {
    let words = ["aot-master", "--json"].iter().chain(words);
    let cli = match crate::parse(words.map(Into::into)) {
        Ok(cli) => cli,
        Err(error) => return error.to_string(),
    };
    let is_doctor = matches!(cli.command, Action::Doctor);
    let env = CliEnv {
        // A report starts no master; doctor does neither, and looks for what is beside the program.
        background: env.background.clone().filter(|_| is_doctor),
        interactive: false,
        stdout_terminal: false,
        stderr_terminal: false,
        colour: false,
        colour_always: false,
        asks_again: Duration::ZERO,
        ..env.clone()
    };
    let (out, err) = (KeptOutput::default(), KeptOutput::default());
    let mut io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Out::new(out.clone()),
        stderr: Out::new(err.clone()),
    };
    // A command among whose commands this one is.
    let ran = Box::pin(crate::run_on(cli, &env, &mut io));
    let said = match timeout(WITHIN, ran).await {
        Ok(_) => String::new(),
        Err(_) => format!("no answer within {} s\n", WITHIN.as_secs()),
    };
    let results: Vec<String> = out.text().lines().map(without_content).collect();
    format!("{}\n{}{said}", results.join("\n"), err.text())
}

/// A line of JSON without what commands and stages printed, and without the words of commands after the first.
fn without_content(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(mut value) => {
            drop_content(&mut value);
            value.to_string()
        }
        Err(_) => line.to_owned(),
    }
}

fn drop_content(value: &mut Value) {
    const PRINTED: [&str; 5] = ["tail", "stdout", "stderr", "stdout_base64", "stderr_base64"];
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !PRINTED.contains(&key.as_str()));
            if let Some(Value::String(what)) = fields.get_mut("what")
                && let Some((first, _)) = what.split_once(char::is_whitespace)
            {
                *what = format!("{first} ...");
            }
            fields.values_mut().for_each(drop_content);
        }
        Value::Array(all) => all.iter_mut().for_each(drop_content),
        _ => {}
    }
}

/// The log of a master in the background, and the journal of one that is a service.
async fn logs(env: &CliEnv) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    for name in ["master.log.1", "master.log"] {
        if let Ok(text) = end_of_file(&env.state_dir.join(name)) {
            parts.push((name.to_owned(), text));
        }
    }
    let asked = Command::new("journalctl")
        .args([
            "--unit=aot-master",
            "--lines=20000",
            "--no-pager",
            "--quiet",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    if let Ok(Ok(output)) = timeout(JOURNAL, asked).await
        && !output.stdout.is_empty()
    {
        let text = String::from_utf8_lossy(&last_of(output.stdout)).into_owned();
        parts.push(("journal.log".to_owned(), text));
    }
    parts
}

fn end_of_file(path: &Path) -> io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let most = MOST_OF_A_PART as u64;
    let start = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// What a command has printed.
#[derive(Clone, Default)]
struct KeptOutput(Arc<Mutex<Vec<u8>>>);

impl KeptOutput {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for KeptOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_time() {
        let name = default_name(1_767_225_784_000);
        assert_eq!(name, Path::new("aot-report-20260101T000304Z.tar.gz"));
    }

    #[test]
    fn of_what_is_too_long_whole_lines_at_its_end_stay() {
        let line = format!("{}\n", "x".repeat(99));
        let long = line.repeat(MOST_OF_A_PART / 100 + 10);
        let end = last_of(long.into_bytes());
        assert!(end.len() <= MOST_OF_A_PART && end.len() > MOST_OF_A_PART - 101);
        assert_eq!(end.len() % 100, 0);
        assert_eq!(last_of(b"short".to_vec()), b"short");
    }

    #[test]
    fn what_was_printed_and_typed_is_left_out() {
        let line = r#"{"what":"mysql -pgeheim","kind":"exec","stages":[{"name":"a","tail":["x"]}],"stdout":"y"}"#;
        assert_eq!(
            without_content(line),
            r#"{"what":"mysql ...","kind":"exec","stages":[{"name":"a"}]}"#
        );
        assert_eq!(without_content("not JSON"), "not JSON");
        assert_eq!(without_content(r#"{"what":"ping"}"#), r#"{"what":"ping"}"#);
    }

    #[test]
    fn clusters_are_those_of_the_instances() {
        let status = "{\"cluster\":\"b\",\"name\":\"x\"}\n{\"cluster\":\"a\"}\nwarning\n{\"cluster\":\"b\"}\n";
        assert_eq!(clusters(status), ["a", "b"]);
    }
}
