//! Tests of the plan's views.

use aot_proto::v1::{PlanLine, PlanThing};

use super::*;

const PLAIN: Style = Style { colour: false };

fn sample() -> PlanReply {
    let line = |action: &str, instance: &str, detail: &str| PlanLine {
        action: PlanAction::from_name(action).expect("an action").into(),
        instance: instance.into(),
        pool: String::new(),
        detail: detail.into(),
        ..PlanLine::default()
    };
    let thing = |action: &str, kind: &str, name: &str, detail: &str| PlanThing {
        action: ThingAction::from_name(action).expect("an action").into(),
        kind: ThingKind::from_name(kind).expect("a kind").into(),
        name: name.into(),
        detail: detail.into(),
    };
    let problem = |message: &str, hint: &str| Problem {
        message: message.into(),
        hint: hint.into(),
        file: false,
    };
    PlanReply {
        lines: vec![
            line("create", "web10", "m5.large"),
            line("keep", "web1", ""),
            line("rerun", "web2", "stage 1 changed"),
            line("terminate", "old", "not in the file"),
            PlanLine {
                rendered: vec!["site".into()],
                ..line("check", "web3", "stage site is rendered again")
            },
        ],
        things: vec![
            thing("create", "security-group", "hadoop", "in vpc-1"),
            thing("create", "rule", "hadoop", "tcp 22 from 0.0.0.0/0"),
            thing("keep", "placement-group", "close", ""),
            thing("allocate", "address", "web10", ""),
        ],
        problems: vec![
            problem("no image \"debian-99\"", "debian-12 is one"),
            problem("subnet subnet-1 has 2 free addresses\nand 5 are needed", ""),
        ],
        ..PlanReply::default()
    }
}

#[test]
fn a_plan_with_things_and_problems() {
    let plan = sample();
    insta::assert_snapshot!(
        [
            plan_lines(&plan, PLAIN),
            plan_summary(&plan),
            problem_lines(&plan.problems, 0, PLAIN),
        ]
        .join("\n")
    );
    let coloured = plan_lines(&plan, Style { colour: true });
    assert!(crate::view::style::drawn(&coloured, true).contains("\x1b["));
}

#[test]
fn a_plan_as_json_lines() {
    let lines: Vec<String> = plan_json(&sample())
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn an_empty_plan_says_so() {
    let plan = PlanReply::default();
    assert_eq!(plan_lines(&plan, PLAIN), "");
    assert_eq!(plan_summary(&plan), "plan: nothing");
    assert_eq!(problem_lines(&[], 0, PLAIN), "");
}

#[test]
fn ten_problems_stay_in_line() {
    let problems = vec![
        Problem {
            message: "m".into(),
            hint: "h".into(),
            file: false,
        };
        10
    ];
    let text = problem_lines(&problems, 0, PLAIN);
    assert!(text.starts_with("   1. m\n      hint: h\n"), "{text}");
    assert!(text.ends_with("  10. m\n      hint: h"), "{text}");
}
