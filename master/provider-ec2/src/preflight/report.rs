//! Collects problems: the same one of several pools once, and all denied calls in one. Pure.

use aot_provider::{ErrorKind, Problem, ProviderError};

use super::super::error::lacks;

/// Codes of a call that these credentials, good as they are, may not make.
const FORBIDDEN: [&str; 3] = [
    "UnauthorizedOperation",
    "AccessDenied",
    "AccessDeniedException",
];

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct PreflightReport {
    lines: Vec<ReportLine>,
    denied: Vec<(String, String)>,
}

#[derive(Debug)]
struct ReportLine {
    of: Vec<String>,
    text: String,
    hint: String,
}

/// Whether the caller is known but may not do that.
pub(super) fn is_forbidden(error: &ProviderError) -> bool {
    error
        .code
        .as_deref()
        .is_some_and(|code| FORBIDDEN.contains(&code))
}

impl PreflightReport {
    /// Of a pool, by its label. The same text and hint of several pools become one problem.
    pub(crate) fn add_for_pool(
        &mut self,
        label: &str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(vec![label.to_owned()], text.into(), hint.into());
    }

    /// Of the file as a whole.
    pub(crate) fn add_for_file(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.add(Vec::new(), text.into(), hint.into());
    }

    fn add(&mut self, of: Vec<String>, text: String, hint: String) {
        let same = |line: &&mut ReportLine| {
            line.text == text && line.hint == hint && line.of.is_empty() == of.is_empty()
        };
        match self.lines.iter_mut().find(same) {
            Some(line) => {
                let new = of
                    .into_iter()
                    .filter(|label| !line.of.contains(label))
                    .collect::<Vec<_>>();
                line.of.extend(new);
            }
            None => self.lines.push(ReportLine { of, text, hint }),
        }
    }

    /// A call that failed: says nothing of what it was to check. `action` as in a policy, `ec2:DescribeSubnets`.
    pub(crate) fn failed(&mut self, what: &str, action: &str, error: &ProviderError) {
        if is_forbidden(error) {
            if !self.denied.iter().any(|(known, _)| known == action) {
                self.denied.push((action.to_owned(), error.message.clone()));
            }
            return;
        }
        if let Some(hint) = lacks(error.code.as_deref()) {
            let text = error.message.trim_end_matches(hint);
            let text = text.trim_end_matches(": ");
            return self.add_for_file(format!("EC2 refuses this account: {text}"), hint);
        }
        let hint = match error.kind {
            ErrorKind::Throttled => "the account makes too many calls: run it again later",
            ErrorKind::Denied | ErrorKind::NoCredentials => {
                "renew the AWS credentials (see AWS_PROFILE), and check this machine's clock"
            }
            _ => "run it again; if it stays so, check the network and AWS_ENDPOINT_URL",
        };
        self.add_for_file(format!("could not check {what}: {}", error.message), hint);
    }

    /// The answer of a call; what it failed with is kept.
    pub(crate) fn record<T>(
        &mut self,
        what: &str,
        action: &str,
        answer: Result<T, ProviderError>,
    ) -> Option<T> {
        answer
            .inspect_err(|error| self.failed(what, action, error))
            .ok()
    }

    /// All problems, in the order in which they were found; denied calls first.
    pub(crate) fn finish(self) -> Vec<Problem> {
        let mut problems = Vec::with_capacity(self.lines.len() + 1);
        if let Some((_, why)) = self.denied.first() {
            let actions: Vec<&str> = self
                .denied
                .iter()
                .map(|(action, _)| action.as_str())
                .collect();
            problems.push(Problem {
                message: format!(
                    "the AWS credentials may not do {}: {why}",
                    actions.join(", ")
                ),
                hint: "allow these actions in the policy of the master's user or role".into(),
            });
        }
        problems.extend(self.lines.into_iter().map(|line| {
            let labels: Vec<String> = line.of.iter().map(|label| format!("{label:?}")).collect();
            let message = if labels.is_empty() {
                line.text
            } else {
                format!("{}: {}", labels.join(", "), line.text)
            };
            Problem {
                message,
                hint: line.hint,
            }
        }));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_provider::Leftovers;

    fn error(kind: ErrorKind, code: Option<&str>, message: &str) -> ProviderError {
        ProviderError {
            kind,
            leftovers: Leftovers::None,
            message: message.into(),
            code: code.map(str::to_owned),
        }
    }

    #[test]
    fn the_same_problem_is_reported_once_with_all_its_pools() {
        let mut report = PreflightReport::default();
        report.add_for_pool("a", "no key", "set it");
        report.add_for_pool("b", "no key", "set it");
        report.add_for_pool("a", "no key", "set it");
        report.add_for_pool("b", "other", "set it");
        report.add_for_file("no key", "set it");
        let messages: Vec<String> = report.finish().into_iter().map(|it| it.message).collect();
        assert_eq!(messages, ["\"a\", \"b\": no key", "\"b\": other", "no key"]);
    }

    #[test]
    fn denied_calls_are_one_problem_and_failed_ones_claim_nothing() {
        let mut report = PreflightReport::default();
        let no = error(
            ErrorKind::Denied,
            Some("UnauthorizedOperation"),
            "You are not authorized",
        );
        report.failed("subnets", "ec2:DescribeSubnets", &no);
        report.failed("keys", "ec2:DescribeKeyPairs", &no);
        report.failed("keys", "ec2:DescribeKeyPairs", &no);
        let slow = error(
            ErrorKind::Throttled,
            Some("RequestLimitExceeded"),
            "too many",
        );
        assert_eq!(
            report.record::<()>("types", "ec2:DescribeInstanceTypes", Err(slow)),
            None
        );
        assert_eq!(report.record("x", "y", Ok(1)), Some(1));
        let problems = report.finish();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0]
                .message
                .contains("ec2:DescribeSubnets, ec2:DescribeKeyPairs: You are")
        );
        assert_eq!(problems[1].message, "could not check types: too many");
        assert!(problems[1].hint.contains("later"));
    }
}
