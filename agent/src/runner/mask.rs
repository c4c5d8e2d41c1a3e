//! Hides secrets in what a run prints: each place where the value of one shows up becomes `[secret NAME]`, also when it comes in
//! pieces. Pure. Used by the shim, before anything is written to the spool.
//!
//! All values are looked for at once (Aho and Corasick, Efficient string matching, 1975), at places where one may begin by its first
//! bytes. What may be the begin of one is held until it is known whether it is: never more than the longest value has.
//!
//! The time is linear in what comes, whatever the values are: of a place that is looked at in vain eight bytes at most are read again,
//! past these each byte goes at most one node further, each step back undoes one of these, and a node finds its child by bisection. So
//! is the memory in the values: 17 bytes for each of their bytes, as much again where they have several lines, and a filter of 512 KiB at most.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Lines of a value that has several are hidden by themselves, too, when they have this many bytes: programs print line by line.
const LINE_BYTES: usize = 8;

/// Bits of the filter for each value: one of 16 begins is looked at in vain.
const BITS_PER_VALUE: usize = 16;
/// Most of them: 512 KiB.
const MOST_BITS: usize = 4 << 20;

/// No value.
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

/// A value that ends at a node.
#[derive(Clone, Copy)]
struct ValueEnd {
    bytes: u32,
    owner: u32,
}

/// All values: a tree of their begins, level by level, so that the children of a node stand beside each other, in the order of their
/// bytes, and the nodes that nearly all output stays in are close together.
pub(super) struct HiddenValues {
    begins: BeginFilter,
    /// The byte that leads to each node.
    bytes: Vec<u8>,
    nodes: Vec<TrieNode>,
    from_root: Box<[u32; 256]>,
    ends: Vec<ValueEnd>,
    labels: Vec<String>,
}

/// Whether a value may begin with some bytes: of each value a bit, by the hash of its first ones. Most output begins none, and is passed
/// over without a look at the tree.
struct BeginFilter {
    /// How many bytes are looked at: as many as the shortest value has, eight at most.
    bytes: usize,
    /// Those of eight, as a number whose first byte is its lowest.
    mask: u64,
    /// 64 minus the bits of a hash.
    shift: u32,
    bits: Vec<u64>,
}

/// One step further into a value.
#[derive(Clone, Copy)]
struct TrieNode {
    /// How many bytes lead here.
    depth: u32,
    /// Its children begin there, and end where those of the next node begin.
    first_child: u32,
    /// The node of the longest end of this one that is a begin of a value.
    shorter: u32,
    /// The longest value that ends here, in `ends`.
    found: u32,
}

impl HiddenValues {
    /// Of these secrets.
    pub(super) fn new(secrets: &[HiddenSecret]) -> Self {
        let labels = secrets.iter().map(|it| format!("[secret {}]", it.name));
        let mut all: Vec<(&[u8], u32)> = Vec::new();
        for (owner, secret) in (0..).zip(secrets) {
            all.extend(parts(&secret.value).map(|part| (part, owner)));
        }
        // Of two that have one value the first is named.
        all.sort_unstable();
        all.dedup_by_key(|(part, _)| *part);
        let mut values = Self {
            begins: BeginFilter::new(&all),
            bytes: vec![0],
            nodes: vec![TrieNode::new(0)],
            from_root: Box::new([ROOT; 256]),
            ends: Vec::new(),
            labels: labels.collect(),
        };
        values.grow(&all);
        values.connect();
        values
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Makes the nodes of these, which are sorted and differ: those of a node all begin with what leads there.
    fn grow(&mut self, all: &[(&[u8], u32)]) {
        let mut queue = VecDeque::from([(ROOT, all)]);
        while let Some((at, mut below)) = queue.pop_front() {
            let depth = self.nodes[at as usize].depth;
            self.nodes[at as usize].first_child = count(&self.nodes);
            if let [(value, owner), longer @ ..] = below
                && value.len() == depth as usize
            {
                self.nodes[at as usize].found = count(&self.ends);
                let (bytes, owner) = (depth, *owner);
                self.ends.push(ValueEnd { bytes, owner });
                below = longer;
            }
            for of_child in below.chunk_by(|a, b| a.0[depth as usize] == b.0[depth as usize]) {
                let (child, byte) = (count(&self.nodes), of_child[0].0[depth as usize]);
                self.bytes.push(byte);
                self.nodes.push(TrieNode::new(depth + 1));
                if at == ROOT {
                    self.from_root[usize::from(byte)] = child;
                }
                queue.push_back((child, of_child));
            }
        }
    }

    fn children(&self, at: u32) -> Range<usize> {
        let begin = self.nodes[at as usize].first_child as usize;
        let next = self.nodes.get(at as usize + 1);
        begin..next.map_or(self.nodes.len(), |next| next.first_child as usize)
    }

    /// Where a byte leads further into a value.
    fn child(&self, at: u32, byte: u8) -> Option<u32> {
        let children = self.children(at);
        let found = self.bytes[children.clone()].binary_search(&byte).ok()?;
        u32::try_from(children.start + found).ok()
    }

    /// Finds for each node the one to continue at when no value has what comes: nearest to the root first.
    fn connect(&mut self) {
        for at in ROOT..count(&self.nodes) {
            for child in self.children(at) {
                let shorter = match at {
                    ROOT => ROOT,
                    _ => self.next(self.nodes[at as usize].shorter, self.bytes[child]),
                };
                let within = self.nodes[shorter as usize].found;
                let node = &mut self.nodes[child];
                node.shorter = shorter;
                if node.found == NONE {
                    node.found = within;
                }
            }
        }
    }

    /// Where a byte leads.
    fn next(&self, mut at: u32, byte: u8) -> u32 {
        while at != ROOT {
            match self.child(at, byte) {
                Some(child) => return child,
                None => at = self.nodes[at as usize].shorter,
            }
        }
        self.from_root[usize::from(byte)]
    }

    fn found(&self, at: u32) -> Option<ValueEnd> {
        self.ends
            .get(self.nodes[at as usize].found as usize)
            .copied()
    }
}

impl BeginFilter {
    fn new(values: &[(&[u8], u32)]) -> Self {
        let shortest = values.iter().map(|(value, _)| value.len()).min();
        let bits = (values.len() * BITS_PER_VALUE).next_power_of_two();
        let bits = bits.clamp(64, MOST_BITS);
        let bytes = shortest.unwrap_or_default().min(8);
        let mut filter = Self {
            bytes,
            mask: u64::MAX
                .checked_shr(64 - 8 * u32::try_from(bytes).unwrap_or(8))
                .unwrap_or(0),
            shift: 64 - bits.trailing_zeros(),
            bits: vec![0; bits / 64],
        };
        for (value, _) in values {
            let (word, bit) = filter.place(padded(value));
            filter.bits[word] |= bit;
        }
        filter
    }

    /// Where the bit of a value lies that begins with these bytes, of which more than are looked at may be given.
    fn place(&self, first: [u8; 8]) -> (usize, u64) {
        let first = u64::from_le_bytes(first) & self.mask;
        // Multiplicative hashing (Knuth, The Art of Computer Programming, volume 3, 6.4), by 2^64 over the golden ratio.
        let hash = first.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        let word = usize::try_from(hash / 64).expect("there are MOST_BITS");
        (word, 1 << (hash % 64))
    }

    fn may_be(&self, first: [u8; 8]) -> bool {
        let (word, bit) = self.place(first);
        self.bits[word] & bit != 0
    }

    /// The first place from there on where a value may begin; one of which too little has come is one.
    fn find(&self, text: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(first) = text[at..].first_chunk() {
            if self.may_be(*first) {
                return at;
            }
            at += 1;
        }
        while text.len() - at >= self.bytes && !self.may_be(padded(&text[at..])) {
            at += 1;
        }
        at
    }
}

/// The first eight of these bytes; where there are fewer, zeros behind them.
fn padded(text: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    let bytes = text.len().min(first.len());
    first[..bytes].copy_from_slice(&text[..bytes]);
    first
}

impl TrieNode {
    fn new(depth: u32) -> Self {
        Self {
            depth,
            first_child: 0,
            shorter: ROOT,
            found: NONE,
        }
    }
}

fn count<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).expect("secrets have some MiB at most")
}

/// What is hidden of a value: all of it, and its longer lines.
fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| line.len() >= LINE_BYTES);
    std::iter::once(value.trim_ascii())
        .chain(lines)
        .filter(|part| !part.is_empty())
}

/// A place where a value was found, or several that overlap, in bytes from the begin of the stream.
struct FoundValue {
    start: u64,
    end: u64,
    /// Of the one that begins first, and of those the longest.
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
    /// Places behind that, in their order; no two overlap.
    found: VecDeque<FoundValue>,
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
            found: VecDeque::new(),
        }
    }

    /// What can be passed on, now that these came.
    pub(super) fn step<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        if self.patterns.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut at = self.held.len();
        self.held.extend_from_slice(bytes);
        while at < self.held.len() {
            // What is shorter than any value is none yet, and the begin of none where the filter says so.
            let open = self.open();
            if open < self.patterns.begins.bytes {
                let begin = at - open;
                let found = self.patterns.begins.find(&self.held, begin);
                if found > begin {
                    (self.at, at) = (ROOT, found);
                    continue;
                }
            }
            self.at = self.patterns.next(self.at, self.held[at]);
            at += 1;
            if let Some(ValueEnd { bytes, owner }) = self.patterns.found(self.at) {
                let end = self.base + at as u64;
                let start = end - u64::from(bytes);
                self.hide(FoundValue { start, end, owner });
            }
        }
        let passed = self.held.len() - self.open();
        Cow::Owned(self.pass_on(self.base + passed as u64))
    }

    /// How many bytes may be the begin of a value.
    fn open(&self) -> usize {
        self.patterns.nodes[self.at as usize].depth as usize
    }

    /// Notes a place that ends behind all that are known.
    fn hide(&mut self, mut place: FoundValue) {
        while let Some(last) = self.found.pop_back_if(|last| last.end > place.start) {
            if last.start < place.start {
                (place.start, place.owner) = (last.start, last.owner);
            }
        }
        if place.start < self.hidden_to {
            // It overlaps with one that was told.
            self.hidden_to = place.end;
        } else {
            self.found.push_back(place);
        }
    }

    /// The rest, as nothing more comes: the begin of a value alone is not hidden.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.at = ROOT;
        self.pass_on(self.base + self.held.len() as u64)
    }

    /// All before `to`: what is found later begins there or after it.
    fn pass_on(&mut self, to: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut from = self.base.max(self.hidden_to);
        // Of others a longer one may be found that begins before them.
        while let Some(place) = self.found.pop_front_if(|place| place.start < to) {
            out.extend_from_slice(self.between(from, place.start));
            let label = &self.patterns.labels[place.owner as usize];
            out.extend_from_slice(label.as_bytes());
            self.hidden_to = place.end;
            from = place.end;
        }
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
    use std::cmp::Reverse;

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

    #[test]
    fn many_values_take_a_bounded_room_and_each_is_found() {
        // Each node near the root has all children that it may have.
        let lines: Vec<[u8; 10]> = (0..30_000_u64)
            .map(|number| {
                let mut line = number
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .to_be_bytes()
                    .to_vec();
                line.extend([b'x', b'y']);
                line.retain(|byte| !byte.is_ascii_whitespace());
                line.resize(10, b'z');
                line.try_into().expect("ten bytes")
            })
            .collect();
        let value = lines.join(&b'\n');
        let secrets = hidden(&[("all", &value), ("one", &lines[0])]);
        let patterns = HiddenValues::new(&secrets);
        assert!(patterns.nodes.len() <= 1 + 2 * value.len());
        assert_eq!(size_of::<TrieNode>(), 16);
        let text = [b"a ", &lines[7][..], b" b ", &lines[0], b" c"].concat();
        let want = b"a [secret all] b [secret all] c";
        let mut masker = Masker::new(&patterns);
        let mut out = masker.step(&text).into_owned();
        out.extend(masker.finish());
        assert_eq!(out, want);
        let whole: Vec<&[u8]> = value.chunks(1000).collect();
        assert_eq!(masked(&secrets, &whole), b"[secret all]");
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
