//! A plan and what stands in its way, for people and programs. Pure.

use std::collections::BTreeMap;

use aot_proto::v1::{PlanLine, PlanReply, Problem};
use serde_json::{Value, json};

use super::style::Style;
use super::words::{count_things, count_words};

/// `+ web1  create  m5.large in us-west-2`, one a line: what instances stand on, then the instances.
pub fn plan_lines(plan: &PlanReply, style: Style) -> String {
    let names = plan.things.iter().map(|thing| &thing.name);
    let names = names.chain(plan.lines.iter().map(|line| &line.instance));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let kinds = plan.things.iter().map(|thing| thing.kind.len());
    let kind = kinds.max().unwrap_or(0);
    let things = plan.things.iter().map(|thing| {
        let about = format!("{:<kind$}  {}", thing.kind, thing.detail);
        line(&thing.action, &thing.name, &about, width, style)
    });
    let instances = plan
        .lines
        .iter()
        .map(|it| line(&it.action, &it.instance, &it.detail, width, style));
    things.chain(instances).collect::<Vec<_>>().join("\n")
}

fn line(action: &str, name: &str, about: &str, width: usize, style: Style) -> String {
    let word = format!("{action:<9}");
    let (sign, word) = match action {
        "create" | "allocate" => (style.good("+"), style.good(&word)),
        "terminate" => (style.bad("-"), style.bad(&word)),
        "replace" => (style.bad("±"), style.bad(&word)),
        "rerun" | "resume" | "change" => (style.busy("~"), style.busy(&word)),
        "orphan" => (style.dim("?"), style.dim(&word)),
        _ => (" ".to_owned(), style.dim(&word)),
    };
    let text = format!("{sign} {name:<width$}  {word}  {about}");
    text.trim_end().to_owned()
}

/// `plan: 3 create, 1 keep; besides: 2 rules, 1 security group`.
pub fn plan_words(plan: &PlanReply) -> String {
    let lines = count_words(plan.lines.iter().map(|line| (line.action.as_str(), 1)));
    let new = plan.things.iter().filter(|thing| thing.action != "keep");
    let things = count_things(new.map(|thing| thing.kind.as_str()));
    let mut text = match lines.as_str() {
        "" => "plan: nothing".to_owned(),
        words => format!("plan: {words}"),
    };
    if !things.is_empty() {
        text.push_str(&format!("; besides: {things}"));
    }
    match plan.problems.len() {
        0 => {}
        1 => text.push_str("; launch would refuse it, for 1 problem:"),
        count => text.push_str(&format!("; launch would refuse it, for {count} problems:")),
    }
    text
}

/// `  1. message`, and below it the hint; each on lines of its own.
pub fn problem_lines(problems: &[Problem], style: Style) -> String {
    let width = problems.len().to_string().len();
    let indent = " ".repeat(width + 4);
    let show = |(place, problem): (usize, &Problem)| {
        let number = style.bad(&format!("{:>width$}.", place + 1));
        let message = problem
            .message
            .trim_end()
            .replace('\n', &format!("\n{indent}"));
        let mut text = format!("  {number} {message}");
        if !problem.hint.is_empty() {
            let hint = problem
                .hint
                .trim_end()
                .replace('\n', &format!("\n{indent}"));
            text.push_str(&format!(
                "\n{indent}{}",
                style.dim(&format!("hint: {hint}"))
            ));
        }
        text
    };
    let all: Vec<String> = problems.iter().enumerate().map(show).collect();
    all.join("\n")
}

/// One document an instance, a thing and a problem; the last is the summary of the instances.
pub fn plan_json(plan: &PlanReply) -> Vec<Value> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all: Vec<Value> = Vec::new();
    for thing in &plan.things {
        all.push(json!({"thing": {"action": thing.action, "kind": thing.kind, "name": thing.name, "detail": some(&thing.detail)}}));
    }
    for PlanLine {
        action,
        instance,
        pool,
        detail,
    } in &plan.lines
    {
        *counts.entry(action).or_default() += 1;
        all.push(json!({"action": action, "instance": instance, "pool": some(pool), "detail": some(detail)}));
    }
    for problem in &plan.problems {
        all.push(json!({"problem": problem.message, "hint": some(&problem.hint)}));
    }
    all.push(json!({ "summary": counts }));
    all
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
