//! Tests of the plan's views.

use super::*;
use aot_proto::v1::PlanThing;

const PLAIN: Style = Style { colour: false };

fn sample() -> PlanReply {
    let line = |action: &str, instance: &str, detail: &str| PlanLine {
        action: action.into(),
        instance: instance.into(),
        pool: String::new(),
        detail: detail.into(),
    };
    let thing = |action: &str, kind: &str, name: &str, detail: &str| PlanThing {
        action: action.into(),
        kind: kind.into(),
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
        ],
        things: vec![
            thing("create", "security-group", "hadoop", "in vpc-1"),
            thing("create", "rule", "hadoop", "tcp 22 from 0.0.0.0/0"),
            thing("keep", "placement-group", "close", ""),
            thing("allocate", "address", "web10", ""),
        ],
        problems: vec![
            problem("there is no image \"debian-99\"", "debian-12 is one"),
            problem("subnet subnet-1 has 2 free addresses\nand 5 are needed", ""),
        ],
    }
}

#[test]
fn a_plan_with_things_and_problems() {
    let plan = sample();
    insta::assert_snapshot!(
        [
            plan_lines(&plan, PLAIN),
            plan_words(&plan),
            problem_lines(&plan.problems, PLAIN),
        ]
        .join("\n")
    );
    assert!(plan_lines(&plan, Style { colour: true }).contains("\x1b["));
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
    assert_eq!(plan_words(&plan), "plan: nothing");
    assert_eq!(problem_lines(&[], PLAIN), "");
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
    let text = problem_lines(&problems, PLAIN);
    assert!(text.starts_with("   1. m\n      hint: h\n"), "{text}");
    assert!(text.ends_with("  10. m\n      hint: h"), "{text}");
}
