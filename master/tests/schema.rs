//! The JSON Schema against a validator that others use, of a pinned version in a virtual environment of its own: what it says of
//! files is what `aot-master check` says, also where it reads YAML 1.2.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// From PyPI, with what it is built from there.
const VALIDATOR: &str = "check-jsonschema==0.39.0";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Result<Output, String> {
    let done = command.stdin(Stdio::null()).output();
    done.map_err(|error| format!("{command:?}: {error}"))
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let done = run(command)?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    done.status.success().then_some(()).ok_or(said)
}

/// The program, installed once for this target folder; several may ask at once.
///
/// # Errors
/// Without Python, or without its packages.
fn validator() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(VALIDATOR.replace("==", "-"));
    let io = |error: std::io::Error| error.to_string();
    fs::create_dir_all(&place).map_err(io)?;
    let lock = File::create(place.join("lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    let (venv, done) = (place.join("venv"), place.join("done"));
    if !done.exists() {
        succeeds(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        )?;
        let pip = ["-m", "pip", "install", "--quiet", VALIDATOR];
        succeeds(Command::new(venv.join("bin/python")).args(pip))?;
        fs::write(done, "").map_err(io)?;
    }
    Ok(venv.join("bin/check-jsonschema"))
}

fn aot_master(words: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aot-master"));
    run(command.args(words).arg(file)).expect("it runs")
}

/// Each with what is wrong in it.
const BAD: [(&str, &str); 13] = [
    ("no name", "provider: local\ninstances: [{name: a}]\n"),
    (
        "an unknown provider",
        "cluster: c\nprovider: lokal\ninstances: [{name: a}]\n",
    ),
    (
        "a cluster's name",
        "cluster: Upper\nprovider: local\ninstances: [{name: a}]\n",
    ),
    (
        "a key that is not one",
        "cluster: c\nprovider: local\ninstances: [{name: a, ami_id: x}]\n",
    ),
    (
        "no name of an instance",
        "cluster: c\nprovider: local\ninstances: [{user: a}]\n",
    ),
    (
        "too many",
        "cluster: c\nprovider: local\npools: [{name: a, size: 20001}]\n",
    ),
    (
        "a stage of nothing",
        "cluster: c\nprovider: local\ninstances: [{name: a, stages: [{name: x}]}]\n",
    ),
    (
        "a stage of two",
        "cluster: c\nprovider: local\ninstances: [{name: a, stages: [{tar: x, dir: y}]}]\n",
    ),
    (
        "a time without unit",
        "cluster: c\nprovider: local\nlaunch: {timeout: '30'}\ninstances: [{name: a}]\n",
    ),
    (
        "a word for a number",
        "cluster: c\nprovider: local\npools: [{name: a, size: many}]\n",
    ),
    (
        "no yes and no no",
        "cluster: c\ninstances: [{name: a, ami: ami-12345678, ec2_size: t3.micro, auto_assign_ip: perhaps}]\n",
    ),
    (
        "a kind of volume",
        "cluster: c\ninstances: [{name: a, ami: ami-12345678, ec2_size: t3.micro, ebs: [{device: /dev/sdf, size: 1, type: gp9}]}]\n",
    ),
    (
        "what happens then",
        "cluster: c\nprovider: local\nlaunch: {on_failure: explode}\ninstances: [{name: a}]\n",
    ),
];

/// What only one of the two YAMLs reads as true or false, and texts with variables.
const GOOD: &str = "\
cluster: c
vars: {count: 3, public: true, kind: gp3}
instances:
  - {name: a, ami: ami-12345678, ec2_size: t3.micro, auto_assign_ip: yes, ebs_optimized: Off, spot: no}
pools:
  - name: b
    size: ${count}
    ami: ami-12345678
    ec2_size: [t3.micro, t3.small]
    auto_assign_ip: ${public}
    ebs: [{device: /dev/sdf, size: 10, type: '${kind}'}]
";

#[test]
fn a_validator_says_of_files_what_check_says() {
    let program = match validator() {
        Ok(program) => program,
        Err(why) => {
            eprintln!("skipped: no {VALIDATOR} here: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().expect("a folder");
    let schema = dir.path().join("schema.json");
    let printed = aot_master(&["schema"], Path::new("--quiet"));
    fs::write(&schema, printed.stdout).expect("writes");
    succeeds(
        Command::new(&program)
            .arg("--check-metaschema")
            .arg(&schema),
    )
    .expect("is a schema");
    let validated = |file: &Path| {
        let mut command = Command::new(&program);
        run(command.arg("--schemafile").arg(&schema).arg(file)).expect("it runs")
    };
    let mut good: Vec<PathBuf> = fs::read_dir(root().join("examples"))
        .expect("the examples")
        .map(|entry| entry.expect("an example").path().join("cluster.yml"))
        .collect();
    assert!(good.len() >= 5, "{good:?}");
    let first = dir.path().join("first");
    let made = aot_master(&["init"], &first);
    assert!(made.status.success(), "{made:?}");
    good.push(first.join("cluster.yml"));
    let words = dir.path().join("words.yml");
    fs::write(&words, GOOD).expect("writes");
    good.push(words);
    for file in &good {
        let (ours, theirs) = (aot_master(&["check"], file), validated(file));
        assert!(ours.status.success(), "{}: {ours:?}", file.display());
        let said = String::from_utf8_lossy(&theirs.stdout);
        assert!(theirs.status.success(), "{}: {said}", file.display());
    }
    for (what, text) in BAD {
        let file = dir.path().join("bad.yml");
        fs::write(&file, text).expect("writes");
        assert!(
            !aot_master(&["check"], &file).status.success(),
            "check: {what}"
        );
        assert!(!validated(&file).status.success(), "the validator: {what}");
    }
}
