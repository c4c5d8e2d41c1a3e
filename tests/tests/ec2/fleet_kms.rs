//! Masters whose keys are sealed by KMS: made by the first, opened by the next, which has the right alone; one that may not is
//! refused with the way out. Then they are sealed with a file instead, while the masters run. Without machines.

use aot_postgres::server::Server;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::Story;
use aot_tests::process::{Output, Running};
use aot_tests::rig::master_program;
use aot_tests::wait;

const MAKE_KEY: &str = r#"
import boto3, json
kms = boto3.client("kms")
kms.create_alias(AliasName="alias/aot", TargetKeyId=kms.create_key()["KeyMetadata"]["Arn"])
print("{}")
"#;

#[test]
fn keys_of_a_fleet_are_sealed_by_kms_and_can_be_sealed_anew() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("keys by KMS"),
    };
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    lab.python(MAKE_KEY, &[]);
    let master = |name, port, key, peer| {
        let env = [
            ("AOT_STORE", url.as_str()),
            ("AOT_FLEET_KEY", key),
            ("AOT_PEER_LISTEN", peer),
        ];
        let address = format!("198.51.100.1:{port}");
        Master::new(&lab, name, port, &address, &env)
    };
    let ca = |master: &Master<'_>| std::fs::read(master.state_dir().join("ca.pem")).ok();
    let mut story = Story::default();

    story.step("the first makes the keys, the second opens them");
    let mut first = master("first", 7580, "kms:alias/aot", "198.51.100.1:7590");
    first.serve();
    lab.verb(&[
        "fault",
        "GenerateDataKey",
        "AccessDeniedException",
        "--count",
        "99",
    ]);
    let mut second = master("second", 7581, "kms:alias/aot", "198.51.100.1:7591");
    second.serve();
    story.check(ca(&first).is_some(), "it has an authority", ());
    story.same(ca(&second), ca(&first), "the same one");
    let sealed = server.ask(&database, "SELECT convert_from(sealed, 'UTF8') FROM fleet");
    story.check(
        sealed.contains("kms:alias/aot") && !sealed.contains("PRIVATE"),
        "sealed, and it is said with what",
        &sealed,
    );

    story.step("one that may not is refused");
    lab.verb(&["fault", "Decrypt", "AccessDeniedException", "--count", "99"]);
    let mut third = master("third", 7582, "kms:alias/aot", "198.51.100.1:7592");
    third.begin();
    story.same(third.ended(), Some(1), "it does not start");
    let said = third.log();
    story.check(
        said.contains("kms:alias/aot") && said.contains("packaging/iam/aot-fleet.json"),
        "and says what is missing",
        &said,
    );
    story.same(ca(&third), None, "it has no keys");
    drop(third);
    lab.verb(&["clear-faults"]);

    story.step("sealed anew with a file, while both run");
    let key = lab.dir().join("fleet.key");
    aot_host::files::write_atomic(&key, &[7; 32], 0o600).expect("writes the key");
    let key = key.display().to_string();
    let rekey = || -> Output {
        let mut command = lab.inside(&master_program());
        command
            .args(["--json", "fleet", "rekey", "--from", "kms:alias/aot"])
            .env("AOT_STORE", &url)
            .env("AOT_FLEET_KEY", &key);
        Running::start(command).finish(LAUNCH)
    };
    for changed in [true, false] {
        let done = rekey();
        story.same(done.code, Some(0), &done.shown());
        let line = done.one(|_| true);
        story.same(line["changed"].as_bool(), Some(changed), "what was done");
    }
    let mut third = master("late", 7582, &key, "198.51.100.1:7592");
    third.serve();
    story.same(ca(&third), ca(&first), "the same authority");
    let all = || second.json(&["masters"]).1.len() == 3;
    wait::until(all, LAUNCH, "all three serve");
    second.end();
    second.begin();
    story.same(second.ended(), Some(1), "its setting is of yesterday");
    let said = second.log();
    story.check(said.contains("key of a file"), "and it says so", &said);
    drop(second);
    first.stop();
    third.stop();
    lab.end();
    story.end();
}
