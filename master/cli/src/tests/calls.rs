//! `-v`: the calls that a master makes meanwhile.

use aot_proto::v1::ApiCall;

use super::look::two_clusters;
use super::*;

fn call(number: u64, operation: &str) -> ApiCall {
    ApiCall {
        number,
        service: "EC2".into(),
        operation: operation.into(),
        region: "us-west-2".into(),
        ms: 120,
        request_id: format!("req-{number}"),
        ..ApiCall::default()
    }
}

fn number(number: u64) -> ApiCall {
    ApiCall {
        number,
        ..ApiCall::default()
    }
}

#[tokio::test]
async fn every_call_is_shown_on_standard_error_before_the_command_ends() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        calls: vec![
            number(4),
            call(5, "DescribeInstances"),
            call(6, "CreateTags"),
        ],
        ..Script::default()
    });
    let quiet = run(&fake, &["list", "-q"]).await;
    let ran = run(&fake, &["list", "-q", "-v"]).await;
    assert_eq!((ran.exit, &ran.out), (Exit::Well, &quiet.out));
    assert_eq!(
        ran.err,
        "EC2 DescribeInstances us-west-2 120 ms req-5\nEC2 CreateTags us-west-2 120 ms req-6\n"
    );
    let order: Vec<String> = fake
        .asked()
        .iter()
        .map(|asked| {
            asked
                .split([' ', '{'])
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(order, ["StatusRequest", "ApiCallsRequest", "StatusRequest"]);
}

#[tokio::test]
async fn results_as_json_stay_clean() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        calls: vec![number(0), call(1, "DescribeInstances")],
        ..Script::default()
    });
    let env = CliEnv {
        colour: true,
        ..env_in(fake.dir.path())
    };
    let ran = run_in(&env, "", &["-v", "--json", "list"]).await;
    assert_eq!(ran.out.lines().count(), 3);
    assert_eq!(ran.err, "EC2 DescribeInstances us-west-2 120 ms req-1\n");
}

#[tokio::test]
async fn a_failed_command_shows_its_calls_too() {
    let fake = Fake::start(Script {
        calls: vec![number(0), call(1, "DescribeInstances")],
        ..Script::default()
    });
    let ran = run(&fake, &["list", "nope", "-v"]).await;
    assert_eq!(ran.exit, Exit::NoMatch);
    assert!(
        ran.err
            .starts_with("EC2 DescribeInstances us-west-2 120 ms req-1\nerror: no instance"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn missing_calls_are_noted_and_the_others_shown() {
    let missing = ApiCall {
        error: "2 calls are missing here".into(),
        ..ApiCall::default()
    };
    let fake = Fake::start(Script {
        calls: vec![number(0), missing, call(3, "RunInstances")],
        ..Script::default()
    });
    let ran = run(&fake, &["list", "-v"]).await;
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "no instances",
            "note: 2 calls are missing here",
            "EC2 RunInstances us-west-2 120 ms req-3"
        ]
    );
}

#[tokio::test]
async fn a_master_that_refuses_to_tell_its_calls_is_noted() {
    let fake = Fake::start(Script {
        refuse: Some(tonic::Status::unimplemented("not known")),
        ..Script::default()
    });
    let ran = run(&fake, &["list", "-v"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.err,
        "note: the master's API calls cannot be shown: not known\nerror: not known\n"
    );
}

#[tokio::test]
async fn the_calls_of_other_masters_are_shown_with_their_names_and_waited_for() {
    let of = |call: ApiCall| ApiCall {
        master: "b".into(),
        ..call
    };
    let silent = ApiCall {
        error: "the calls of the master c are not shown: no answer".into(),
        master: "c".into(),
        ..ApiCall::default()
    };
    let fake = Fake::start(Script {
        status: two_clusters(),
        calls: vec![
            of(number(8)),
            silent,
            number(4),
            of(call(9, "RunInstances")),
            call(5, "DescribeInstances"),
            of(call(10, "CreateTags")),
        ],
        others: vec![aot_proto::v1::InfoReply {
            master: "b".into(),
            api_calls: 10,
            ..Default::default()
        }],
        ..Script::default()
    });
    let ran = run(&fake, &["list", "-q", "-v"]).await;
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "note: the calls of the master c are not shown: no answer",
            "b: EC2 RunInstances us-west-2 120 ms req-9",
            "EC2 DescribeInstances us-west-2 120 ms req-5",
            "b: EC2 CreateTags us-west-2 120 ms req-10",
        ]
    );
}
