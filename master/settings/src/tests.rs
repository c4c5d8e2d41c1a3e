//! Which source wins, and what is refused.

use super::file::KEYS;
use super::*;

type Env<'a> = &'a [(&'a str, &'a str)];

fn merged(
    flags: &Partial,
    env: Env<'_>,
    files: &[Partial],
    uid: u32,
) -> Result<Settings, SettingsError> {
    merge(flags, &lookup(env), files, uid)
}

fn lookup(env: Env<'_>) -> impl Fn(&str) -> Option<String> + use<> {
    let env: Vec<(String, String)> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    move |name| {
        env.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    }
}

fn file(text: &str) -> Partial {
    parse_file(text, Path::new("master.toml")).expect("a good file")
}

fn listen(port: u16) -> String {
    format!("0.0.0.0:{port}")
}

#[test]
fn roots_defaults_are_the_systems_folders() {
    let settings = merged(&Partial::default(), &[], &[], 0).expect("settings");
    assert_eq!(settings.listen, "127.0.0.1:7440");
    assert_eq!(settings.state_dir, Path::new("/var/lib/aot"));
    assert_eq!(settings.socket, Path::new("/run/aot/master.sock"));
    assert_eq!(
        (
            settings.advertise.len(),
            settings.agent_dir,
            settings.cluster
        ),
        (0, None, None)
    );
}

#[test]
fn a_users_defaults_are_the_users_folders() {
    let xdg: Env<'_> = &[
        ("HOME", "/home/a"),
        ("XDG_STATE_HOME", "/s"),
        ("XDG_RUNTIME_DIR", "/r"),
    ];
    let settings = merged(&Partial::default(), xdg, &[], 1000).expect("settings");
    assert_eq!(settings.state_dir, Path::new("/s/aot"));
    assert_eq!(settings.socket, Path::new("/r/aot/master.sock"));
    let settings =
        merged(&Partial::default(), &[("HOME", "/home/a")], &[], 1000).expect("settings");
    assert_eq!(settings.state_dir, Path::new("/home/a/.local/state/aot"));
    assert_eq!(
        settings.socket,
        Path::new("/home/a/.local/state/aot/master.sock")
    );
    let error = merged(&Partial::default(), &[], &[], 1000).expect_err("no home");
    assert!(matches!(error, SettingsError::NoHome { .. }), "{error}");
}

#[test]
fn what_is_kept_is_a_time_and_a_size() {
    let settings = merged(&Partial::default(), &[], &[], 0).expect("settings");
    assert_eq!(
        settings.keep,
        aot_model::retention::RetentionLimits::default()
    );
    let env: Env<'_> = &[
        ("AOT_KEEP_JOBS", "12h"),
        ("AOT_KEEP_OUTPUT", "2GiB"),
        ("AOT_KEEP_FREE", "64MiB"),
    ];
    assert_eq!(settings.keep_free, None);
    let settings = merged(&Partial::default(), env, &[], 0).expect("settings");
    assert_eq!(settings.keep.age.as_secs(), 12 * 3600);
    assert_eq!(settings.keep.output_bytes, 2 << 30);
    assert_eq!(settings.keep_free, Some(64 << 20));
    for bad in [
        ("AOT_KEEP_JOBS", "long"),
        ("AOT_KEEP_OUTPUT", "much"),
        ("AOT_KEEP_FREE", "some"),
    ] {
        let error = merged(&Partial::default(), &[bad], &[], 0).expect_err(bad.1);
        assert!(error.to_string().contains(bad.0), "{error}");
    }
}

#[test]
fn flags_go_before_variables_before_files_before_defaults() {
    let user = file("listen = '0.0.0.0:3'");
    let system = file(
        "listen = '0.0.0.0:4'\nlog = 'debug'\nadvertise = ['a:1', 'b:2']\nagent_dir = '/agents'",
    );
    let files = [user, system];
    let flags = Partial {
        listen: Some(listen(1)),
        ..Partial::default()
    };
    let env: Env<'_> = &[("AOT_LISTEN", "0.0.0.0:2"), ("AOT_CLUSTER", "c")];
    let pick =
        |flags: &Partial, env, files: &[Partial]| merged(flags, env, files, 0).expect("settings");
    assert_eq!(pick(&flags, env, &files).listen, listen(1));
    assert_eq!(pick(&Partial::default(), env, &files).listen, listen(2));
    let settings = pick(&Partial::default(), &[("AOT_LISTEN", "")], &files);
    assert_eq!(settings.listen, listen(3), "an empty variable is not set");
    assert_eq!(
        (settings.log.as_deref(), settings.agent_dir.as_deref()),
        (Some("debug"), Some(Path::new("/agents")))
    );
    assert_eq!(settings.advertise, ["a:1", "b:2"]);
    let settings = pick(
        &Partial::default(),
        &[("AOT_ADVERTISE", "c:3, d:4,")],
        &files,
    );
    assert_eq!(settings.advertise, ["c:3", "d:4"]);
    assert_eq!(pick(&flags, env, &files).cluster.as_deref(), Some("c"));
}

#[test]
fn values_without_sense_are_refused() {
    let env: [Env<'_>; 9] = [
        &[("AOT_PEER_LISTEN", "7441")],
        &[("AOT_PEER_ADVERTISE", "host:0")],
        &[("AOT_LISTEN", "7440")],
        &[("AOT_LISTEN", "host:99999")],
        &[("AOT_LISTEN", "::1:7440")],
        &[("AOT_ADVERTISE", "host")],
        &[("AOT_ADVERTISE", "host:0")],
        &[("AOT_ADVERTISE", "a:1,http://b:2")],
        &[(
            "AOT_SOCKET",
            "/a-path-longer-than-a-socket-may-have/a-path-longer-than-a-socket-may-have/a-path-longer-than-a-socket-may-have",
        )],
    ];
    for env in env {
        let error = merged(&Partial::default(), env, &[], 0).expect_err("no sense");
        assert!(
            matches!(error, SettingsError::Value { .. }),
            "{env:?}: {error}"
        );
    }
    assert!(merged(&Partial::default(), &[("AOT_LISTEN", "[::1]:0")], &[], 0).is_ok());
}

#[test]
fn mistakes_in_a_file_have_their_line() {
    let mut all = String::new();
    for text in [
        "listen = '0.0.0.0:1'\nadvertize = 'a:1'",
        "wibble = 1",
        "listen = 7440",
        "listen =",
        "log = 'a'\nlog = 'b'",
    ] {
        let error = parse_file(text, Path::new("/etc/aot/master.toml")).expect_err(text);
        all.push_str(&format!("{error}\n\n"));
    }
    insta::assert_snapshot!("mistakes", all);
}

#[test]
fn certificates_lie_where_one_says_or_where_they_belong() {
    let of = |env: Env<'_>, files: &[Partial], uid| {
        let merged = merged(&Partial::default(), env, files, uid).expect("settings");
        let shown = merged
            .certificates
            .iter()
            .map(|dir| dir.display().to_string());
        shown.collect::<Vec<_>>()
    };
    let (system, packaged) = (
        "/etc/aot/aws-certificates",
        "/usr/share/aot/aws-certificates",
    );
    assert_eq!(of(&[], &[], 0), [system, packaged]);
    let home: Env<'_> = &[("HOME", "/home/a")];
    let own = "/home/a/.config/aot/aws-certificates";
    assert_eq!(of(home, &[], 1000), [own, system, packaged]);
    for text in [
        "attestation.certificates = '/c'",
        "[attestation]\ncertificates = '/c'",
    ] {
        assert_eq!(of(home, &[file(text)], 1000), ["/c", packaged]);
        let env: Env<'_> = &[("AOT_ATTESTATION_CERTIFICATES", "/d")];
        assert_eq!(of(env, &[file(text)], 0), ["/d", packaged]);
    }
    for bad in ["attestation = '/c'", "attestation.certificate = '/c'"] {
        let error = parse_file(bad, Path::new("master.toml")).expect_err(bad);
        assert!(
            error.to_string().contains("line 1") || error.to_string().contains("certificate"),
            "{error}"
        );
    }
}

#[test]
fn files_are_looked_for_where_they_belong() {
    let env = lookup(&[("HOME", "/home/a")]);
    let all = [
        PathBuf::from("/home/a/.config/aot/master.toml"),
        PathBuf::from("/etc/aot/master.toml"),
    ];
    assert_eq!(default_files(&env, 1000), all);
    assert_eq!(default_files(&env, 0), all[1..]);
    let env = lookup(&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/c")]);
    assert_eq!(
        default_files(&env, 1000)[0],
        Path::new("/c/aot/master.toml")
    );
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("master.toml");
    let none = lookup(&[]);
    let error = load(&Partial::default(), Some(&path), &none, 0, false).expect_err("no file");
    assert!(matches!(error, SettingsError::Read { .. }), "{error}");
    fs::write(&path, "cluster = 'c'\n").expect("a file");
    let by_flag = load(&Partial::default(), Some(&path), &none, 0, false).expect("settings");
    let by_variable = lookup(&[("AOT_CONFIG", &path.display().to_string())]);
    let by_variable = load(&Partial::default(), None, &by_variable, 0, false).expect("settings");
    assert_eq!(
        (by_flag.cluster.as_deref(), &by_flag),
        (Some("c"), &by_variable)
    );
}

#[test]
fn a_master_in_the_background_keeps_the_settings_of_its_last_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().display().to_string();
    let start = |flags: &Partial, env: &[(&str, &str)], again| {
        let env: Vec<(&str, &str)> = [&[("AOT_STATE_DIR", state.as_str())], env].concat();
        let none = folder.path().join("none.toml");
        fs::write(&none, "").expect("a file");
        load(flags, Some(&none), &lookup(&env), 0, again).expect("settings")
    };
    let flags = Partial {
        listen: Some("127.0.0.2:17441".to_owned()),
        advertise: Some(TextOrList::One("203.0.113.10:7440,b:1".to_owned())),
        agent_dir: Some("/opt/agents".into()),
        keep_jobs: Some("7d".to_owned()),
        keep_output: Some("1GiB".to_owned()),
        keep_free: Some("64MiB".to_owned()),
        store: Some(StoreUrl("postgres://aot:s3cret@db/aot".to_owned())),
        fleet_key: Some("/etc/aot/fleet.key".into()),
        peer_listen: Some("10.0.0.5:7441".to_owned()),
        peer_advertise: Some("203.0.113.10:7441".to_owned()),
        blobs: Some("s3://bucket/prefix".to_owned()),
        attestation: PartialAttestation {
            certificates: Some("/opt/certificates".into()),
        },
        ..Partial::default()
    };
    let first = start(&flags, &[], true);
    assert_eq!(
        start(&Partial::default(), &[], true).listen,
        DEFAULT_LISTEN,
        "nothing was kept yet"
    );
    fs::write(folder.path().join(LAST_START), first.for_next_start()).expect("kept");
    assert_eq!(start(&Partial::default(), &[], true), first);
    let of_each_command = ["state_dir", "socket", "log", "log_format", "cluster"];
    for key in KEYS.iter().filter(|key| !of_each_command.contains(key)) {
        assert!(first.for_next_start().contains(key), "{key} is not kept");
    }
    assert!(!format!("{first:?} {flags:?}").contains("s3cret"));
    // What is said for this start goes before it, and a service is told all by its own files.
    let other = start(&Partial::default(), &[("AOT_LISTEN", "127.0.0.3:1")], true);
    assert_eq!(
        (other.listen.as_str(), &other.advertise),
        ("127.0.0.3:1", &first.advertise)
    );
    assert_eq!(
        start(&Partial::default(), &[], false).listen,
        DEFAULT_LISTEN
    );
}

#[test]
fn a_fleet_has_a_database() {
    let key = ("AOT_FLEET_KEY", "/etc/aot/fleet.key");
    let alone = merged(&Partial::default(), &[key], &[], 0);
    let text = alone.expect_err("is refused").to_string();
    assert!(text.contains("AOT_STORE"), "{text}");
    let store = ("AOT_STORE", "postgres://aot@db/aot");
    let settings = merged(&Partial::default(), &[key, store], &[], 0).expect("both");
    let file = crate::FleetKeySetting::File("/etc/aot/fleet.key".into());
    assert_eq!(settings.fleet_key, Some(file));
    assert_eq!(settings.peer_listen, DEFAULT_PEER_LISTEN);
    assert_eq!(settings.peer_advertise, None);
}

#[test]
fn where_long_things_are_put_is_a_bucket_or_a_folder() {
    let settings = merged(&Partial::default(), &[], &[], 0).expect("settings");
    assert_eq!(settings.blobs, None, "all of it stays in the state folder");
    let by_file = [file("blobs = '/srv/aot'")];
    let settings = merged(&Partial::default(), &[], &by_file, 0).expect("settings");
    assert_eq!(settings.blobs, Some(BlobSetting::Folder("/srv/aot".into())));
    let env: Env<'_> = &[("AOT_BLOBS", "bucket/prefix")];
    let error = merged(&Partial::default(), env, &by_file, 0).expect_err("neither");
    assert!(error.to_string().contains("s3://"), "{error}");
}

#[test]
fn a_filter_of_the_log_that_would_silence_it_is_refused() {
    for good in [
        "info",
        "WARN",
        "off",
        "info,aot_master=debug",
        "h2=trace",
        "warn,[session{agent=a}]=debug",
    ] {
        assert!(
            merged(&Partial::default(), &[("AOT_LOG", good)], &[], 0).is_ok(),
            "{good}"
        );
    }
    for bad in [
        "infoo",
        "aot_master",
        "info,debu",
        "aot_master=loud",
        "info,",
    ] {
        let error = merged(&Partial::default(), &[("AOT_LOG", bad)], &[], 0).expect_err(bad);
        assert!(
            error.to_string().starts_with("AOT_LOG (log) is "),
            "{error}"
        );
    }
}

#[test]
fn a_log_has_one_of_two_formats() {
    let of = |env: Env<'_>, files: &[Partial]| merged(&Partial::default(), env, files, 0);
    let by_file = [file("log_format = 'json'")];
    let format = |env, files| of(env, files).expect("settings").log_format;
    assert_eq!(format(&[], &[]), LogFormat::Text);
    assert_eq!(format(&[], &by_file), LogFormat::Json);
    assert_eq!(
        format(&[("AOT_LOG_FORMAT", "text")], &by_file),
        LogFormat::Text
    );
    let error = of(&[("AOT_LOG_FORMAT", "yaml")], &[]).expect_err("is neither");
    assert_eq!(
        error.to_string(),
        "AOT_LOG_FORMAT (log_format) is \"yaml\": expected text or json"
    );
}

#[test]
fn a_variable_that_is_not_text_is_refused_by_name_and_not_passed_over() {
    let read = |name: &str| match name {
        "AOT_LISTEN" => Err(NotText {
            name: name.to_owned(),
        }),
        _ => Ok(None),
    };
    let flags = Partial::default();
    let error = with_variables(read, |env| load(&flags, None, env, 0, false));
    let error = error.expect_err("it is set").to_string();
    assert_eq!(error, "the environment variable AOT_LISTEN is not UTF-8");
    // Whatever comes of it: without a place for the state there would be another reason.
    let read = |name: &str| match name {
        "HOME" => Err(NotText {
            name: name.to_owned(),
        }),
        _ => Ok(None),
    };
    let error = with_variables(read, |env| merge(&flags, env, &[], 1000));
    let error = error.expect_err("it is set").to_string();
    assert_eq!(error, "the environment variable HOME is not UTF-8");
    // Root's folders are the system's.
    with_variables(read, |env| merge(&flags, env, &[], 0)).expect("HOME is not asked for");
}
