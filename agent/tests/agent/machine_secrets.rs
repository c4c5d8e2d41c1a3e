//! Secrets that a machine reads from AWS by itself when a run begins: given, hidden and gone like all others.

use std::path::PathBuf;

use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{AwsService, CancelRun, EndKind, MachineSecret, StartRun};

use super::fake::{FakeAws, Rig, bundle, exec, run_id, stage};
use super::secrets::{files_with, secret_folders, with_secrets};

const VALUE: &str = "correct horse battery";
const MANAGED: &str = "p4ssw0rd of the manager";

fn reading(mut start: StartRun) -> StartRun {
    let secret = |name: &str, env: &str, service: AwsService, id: &str| MachineSecret {
        name: name.to_owned(),
        env: env.to_owned(),
        service: service.into(),
        id: id.to_owned(),
        ..MachineSecret::default()
    };
    start.machine_secrets = vec![
        secret("token", "TOKEN", AwsService::Ssm, "/prod/token"),
        secret("creds", "", AwsService::SecretsManager, "prod/creds"),
    ];
    start
}

fn good(asked: &str) -> (u16, String) {
    let text = match asked.contains("SecretId") {
        true => format!(r#"{{"SecretString": "{MANAGED}"}}"#),
        false => format!(r#"{{"Parameter": {{"Value": "{VALUE}"}}}}"#),
    };
    (200, text)
}

async fn on_ec2(aws: &FakeAws) -> Rig {
    let mut rig = Rig::new().await;
    rig.provider = "ec2";
    rig.more_settings = aws.settings();
    rig.logs_to_file = true;
    rig.start_agent();
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_given_them_beside_those_that_its_master_has_sent() {
    let aws = FakeAws::answering(good).await;
    let rig = on_ec2(&aws).await;
    let script = "stat -c %a $AOT_SECRETS/*; wc -c < $AOT_SECRETS/token; cat $AOT_SECRETS/creds; echo; echo $TOKEN; \
        cat $AOT_SECRETS/db";
    let start = with_secrets(exec(1, script), &[("db", b"of the master", "")]);
    assert!(rig.master.start(reading(start)).await.accepted);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        result.stdout(),
        "600\n600\n600\n21\n[secret creds]\n[secret token]\n[secret db]",
        "{:?}",
        result.ended
    );
    assert_eq!(secret_folders(&rig), 0);
    let (sha, bytes) = bundle("cat $AOT_SECRETS/token; echo; test ! -e $AOT_SECRETS/db");
    let len = bytes.len() as u64;
    rig.master.lock().bundles.insert(sha.clone(), bytes);
    assert!(
        rig.master
            .start(reading(stage(2, &sha, len)))
            .await
            .accepted
    );
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(result.stdout(), "[secret token]\n");
    assert_eq!(result.ended.exit_code, 0);
    assert_eq!(secret_folders(&rig), 0);
    for value in [VALUE, MANAGED] {
        let found = files_with(rig.dir.path(), value.as_bytes());
        assert_eq!(found, Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_read_starts_nothing() {
    let aws = FakeAws::answering(|_| {
        let refused = r#"{"__type": "AccessDeniedException", "message": "not authorized"}"#;
        (400, refused.to_owned())
    })
    .await;
    let rig = on_ec2(&aws).await;
    let mark = rig.path("ran");
    let script = format!("touch {}", mark.display());
    assert!(rig.master.start(reading(exec(1, &script))).await.accepted);
    let ended = rig.master.result(&run_id(1)).await.ended;
    assert_eq!(ended.kind(), EndKind::NotStarted);
    for part in [
        "cannot read the secret \"token\" (SSM parameter /prod/token in eu-west-1): the role web may not read it",
        r#"{"Effect":"Allow","Action":"ssm:GetParameter""#,
    ] {
        assert!(ended.detail.contains(part), "{}", ended.detail);
    }
    let mut start = reading(exec(2, &script));
    start.machine_secrets[0].service = 99;
    let refused = rig.master.start(start).await;
    assert!(!refused.accepted && refused.reason.contains("update the agent"));
    assert!(!mark.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_aws_can_be_cancelled() {
    let aws = FakeAws::answering(|_| {
        let busy = r#"{"__type": "ThrottlingException", "message": "Rate exceeded"}"#;
        (400, busy.to_owned())
    })
    .await;
    let rig = on_ec2(&aws).await;
    assert!(rig.master.start(reading(exec(1, "true"))).await.accepted);
    let cancel = CancelRun {
        run_id: run_id(1),
        grace_ms: 100,
    };
    rig.master.send(Down::CancelRun(cancel)).await;
    let ended = rig.master.result(&run_id(1)).await.ended;
    assert_eq!(ended.kind(), EndKind::Cancelled);
    assert_eq!(secret_folders(&rig), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_reads_none() {
    let aws = FakeAws::answering(good).await;
    let mut rig = Rig::new().await;
    rig.more_settings = aws.settings();
    rig.start_agent();
    assert!(rig.master.start(reading(exec(1, "true"))).await.accepted);
    let ended = rig.master.result(&run_id(1)).await.ended;
    assert_eq!(ended.kind(), EndKind::NotStarted);
    assert!(
        ended.detail.contains("this machine is a clone"),
        "{}",
        ended.detail
    );
}
