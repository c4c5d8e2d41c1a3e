//! The last lines of an output, for whoever learns that it failed.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use aot_model::stage::LastLines;
use aot_proto::frame::{self, HEADER_BYTES, MAX_FRAME_BYTES};
use aot_proto::v1::{Frame, frame::Body};

/// What of a long output is looked through for its last lines.
const LAST_BYTES: usize = 1 << 20;

/// What of an output is read for the line that it ends with.
const LINE_BYTES: usize = 8 << 10;

/// Most frames that are passed for it at once.
const MAX_PASSED: usize = 4096;

/// The last lines of these frames: of standard error, then, as far as there is room, of standard output.
pub fn last_lines(frames: &[Frame]) -> LastLines {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for frame in frames {
        match &frame.body {
            Some(Body::Stdout(data)) => stdout.extend_from_slice(data),
            Some(Body::Stderr(data)) => stderr.extend_from_slice(data),
            _ => {}
        }
    }
    let stderr = last_of(&stderr, LastLines::MAX);
    let stdout = last_of(&stdout, LastLines::MAX - stderr.len());
    LastLines { stderr, stdout }
}

/// The last `most` lines that are not blank, each cut.
fn last_of(bytes: &[u8], most: usize) -> Vec<String> {
    let lines = bytes.rsplit(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty());
    let mut last: Vec<String> = lines.take(most).map(line).collect();
    last.reverse();
    last
}

/// As a terminal leaves it: after the last carriage return.
fn line(bytes: &[u8]) -> String {
    let parts = bytes.rsplit(|byte| *byte == b'\r');
    let mut parts = parts.filter(|part| !part.is_empty());
    let bytes = parts.next().unwrap_or_default();
    // A character has at most four bytes: no more of a line without an end is worth a look.
    let bytes = &bytes[..bytes.len().min(4 * LastLines::MAX_CHARS)];
    let text = String::from_utf8_lossy(bytes);
    text.trim_end().chars().take(LastLines::MAX_CHARS).collect()
}

/// The last frames of a file that are not longer than [`LAST_BYTES`] together, found by their lengths alone.
pub(super) fn last_frames(path: &Path) -> Vec<Frame> {
    let Ok(file) = File::open(path) else {
        return Vec::new();
    };
    let places = last_places(&file, 0, LAST_BYTES, usize::MAX).into_iter();
    places.filter_map(|at| frame_at(&file, at)).collect()
}

/// The last line that is not blank of a file whose frames were passed up to `from`, and from where to pass them the next time.
/// Of a file that grows faster than they are passed it is an earlier one.
pub(super) fn last_line(path: &Path, from: u64) -> (u64, Option<String>) {
    let Ok(file) = File::open(path) else {
        return (from, None);
    };
    let places = last_places(&file, from, LINE_BYTES, MAX_PASSED);
    let next = places.front().map_or(from, |(at, _)| *at);
    let (mut said, mut of_stderr) = (Vec::new(), None);
    // From the end on, the pieces of the stream that printed last: a line may be cut.
    for at in places.into_iter().rev() {
        let (data, stderr) = match frame_at(&file, at).and_then(|frame| frame.body) {
            Some(Body::Stdout(data)) => (data, false),
            Some(Body::Stderr(data)) => (data, true),
            _ => continue,
        };
        if of_stderr.is_none() && data.trim_ascii().is_empty() {
            continue;
        }
        if *of_stderr.get_or_insert(stderr) == stderr {
            said.splice(0..0, data);
        }
    }
    (next, last_of(&said, 1).pop())
}

/// Where the last frames of a file are that have at most `keep` bytes together, one at least; of the first `most` from `from` on.
fn last_places(file: &File, from: u64, keep: usize, most: usize) -> VecDeque<(u64, usize)> {
    let len = file.metadata().map_or(0, |meta| meta.len());
    let mut places: VecDeque<(u64, usize)> = VecDeque::new();
    let (mut at, mut held, mut passed) = (from, 0, 0);
    let mut header = [0; HEADER_BYTES];
    while passed < most && file.read_exact_at(&mut header, at).is_ok() {
        let bytes = HEADER_BYTES + u32::from_le_bytes(header) as usize;
        if at + bytes as u64 > len || bytes > HEADER_BYTES + MAX_FRAME_BYTES {
            break;
        }
        places.push_back((at, bytes));
        held += bytes;
        while places.len() > 1
            && held > keep
            && let Some((_, bytes)) = places.pop_front()
        {
            held -= bytes;
        }
        at += bytes as u64;
        passed += 1;
    }
    places
}

fn frame_at(file: &File, (at, bytes): (u64, usize)) -> Option<Frame> {
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, at).ok()?;
    frame::decode(&buffer).ok()?.map(|(frame, _)| frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;

    fn out(text: &str) -> Frame {
        let body = Body::Stdout(Bytes::copy_from_slice(text.as_bytes()));
        Frame {
            unix_ms: 1,
            body: Some(body),
        }
    }

    fn err(text: &str) -> Frame {
        let body = Body::Stderr(Bytes::copy_from_slice(text.as_bytes()));
        Frame {
            unix_ms: 1,
            body: Some(body),
        }
    }

    #[test]
    fn errors_come_first_and_lines_are_put_together_across_pieces() {
        let frames = [
            out("one\ntw"),
            err("no such "),
            out("o\n\n10%\r20%\n"),
            err("disk\n \n"),
        ];
        let lines = last_lines(&frames);
        assert_eq!(lines.stderr, ["no such disk"]);
        assert_eq!(lines.stdout, ["one", "two", "20%"]);
        assert!(last_lines(&[]).is_empty());
    }

    #[test]
    fn however_much_was_printed_little_is_kept() {
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let lines = last_lines(&[out(&many), err(&"\u{e4}".repeat(10_000)), err("\nlast\n")]);
        assert_eq!(
            (lines.stderr.len(), lines.stdout.len()),
            (2, LastLines::MAX - 2)
        );
        assert_eq!(lines.stderr[0].chars().count(), LastLines::MAX_CHARS);
        assert_eq!(lines.stdout[LastLines::MAX - 3], "line 99");
        let both = last_lines(&[out(&many), err(&many)]);
        assert_eq!((both.stderr.len(), both.stdout.len()), (LastLines::MAX, 0));
    }

    #[test]
    fn of_a_long_file_only_the_end_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("spool");
        let mut bytes = Vec::new();
        for n in 0..200 {
            frame::encode(&out(&format!("{n} {}\n", "x".repeat(20_000))), &mut bytes);
        }
        frame::encode(&err("why\n"), &mut bytes);
        std::fs::write(&path, &bytes).expect("written");
        let frames = last_frames(&path);
        assert!((10..200).contains(&frames.len()), "{}", frames.len());
        let lines = last_lines(&frames);
        assert_eq!(lines.stderr, ["why"]);
        assert!(lines.stdout[LastLines::MAX - 2].starts_with("199 xxx"));
        assert!(last_frames(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn the_line_that_a_growing_output_ends_with_is_found_from_where_the_last_one_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("spool");
        let mut bytes = Vec::new();
        let mut line = |frames: &[Frame], from: u64| {
            for one in frames {
                frame::encode(one, &mut bytes);
            }
            std::fs::write(&path, &bytes).expect("written");
            last_line(&path, from)
        };
        assert_eq!(line(&[], 0), (0, None));
        let cut = line(&[out("\n"), out("one\ntw")], 0);
        assert_eq!(cut.1.as_deref(), Some("tw"));
        // The rest of it comes later, with something of the other stream between.
        let (next, found) = line(&[err("warned\n"), out("o\n"), err(" \n")], 0);
        assert_eq!((next, found.as_deref()), (0, Some("two")));
        let many: Vec<Frame> = (0..3000).map(|n| out(&format!("line {n}\n"))).collect();
        let (next, found) = line(&many, next);
        assert_eq!(found.as_deref(), Some("line 2999"));
        assert!(next > 20_000, "the next time little is passed: {next}");
        // More than are passed at once: an earlier one, and the next time continues there.
        let (next, found) = line(&[&many[..], &many[..]].concat(), next);
        assert_ne!(found.as_deref(), Some("line 2999"));
        assert_eq!(line(&[], next).1.as_deref(), Some("line 2999"));
        let long = line(&[out(&"x".repeat(20_000))], next).1;
        assert_eq!(long.map(|it| it.len()), Some(LastLines::MAX_CHARS));
        assert_eq!(last_line(&dir.path().join("none"), 7), (7, None));
    }
}
