//! Hides secrets in what a run prints: each place where the value of one shows up becomes `[secret NAME]`, also when it comes in
//! pieces. Pure. Used by the shim, before anything is written to the spool.
//!
//! All values are looked for at once (Aho and Corasick, Efficient string matching, 1975). What may be the begin of one is held until it
//! is known whether it is: never more than the longest value has.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Lines of a value that has several are hidden by themselves, too, when they have this many bytes: programs print line by line.
const LINE_BYTES: usize = 8;

/// No node.
const NONE: u32 = u32::MAX;
/// Where nothing has been found yet.
const ROOT: u32 = 0;

/// A secret that is to be hidden.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenSecret {
    /// What stands in its place.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// One step further into a value.
struct TrieNode {
    byte: u8,
    /// How many bytes lead here.
    depth: u32,
    first_child: u32,
    next_sibling: u32,
    /// The node of the longest end of this one that is a begin of a value.
    shorter: u32,
    /// Length and owner of the longest value that ends here.
    found: Option<(u32, u32)>,
}

/// All values.
pub(super) struct HiddenValues {
    nodes: Vec<TrieNode>,
    from_root: Box<[u32; 256]>,
    labels: Vec<String>,
}

impl HiddenValues {
    /// Of these secrets.
    pub(super) fn new(secrets: &[HiddenSecret]) -> Self {
        let mut patterns = Self {
            nodes: vec![TrieNode::new(0, 0)],
            from_root: Box::new([NONE; 256]),
            labels: Vec::new(),
        };
        for (owner, secret) in (0..).zip(secrets) {
            patterns.labels.push(format!("[secret {}]", secret.name));
            for part in parts(&secret.value) {
                patterns.add(part, owner);
            }
        }
        patterns.connect();
        patterns
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    fn add(&mut self, value: &[u8], owner: u32) {
        let mut at = ROOT;
        for byte in value {
            at = match self.child(at, *byte) {
                NONE => self.grow(at, *byte),
                child => child,
            };
        }
        let depth = self.nodes[at as usize].depth;
        // Of two that have one value the first is named.
        self.nodes[at as usize].found.get_or_insert((depth, owner));
    }

    fn grow(&mut self, at: u32, byte: u8) -> u32 {
        let new = u32::try_from(self.nodes.len()).expect("secrets have some MiB at most");
        let mut node = TrieNode::new(byte, self.nodes[at as usize].depth + 1);
        node.next_sibling = self.nodes[at as usize].first_child;
        self.nodes.push(node);
        self.nodes[at as usize].first_child = new;
        if at == ROOT {
            self.from_root[usize::from(byte)] = new;
        }
        new
    }

    fn child(&self, at: u32, byte: u8) -> u32 {
        if at == ROOT {
            return self.from_root[usize::from(byte)];
        }
        let mut child = self.nodes[at as usize].first_child;
        while child != NONE && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].next_sibling;
        }
        child
    }

    /// Finds for each node the one to continue at when no value goes on with what comes: nearest to the root first.
    fn connect(&mut self) {
        let mut queue = VecDeque::from([ROOT]);
        while let Some(at) = queue.pop_front() {
            let mut child = self.nodes[at as usize].first_child;
            while child != NONE {
                let shorter = match at {
                    ROOT => ROOT,
                    _ => self.next(
                        self.nodes[at as usize].shorter,
                        self.nodes[child as usize].byte,
                    ),
                };
                let within = self.nodes[shorter as usize].found;
                let node = &mut self.nodes[child as usize];
                node.shorter = shorter;
                node.found = node.found.or(within);
                queue.push_back(child);
                child = node.next_sibling;
            }
        }
    }

    /// Where a byte leads.
    fn next(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            match self.child(at, byte) {
                NONE if at == ROOT => return ROOT,
                NONE => at = self.nodes[at as usize].shorter,
                child => return child,
            }
        }
    }
}

impl TrieNode {
    fn new(byte: u8, depth: u32) -> Self {
        Self {
            byte,
            depth,
            first_child: NONE,
            next_sibling: NONE,
            shorter: ROOT,
            found: None,
        }
    }
}

/// What is hidden of a value: all of it, and its longer lines.
fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| line.len() >= LINE_BYTES);
    std::iter::once(value.trim_ascii())
        .chain(lines)
        .filter(|part| !part.is_empty())
}

/// A place where a value was found, in bytes from the begin of the stream.
struct FoundValue {
    start: u64,
    end: u64,
    owner: u32,
}

/// One stream of output.
pub(super) struct Masker<'a> {
    patterns: &'a HiddenValues,
    at: u32,
    /// What came and was not passed on.
    held: Vec<u8>,
    /// Where `held` begins.
    base: u64,
    /// Up to here all is hidden, and its label passed on.
    hidden_to: u64,
    found: Vec<FoundValue>,
}

impl<'a> Masker<'a> {
    /// At the begin of a stream.
    pub(super) fn new(patterns: &'a HiddenValues) -> Self {
        Self {
            patterns,
            at: ROOT,
            held: Vec::new(),
            base: 0,
            hidden_to: 0,
            found: Vec::new(),
        }
    }

    /// What can be passed on, now that these came.
    pub(super) fn step<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        if self.patterns.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut end = self.base + self.held.len() as u64;
        self.held.extend_from_slice(bytes);
        for byte in bytes {
            self.at = self.patterns.next(self.at, *byte);
            end += 1;
            if let Some((len, owner)) = self.patterns.nodes[self.at as usize].found {
                let start = end - u64::from(len);
                self.found.push(FoundValue { start, end, owner });
            }
        }
        let open = self.patterns.nodes[self.at as usize].depth;
        Cow::Owned(self.pass_on(end - u64::from(open)))
    }

    /// The rest, as nothing more comes: the begin of a value alone is not hidden.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.at = ROOT;
        self.pass_on(self.base + self.held.len() as u64)
    }

    /// All before `to`: what is found later begins there or after it.
    fn pass_on(&mut self, to: u64) -> Vec<u8> {
        let (mut out, mut later) = (Vec::new(), Vec::new());
        let mut from = self.base.max(self.hidden_to);
        self.found
            .sort_by_key(|place| (place.start, Reverse(place.end)));
        for place in std::mem::take(&mut self.found) {
            if place.start < self.hidden_to {
                // It overlaps with one that was told.
                self.hidden_to = self.hidden_to.max(place.end);
            } else if place.start >= to {
                // A longer one may be found that begins before it.
                later.push(place);
                continue;
            } else {
                out.extend_from_slice(self.between(from, place.start));
                let label = &self.patterns.labels[place.owner as usize];
                out.extend_from_slice(label.as_bytes());
                self.hidden_to = place.end;
            }
            from = self.hidden_to;
        }
        self.found = later;
        if from < to {
            out.extend_from_slice(self.between(from, to));
        }
        let gone = self.index(to);
        self.held.drain(..gone);
        self.base = to;
        out
    }

    fn between(&self, from: u64, to: u64) -> &[u8] {
        &self.held[self.index(from)..self.index(to)]
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from(at - self.base).expect("it is in memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(secrets: &[(&str, &[u8])]) -> Vec<HiddenSecret> {
        let hidden = |(name, value): &(&str, &[u8])| HiddenSecret {
            name: (*name).to_owned(),
            value: value.to_vec(),
        };
        secrets.iter().map(hidden).collect()
    }

    /// What is passed on when the text comes in these pieces.
    fn masked(secrets: &[HiddenSecret], pieces: &[&[u8]]) -> Vec<u8> {
        let patterns = HiddenValues::new(secrets);
        let mut masker = Masker::new(&patterns);
        let longest = secrets.iter().map(|it| it.value.len()).max().unwrap_or(0);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&masker.step(piece));
            assert!(masker.held.len() <= longest, "what is held has an end");
        }
        out.extend(masker.finish());
        out
    }

    /// The same by looking at the whole text for each value.
    fn by_hand(secrets: &[HiddenSecret], text: &[u8]) -> Vec<u8> {
        let mut places: Vec<(usize, Reverse<usize>, usize)> = Vec::new();
        for (owner, secret) in secrets.iter().enumerate() {
            for part in parts(&secret.value) {
                for (start, window) in text.windows(part.len()).enumerate() {
                    if window == part {
                        places.push((start, Reverse(start + part.len()), owner));
                    }
                }
            }
        }
        places.sort_unstable();
        let (mut out, mut from) = (Vec::new(), 0);
        for (start, Reverse(end), owner) in places {
            if start >= from {
                out.extend_from_slice(&text[from..start]);
                out.extend_from_slice(format!("[secret {}]", secrets[owner].name).as_bytes());
            }
            from = from.max(end);
        }
        out.extend_from_slice(&text[from..]);
        out
    }

    #[test]
    fn values_are_hidden_wherever_they_show_up() {
        let secrets = hidden(&[
            ("db", b"hunter2"),
            ("long", b"hunter2 and more"),
            ("bytes", &[0xff, 0, 0xfe, 1]),
            ("lines", b"-- first line\n-- second line\nshort\n"),
        ]);
        for (text, want) in [
            (&b"a hunter2 b"[..], &b"a [secret db] b"[..]),
            (b"hunter2hunter2", b"[secret db][secret db]"),
            (b"hunter2 and more", b"[secret long]"),
            (b"hunter2 and less", b"[secret db] and less"),
            (b"hunter", b"hunter"),
            (&[1, 0xff, 0, 0xfe, 1, 2], b"\x01[secret bytes]\x02"),
            (
                b"-- first line\n-- second line\nshort\n",
                b"[secret lines]\n",
            ),
            (
                b"2: -- second line\n3: short\n",
                b"2: [secret lines]\n3: short\n",
            ),
            (b"", b""),
        ] {
            assert_eq!(masked(&secrets, &[text]), want);
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(masked(&secrets, &bytes), want, "byte by byte");
        }
    }

    #[test]
    fn what_can_be_no_secret_any_more_is_passed_on_at_once() {
        let secrets = hidden(&[("db", b"hunter2")]);
        let patterns = HiddenValues::new(&secrets);
        let mut masker = Masker::new(&patterns);
        assert_eq!(&*masker.step(b"a line\n"), b"a line\n");
        assert_eq!(&*masker.step(b"password: hunt"), b"password: ");
        assert_eq!(&*masker.step(b"ing\n"), b"hunting\n");
        let none = HiddenValues::new(&[]);
        assert!(matches!(Masker::new(&none).step(b"x"), Cow::Borrowed(_)));
    }

    #[test]
    fn overlaps_are_hidden_as_one() {
        let secrets = hidden(&[("a", b"abab"), ("b", b"babc")]);
        assert_eq!(masked(&secrets, &[b"xabababx"]), b"x[secret a]x");
        assert_eq!(masked(&secrets, &[b"xaba", b"bcx"]), b"x[secret a]x");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// Few letters, so that values overlap, repeat and begin each other.
        #[test]
        fn pieces_of_any_length_come_to_the_same_and_no_value_is_left(
            values in prop::collection::vec("[ab\n]{2}[abc]{2,8}", 1..4),
            text in "[abc\n]{0,120}",
            cuts in prop::collection::vec(0usize..120, 0..12),
        ) {
            let names = ["x", "y", "z"];
            let named: Vec<(&str, &[u8])> = names.iter().copied().zip(values.iter().map(String::as_bytes)).collect();
            let secrets = hidden(&named);
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let out = masked(&secrets, &pieces);
            prop_assert_eq!(&out, &by_hand(&secrets, text));
            // Labels have none of these letters behind each other: "[secret x]".
            for secret in &secrets {
                let value = secret.value.trim_ascii();
                prop_assert!(!out.windows(value.len()).any(|window| window == value));
            }
        }
    }
}
