//! Tests of the call log: what is reported of calls that work, fail, are tried again or get lost.

use super::*;
use crate::fake::Replay;

const SECRET: &str = "am9pbi10b2tlbi1vZi10aGUtYmF0Y2g=";

async fn launched(fake: &Replay) -> ApiCall {
    let calls = Calls::default();
    let mut heard = calls.listen().1;
    let (client, _) = fake.clients(calls).client(None).await.unwrap();
    let request = client.run_instances().min_count(2).max_count(2);
    let _ = request.client_token("t").user_data(SECRET).send().await;
    let call = heard.try_recv().unwrap();
    assert!(heard.try_recv().is_err(), "one call is told once");
    assert!(!format!("{call:?}").contains(&SECRET[..8]), "{call:?}");
    call
}

#[tokio::test]
async fn a_call_is_told_with_all_but_its_user_data() {
    let fake = Replay::default();
    fake.ok("RunInstances", "<instancesSet/>");
    let call = launched(&fake).await;
    assert_eq!(
        (call.service.as_str(), call.operation.as_str()),
        ("EC2", "RunInstances")
    );
    assert_eq!(call.region, "eu-west-1");
    assert_eq!(
        call.parameters,
        "MaxCount=2 MinCount=2 UserData=<23 bytes> ClientToken=t"
    );
    assert_eq!(call.request_id, "req-RunInstances");
    assert_eq!((call.number, call.retries, call.error.as_str()), (1, 0, ""));
    assert!(call.unix_ms > 1_700_000_000_000);
}

#[tokio::test]
async fn a_refusal_is_told_with_code_message_and_request_id() {
    let fake = Replay::default();
    fake.refuse(
        "RunInstances",
        400,
        "InvalidAMIID.NotFound",
        "no &lt;ami&gt;",
    );
    let call = launched(&fake).await;
    assert_eq!(call.error, "InvalidAMIID.NotFound: no <ami>");
    assert_eq!((call.request_id.as_str(), call.retries), ("req-bad", 0));
}

#[tokio::test]
async fn retries_are_counted() {
    let fake = Replay::default();
    fake.refuse("RunInstances", 503, "RequestLimitExceeded", "slow down")
        .ok("RunInstances", "<instancesSet/>");
    let call = launched(&fake).await;
    assert_eq!((call.retries, call.error.as_str()), (1, ""));
    let fake = Replay::default();
    fake.refuse("RunInstances", 500, "InternalError", "oh");
    let call = launched(&fake).await;
    assert_eq!(
        (call.retries, call.error.as_str()),
        (2, "InternalError: oh")
    );
}

#[test]
fn json_refusals_are_read() {
    let body = r#"{"__type":"com.amazonaws.ssm#ParameterNotFound","message":"none"}"#;
    assert_eq!(json_refusal(body).unwrap(), "ParameterNotFound: none");
    assert_eq!(json_refusal("<html>"), None);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_told_with_its_cause() {
    let replay = Replay::default();
    replay.lose("RunInstances");
    let call = launched(&replay).await;
    assert!(call.error.contains("line went dead"), "{call:?}");
    assert_eq!((call.retries, call.request_id.as_str()), (2, ""));
}

#[tokio::test]
async fn systems_manager_is_told_too() {
    let calls = Calls::default();
    let mut heard = calls.listen().1;
    let replay = Replay::default();
    replay
        .json("GetParameter", 400, r#"{"__type":"ParameterNotFound"}"#)
        .json("GetParameter", 200, r#"{"Parameter":{"Value":"ami-1"}}"#);
    let client = replay.clients(calls).ssm(Some("us-east-2")).await.unwrap();
    for error in ["ParameterNotFound", ""] {
        let _ = client.get_parameter().name("/aws/image").send().await;
        let call = heard.try_recv().unwrap();
        assert_eq!(
            (call.service.as_str(), call.operation.as_str()),
            ("SSM", "GetParameter")
        );
        assert_eq!(
            (call.region.as_str(), call.parameters.as_str()),
            ("us-east-2", "Name=/aws/image")
        );
        assert_eq!((call.error.as_str(), call.retries), (error, 0));
    }
}

/// Another master may have taken over since the first try: nothing more is sent, and what the first one made is not known.
#[tokio::test]
async fn a_try_is_not_sent_once_its_master_may_not_call_any_more() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aot_provider::{ErrorKind, Leftovers};

    for allowed in [0, 1] {
        let replay = Replay::default();
        replay.lose("RunInstances");
        let (calls, asked) = (Calls::default(), Arc::new(AtomicUsize::new(0)));
        let tries = asked.clone();
        calls.send_while(move || tries.fetch_add(1, Ordering::SeqCst) < allowed);
        let (client, _) = replay.clients(calls).client(None).await.unwrap();
        let request = client.run_instances().min_count(1).max_count(1).send();
        let failed = crate::client::call("RunInstances", request).await;
        let failed = failed.expect_err("is not sent, or lost");
        assert!(failed.message.contains("not sent"), "{failed:?}");
        assert_eq!(
            (failed.kind, failed.leftovers),
            (ErrorKind::Unavailable, Leftovers::Unknown)
        );
        assert_eq!(
            asked.load(Ordering::SeqCst),
            allowed + 1,
            "it is not tried again"
        );
        assert_eq!(replay.asked("RunInstances").len(), allowed, "sent");
    }
}
