//! A [`Fault`] in the details of a status: made by the master, read by the command line. Bounded, because a status travels
//! in HTTP/2 headers: hyper's client takes 16 KiB of them (its `max_header_list_size`), and what is larger looks like a
//! broken connection. Pure.

use prost::Message;
use tonic::{Code, Status};

use crate::plural;
pub use crate::v1::fault::What;
use crate::v1::{Fault, FileFault, Problem, Problems, TargetFault};

/// Most bytes of an encoded fault: 11 KiB in the base64 of its header. Problems past it are counted.
pub const MAX_FAULT_BYTES: usize = 8 << 10;

/// Most bytes of the report on a file in a fault.
pub const MAX_REPORT_BYTES: usize = MAX_FAULT_BYTES - 64;

/// Most problems in one fault.
pub const MAX_PROBLEMS: usize = 50;

/// Most characters of an expression, or of another text that was given, in a fault.
pub const MAX_TEXT_CHARS: usize = 100;

/// Most bytes of the message beside a fault, which a header may spell with three characters per byte.
const MAX_MESSAGE_BYTES: usize = 1 << 10;

/// Most bytes of one problem's message, and of its hint.
const MAX_PROBLEM_BYTES: usize = 2 << 10;

/// What stands in the way of a launch.
#[must_use]
pub fn problems(code: Code, all: &[Problem]) -> Status {
    let message = format!("not launched: {}", plural::count(all.len(), "problem"));
    let mut fitting = Problems::default();
    for problem in all.iter().take(MAX_PROBLEMS) {
        fitting.problems.push(Problem {
            message: clipped(&problem.message, MAX_PROBLEM_BYTES),
            hint: clipped(&problem.hint, MAX_PROBLEM_BYTES),
            ..*problem
        });
        if fitting.encoded_len() > MAX_FAULT_BYTES - 16 {
            fitting.problems.pop(); // there is room for one at least: it has half of the bytes at most
            break;
        }
    }
    let more = all.len() - fitting.problems.len();
    fitting.more = u32::try_from(more).unwrap_or(u32::MAX);
    status(code, &message, What::Problems(fitting))
}

/// A fault in an expression. `text` and `at` are the whole expression and the byte where it is wrong; the part around
/// that is sent.
#[must_use]
pub fn target(text: &str, at: usize, fault: TargetFault) -> Status {
    let at = floor(text, at.min(text.len()));
    let before = || text[..at].chars().rev().take(MAX_TEXT_CHARS / 2);
    let from = at - before().map(char::len_utf8).sum::<usize>();
    let after = text[at..].chars().take(MAX_TEXT_CHARS - before().count());
    let to = at + after.map(char::len_utf8).sum::<usize>();
    let meant = text[at..].chars().next().map_or(0, char::len_utf8);
    let offset = |byte: usize| u32::try_from(byte - from).unwrap_or(u32::MAX);
    let fault = TargetFault {
        text: text[from..to].to_owned(),
        start: offset(at),
        end: offset(at + meant),
        cut_before: from > 0,
        cut_after: to < text.len(),
        message: clipped(&fault.message, MAX_PROBLEM_BYTES),
        hint: clipped(&fault.hint, MAX_PROBLEM_BYTES),
        named_by: shortened(&fault.named_by),
        ..fault
    };
    let message = format!("{}: {}", fault.what, fault.message);
    status(Code::InvalidArgument, &message, What::Target(fault))
}

/// A target that means nobody, and what may have been meant (empty = nothing comes to mind). The code tells it from a fault
/// in the expression.
#[must_use]
pub fn nobody(message: String, text: &str, hint: String) -> Status {
    let fault = TargetFault {
        what: "target".to_owned(),
        text: shortened(text),
        message: clipped(&message, MAX_PROBLEM_BYTES),
        hint: clipped(&hint, MAX_PROBLEM_BYTES),
        ..TargetFault::default()
    };
    status(Code::NotFound, &message, What::Target(fault))
}

/// What is wrong with a file, ready to be shown; at most [`MAX_REPORT_BYTES`], the rest is cut off.
#[must_use]
pub fn file(report: &str) -> Status {
    let report = clipped(report, MAX_REPORT_BYTES);
    let what = What::File(FileFault { report });
    status(Code::InvalidArgument, "the file is not valid", what)
}

/// The fault that a status carries, if it does, and this build knows its kind.
#[must_use]
pub fn of(status: &Status) -> Option<What> {
    if status.details().is_empty() {
        return None;
    }
    Fault::decode(status.details()).ok()?.what
}

fn status(code: Code, message: &str, what: What) -> Status {
    let details = Fault { what: Some(what) }.encode_to_vec();
    Status::with_details(code, clipped(message, MAX_MESSAGE_BYTES), details.into())
}

/// The last boundary of a character up to there.
fn floor(text: &str, mut byte: usize) -> usize {
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

/// At most this many bytes; what was cut is marked.
fn clipped(text: &str, bytes: usize) -> String {
    match text.len() > bytes {
        true => format!("{}...", &text[..floor(text, bytes - 3)]),
        false => text.to_owned(),
    }
}

/// A text that was given, in a message: at most [`MAX_TEXT_CHARS`] characters, what was cut is marked.
#[must_use]
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(message: &str) -> Problem {
        Problem {
            message: message.to_owned(),
            hint: "é".repeat(5),
            file: true,
        }
    }

    /// What the status takes of the headers, as tonic writes them.
    fn header_bytes(status: &Status) -> usize {
        let response = status.clone().into_http::<()>();
        let headers = response.headers().iter();
        let sizes = headers.map(|(name, value)| name.as_str().len() + value.len() + 32); // RFC 9113, 6.5.2
        sizes.sum()
    }

    fn sent(status: &Status) -> Problems {
        match of(status) {
            Some(What::Problems(problems)) => problems,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_few_problems_are_all_there() {
        let all = [problem("a\nb"), problem("")];
        let status = problems(Code::FailedPrecondition, &all);
        assert_eq!(status.message(), "not launched: 2 problems");
        assert_eq!(
            (sent(&status).problems.as_slice(), sent(&status).more),
            (&all[..], 0)
        );
    }

    #[test]
    fn however_many_and_long_they_are_they_fit_into_the_headers() {
        let long = "€".repeat(9000);
        for (count, text) in [
            (1, long.as_str()),
            (7, &long),
            (1000, "short"),
            (60, &long[..900]),
        ] {
            let all = vec![problem(text); count];
            let status = problems(Code::InvalidArgument, &all);
            assert!(
                header_bytes(&status) < 16 << 10,
                "{count} of {}",
                text.len()
            );
            let sent = sent(&status);
            assert!(!sent.problems.is_empty() && sent.problems.len() <= MAX_PROBLEMS);
            assert_eq!(sent.problems.len() + sent.more as usize, count);
        }
        let target = target(
            &long,
            12_000,
            TargetFault {
                what: "target".to_owned(),
                message: long.clone(),
                hint: long.clone(),
                named_by: long.clone(),
                ..TargetFault::default()
            },
        );
        assert!(
            header_bytes(&target) < 16 << 10,
            "{}",
            header_bytes(&target)
        );
        assert!(header_bytes(&file(&long)) < 16 << 10);
        let nobody = nobody(long.clone(), &long, long.clone());
        assert!(
            header_bytes(&nobody) < 16 << 10,
            "{}",
            header_bytes(&nobody)
        );
        assert_eq!(nobody.code(), Code::NotFound);
    }

    #[test]
    fn the_part_around_a_fault_is_sent_with_its_place() {
        let long = format!("{}[{}", "é".repeat(500), "ü".repeat(500));
        for (text, at, cut) in [
            ("web[", 3, (false, false)),
            ("é[", 2, (false, false)),
            ("web1 and", 8, (false, false)),
            ("", 0, (false, false)),
            (&long, 1000, (true, true)),
        ] {
            let status = target(text, at, TargetFault::default());
            let Some(What::Target(fault)) = of(&status) else {
                panic!("{status:?}");
            };
            let meant = &fault.text[fault.start as usize..fault.end as usize];
            assert_eq!(
                meant,
                text[at..]
                    .chars()
                    .next()
                    .map(String::from)
                    .unwrap_or_default()
            );
            assert_eq!((fault.cut_before, fault.cut_after), cut, "{text:?}");
            assert!(fault.text.chars().count() <= MAX_TEXT_CHARS);
        }
    }

    #[test]
    fn a_status_without_a_fault_and_one_of_a_newer_master_have_none() {
        assert_eq!(of(&Status::not_found("x")), None);
        let strange = Status::with_details(Code::Internal, "x", vec![0xff; 9].into());
        assert_eq!(of(&strange), None);
        let empty =
            Status::with_details(Code::Internal, "x", Fault::default().encode_to_vec().into());
        assert_eq!(of(&empty), None);
    }
}
