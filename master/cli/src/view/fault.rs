//! What is wrong with a request, where that is more than a line: a fault in an expression with a caret under it. Pure;
//! called by the errors of the commands.

use aot_proto::v1::TargetFault;
use unicode_width::UnicodeWidthStr;

use super::harmless;
use super::style::Style;

/// The message, the expression, a caret under what is meant, and the way out.
///
/// ```text
/// target: a ] is missing
///   web[1-3
///      ^
///   hint: write for example 'web*'
/// ```
pub(crate) fn target_fault(fault: &TargetFault, style: Style) -> String {
    let inside = match fault.named_by.as_str() {
        "" => String::new(),
        named_by => format!(", in a group of {named_by:?}"),
    };
    let (before, meant, after) = parts(fault);
    let head = if fault.cut_before { "..." } else { "" };
    let tail = if fault.cut_after { "..." } else { "" };
    let blanks = " ".repeat(head.width() + before.width());
    let carets = "^".repeat(meant.width().max(1));
    let mut text = format!(
        "{}{inside}: {}\n  {head}{before}{meant}{after}{tail}\n  {blanks}{}",
        fault.what,
        fault.message,
        style.bad(&carets)
    );
    if !fault.hint.is_empty() {
        let hint = style.dim(&format!("hint: {}", fault.hint));
        text.push_str(&format!("\n  {hint}"));
    }
    text
}

/// The expression before, in and after what is meant, each in one line, as wide as a terminal shows it. A place that is
/// outside of the text, or in the middle of a character, is the text's end.
fn parts(fault: &TargetFault) -> (String, String, String) {
    let text = fault.text.as_str();
    let byte = |at: u32| usize::try_from(at).unwrap_or(text.len());
    let before = text.get(..byte(fault.start)).unwrap_or(text);
    let rest = &text[before.len()..];
    let meant = byte(fault.end).saturating_sub(before.len());
    let meant = rest.get(..meant).unwrap_or(rest);
    let after = &rest[meant.len()..];
    let shown = |part: &str| harmless::one_line(part).replace('\t', " ");
    (shown(before), shown(meant), shown(after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::fault::{self, What};
    use proptest::prelude::*;

    /// As a master sends it.
    fn sent(text: &str, at: usize) -> TargetFault {
        let fault = TargetFault {
            what: "target".to_owned(),
            message: "a ] is missing".to_owned(),
            hint: "write for example 'web*'".to_owned(),
            ..TargetFault::default()
        };
        match fault::of(&fault::target(text, at, fault)) {
            Some(What::Target(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    fn plain(fault: &TargetFault) -> String {
        target_fault(fault, Style::default())
    }

    #[test]
    fn the_caret_stands_under_what_is_meant() {
        let long = format!("{},é[", ["web1"; 60].join(","));
        let in_group = TargetFault {
            what: "--exclude".to_owned(),
            named_by: "web1 and @bad".to_owned(),
            hint: String::new(),
            ..sent("web[", 3)
        };
        let all = [
            sent("web1 and web[", 12),
            sent("é,日本[", 9),
            sent("日", 0),
            sent("tab\tand\nline[", 12),
            sent("web1 and", 8),
            sent("", 0),
            sent(&long, long.len() - 1),
            in_group,
        ];
        insta::assert_snapshot!(all.map(|fault| plain(&fault)).join("\n\n"));
    }

    #[test]
    fn colours_are_of_the_caret_and_the_hint() {
        let shown = target_fault(&sent("web[", 3), Style { colour: true });
        let shown = super::super::style::drawn(&shown, true).into_owned();
        assert!(shown.contains("\n     \x1b[31m^\x1b[0m\n"), "{shown:?}");
        assert!(shown.contains("\x1b[2mhint: "), "{shown:?}");
    }

    proptest! {
        #[test]
        fn a_fault_has_its_lines_whatever_a_master_says(
            text in "[ -~é日\t\n\u{200b}]{0,40}", start in 0u32..60, end in 0u32..60, cut in any::<bool>()
        ) {
            let fault = TargetFault { text, start, end, cut_before: cut, cut_after: cut, ..sent("web[", 3) };
            let shown = plain(&fault);
            let lines: Vec<&str> = shown.split('\n').collect();
            prop_assert_eq!(lines.len(), 4, "{:?}", &shown);
            prop_assert!(lines[2].trim_start().chars().all(|c| c == '^'), "{:?}", &shown);
            prop_assert!(lines[2].trim_end().width() <= lines[1].width() + 1, "{:?}", &shown);
        }
    }
}
