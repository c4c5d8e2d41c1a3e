//! What is in `packaging/systemd`: systemd takes it as it is, and it names settings that there are.

use std::path::{Path, PathBuf};
use std::process::Command;

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/systemd")
        .join(name)
}

fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names that are given a value, in an environment file.
fn variables(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect()
}

/// What systemd says of a unit with these drop-ins; `None` where it is not installed.
fn said_of(unit: &str, drop_ins: &[&str]) -> Option<String> {
    let dir = tempfile::tempdir().expect("a folder");
    // The programs are not installed here, and that is all that would be said of them.
    let text = read(&packaged(unit))
        .replace("/usr/bin/aot-master", "/usr/bin/env")
        .replace("/usr/local/bin/aot-agent", "/usr/bin/env");
    std::fs::write(dir.path().join(unit), text).expect("writes");
    let of_unit = dir.path().join(format!("{unit}.d"));
    std::fs::create_dir(&of_unit).expect("makes a folder");
    for name in drop_ins {
        let text = read(&packaged(&format!("{unit}.d/{name}")));
        std::fs::write(of_unit.join(name), text).expect("writes");
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .arg(dir.path().join(unit));
    let output = verify.output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn systemd_takes_each_unit_and_each_drop_in_as_it_is() {
    let units: [(&str, &[&str]); 4] = [
        ("aot-agent.service", &[]),
        ("aot-master.service", &[]),
        ("aot-master.service", &["local.conf"]),
        ("aot-master.service", &["fleet.conf"]),
    ];
    for (unit, drop_ins) in units {
        let Some(said) = said_of(unit, drop_ins) else {
            eprintln!("SKIPPED: systemd-analyze is not here");
            return;
        };
        let ours: Vec<_> = said.lines().filter(|it| it.contains(unit)).collect();
        assert!(ours.is_empty(), "{unit} with {drop_ins:?}: {ours:#?}");
    }
}

#[test]
fn the_settings_of_a_fleet_are_settings_that_there_are() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let docs = read(&docs);
    let of_master = docs.split("## Of every command").next().expect("a table");
    let named = read(&packaged("fleet.env"));
    let named = variables(&named);
    for name in ["AOT_STORE", "AOT_BLOBS", "AOT_PEER_LISTEN", "AOT_ADVERTISE"] {
        assert!(named.contains(&name), "{name} is not in fleet.env");
    }
    for name in named.iter().filter(|name| name.starts_with("AOT_")) {
        let row = format!("| `{name}` |");
        assert!(of_master.contains(&row), "{name} is no setting of a master");
    }
    // What the service is given by systemd, and where.
    let unit = read(&packaged("aot-master.service.d/fleet.conf"));
    for line in [
        "EnvironmentFile=/etc/aot/fleet.env",
        "LoadCredential=fleet.key:/etc/aot/fleet.key",
        "Environment=AOT_FLEET_KEY=%d/fleet.key",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line} is missing");
    }
}
