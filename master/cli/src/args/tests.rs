//! Tests of the command line's words: help, the rules of exec, exit codes of clap.

use aot_proto::v1::BuiltinName;
use clap::error::ErrorKind;

use super::{Cli, Command, ExecAction, FleetCommand};
use crate::{command, help, parse};

fn words(line: &str) -> Result<Cli, clap::Error> {
    parse(line.split(' ').map(Into::into))
}

#[test]
fn the_parser_is_sound() {
    command().debug_assert();
}

#[test]
fn every_command_is_in_one_group_and_has_examples() {
    let command = command();
    let mut grouped: Vec<&str> = help::GROUPS
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let mut shown: Vec<&str> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    grouped.sort_unstable();
    shown.sort_unstable();
    assert_eq!(grouped, shown);
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let after = sub
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            after.contains("Examples:\n  "),
            "{} has no example",
            sub.get_name()
        );
    }
}

/// The help of every shown command and of those below it, as it is printed at most as wide as it gets.
fn helps(command: &mut clap::Command, path: &str, found: &mut Vec<(String, String)>) {
    let wide = command.clone().term_width(help::WIDTH).render_help();
    found.push((path.to_owned(), wide.to_string()));
    for sub in command.get_subcommands_mut() {
        if !sub.is_hide_set() && sub.get_name() != "help" {
            let path = format!("{path} {}", sub.get_name());
            helps(sub, &path, found);
        }
    }
}

fn all_helps() -> Vec<(String, String)> {
    let mut command = command();
    command.build();
    let mut found = Vec::new();
    helps(&mut command, "aot-master", &mut found);
    found
}

#[test]
fn every_help_text() {
    let texts: Vec<String> = all_helps()
        .into_iter()
        .map(|(path, text)| format!("===== {path}\n{text}"))
        .collect();
    let all = texts.join("\n");
    let lines: Vec<&str> = all.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn no_line_of_a_help_text_is_longer_than_80_columns() {
    let all = all_helps();
    assert!(all.len() > 30, "only {} commands", all.len());
    for (path, text) in &all {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{path} --help: {line}");
        }
    }
}

/// A line of a constant that clap had to break would not be found whole.
#[test]
fn no_note_of_a_help_text_is_broken_twice() {
    let mut command = command();
    command.build();
    let printed: String = all_helps().into_iter().map(|(_, text)| text).collect();
    let printed: Vec<&str> = printed.lines().collect();
    let mut all: Vec<&clap::Command> = vec![&command];
    while let Some(at) = all.pop() {
        all.extend(at.get_subcommands().filter(|sub| !sub.is_hide_set()));
        let notes = at.get_after_help().map(ToString::to_string);
        for line in notes.unwrap_or_default().lines() {
            assert!(printed.contains(&line), "{}: {line}", at.get_name());
        }
    }
}

#[test]
fn cp_shows_how_it_is_used() {
    let all = all_helps();
    let (_, text) = all
        .iter()
        .find(|(path, _)| path.ends_with(" cp"))
        .expect("cp");
    assert!(
        text.contains("Usage: aot-master cp [OPTIONS] SRC... DST\n"),
        "{text}"
    );
}

/// Every example of every help text is a command line that parses.
#[test]
fn examples_parse() {
    let mut seen = 0;
    for text in [
        help::TOP,
        help::SERVE,
        help::CHECK,
        help::PLAN,
        help::SCHEMA,
        help::LAUNCH,
        help::STATUS,
        help::LIST,
        help::DNS,
        help::IP,
        help::FACTS,
        help::WAIT,
        help::UPDATE,
        help::EXEC,
        help::APPLY,
        help::LOGS,
        help::JOBS,
        help::JOBS_SHOW,
        help::JOBS_FOLLOW,
        help::JOBS_CANCEL,
        help::JOBS_RETRY,
        help::CP,
        help::SHELL,
        help::FORWARD,
        help::CONNECT,
        help::INVENTORY,
        help::SSH_CONFIG,
        help::ATTESTATION,
        help::FLEET,
        help::FLEET_INIT,
        help::FLEET_IMPORT,
        help::FLEET_LEVEL,
        help::RESTART,
        help::AGENTS,
        help::START,
        help::STOP,
        help::REBOOT,
        help::ORPHANS,
        help::TERMINATE,
        help::CLEANUP,
        help::SHUTDOWN,
        help::INIT,
        help::CONFIG,
        help::VERSION,
        help::COMPLETION,
    ] {
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("  aot-master "))
        {
            let line = line.split(" > ").next().unwrap_or(line);
            let line = if line.contains('\'') {
                line.to_owned()
            } else {
                line.split(" | ").next().unwrap_or(line).to_owned()
            };
            let words = ["aot-master".to_owned()]
                .into_iter()
                .chain(split(&line).into_iter().take_while(|word| word != "|"));
            parse(words.map(Into::into)).unwrap_or_else(|error| panic!("{line}: {error}"));
            seen += 1;
        }
    }
    assert!(seen > 45, "only {seen} examples");
}

/// Words as a shell splits them, single quotes only.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (place, part) in line.split('\'').enumerate() {
        for (n, piece) in part
            .split(if place % 2 == 0 { " " } else { "\0" })
            .enumerate()
        {
            if n > 0 {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push_str(piece);
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn exec_tells_builtins_from_commands() {
    let run = |argv: &[&str]| {
        Some(ExecAction::Run(
            argv.iter().map(ToString::to_string).collect(),
        ))
    };
    let with = |name: &str, args: &[&str]| {
        let args = args.iter().map(ToString::to_string).collect();
        Some(ExecAction::Builtin(
            BuiltinName::from_name(name).expect("a built-in"),
            args,
        ))
    };
    let builtin = |name: &str| with(name, &[]);
    let table: [(&[&str], Option<ExecAction>); 32] = [
        (&["stat", "/etc/hosts"], with("stat", &["/etc/hosts"])),
        (&["tail", "/x"], with("tail", &["/x"])),
        (
            &["--timeout", "5s", "tail", "/x", "50"],
            with("tail", &["/x", "50"]),
        ),
        (&["--", "tail", "/x", "50"], run(&["tail", "/x", "50"])),
        (
            &["stat /etc/hosts"],
            run(&["/bin/sh", "-c", "stat /etc/hosts"]),
        ),
        (&["stat"], None),
        (&["stat", "/a", "/b"], None),
        (&["tail", "/x", "many"], None),
        (&["tail", "/x", "1", "2"], None),
        (&["--user", "me", "ping"], None),
        (&["--stdin", "-", "tail", "/x"], None),
        (&["--detach", "facts"], None),
        (&["--shell", "ping"], run(&["/bin/sh", "-c", "ping"])),
        (
            &["--shell", "echo", "$HOME"],
            run(&["/bin/sh", "-c", "echo $HOME"]),
        ),
        (
            &["--shell", "--", "a", "|", "b"],
            run(&["/bin/sh", "-c", "a | b"]),
        ),
        (&["--stdin", "--", "cat"], run(&["cat"])),
        (&["ping"], builtin("ping")),
        (&["facts"], builtin("facts")),
        (&["version"], builtin("version")),
        (&["ping", "--json"], builtin("ping")),
        (&["--timeout", "5s", "ping"], builtin("ping")),
        (&["--", "ping"], run(&["ping"])),
        (
            &["--", "ping", "-c1", "web2"],
            run(&["ping", "-c1", "web2"]),
        ),
        (
            &["--", "ls", "--json", "--", "x"],
            run(&["ls", "--json", "--", "x"]),
        ),
        (&["uptime"], run(&["uptime"])),
        (&["/usr/bin/uptime"], run(&["/usr/bin/uptime"])),
        (&["uptime -p"], run(&["/bin/sh", "-c", "uptime -p"])),
        (
            &["echo $HOME | wc"],
            run(&["/bin/sh", "-c", "echo $HOME | wc"]),
        ),
        (&["ls", "/tmp"], run(&["ls", "/tmp"])),
        (&["ping", "web2"], run(&["ping", "web2"])),
        (&["sudo", "--", "ls"], None),
        (&[], None),
    ];
    for (rest, want) in table {
        let cli = parse(
            ["aot-master", "exec", "*"]
                .iter()
                .chain(rest)
                .map(Into::into),
        )
        .expect("parses");
        let Command::Exec(args) = cli.command else {
            panic!("not exec")
        };
        assert_eq!(args.what().ok(), want, "{rest:?}");
    }
}

#[test]
fn sizes_and_amounts_are_read() {
    let exec = |line: &str| match words(line).map(|cli| cli.command) {
        Ok(Command::Exec(args)) => args,
        other => panic!("{line}: {other:?}"),
    };
    for (given, want) in [
        ("1", 1),
        ("100b", 100),
        ("500K", 500 << 10),
        ("500KiB", 500 << 10),
        ("10m", 10 << 20),
        ("2GiB", 2 << 30),
    ] {
        let args = exec(&format!("aot-master exec x --output-cap {given} ls"));
        assert_eq!(args.output_cap, Some(want), "{given}");
    }
    let line = "aot-master exec x --concurrency 25% --max-errors 0 --canary 1 --batch-wait 1m --queue 1h --fold \
                --no-fold ls";
    let args = exec(line);
    assert_eq!(args.pace.concurrency.as_deref(), Some("25%"));
    assert_eq!(args.pace.max_errors.as_deref(), Some("0"));
    assert_eq!(args.pace.canary, Some(1));
    assert_eq!(
        args.pace.batch_wait,
        Some(std::time::Duration::from_secs(60))
    );
    assert_eq!(args.queue, Some(std::time::Duration::from_secs(3600)));
    assert_eq!(args.output.folded(), Some(false), "the later one");
}

#[test]
fn global_flags_stand_on_either_side() {
    for line in [
        "aot-master --json --cluster c status",
        "aot-master status --json --cluster c",
        "aot-master --json status --cluster c",
    ] {
        let cli = words(line).expect(line);
        assert!(cli.global.json, "{line}");
        assert_eq!(cli.global.cluster.as_deref(), Some("c"), "{line}");
    }
}

#[test]
fn bad_lines_are_refused() {
    let table = [
        ("aot-master", ErrorKind::MissingSubcommand),
        ("aot-master --json", ErrorKind::MissingSubcommand),
        ("aot-master lunch f", ErrorKind::InvalidSubcommand),
        ("aot-master launch a b", ErrorKind::UnknownArgument),
        ("aot-master wait x", ErrorKind::MissingRequiredArgument),
        ("aot-master wait x --state happy", ErrorKind::InvalidValue),
        (
            "aot-master wait x --state ready --timeout soon",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --env novalue -- ls",
            ErrorKind::ValueValidation,
        ),
        ("aot-master exec x ls -l", ErrorKind::UnknownArgument),
        (
            "aot-master exec x --concurrency 0 ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --concurrency 0% ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --concurrency 101% ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --max-errors few ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --canary 0 ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --batch-wait 1s ls",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "aot-master exec x --queue ever ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --output-cap 10m5 ls",
            ErrorKind::ValueValidation,
        ),
        (
            "aot-master exec x --output-cap 99999999999G ls",
            ErrorKind::ValueValidation,
        ),
        ("aot-master jobs show=", ErrorKind::InvalidSubcommand),
        ("aot-master facts", ErrorKind::MissingRequiredArgument),
        ("aot-master jobs -n 5 show x", ErrorKind::ArgumentConflict),
        ("aot-master apply --from=", ErrorKind::ValueValidation),
        ("aot-master list --limit web1", ErrorKind::ValueValidation),
        ("aot-master stop", ErrorKind::MissingRequiredArgument),
        ("aot-master start x --yes", ErrorKind::UnknownArgument),
        (
            "aot-master orphans --yes",
            ErrorKind::MissingRequiredArgument,
        ),
    ];
    for (line, kind) in table {
        let error = words(line).map(|_| ()).expect_err(line);
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
    }
    let none = words("aot-master").expect_err("no command").to_string();
    assert!(
        none.starts_with("error: no command given\n") && none.contains("aot-master --help"),
        "{none}"
    );
    assert_eq!(words("aot-master --help").expect_err("help").exit_code(), 0);
}

#[test]
fn words_of_other_programs_are_understood() {
    let named = |line: &str| {
        let cli = words(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let text = format!("{:?}", cli.command);
        let end = text.find(|c: char| !c.is_alphanumeric());
        text[..end.unwrap_or(text.len())].to_owned()
    };
    for (line, wanted) in [
        ("ssh web1", "Shell"),
        ("scp a web1:/a", "Cp"),
        ("ls web*", "List"),
        ("run web1 uptime", "Exec"),
        ("up", "Launch"),
        ("down shop", "Cleanup"),
    ] {
        assert_eq!(named(&format!("aot-master {line}")), wanted, "{line}");
    }
    for line in ["aot-master help", "aot-master help launch"] {
        assert_eq!(words(line).expect_err(line).exit_code(), 0, "{line}");
    }
    let all: String = all_helps().into_iter().map(|(_, text)| text).collect();
    assert!(!all.contains("[alias"), "they are not shown");
}

#[test]
fn a_file_that_is_not_named_is_cluster_yml() {
    for line in ["launch", "up", "check", "plan"] {
        let cli = words(&format!("aot-master {line}")).expect(line);
        let text = format!("{:?}", cli.command);
        assert!(text.contains("file: \"cluster.yml\""), "{text}");
    }
}

#[test]
fn hidden_commands_parse() {
    for line in [
        "aot-master machine-run /x",
        "aot-master machine-init /x",
        "aot-master man /x",
        "aot-master serve --background --listen 127.0.0.1:0 --advertise a:1,b:2",
    ] {
        words(line).expect(line);
    }
    let cli = words("aot-master serve --advertise a:1,b:2").expect("parses");
    assert!(matches!(cli.command, Command::Serve(args) if args.listen.advertise == ["a:1", "b:2"]));
}

/// Every command with the words before it, and every argument of it that takes a value.
fn with_values(
    command: &clap::Command,
    path: &[String],
    found: &mut Vec<(Vec<String>, clap::Arg)>,
) {
    for arg in command.get_arguments() {
        if arg.get_action().takes_values() {
            found.push((path.to_vec(), arg.clone()));
        }
    }
    for sub in command.get_subcommands() {
        let path = [path, &[sub.get_name().to_owned()]].concat();
        with_values(sub, &path, found);
    }
}

/// What an argument of a command on the host may be, and what has a key before its value.
const MAY_BE_EMPTY: [(&str, &str); 3] =
    [("exec", "words"), ("exec", "after"), ("shell", "command")];

#[test]
fn no_argument_means_something_when_it_is_empty() {
    let mut command = command();
    command.build();
    let mut found = Vec::new();
    with_values(&command, &["aot-master".to_owned()], &mut found);
    assert!(found.len() > 60, "{}", found.len());
    for (path, arg) in found {
        let name = path.last().expect("the program at least").as_str();
        if MAY_BE_EMPTY.contains(&(name, arg.get_id().as_str())) {
            continue;
        }
        let sub = path.iter().skip(1).fold(&command, |at, word| {
            at.find_subcommand(word).expect("it was found there")
        });
        let mut line = path.clone();
        for other in sub.get_arguments().filter(|it| it.is_required_set()) {
            let values = other.get_num_args().map_or(1, |n| n.min_values().max(1));
            let empty = other.get_id() == arg.get_id();
            let value = match other.get_possible_values().first() {
                _ if empty => String::new(),
                Some(value) => value.get_name().to_owned(),
                None => "x".to_owned(),
            };
            let long = other.get_long().map(|long| format!("--{long}={value}"));
            let words = long.map_or_else(|| vec![value; values], |word| vec![word]);
            line.extend(words);
        }
        if !arg.is_required_set() {
            let long = arg.get_long().map(|long| format!("--{long}="));
            line.push(long.unwrap_or_default());
        }
        let error = parse(line.iter().map(Into::into)).expect_err(&format!("{line:?}"));
        assert!(
            matches!(
                error.kind(),
                ErrorKind::ValueValidation | ErrorKind::InvalidValue
            ),
            "{line:?}: {:?} {error}",
            error.kind()
        );
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
}

#[test]
fn an_empty_command_is_not_run() {
    for line in [
        &["exec", "a", ""][..],
        &["exec", "a", "--", ""],
        &["exec", "a", "--shell", ""],
    ] {
        let all = [&["aot-master"][..], line].concat();
        let Command::Exec(args) = parse(all.into_iter().map(Into::into))
            .expect("parsed")
            .command
        else {
            panic!("exec");
        };
        assert!(args.what().is_err(), "{line:?}");
    }
}

#[test]
fn an_import_names_its_folder_and_leaves_files_only_when_asked() {
    for (more, wanted) in [("", false), (" --without-files", true)] {
        let cli = words(&format!("aot-master fleet import --from /srv/aot{more}"));
        let Command::Fleet(FleetCommand::Import {
            from,
            without_files,
        }) = cli.expect("parses").command
        else {
            panic!("{more}");
        };
        assert_eq!((from, without_files), ("/srv/aot".into(), wanted));
    }
    for bad in [
        "fleet",
        "fleet import",
        "fleet import /srv/aot",
        "fleet init /srv/aot",
    ] {
        assert!(words(&format!("aot-master {bad}")).is_err(), "{bad}");
    }
}
