//! Tests of the RunInstances call about things that were made a moment ago.

use aot_provider::ErrorKind;
use aot_provider::contract::sample_spec;

use super::*;
use crate::fake::Replay;

/// What a launch in these groups comes to when EC2 refuses it so at first, and how often it was asked.
async fn launch(
    prerequisites: Prerequisites,
    code: &str,
    message: &str,
) -> (Result<(), ErrorKind>, usize) {
    let fake = Replay::default();
    fake.refuse("RunInstances", 403, code, message)
        .ok("RunInstances", "<instancesSet/>");
    let mut spec = sample_spec("c", "uuid-1", 1);
    spec.instance_type = Some("t3.micro".into());
    spec.machine.placement_group = Some("near".into());
    spec.prerequisites = prerequisites;
    let resolved = resolve::Resolved {
        image: "ami-1".into(),
        groups: vec!["sg-1".into()],
        ..resolve::Resolved::default()
    };
    let token = ClientToken("t".into());
    let input = request::run_instances(&spec, &token, &resolved, b"").unwrap();
    let result = run_instances(&fake.client().await, &spec, &resolved, input).await;
    let result = result.map(drop).map_err(|error| error.kind);
    (result, fake.asked("RunInstances").len())
}

fn made(id: &str) -> Prerequisites {
    let mut prerequisites = Prerequisites::default();
    fresh::made(&mut prerequisites, id);
    prerequisites
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_made_just_now_is_asked_about_again_and_a_found_one_is_not() {
    let later = (Err(ErrorKind::Unavailable), 1);
    let never = (Err(ErrorKind::Invalid), 1);
    for code in fresh::GROUP {
        assert_eq!(launch(made("sg-1"), code, "sg-1").await, later, "{code}");
        assert_eq!(launch(made("near"), code, "sg-1").await, never, "{code}");
        assert_eq!(launch(Prerequisites::default(), code, "sg-1").await, never);
    }
    for code in fresh::PLACEMENT {
        assert_eq!(launch(made("near"), code, "near").await, later, "{code}");
        assert_eq!(launch(made("sg-1"), code, "near").await, never, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn rights_that_rest_on_new_tags_are_tried_once_more() {
    let code = "UnauthorizedOperation";
    assert_eq!(launch(made("sg-1"), code, "no").await, (Ok(()), 2));
    let refused = (Err(ErrorKind::Denied), 1);
    assert_eq!(launch(Prerequisites::default(), code, "no").await, refused);
}
