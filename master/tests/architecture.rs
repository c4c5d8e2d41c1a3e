//! Keeps the crates in their order, and what holds for all of their sources.

use std::path::{Path, PathBuf};

/// The crates from the bottom up, each with those of the project that it may use in what it ships.
const MAY_USE: [(&str, &[&str]); 23] = [
    ("proto", &[]),
    ("proto/host", &[]),
    ("proto/archive", &["host"]),
    ("proto/tls", &[]),
    ("proto/tunnel", &["host", "proto"]),
    ("master/model", &["host", "proto"]),
    ("master/provider", &["model", "proto"]),
    ("master/bundle", &["archive", "model", "proto"]),
    ("master/user-data", &["model", "provider", "proto"]),
    (
        "master/cluster-file",
        &["bundle", "model", "proto", "user-data"],
    ),
    ("master/store", &["archive", "host", "model", "proto"]),
    (
        "master/store-postgres",
        &["host", "model", "proto", "store"],
    ),
    ("master/aws", &["host"]),
    ("master/blobs-s3", &["aws", "host", "store"]),
    ("master/kms", &["aws", "store"]),
    (
        "master/provider-ec2",
        &["aws", "host", "model", "provider", "proto", "user-data"],
    ),
    (
        "master/provider-local",
        &["host", "model", "provider", "proto"],
    ),
    ("master/cli", &["archive", "host", "proto", "tunnel"]),
    (
        "master/daemon",
        &[
            "archive",
            "bundle",
            "cluster-file",
            "host",
            "model",
            "provider",
            "proto",
            "store",
            "tls",
        ],
    ),
    ("master/settings", &["cli", "cluster-file", "host", "model"]),
    (
        "master/masterd",
        &[
            "cli", "daemon", "ec2", "host", "kms", "local", "postgres", "s3", "settings", "store",
        ],
    ),
    (
        "master",
        &["cli", "cluster-file", "host", "model", "settings"],
    ),
    ("agent", &["archive", "host", "proto", "tls", "tunnel"]),
];

/// Libraries that only these crates know, by how their names begin.
const KNOWN_TO: [(&str, &[&str]); 11] = [
    ("rusqlite", &["master/store"]),
    ("tokio-postgres", &["master/store-postgres"]),
    ("aws-sdk-s3", &["master/blobs-s3"]),
    ("aws-sdk-kms", &["master/kms"]),
    (
        "aws-sdk",
        &["master/provider-ec2", "master/blobs-s3", "master/kms"],
    ),
    (
        "aws-config",
        &["master/aws", "master/provider-ec2", "master/kms"],
    ),
    ("aws-smithy", &["master/aws", "master/provider-ec2"]),
    ("aws-sigv4", &["agent"]),
    ("aws-credential-types", &["agent"]),
    ("clap", &["master/cli", "agent"]),
    ("axum", &["master/daemon"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a crate ships with: the names below `[dependencies]`.
fn dependencies(place: &str) -> Vec<String> {
    let path = root().join(place).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{place}: {why}"));
    text.lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir)
        .expect("a folder of sources")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("reads");
    let members = workspace.split("members = [").nth(1).expect("members");
    let members = members.split(']').next().expect("its end");
    for member in members.split('"').skip(1).step_by(2) {
        let is_known =
            member.starts_with("tests") || MAY_USE.iter().any(|(place, _)| *place == member);
        assert!(is_known, "{member} has no rule here");
    }
    for (place, may) in MAY_USE {
        for name in dependencies(place) {
            let ours = name.strip_prefix("aot-");
            let is_allowed = ours.is_none_or(|name| may.contains(&name));
            assert!(is_allowed, "{place} uses {name}");
        }
    }
}

/// `-v` shows the log of what begins with `aot_`.
#[test]
fn every_crate_of_ours_is_called_so() {
    for (place, _) in MAY_USE {
        let path = root().join(place).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(
            text.contains("\nname = \"aot-"),
            "{place} is called otherwise"
        );
    }
}

#[test]
fn no_dependency_is_a_release_candidate() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("reads the lock file");
    let versions = lock.lines().filter_map(|line| {
        let version = line.strip_prefix("version = \"")?.strip_suffix('"')?;
        // What stands behind a plus is build metadata (Semantic Versioning 2.0.0, 9 and 10).
        Some(version.split('+').next().unwrap_or(version))
    });
    let versions: Vec<&str> = versions.collect();
    assert!(versions.len() > 100, "{versions:?}");
    let candidates = versions.iter().filter(|version| version.contains('-'));
    assert_eq!(candidates.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn what_is_large_or_special_is_known_to_one_crate() {
    for (place, _) in MAY_USE {
        for name in dependencies(place) {
            let known = KNOWN_TO.iter().filter(|(start, _)| name.starts_with(start));
            for (_, to) in known {
                assert!(to.contains(&place), "{place} uses {name}");
            }
        }
    }
}

#[test]
fn what_decides_does_no_io() {
    for name in ["tokio", "tokio-util", "rustix", "nix", "tracing", "futures"] {
        assert!(
            !dependencies("master/model").contains(&name.to_owned()),
            "the model uses {name}"
        );
    }
    let mut files = Vec::new();
    sources(&root().join("master/model/src"), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        // Of the host it may use what is pure.
        let host = [
            "boot_id",
            "clock",
            "descriptors",
            "files",
            "holders",
            "removal",
            "share",
            "users",
        ];
        let host = host.map(|part| format!("aot_host::{part}"));
        let own = ["std::fs", "std::net", "SystemTime::now", "Instant::now"];
        // A test may measure what a decision costs.
        let measures = file.ends_with("world/tests/growth.rs");
        let own = own
            .into_iter()
            .filter(|word| !(measures && *word == "Instant::now"));
        for word in own.chain(host.iter().map(String::as_str)) {
            let mut code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            assert!(
                !code.any(|line| line.contains(word)),
                "{} uses {word}",
                file.display()
            );
        }
    }
}

/// Each stream of the process has one writer, which makes harmless what reaches a terminal. The other ways to one:
/// `shell` shows a terminal as it is, and `connect` a connection, by design.
#[test]
fn only_the_writer_of_a_stream_writes_to_it() {
    let programs = ["master/src", "master/masterd/src"].map(|src| root().join(src).join("main.rs"));
    let src = root().join("master/cli/src");
    let mut files = programs.to_vec();
    sources(&src, &mut files);
    assert!(files.len() > 60, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let place = file.strip_prefix(&src).unwrap_or(&file);
        let place = place.display().to_string();
        let may: &[&str] = match place.as_str() {
            "view/out.rs" => &["stdout()", "stderr()", "LogLines(io::stderr)"],
            "view/bars.rs" => &["indicatif", "ProgressDrawTarget", "buffered_stderr()"],
            "shell/mod.rs" | "shell/session.rs" | "forward/mod.rs" => &["stdout()"],
            _ => &[],
        };
        let text = std::fs::read_to_string(&file).expect("reads");
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for way in [
                "stdout()",
                "stderr()",
                "print!(",
                "println!(",
                "dbg!(",
                "indicatif",
                "ProgressDrawTarget",
                "comfy_table",
                "/dev/stdout",
                "/dev/stderr",
                "/proc/self/fd",
                "io::stderr",
                "io::stdout",
            ] {
                let line = ["on_stderr()", "over_stderr()", "use_stderr()"]
                    .iter()
                    .fold(line.to_owned(), |line, own| line.replace(own, ""));
                let fits = line.contains(way) && !may.iter().any(|may| line.contains(may));
                // A test says for itself that it can't run here.
                if fits && !line.contains("no ssh here") {
                    wrong.push(format!("{place}:{}: {way}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // clap's own way to print an error and to end.
    for program in programs {
        let main = std::fs::read_to_string(program).expect("reads");
        assert!(!main.contains("error.exit()") && !main.contains("error.print()"));
    }
}

/// The fields of an enum's variant as they are written, by brackets.
fn variant<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text
        .find(&format!("\n    {name} {{"))
        .unwrap_or_else(|| panic!("no variant {name}"));
    let end = text[start..].find("\n    },").expect("it ends");
    &text[start..start + end]
}

#[test]
fn what_an_agent_brings_says_by_its_certificate_whose_it_is() {
    let src = root().join("master/daemon/src");
    let input = root().join("master/model/src/world/input.rs");
    let input = std::fs::read_to_string(input).expect("reads");
    let agent = variant(&input, "Agent");
    assert!(agent.contains("at: InstanceKey,") && agent.contains("session: u64,"));
    let (_, brought) = input
        .split_once("pub enum AgentInput {")
        .expect("it is there");
    let brought = &brought[..brought.find("\n}").expect("it ends")];
    for owner in ["InstanceKey", "ClusterName", "InstanceName", "MachineId"] {
        assert!(
            !brought.contains(owner),
            "an agent must not be able to name whose it is: {owner}"
        );
    }
    // Enrol and boot reports are compared with the token's batch; the others are the master's own word about a certificate
    // or a session.
    let allowed = ["Agent", "Enrol", "Issued", "CertificateSeen", "StillThere"];
    let mut files = Vec::new();
    sources(&src.join("server/agent_api"), &mut files);
    assert!(files.len() >= 5, "the agents' services were not found");
    sources(&src.join("session/reports"), &mut files);
    assert!(files.len() >= 12, "the sessions' reports were not found");
    files.push(src.join("session/life.rs"));
    files.retain(|file| !file.ends_with("tests.rs"));
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for rest in code.split("Input::").skip(1) {
            let end = rest
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(rest.len());
            let is_agents = code.contains(&format!("AgentInput::{}", &rest[..end]));
            assert!(
                is_agents || allowed.contains(&&rest[..end]),
                "{}: Input::{} comes from an agent and has no session",
                file.display(),
                &rest[..end]
            );
        }
        for direct in [".runs.", ".runs\n", "runs_of("] {
            let own = direct == "runs_of(" && text.contains("world.runs_of(at)");
            assert!(
                own || !code.contains(&format!("world{direct}")),
                "{}: an agent's run is found by World::own_run alone",
                file.display()
            );
        }
    }
}

/// What a session does is tested over channels: the stream is gRPC to `server` alone.
#[test]
fn a_session_does_not_know_its_transport() {
    let mut files = Vec::new();
    sources(&root().join("master/daemon/src/session"), &mut files);
    assert!(files.len() > 15, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        for word in ["tonic", "Streaming", "Status"] {
            let names = text
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|it| it == word);
            assert!(!names, "{} names {word}", file.display());
        }
    }
}

/// Whoever serves requests writes nothing down and may be dropped in the middle: what changes machines goes through the
/// loop, what only looks through `run/ask.rs`.
#[test]
fn nothing_that_serves_requests_calls_a_provider() {
    let provider = root().join("master/provider/src/lib.rs");
    let provider = std::fs::read_to_string(provider).expect("reads");
    let (_, methods) = provider
        .split_once("pub trait Provider")
        .expect("the trait");
    let methods = &methods[..methods.find("\n}").expect("its end")];
    let names = methods.split("\n    fn ").skip(1);
    let names: Vec<&str> = names
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    assert!(
        names.contains(&"lifecycle") && names.len() > 12,
        "{names:?}"
    );
    let mut files = Vec::new();
    sources(&root().join("master/daemon/src/server"), &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        for (at, line) in text.lines().enumerate() {
            let code = line.trim_start();
            // Those names are common ones: what is told apart here is who is asked.
            let asks = names
                .iter()
                .any(|name| code.contains(&format!("provider.{name}(")));
            let imports = code.starts_with("use aot_provider")
                && (code.contains("Provider,")
                    || code.contains("Provider}")
                    || code.contains("Provider;")
                    || code.contains("Lifecycle"));
            if asks || imports || code.contains("dyn Provider") || code.contains("providers.get(") {
                wrong.push(format!("{}:{}: {code}", file.display(), at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Attributes of variants with the fields that follow, of all errors of a text: `#[error(...)]` up to the next attribute of
/// its kind or the end of the enum.
///
/// A transparent error has no message of its own, and its source is that of the error inside: nothing is said twice.
fn errors(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("#[error(").skip(1).filter_map(|rest| {
        let end = rest.find(")]")?;
        let (message, body) = rest.split_at(end);
        let body = body.split("\n}").next().unwrap_or(body);
        Some((message, body))
    })
}

/// The field that thiserror takes for the source: one called so, or one with an attribute. A field without a name has the
/// name `0`.
fn source_of(body: &str) -> Option<String> {
    let lines = || {
        let lines = body.lines().skip(1).map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
    };
    let first = lines().next()?;
    let is_marked = |line: &str| line.contains("#[from]") || line.contains("#[source]");
    if first
        .split('{')
        .next()
        .is_some_and(|head| head.contains('('))
    {
        return is_marked(first).then(|| "0".to_owned());
    }
    let mut marked = false;
    for line in lines().take_while(|line| !line.starts_with('}')) {
        let line = line.trim_start_matches("pub ");
        let field = line.rsplit("] ").next().unwrap_or(line);
        let name = field.split(':').next().unwrap_or_default().trim();
        marked |= is_marked(line);
        if name == "source" || (marked && field.contains(':')) {
            return Some(name.to_owned());
        }
    }
    None
}

/// Whether a message has its source in it, by a placeholder or by an argument.
fn says_its_source(message: &str, body: &str) -> bool {
    let Some(name) = source_of(body) else {
        return false;
    };
    let argument = match name.as_str() {
        "0" => ".0".to_owned(),
        name => name.to_owned(),
    };
    let (text, arguments) = message.rsplit_once('"').unwrap_or((message, ""));
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let in_arguments = arguments.match_indices(&argument).any(|(at, found)| {
        let before = arguments[..at].chars().next_back();
        let after = arguments[at + found.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    });
    // `{}` without an argument is the first field.
    let positional = name == "0" && text.contains("{}") && arguments.trim().is_empty();
    let placed = [format!("{{{name}}}"), format!("{{{name}:")];
    positional || in_arguments || placed.iter().any(|placed| text.contains(placed))
}

#[test]
fn an_error_that_says_its_source_is_found_however_it_does() {
    for (message, body) in [
        (
            r#""cannot: {source}""#,
            "]\n    A {\n        source: io::Error,\n    },",
        ),
        (
            r#""cannot: {source:?}""#,
            "]\n    A {\n        source: io::Error,\n    },",
        ),
        (
            r#""cannot: {}", source.kind()"#,
            "]\n    A {\n        source: io::Error,\n    },",
        ),
        (
            r#""cannot: {why}""#,
            "]\n    A {\n        #[source]\n        why: io::Error,\n    },",
        ),
        (
            r#""cannot: {why}""#,
            "]\n    A {\n        #[source] why: io::Error,\n    },",
        ),
        (r#""{0}""#, "]\n    A(#[from] io::Error),"),
        (r#""{0:?}""#, "]\n    A(#[source] io::Error),"),
        (r#""cannot: {}", .0"#, "]\n    A(#[from] io::Error),"),
        (r#""cannot: {}", .0.message()"#, "]\n    A(#[from] Status),"),
    ] {
        assert!(says_its_source(message, body), "{message}");
    }
    for (message, body) in [
        ("transparent", "]\n    A(#[from] io::Error),"),
        (r#""cannot""#, "]\n    A(#[from] io::Error),"),
        (r#""{0}""#, "]\n    A(String),"),
        (
            r#""cannot read {}", path.display()"#,
            "]\n    A {\n        path: PathBuf,\n        source: io::Error,\n    },",
        ),
        (
            r#""{source_name} is there""#,
            "]\n    A {\n        source_name: String,\n    },",
        ),
    ] {
        assert!(!says_its_source(message, body), "{message}");
    }
}

#[test]
fn no_error_says_what_its_source_says() {
    let mut files = Vec::new();
    for (place, _) in MAY_USE {
        sources(&root().join(place).join("src"), &mut files);
    }
    let mut wrong = Vec::new();
    let mut looked = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        for (message, body) in errors(&text) {
            looked += 1;
            if says_its_source(message, body) {
                wrong.push(format!("{}: {message}", file.display()));
            }
        }
    }
    assert!(looked > 100, "the errors were not found: {looked}");
    // Whoever prints an error prints its sources behind it, so it would be said twice.
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An error that is logged alone says what could not be done and not why: `the store cannot be used`, of a full disk.
#[test]
fn an_error_is_logged_with_all_that_it_came_from() {
    let mut files = Vec::new();
    for (place, _) in MAY_USE {
        sources(&root().join(place).join("src"), &mut files);
    }
    assert!(files.len() > 100, "the sources were not found");
    let mut bare = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        for (at, line) in text.lines().enumerate() {
            let field = line.split("error = ").skip(1);
            let unchained = field
                .filter(|value| value.starts_with(['%', '?']))
                .any(|value| !value.starts_with("%Chain("));
            let short = ["%error", "?error", "%err,", "?err,", "%source"];
            if unchained || short.iter().any(|field| line.contains(field)) {
                bare.push(format!("{}:{}: {}", file.display(), at + 1, line.trim()));
            }
        }
    }
    assert!(bare.is_empty(), "say Chain(&error): {bare:#?}");
}

/// The arms of a message's `oneof`, by the text of the protocol.
fn arms(proto: &str, message: &str) -> Vec<String> {
    let from = proto
        .find(&format!("message {message} {{"))
        .expect("the message");
    let body = &proto[from..];
    let body = &body[..body.find("\n}").expect("its end")];
    let field = |line: &str| {
        let line = line.split("//").next().unwrap_or_default().trim();
        let (left, _) = line.strip_suffix(';')?.split_once(" = ")?;
        Some(left.rsplit(' ').next()?.to_owned())
    };
    body.lines().skip(2).filter_map(field).collect()
}

/// The calls of a service.
fn calls(proto: &str, service: &str) -> Vec<String> {
    let from = proto
        .find(&format!("service {service} {{"))
        .expect("the service");
    let body = &proto[from..];
    let body = &body[..body.find("\n}").expect("its end")];
    let call = |line: &str| {
        Some(
            line.trim()
                .strip_prefix("rpc ")?
                .split('(')
                .next()?
                .to_owned(),
        )
    };
    body.lines().filter_map(call).collect()
}

#[test]
fn each_message_of_a_machine_has_a_row_that_says_what_it_may_touch() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect(name);
    let (proto, text) = (read("proto/aot/v1/agent.proto"), read("ARCHITECTURE.md"));
    let mut wanted = arms(&proto, "AgentMessage");
    assert!(wanted.len() >= 11, "{wanted:?}");
    wanted.extend(calls(&proto, "Enrolment"));
    wanted.extend(calls(&proto, "AgentLink"));
    let from = text.find("## What a machine says").expect("the table");
    let rows: Vec<&str> = text[from..]
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .collect();
    for name in &wanted {
        let row = rows
            .iter()
            .find(|row| row.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{name}`"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(
            cells.len() == 5 && cells[1..4].iter().all(|cell| !cell.is_empty()),
            "{row}"
        );
    }
    assert_eq!(
        rows.len(),
        wanted.len(),
        "a row of a message that is no more: {rows:#?}"
    );
}

#[test]
fn the_map_names_files_that_are_there() {
    let mut files = Vec::new();
    for (place, _) in MAY_USE {
        sources(&root().join(place).join("src"), &mut files);
        files.extend(Some(root().join(place).join("build.rs")).filter(|script| script.exists()));
    }
    sources(&root().join("master/tests"), &mut files);
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("reads");
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.ends_with(".rs") && !code.contains(' '))
        .collect();
    assert!(named.len() > 40, "{named:?}");
    let is_missing = |name: &&&str| {
        let whole = format!("/{name}");
        !files
            .iter()
            .any(|file| file.to_string_lossy().ends_with(&whole))
    };
    let missing: Vec<_> = named.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}");
}
