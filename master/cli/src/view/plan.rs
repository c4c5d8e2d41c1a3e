//! A plan and what stands in its way, for people and programs. Pure.

use std::collections::BTreeMap;

use aot_proto::plural;
use aot_proto::v1::{PlanAction, PlanReply, Problem, ThingAction, ThingKind};
use serde_json::{Value, json};

use super::format::{count_things, counts_text};
use super::style::{Paint, Style};

/// `+ web1  create  m5.large in us-west-2`, one per line: what instances stand on, then the instances.
pub(crate) fn plan_lines(plan: &PlanReply, style: Style) -> String {
    let names = plan.things.iter().map(|thing| &thing.name);
    let names = names.chain(plan.lines.iter().map(|line| &line.instance));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let kinds = plan.things.iter().map(|thing| thing.kind().as_str().len());
    let kind = kinds.max().unwrap_or(0);
    let things = plan.things.iter().map(|thing| {
        let about = format!("{:<kind$}  {}", thing.kind(), thing.detail);
        let (sign, paint): (_, Paint) = match thing.action() {
            ThingAction::Create | ThingAction::Allocate => ("+", Style::good),
            ThingAction::Change => ("~", Style::busy),
            ThingAction::Keep | ThingAction::Unspecified => (" ", Style::dim),
        };
        let action = ThingAction::name_of(thing.action);
        line((sign, paint), action, &thing.name, &about, width, style)
    });
    let instances = plan.lines.iter().map(|it| {
        let (sign, paint): (_, Paint) = match it.action() {
            PlanAction::Create => ("+", Style::good),
            PlanAction::Terminate => ("-", Style::bad),
            PlanAction::Replace => ("±", Style::bad),
            PlanAction::Rerun | PlanAction::Resume | PlanAction::Check => ("~", Style::busy),
            PlanAction::Orphan => ("?", Style::dim),
            PlanAction::Keep | PlanAction::Unspecified => (" ", Style::dim),
        };
        let action = PlanAction::name_of(it.action);
        line(
            (sign, paint),
            action,
            &it.instance,
            &it.detail,
            width,
            style,
        )
    });
    things.chain(instances).collect::<Vec<_>>().join("\n")
}

fn line(
    (sign, paint): (&str, Paint),
    action: &str,
    name: &str,
    about: &str,
    width: usize,
    style: Style,
) -> String {
    let word = paint(style, &format!("{action:<9}"));
    let sign = match sign {
        " " => sign.to_owned(),
        sign => paint(style, sign),
    };
    let text = format!("{sign} {name:<width$}  {word}  {about}");
    text.trim_end().to_owned()
}

/// `plan: 3 create, 1 keep; besides: 2 rules, 1 security group`.
pub(crate) fn plan_summary(plan: &PlanReply) -> String {
    let lines = counts_text(plan.lines.iter().map(|line| (line.action().as_str(), 1)));
    let new = plan
        .things
        .iter()
        .filter(|thing| thing.action() != ThingAction::Keep);
    let things = count_things(new.map(|thing| thing.kind().as_str()));
    let mut text = match lines.as_str() {
        "" => "plan: nothing".to_owned(),
        words => format!("plan: {words}"),
    };
    if !things.is_empty() {
        text.push_str(&format!("; besides: {things}"));
    }
    if !plan.problems.is_empty() {
        let problems = plural::count(plan.problems.len(), "problem");
        text.push_str(&format!("; launch would refuse it, for {problems}:"));
    }
    text
}

/// `  1. message`, and below it the hint; each on lines of its own. Last, how many `more` there are.
pub(crate) fn problem_lines(problems: &[Problem], more: u32, style: Style) -> String {
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
    let mut all: Vec<String> = problems.iter().enumerate().map(show).collect();
    if more > 0 {
        all.push(format!("  and {more} more"));
    }
    all.join("\n")
}

/// One document per instance, thing and problem; the last is the summary of the instances.
pub(crate) fn plan_json(plan: &PlanReply) -> Vec<Value> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all: Vec<Value> = Vec::new();
    for thing in &plan.things {
        all.push(json!({"thing": {"action": ThingAction::name_of(thing.action), "kind": ThingKind::name_of(thing.kind), "name": thing.name, "detail": some(&thing.detail)}}));
    }
    for line in &plan.lines {
        let action = PlanAction::name_of(line.action);
        *counts.entry(action).or_default() += 1;
        let mut object = json!({"action": action, "instance": line.instance, "pool": some(&line.pool), "detail": some(&line.detail)});
        if !line.stage.is_empty() {
            object["stage"] = line.stage.as_str().into();
            object["bundle_sha256"] = some(&line.has).into();
            object["new_bundle_sha256"] = some(&line.wants).into();
            object["at_once"] = line.at_once.into();
        }
        if !line.rendered.is_empty() {
            object["rendered"] = line.rendered.clone().into();
        }
        all.push(object);
    }
    for problem in &plan.problems {
        all.push(json!({"problem": problem.message, "hint": some(&problem.hint)}));
    }
    all.push(json!({ "summary": counts }));
    all
}

#[cfg(test)]
mod tests;
