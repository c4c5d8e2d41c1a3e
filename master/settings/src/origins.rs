//! Each setting with its value and where that comes from, for `aot-master config`. The sources are those of [`super::merge`],
//! in its order; each key is looked for by its name, so that a new one is shown as soon as it is there.

use std::fmt;
use std::path::PathBuf;

use crate::defaults::set;
use crate::file::{KEYS, Partial};
use crate::{LAST_START, Settings};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// A flag, by its name.
    Flag(String),
    /// A variable, by its name.
    Variable(String),
    /// A file that an operator writes.
    File(PathBuf),
    /// The file of the last start, for a master in the background.
    LastStart(PathBuf),
    /// Nobody said anything.
    Default,
}

impl SettingSource {
    /// Its kind, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Variable(_) => "variable",
            Self::File(_) => "file",
            Self::LastStart(_) => "last-start",
            Self::Default => "default",
        }
    }

    /// Which one of its kind.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Flag(name) | Self::Variable(name) => Some(name.clone()),
            Self::File(path) | Self::LastStart(path) => Some(path.display().to_string()),
            Self::Default => None,
        }
    }
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastStart(path) => write!(f, "last start ({})", path.display()),
            other => f.write_str(&other.name().unwrap_or_else(|| "default".to_owned())),
        }
    }
}

/// A setting as it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingOrigin {
    /// Its key in a file.
    pub key: String,
    /// Its value; `None` = it has none. Passwords are left out.
    pub value: Option<String>,
    /// Where that comes from.
    pub origin: SettingSource,
}

/// All settings. `files` are those that were read, strongest first.
pub(crate) fn origins(
    flags: &Partial,
    env: &dyn Fn(&str) -> Option<String>,
    files: &[(PathBuf, Partial)],
    settings: &Settings,
) -> Vec<SettingOrigin> {
    let flags = table(flags);
    let files: Vec<(&PathBuf, toml::Table)> = files
        .iter()
        .map(|(path, file)| (path, table(file)))
        .collect();
    let of = |key: &str| {
        let variable = variable(key);
        let set = set(env, &variable);
        let flag = text(&flags, key);
        // clap reads some variables into the flags of their name.
        if let (Some(value), true) = (flag.clone(), flag != set) {
            return (
                Some(value),
                SettingSource::Flag(format!("--{}", key.replace('_', "-"))),
            );
        }
        if let Some(value) = set {
            return (Some(value), SettingSource::Variable(variable));
        }
        let found = files
            .iter()
            .find_map(|(path, file)| Some((text(file, key)?, (*path).clone())));
        match found {
            Some((value, path)) if path.ends_with(LAST_START) => {
                (Some(value), SettingSource::LastStart(path))
            }
            Some((value, path)) => (Some(value), SettingSource::File(path)),
            None => (default(key, settings), SettingSource::Default),
        }
    };
    let setting = |key: &&str| {
        let (value, origin) = of(key);
        let value = match *key {
            "store" => value.map(|url| without_password(&url)),
            _ => value,
        };
        SettingOrigin {
            key: full_name(key).to_owned(),
            value,
            origin,
        }
    };
    KEYS.iter().map(setting).collect()
}

/// What stands in a source, by its keys.
fn table(source: &Partial) -> toml::Table {
    toml::Table::try_from(source).unwrap_or_default() // plain texts and lists: nothing to fail on
}

/// The key with what it is a table of.
fn full_name(key: &str) -> &str {
    match key {
        "attestation" => "attestation.certificates",
        key => key,
    }
}

/// `AOT_STATE_DIR` of `state_dir`.
fn variable(key: &str) -> String {
    let name = full_name(key).replace('.', "_").to_uppercase();
    format!("AOT_{name}")
}

/// A value as a variable would have it.
fn text(source: &toml::Table, key: &str) -> Option<String> {
    let value = full_name(key)
        .split('.')
        .skip(1)
        .try_fold(source.get(key)?, |at, part| at.get(part))?;
    Some(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(all) => {
            let all: Vec<&str> = all.iter().filter_map(toml::Value::as_str).collect();
            all.join(",")
        }
        other => other.to_string(),
    })
}

/// What holds where nobody says anything.
fn default(key: &str, settings: &Settings) -> Option<String> {
    let path = |path: &PathBuf| path.display().to_string();
    Some(match key {
        "listen" | "advertise" => settings.listen.clone(),
        "state_dir" => path(&settings.state_dir),
        "socket" => path(&settings.socket),
        "keep_jobs" => humantime::format_duration(settings.keep.age).to_string(),
        "keep_output" => bytesize::ByteSize(settings.keep.output_bytes).to_string(),
        "log_format" => settings.log_format.as_str().to_owned(),
        "peer_listen" => settings.peer_listen.clone(),
        "attestation" => {
            let all: Vec<String> = settings.certificates.iter().map(path).collect();
            all.join(",")
        }
        _ => return None,
    })
}

/// The URL of a database without what is secret in it; of what is no URL nothing. Rather too little than too much: a
/// password may have any sign in it.
fn without_password(url: &str) -> String {
    const HIDDEN: &str = "***";
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.to_owned();
    };
    let (who, place) = match rest.rsplit_once('@') {
        None => (String::new(), rest),
        Some((who, place)) => match who.split_once(':') {
            Some((user, _)) => (format!("{user}:{HIDDEN}@"), place),
            None => (format!("{who}@"), place),
        },
    };
    let (place, asked) = place.split_once('?').unwrap_or((place, ""));
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((key, _)) if key.to_lowercase().contains("pass") => format!("{key}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    let asked: Vec<String> = asked.split('&').map(hidden).collect();
    let asked = asked.join("&");
    let mark = if asked.is_empty() { "" } else { "?" };
    format!("{scheme}://{who}{place}{mark}{asked}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreUrl;
    use crate::file::parse_file;
    use crate::merge::merge;
    use std::path::Path;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "HOME" => "/home/a",
            "AOT_STATE_DIR" => "/srv/aot",
            "AOT_ATTESTATION_CERTIFICATES" => "/certs",
            "AOT_LOG" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn each_setting_names_the_source_that_won() {
        let flags = Partial {
            state_dir: Some("/srv/aot".into()), // read by clap from the variable
            cluster: Some("shop".to_owned()),
            ..Partial::default()
        };
        let file = |path: &str, text: &str| {
            let path = PathBuf::from(path);
            let read = parse_file(text, &path).expect("a good file");
            (path, read)
        };
        let files = [
            file(
                "/home/a/master.toml",
                "advertise = [\"a:1\", \"b:2\"]\ncluster = \"other\"",
            ),
            file(
                "/etc/aot/master.toml",
                "store = \"postgres://aot:s3cret@db/aot\"\nlog = \"debug\"",
            ),
            file(
                "/srv/aot/settings.toml",
                "listen = \"0.0.0.0:1\"\nadvertise = \"c:3\"",
            ),
        ];
        let read: Vec<Partial> = files.iter().map(|(_, file)| file.clone()).collect();
        let settings = merge(&flags, &env, &read, 1000).expect("settings");
        let all = origins(&flags, &env, &files, &settings);
        let line = |it: &SettingOrigin| {
            let value = it.value.as_deref().unwrap_or("-");
            format!("{} = {value}  [{}]", it.key, it.origin)
        };
        let lines: Vec<String> = all.iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"));
        assert_eq!(all.len(), KEYS.len());
    }

    #[test]
    fn no_secret_of_a_url_is_shown() {
        for (url, wanted) in [
            (
                "postgres://aot:pw@db:5432/aot",
                "postgres://aot:***@db:5432/aot",
            ),
            ("postgres://aot@db/aot", "postgres://aot@db/aot"),
            (
                "postgres://db/aot?sslmode=require",
                "postgres://db/aot?sslmode=require",
            ),
            (
                "postgres://a:p@w:/?@db/aot?sslpassword=x&user=a&password=y",
                "postgres://a:***@db/aot?sslpassword=***&user=a&password=***",
            ),
            ("host=db password=pw", "***"),
        ] {
            assert_eq!(without_password(url), wanted);
        }
        let shown = table(&Partial {
            store: Some(StoreUrl("postgres://aot:pw@db/aot".to_owned())),
            ..Partial::default()
        });
        assert!(shown.contains_key("store"), "it is found by its name");
        assert_eq!(SettingSource::File(Path::new("/x").into()).kind(), "file");
    }
}
