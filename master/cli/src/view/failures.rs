//! Failures that are alike, as one: who has them, and what of them is still to be said. Pure.

use std::collections::HashMap;

use aot_proto::v1::InstanceView;

use super::failure::InstanceFailure;
use super::ranges::{by_number, ranges};
use super::style::Style;

/// Machines that fail alike do so at once, nearly: so long the first of them is waited with.
const FIRST_MS: u64 = 1_000;

/// Between two words about more that fail alike.
const MORE_MS: u64 = 10_000;

/// So many different ones are said with all their lines.
const MAX_IN_FULL: usize = 10;

/// Of so many different ones lines are kept at all.
const MAX_WITH_LINES: usize = 200;

/// Most different ones that a status lists.
const MAX_LISTED: usize = 20;

/// Every failure that was seen.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    kinds: Vec<FailureKind>,
    places: HashMap<InstanceFailure, usize>,
}

/// One of them.
#[derive(Debug)]
struct FailureKind {
    failure: InstanceFailure,
    /// An instance of which it was said with all lines.
    first: Option<String>,
    /// Instances of which it is still to be said, and how long it took there.
    waiting: Vec<(String, String)>,
    /// When the first of those failed.
    at_ms: u64,
    /// Since when they wait; 0 until that is noted.
    since_ms: u64,
}

/// What is to be said of instances that failed alike.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FailureReport {
    /// When the first of them failed, milliseconds since 1970.
    pub at_ms: u64,
    pub lines: Vec<String>,
}

impl Failures {
    /// The number of a failure; equal ones have the same.
    pub(super) fn number(&mut self, failure: InstanceFailure) -> usize {
        let is_new = !self.places.contains_key(&failure);
        let failure = match is_new && self.kinds.len() >= MAX_WITH_LINES {
            true => failure.without_lines(),
            false => failure,
        };
        if let Some(number) = self.places.get(&failure) {
            return *number;
        }
        self.kinds.push(FailureKind {
            failure: failure.clone(),
            first: None,
            waiting: Vec::new(),
            at_ms: 0,
            since_ms: 0,
        });
        self.places.insert(failure, self.kinds.len() - 1);
        self.kinds.len() - 1
    }

    /// The failure of this number.
    pub(super) fn get(&self, number: usize) -> Option<&InstanceFailure> {
        self.kinds.get(number).map(|kind| &kind.failure)
    }

    /// It is to be said that an instance failed so.
    pub(super) fn report(&mut self, number: usize, instance: &str, took: String, at_ms: u64) {
        let Some(kind) = self.kinds.get_mut(number) else {
            return;
        };
        if kind.waiting.is_empty() {
            (kind.at_ms, kind.since_ms) = (at_ms, 0);
        }
        kind.waiting.push((instance.to_owned(), took));
    }

    /// What is to be said `now`, as others of the same kind have had their time to come; with `None` all there is.
    pub(super) fn due(&mut self, now_ms: Option<u64>, style: Style) -> Vec<FailureReport> {
        let kinds = self.kinds.iter_mut().enumerate();
        kinds
            .filter_map(|(place, kind)| kind.due(now_ms, place < MAX_IN_FULL, style))
            .collect()
    }
}

impl FailureKind {
    fn due(&mut self, now_ms: Option<u64>, in_full: bool, style: Style) -> Option<FailureReport> {
        if self.waiting.is_empty() {
            return None;
        }
        if let Some(now_ms) = now_ms {
            if self.since_ms == 0 {
                self.since_ms = now_ms;
            }
            let wait = if self.first.is_none() {
                FIRST_MS
            } else {
                MORE_MS
            };
            if now_ms.saturating_sub(self.since_ms) < wait {
                return None;
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        let names: Vec<&str> = waiting.iter().map(|(name, _)| &**name).collect();
        let one = *names.iter().min_by_key(|name| by_number(name))?;
        let took = match &waiting[..] {
            [(_, took)] => took,
            _ => "",
        };
        let who = ranges(names.iter().copied());
        let lines = match &self.first {
            Some(first) => {
                let said = self.failure.said(took);
                vec![format!("{} {said}, as {first}", style.bad(&who))]
            }
            None if in_full => self.failure.lines(&who, took, one, style),
            None => vec![format!("{} {}", style.bad(&who), self.failure.line(took))],
        };
        self.first.get_or_insert(one.to_owned());
        Some(FailureReport {
            at_ms: self.at_ms,
            lines,
        })
    }
}

/// The stages of instances that failed, equal ones as one: in a line each, or `in_full`.
pub(crate) fn failed_stages(views: &[InstanceView], in_full: bool, style: Style) -> Vec<String> {
    let mut failures = Failures::default();
    let mut who: Vec<Vec<(&str, String)>> = Vec::new();
    for view in views {
        let Some((failure, took)) = InstanceFailure::of_view(view) else {
            continue;
        };
        let number = failures.number(failure);
        who.resize(who.len().max(number + 1), Vec::new());
        who[number].push((&view.name, took));
    }
    let mut lines = Vec::new();
    for (kind, who) in failures.kinds.iter().zip(&who).take(MAX_LISTED) {
        let names = || who.iter().map(|(name, _)| *name);
        let took = match &who[..] {
            [(_, took)] => took,
            _ => "",
        };
        let text = ranges(names());
        let one = names()
            .min_by_key(|name| by_number(name))
            .unwrap_or_default();
        match in_full && lines.len() < MAX_IN_FULL * 22 {
            true => lines.extend(kind.failure.lines(&text, took, one, style)),
            false => lines.push(format!("{} {}", style.bad(&text), kind.failure.line(took))),
        }
    }
    let rest: usize = who.iter().skip(MAX_LISTED).map(Vec::len).sum();
    if rest > 0 {
        lines.push(format!(
            "and {rest} more failed otherwise: aot-master list -s state:failed"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::v1::Event;

    const PLAIN: Style = Style { colour: false };

    fn fail(failures: &mut Failures, name: &str, stage: &str, at_ms: u64) {
        let event = Event {
            instance: name.into(),
            event: "stage-ended".into(),
            fields_json: format!(
                r#"{{"stage":0,"name":"{stage}","outcome":"failed","exit_code":17,"seconds":{at_ms},"tail":["a","b"],"tail_stderr":1}}"#
            ),
            ..Event::default()
        };
        let (failure, took) = InstanceFailure::of_event(&event).expect("a failure");
        let number = failures.number(failure);
        failures.report(number, name, took, at_ms);
    }

    fn said(reports: Vec<FailureReport>) -> Vec<String> {
        let lines = reports.into_iter().map(|report| report.lines.join("\n"));
        lines.collect()
    }

    #[test]
    fn those_that_fail_alike_are_said_once_and_later_ones_without_the_lines() {
        let mut failures = Failures::default();
        for name in ["web2", "web10", "web1", "db1"] {
            fail(&mut failures, name, "mount", 5);
        }
        fail(&mut failures, "lead", "other", 7);
        assert_eq!(failures.due(Some(10_000), PLAIN), []);
        assert_eq!(failures.due(Some(10_900), PLAIN), []);
        let first = failures.due(Some(11_000), PLAIN);
        assert_eq!(first.iter().map(|it| it.at_ms).collect::<Vec<_>>(), [5, 7]);
        assert_eq!(
            said(first),
            [
                "db1,web[1-2,10] failed in mount (exit 17)\n  ! a\n  | b\n  see: aot-master logs db1 --stage mount",
                "lead failed in other (exit 17, 7.0 s)\n  ! a\n  | b\n  see: aot-master logs lead --stage other",
            ]
        );
        assert_eq!(failures.due(None, PLAIN), [], "nothing is said twice");
        fail(&mut failures, "web3", "mount", 20_000);
        assert_eq!(failures.due(Some(20_000), PLAIN), []);
        fail(&mut failures, "web4", "mount", 25_000);
        assert_eq!(
            said(failures.due(Some(30_000), PLAIN)),
            ["web[3-4] failed in mount (exit 17), as db1"]
        );
    }

    #[test]
    fn however_many_fail_otherwise_little_is_kept_and_said() {
        let mut failures = Failures::default();
        for n in 0..1000 {
            fail(&mut failures, &format!("n{n}"), &format!("s{n}"), 1);
        }
        let reports = said(failures.due(None, PLAIN));
        let lines = reports.iter().flat_map(|report| report.lines()).count();
        assert_eq!((reports.len(), lines), (1000, 1000 + 3 * MAX_IN_FULL));
        assert_eq!(reports[20], "n20 failed in s20 (exit 17, 1.0 s): ! a");
        assert_eq!(reports[900], "n900 failed in s900 (exit 17, 1.0 s)");
    }

    #[test]
    fn a_status_lists_so_many() {
        let mut views = Vec::new();
        for n in 0..100 {
            let mut view = crate::view::samples::view(&format!("web{n}"), "failed", &["failed"]);
            view.stage_views[0].tail = vec![format!("line {}", n % 50); 3];
            views.push(view);
        }
        let short = failed_stages(&views, false, PLAIN);
        assert_eq!(short.len(), MAX_LISTED + 1);
        assert_eq!(short[0], "web[0,50] failed in bundle-0 (exit 17): | line 0");
        assert_eq!(
            short[MAX_LISTED],
            "and 60 more failed otherwise: aot-master list -s state:failed"
        );
        let full = failed_stages(&views[..2], true, PLAIN);
        assert_eq!(full.len(), 2 * 5, "{full:?}");
        assert_eq!(failed_stages(&[], true, PLAIN), [""; 0]);
    }
}
