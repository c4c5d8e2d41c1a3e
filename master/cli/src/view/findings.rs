//! What `doctor` has found, a line each with the way out below. Pure.

use aot_proto::v1::{Finding, FindingLevel};
use serde_json::{Value, json};

use super::style::Style;

/// `warn     clocks       web/a 61 s ahead`, and the way out on a line of its own.
pub(crate) fn finding_line(finding: &Finding, style: Style) -> String {
    let level = format!("{:<8}", FindingLevel::name_of(finding.level));
    let level = match finding.level() {
        FindingLevel::Ok => style.good(&level),
        FindingLevel::Warn => style.held(&level),
        FindingLevel::Fail => style.bad(&level),
        _ => style.dim(&level),
    };
    let about = match finding.about.as_str() {
        "" => String::new(),
        about => format!("{about}: "),
    };
    let mut line = format!("{level} {:<12} {about}{}", finding.check, finding.message);
    if !finding.hint.is_empty() {
        line.push_str(&format!("\n  hint: {}", finding.hint));
    }
    line
}

/// The same for programs.
pub(crate) fn finding_json(finding: &Finding) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "check": finding.check,
        "about": text(&finding.about),
        "level": FindingLevel::name_of(finding.level),
        "message": finding.message,
        "hint": text(&finding.hint),
    })
}
