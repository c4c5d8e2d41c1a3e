//! Commands that run as another user.

use aot_proto::v1::EndKind;
use aot_proto::v1::start_run::What;

use super::fake::{Rig, exec, run_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_as_another_user_with_its_groups() {
    let own = rustix::process::geteuid().as_raw();
    let uid = if own == 0 { 4242 } else { own };
    let mut rig = Rig::new().await;
    std::fs::write(
        rig.path("etc/passwd"),
        format!("other:x:{uid}:4243::/home/other:/bin/sh\n"),
    )
    .unwrap();
    std::fs::write(rig.path("etc/group"), "extra:x:4244:other\n").unwrap();
    rig.start_agent();
    for (n, user) in [(1, "other"), (2, "nobody-at-all")] {
        let mut start = exec(
            n,
            "echo $(id -u) $HOME $USER; [ $(id -u) != 4242 ] || id -G",
        );
        if let Some(What::Exec(exec)) = &mut start.what {
            exec.user = user.into();
        }
        rig.master.start(start).await;
    }
    let groups = if own == 0 { "4243 4244\n" } else { "" };
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        result.stdout(),
        format!("{uid} /home/other other\n{groups}"),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(result.ended.kind(), EndKind::NotStarted);
    assert!(
        result.ended.detail.contains("nobody-at-all"),
        "{}",
        result.ended.detail
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_can_open_its_own_standard_input_and_outputs() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let mut rig = Rig::new().await;
    let passwd = "other:x:4242:4243::/:/bin/sh\n";
    std::fs::write(rig.path("etc/passwd"), passwd).unwrap();
    rig.start_agent();
    for (n, stdin) in [(1, &b"in"[..]), (2, b"")] {
        let script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin";
        let mut start = exec(n, script);
        if let Some(What::Exec(exec)) = &mut start.what {
            exec.user = "other".into();
            exec.stdin = stdin.to_vec();
        }
        rig.master.start(start).await;
        let result = rig.master.result(&run_id(n)).await;
        let stderr = String::from_utf8_lossy(&result.stderr).into_owned();
        let in_ = String::from_utf8_lossy(stdin);
        assert_eq!(
            (result.stdout(), stderr),
            (format!("out\n{in_}"), "err\n".to_owned())
        );
    }
    let owner = std::fs::metadata("/dev/null").unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&owner),
        0,
        "that is everybody's"
    );
}
