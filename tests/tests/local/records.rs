//! Records in a database: what continues while it is away, and who may have them.

use std::time::{Duration, Instant};

use aot_postgres::server::Server;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;

/// For so long the database is away: longer than a session outlives silence, and than a hold is good.
const AWAY: Duration = Duration::from_secs(30);

/// Within so long a command that needs it is refused: 10 s after the last sign of it, with room for a busy host.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

const TWO_NODES: &str = "
cluster: records
provider: local
pools:
  - {name: node, size: 2}
";

/// Waits in each clone for a file, then says so on both streams.
const WAITS: &str = "touch /opt/begun; echo begun; until test -e /opt/go; do sleep 0.05; done; echo done; echo also >&2";

fn server(test: &str) -> Option<Server> {
    Server::start().inspect_err(|why| why.skip(test)).ok()
}

fn with_records_in(url: &str) -> Rig {
    Rig::with(&[("AOT_STORE", url)])
}

fn sessions_ended(rig: &Rig) -> usize {
    rig.log().matches("session ends").count()
}

#[test]
fn sessions_and_commands_outlive_an_outage_of_the_database_and_nothing_begins_in_it() {
    let Some(server) = server("an outage of the database") else {
        return;
    };
    let rig = with_records_in(&server.url(&server.database()));
    rig.cluster(TWO_NODES);
    rig.launch().expect(0);
    let runs = rig.spawn(["exec", "--json", "*", "--", "/bin/sh", "-c", WAITS]);
    let has_begun = || {
        rig.machines()
            .iter()
            .all(|it| it.read("/opt/begun").is_some())
    };
    wait::until(has_begun, LIMIT, "it runs on both");
    let ended = sessions_ended(&rig);

    let away = Instant::now();
    server.stop();
    let refused = wait::some(
        || {
            let tried = rig.cli_within(
                REFUSED_WITHIN,
                ["exec", "node1", "--", "touch", "/opt/late"],
            );
            (tried.code == Some(4)).then_some(tried)
        },
        REFUSED_WITHIN,
        "a command is refused",
    );
    assert!(
        refused.stderr.contains("database has not answered")
            || refused.stderr.contains("database stopped answering")
            || refused
                .stderr
                .contains("cannot look up whether this was asked for before"),
        "{}",
        refused.shown()
    );
    for machine in rig.machines() {
        let init = machine.init_pid().expect("up");
        std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");
    }
    while away.elapsed() < AWAY {
        rig.cli(["exec", "*", "ping"]).expect(0);
        let status = rig.cli(["status"]);
        status.expect(0);
        assert!(
            status.shown().contains("database does not answer"),
            "{}",
            status.shown()
        );
        let refused = rig.cli_within(
            REFUSED_WITHIN,
            ["exec", "node2", "--", "touch", "/opt/late"],
        );
        refused.expect(4);
        assert!(
            refused.stderr.contains("nothing was begun"),
            "{}",
            refused.shown()
        );
    }
    server.run();

    let output = runs.finish(LIMIT);
    output.expect(0);
    for node in ["node1", "node2"] {
        let ended = output.one(|line| line["instance"] == node);
        assert_eq!(ended["stdout"], "begun\ndone\n", "{}", output.shown());
        assert_eq!(ended["stderr"], "also\n", "{}", output.shown());
    }
    assert_eq!(sessions_ended(&rig), ended, "no session was lost");
    let late = rig.sh("node2", "ls /opt/late 2>/dev/null || echo none");
    assert_eq!(late, "none", "what was refused is not done later");
}

#[test]
fn another_folder_is_refused_whether_or_not_the_master_of_the_records_runs() {
    let Some(server) = server("another folder") else {
        return;
    };
    let url = server.url(&server.database());
    let first = with_records_in(&url);
    let serving = first.serve();
    first.cli(["status"]).expect(0); // it has the records by then
    serving.signal(Signal::SIGTERM);
    serving.finish(LIMIT).expect(0);
    let second = with_records_in(&url);
    let refused = second.cli(["serve"]);
    refused.expect(1);
    assert!(
        refused.stderr.contains("whose keys machines trust"),
        "{}",
        refused.shown()
    );
    first.cluster(TWO_NODES);
    first.launch().expect(0);
    for is_running in [true, false] {
        if !is_running {
            first.cli(["shutdown"]).expect(0);
        }
        let refused = second.cli(["serve"]);
        refused.expect(1);
        assert!(
            refused.stderr.contains("clones of another host (records)"),
            "{}",
            refused.shown()
        );
    }
    // The records are where they were.
    let without = first.command(["serve"]).env_remove("AOT_STORE").output();
    let without = without.expect("it runs");
    assert_eq!(without.status.code(), Some(1));
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(said.contains("start with AOT_STORE as before"), "{said}");
    assert_eq!(first.status().len(), 2);
}

#[test]
fn a_command_is_refused_when_its_record_is_not_taken_in_time() {
    let Some(server) = server("a write that waits") else {
        return;
    };
    let database = server.database();
    let rig = with_records_in(&server.url(&database));
    rig.cluster(TWO_NODES);
    rig.launch().expect(0);
    // It can be read: what waits is the write.
    let lock = "BEGIN; LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(600)";
    let locked = std::thread::scope(|scope| {
        scope.spawn(|| server.try_ask(&database, lock));
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND mode = 'ShareRowExclusiveLock' AND granted";
        wait::until(
            || server.ask(&database, waits) == "1",
            LIMIT,
            "it is locked",
        );
        let refused = rig.cli_within(REFUSED_WITHIN, ["exec", "node1", "--", "true"]);
        let status = rig.cli(["status"]);
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
        server.ask(&database, end);
        (refused, status)
    });
    let (refused, status) = locked;
    refused.expect(4);
    assert!(
        refused.stderr.contains("database stopped answering"),
        "{}",
        refused.shown()
    );
    assert!(
        status.shown().contains("does not answer"),
        "{}",
        status.shown()
    );
    let again = || rig.cli(["exec", "node1", "--", "true"]).code == Some(0);
    wait::until(again, LIMIT, "commands begin again");
}

#[test]
fn a_password_is_in_no_output_log_or_command_line() {
    let Some(server) = server("a password") else {
        return;
    };
    const PASSWORD: &str = "s3cret-of-the-database";
    let url = server.url(&server.database());
    let url = url.replacen("aot@", &format!("aot:{PASSWORD}@"), 1);
    let rig = with_records_in(&url);
    rig.cluster(TWO_NODES);
    rig.launch().expect(0);
    let pid = rig.master_pid().expect("a master in the background");
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("its command line");
    assert!(!String::from_utf8_lossy(&line).contains(PASSWORD));
    assert!(!rig.log().contains(PASSWORD), "{}", rig.log());
    let settings = rig.state_dir().join("settings.toml");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&settings).expect("kept"));
    assert_eq!(mode & 0o777, 0o600, "it has the password");
    let nobody = Rig::with(&[(
        "AOT_STORE",
        &format!("postgres://aot:{PASSWORD}@127.0.0.1:1/a"),
    )]);
    let refused = nobody.cli(["serve"]);
    refused.expect(1);
    let said = [refused.stdout.as_slice(), refused.stderr.as_bytes()].concat();
    assert!(!String::from_utf8_lossy(&said).contains(PASSWORD));
    assert!(
        refused
            .stderr
            .contains("cannot connect to postgres://aot@127.0.0.1:1/a")
    );
}
