//! `--set` and `--vars`: what is given beside a cluster's file, and the environment variables that these texts name. What it
//! all means, the reader of the file decides.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aot_host::environment::NotText;
use aot_proto::v1::{Variables, VariablesFile};

use super::args::VariableArgs;

/// Largest file of variables.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How a variable of the environment begins.
const ENV: &str = "${env:";

/// A file of variables that can't be read.
#[derive(Debug)]
pub struct UnreadVariables {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What is given beside the file of this text; `env` is the environment. A variable that is not UTF-8 is named: who reads the file says
/// where it is used.
///
/// # Errors
/// When a file of variables can't be read.
pub fn given_beside(
    args: &VariableArgs,
    text: &str,
    env: impl Fn(&str) -> Result<Option<String>, NotText>,
) -> Result<Variables, UnreadVariables> {
    let read = |path: &PathBuf| {
        let failed = |source| UnreadVariables {
            path: path.clone(),
            source,
        };
        Ok(VariablesFile {
            path: path.display().to_string(),
            text: read(path).map_err(failed)?,
        })
    };
    let files: Vec<VariablesFile> = args.vars.iter().map(read).collect::<Result<_, _>>()?;
    let texts = files.iter().map(|file| file.text.as_str());
    let texts = texts.chain(args.set.iter().map(String::as_str));
    let names = texts.chain([text]).flat_map(env_names);
    let (mut known, mut not_utf8) = (HashMap::new(), BTreeSet::new());
    for name in names {
        match env(name) {
            Ok(Some(value)) => drop(known.insert(name.to_owned(), value)),
            Ok(None) => {}
            Err(NotText { name }) => drop(not_utf8.insert(name)),
        }
    }
    Ok(Variables {
        files,
        set: args.set.clone(),
        env: known,
        not_utf8: not_utf8.into_iter().collect(),
    })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(MAX_FILE_BYTES + 1);
    file.read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::other("it has more than 1 MiB")),
        false => Ok(text),
    }
}

/// The environment variables that a text names; `$${env:A}` is a text of its own.
fn env_names(text: &str) -> Vec<&str> {
    let uses = text.match_indices(ENV).filter_map(|(at, _)| {
        let before = text[..at].len() - text[..at].trim_end_matches('$').len();
        let name = text[at + ENV.len()..].split_once('}')?.0;
        before.is_multiple_of(2).then_some(name)
    });
    // Nothing else can be the name of one, nor be asked for.
    let is_name = |name: &&str| !name.is_empty() && !name.contains(['=', '\0']);
    uses.filter(is_name).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use aot_host::environment;

    use super::*;

    #[test]
    fn only_what_is_named_is_read_from_the_environment() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("vars.yml");
        std::fs::write(&path, "a: ${env:FROM_FILE}\n").expect("written");
        let args = VariableArgs {
            set: vec!["b=${env:FROM_SET}".into()],
            vars: vec![path.clone()],
        };
        let text = "x: ${env:FROM_TEXT} $${env:ESCAPED} $$${env:SHOWN} ${env:GONE} ${env:LATIN_1} ${env:LATIN_1} ${env:";
        let env = |name: &str| match name {
            "LATIN_1" => environment::of(name, Some(OsString::from_vec(b"caf\xe9".to_vec()))),
            _ => Ok((name != "GONE").then(|| name.to_lowercase())),
        };
        let given = given_beside(&args, text, env).expect("reads");
        let mut names: Vec<&str> = given.env.values().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["from_file", "from_set", "from_text", "shown"]);
        assert_eq!(given.files[0].text, "a: ${env:FROM_FILE}\n");
        assert_eq!(given.set, args.set);
        assert_eq!(given.not_utf8, ["LATIN_1"]);
    }

    #[test]
    fn a_file_that_is_missing_or_long_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = dir.path().join("long.yml");
        std::fs::write(&long, "#".repeat((1 << 20) + 1)).expect("written");
        for path in [long, dir.path().join("none.yml")] {
            let args = VariableArgs {
                vars: vec![path.clone()],
                ..VariableArgs::default()
            };
            let failed = given_beside(&args, "", |_| Ok(None)).expect_err("is refused");
            assert_eq!(failed.path, path);
        }
    }
}
