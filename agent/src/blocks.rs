//! One marked block in a file that belongs to others. Pure. Used by `keys`.

/// First and last line of a block, without line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    begin: String,
    end: String,
}

impl Marks {
    /// The marks of a cluster.
    pub(crate) fn of_cluster(cluster: &str) -> Self {
        Self {
            begin: format!("# BEGIN aot cluster {cluster}"),
            end: format!("# END aot cluster {cluster}"),
        }
    }
}

/// The text with `lines` as its block: where the block was, else at the end. Everything outside stays byte for byte, but
/// that a missing line end is added before a block at the end. Further blocks with the same marks go. A first line
/// without a last one is only a stray line, and goes alone: what follows it may be someone's.
pub(crate) fn replace(text: &[u8], marks: &Marks, lines: &[String]) -> Vec<u8> {
    let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut out = Vec::with_capacity(text.len() + 256);
    let mut placed = false;
    let mut at = 0;
    while at < all.len() {
        if !is_mark(all[at], &marks.begin) {
            out.extend_from_slice(all[at]);
            at += 1;
            continue;
        }
        at += block_length(&all[at..], marks);
        if !placed {
            push_block(&mut out, marks, lines);
            placed = true;
        }
    }
    if !placed {
        if out.last().is_some_and(|byte| *byte != b'\n') {
            out.push(b'\n');
        }
        push_block(&mut out, marks, lines);
    }
    out
}

/// The text without the block; everything else stays byte for byte.
pub(crate) fn without(text: &[u8], marks: &Marks) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut at = 0;
    while at < all.len() {
        if is_mark(all[at], &marks.begin) {
            at += block_length(&all[at..], marks);
        } else {
            out.extend_from_slice(all[at]);
            at += 1;
        }
    }
    out
}

/// Lines of the block that begins with the first of these; 1 when it has no end of its own.
fn block_length(lines: &[&[u8]], marks: &Marks) -> usize {
    let rest = &lines[1..];
    let end = rest.iter().position(|line| is_mark(line, &marks.end));
    let next = rest.iter().position(|line| is_mark(line, &marks.begin));
    match end {
        Some(end) if next.is_none_or(|next| end < next) => end + 2,
        _ => 1,
    }
}

fn is_mark(line: &[u8], mark: &str) -> bool {
    line.trim_ascii_end() == mark.as_bytes()
}

fn push_block(out: &mut Vec<u8>, marks: &Marks, lines: &[String]) {
    for line in std::iter::once(&marks.begin)
        .chain(lines)
        .chain(std::iter::once(&marks.end))
    {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replaced(text: &str, lines: &[&str]) -> String {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        String::from_utf8(replace(text.as_bytes(), &Marks::of_cluster("c"), &lines)).unwrap()
    }

    #[test]
    fn a_block_goes_and_leaves_no_trace() {
        let marks = Marks::of_cluster("c");
        let gone = |text: &str| String::from_utf8(without(text.as_bytes(), &marks)).unwrap();
        assert_eq!(gone("a\nb"), "a\nb");
        let text = "a\n# BEGIN aot cluster c\nx\n# END aot cluster c\nb";
        assert_eq!(gone(text), "a\nb");
        assert_eq!(gone(&replaced("a\n", &["x", "y"])), "a\n");
        let other = "# BEGIN aot cluster d\nx\n# END aot cluster d\n";
        assert_eq!(gone(other), other);
        assert_eq!(gone("# BEGIN aot cluster c\nsomeone's\n"), "someone's\n");
    }

    #[test]
    fn a_block_goes_where_it_was() {
        let one = "# BEGIN aot cluster c\nx\n# END aot cluster c\n";
        for (name, text, want) in [
            ("empty", "", one.to_owned()),
            ("at the end", "a\n", format!("a\n{one}")),
            ("no line end", "a", format!("a\n{one}")),
            (
                "in the middle",
                "a\n# BEGIN aot cluster c\nold\n# END aot cluster c\nb",
                format!("a\n{one}b"),
            ),
            ("twice", &format!("{one}a\n{one}"), format!("{one}a\n")),
            (
                "another cluster's",
                "# BEGIN aot cluster d\n# END aot cluster d\n",
                format!("# BEGIN aot cluster d\n# END aot cluster d\n{one}"),
            ),
            (
                "no last line",
                "# BEGIN aot cluster c\nkey of a person\n",
                format!("{one}key of a person\n"),
            ),
            (
                "no last line, then a block",
                &format!("# BEGIN aot cluster c\nkept\n{one}"),
                format!("{one}kept\n"),
            ),
            (
                "line ends of elsewhere",
                "# BEGIN aot cluster c\r\nold\r\n# END aot cluster c\r\nb\r\n",
                format!("{one}b\r\n"),
            ),
        ] {
            assert_eq!(replaced(text, &["x"]), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_last_write_counts_and_the_rest_stays(
            before in prop::collection::vec("[a-z #\r]{0,8}", 0..6), last_end in any::<bool>(),
            one in prop::collection::vec("[a-z ]{0,10}", 0..4), two in prop::collection::vec("[a-z ]{0,10}", 0..4),
        ) {
            let mut text = before.join("\n").into_bytes();
            if last_end && !text.is_empty() { text.push(b'\n'); }
            let marks = Marks::of_cluster("c");
            let first = replace(&text, &marks, &one);
            prop_assert!(first.starts_with(&text));
            prop_assert_eq!(&replace(&first, &marks, &one), &first);
            prop_assert_eq!(replace(&first, &marks, &two), replace(&text, &marks, &two));
        }

        #[test]
        fn any_bytes_outside_are_kept(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let out = replace(&text, &Marks::of_cluster("c"), &["x".to_owned()]);
            prop_assert!(out.starts_with(&text));
        }
    }
}
