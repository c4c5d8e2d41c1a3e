//! What lacks of an output that is shown. Masters without a bucket have each output on the disk of one of them, and a former
//! owner of the cluster may have its beginning alone: what was read is compared with what is on record.

use aot_model::outcome::Verdict;
use aot_model::run::Run;
use aot_proto::ids::{ClusterName, JobId};
use aot_proto::{plural, v1};
use aot_store::fleet::FleetView;
use aot_store::spool::SpoolReader;

use super::OperatorApi;

/// How far an output was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReadOutput {
    /// Bytes of its spool.
    pub(super) bytes: u64,
    /// That was the spool's end: nothing lacks.
    pub(super) has_end: bool,
    /// Why no more could be read.
    pub(super) error: Option<String>,
}

impl ReadOutput {
    /// Of a reader that gives nothing more.
    pub(super) fn of(reader: &SpoolReader, error: Option<String>) -> Self {
        Self {
            bytes: reader.read_bytes(),
            has_end: reader.has_end(),
            error,
        }
    }
}

impl OperatorApi {
    /// What lacks of the output of a run, once it was read as far as it is here.
    pub(super) fn lack(&self, run: &Run, read: &ReadOutput) -> Option<Lack> {
        let fleet = self.ways.finder.known();
        let places = OutputPlaces {
            fleet: fleet.as_deref(),
            bucket: self.outputs.blobs().map(|blobs| blobs.place()),
        };
        places.lack(run, read)
    }
}

/// A part of an output that was not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lack {
    /// Bytes of it, with what is kept beside each piece; 0 where that is not known.
    pub(super) bytes: u64,
    /// For people: what lacks, and where it is.
    pub(super) text: String,
}

/// Where an output may be that is not here.
pub(super) struct OutputPlaces<'a> {
    /// The masters; `None` for one alone.
    pub(super) fleet: Option<&'a FleetView>,
    /// The place that they share for what is long.
    pub(super) bucket: Option<&'a str>,
}

impl OutputPlaces<'_> {
    /// What lacks of the output of a run, once it was read as far as it is here. Of a run that has not ended nothing does: the rest
    /// is still to come.
    pub(super) fn lack(&self, run: &Run, read: &ReadOutput) -> Option<Lack> {
        if let Some(error) = &read.error {
            return Some(Lack {
                bytes: 0,
                text: format!("cannot read the rest of its output: {error}"),
            });
        }
        let verdict = run.verdict.as_ref().filter(|_| !read.has_end)?;
        let Some(long) = &run.output else {
            // Of a master that put no lengths on record, or of a run of which nothing came.
            return (has_run(verdict) || read.bytes > 0).then(|| unknown_length(read.bytes));
        };
        let bytes = long.bytes.saturating_sub(read.bytes);
        let all = in_units(long.bytes);
        let here = match read.bytes {
            _ if bytes == 0 => "its output stops before its end".to_owned(),
            0 => format!("none of its {all} of output is here"),
            part => format!("only {} of its {all} of output is here", in_units(part)),
        };
        let rest = match bytes == 0 && !long.ended {
            true => "the rest never arrived".to_owned(),
            false => self.rest(&run.at.cluster, &long.at),
        };
        let text = format!("{here}: {rest}");
        Some(Lack { bytes, text })
    }

    /// Where the rest is that the master `at` had, or the bucket where that is empty.
    fn rest(&self, cluster: &ClusterName, at: &str) -> String {
        match (at, self.fleet, self.bucket) {
            ("", _, Some(bucket)) => format!("the rest is not in {bucket} and is lost"),
            ("", ..) => "the rest is lost".to_owned(),
            (at, None, _) => format!("the rest was on the disk of the master {at}"),
            (at, Some(fleet), _) if at == fleet.me => {
                "the rest is lost, it was on the disk of this master".to_owned()
            }
            (at, Some(fleet), _) => match fleet.masters.contains_key(at) {
                true if fleet.lives(at) => format!(
                    "the master {at} has all of it, `aot-master masters move {cluster} {at}` makes it readable"
                ),
                true => format!("the master {at} has all of it, and is away"),
                false => format!("the rest was on the disk of the master {at}, which is gone"),
            },
        }
    }
}

fn unknown_length(here: u64) -> Lack {
    let text = match here {
        0 => "its output is not here: it is with a former master of the cluster, or lost",
        _ => "only the beginning of its output is here, and its length is not on record",
    };
    Lack {
        bytes: 0,
        text: text.to_owned(),
    }
}

impl Lack {
    /// The same of several outputs of one target: the first text, all bytes.
    pub(super) fn and(self, more: Option<Self>) -> Self {
        Self {
            bytes: self.bytes + more.map_or(0, |more| more.bytes),
            ..self
        }
    }

    /// Says so in a target's end.
    pub(super) fn mark(&self, ended: &mut v1::JobEnded) {
        ended.truncated = true;
        ended.cut_bytes = ended.cut_bytes.saturating_add(self.bytes);
        if !ended.detail.is_empty() {
            ended.detail.push_str("; ");
        }
        ended.detail.push_str(&self.text);
    }
}

/// What lacks of an output that was followed live and stopped before its end, though its run has ended; `None` of a run that may not
/// have begun.
pub(super) fn stopped(job: JobId, verdict: &Verdict, read: &ReadOutput) -> Option<Lack> {
    let why = match &read.error {
        Some(error) => format!("cannot read the rest of its output: {error}"),
        None if has_run(verdict) => "its output stops before its end".to_owned(),
        None => return None,
    };
    Some(Lack {
        bytes: 0,
        text: format!("{why}; see aot-master jobs show {job}"),
    })
}

/// Whether an end was made of a spool's last frame, so that there is an output.
fn has_run(verdict: &Verdict) -> bool {
    verdict.exit_code.is_some() || verdict.ms > 0
}

/// Outputs that could not be shown whole.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// Whose is the first of them, and what lacks of it.
    first: Option<(String, Lack)>,
    count: usize,
}

impl Lacks {
    /// One more.
    pub(super) fn add(&mut self, whose: String, lack: Lack) {
        self.count += 1;
        self.first.get_or_insert((whose, lack));
    }

    /// Says so in the last event of a job, which is no success then, however its targets ended.
    pub(super) fn mark(&self, summary: v1::JobSummary) -> v1::JobSummary {
        v1::JobSummary {
            exit_code: summary.exit_code.max(u32::from(self.count > 0)),
            incomplete: self.text(),
            ..summary
        }
    }

    /// What whoever was shown them is told at the end; empty where there are none.
    pub(super) fn text(&self) -> String {
        let Some((whose, lack)) = &self.first else {
            return String::new();
        };
        match self.count {
            1 => format!("the output of {whose} is not whole: {}", lack.text),
            many => format!(
                "{} are not whole, the first is that of {whose}: {}",
                plural::count(many, "output"),
                lack.text
            ),
        }
    }
}

/// `4.5 MiB`; below that `64 KiB`.
fn in_units(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use aot_model::outcome::Outcome;
    use aot_model::run::LongOutput;
    use aot_store::contract::samples;
    use aot_store::fleet::sample_view;

    use super::*;

    const ALL: u64 = 5 << 20;

    /// A run that succeeded, whose output of [`ALL`] is at that master.
    fn run(at: &str) -> Run {
        let verdict = Verdict {
            exit_code: Some(0),
            ..Verdict::without_run(Outcome::Succeeded, "")
        };
        Run {
            verdict: Some(verdict),
            output: Some(LongOutput {
                bytes: ALL,
                ended: true,
                at: at.to_owned(),
            }),
            ..samples::run(1, 1, true)
        }
    }

    fn read(bytes: u64) -> ReadOutput {
        ReadOutput {
            bytes,
            ..ReadOutput::default()
        }
    }

    fn lack(run: &Run, bytes: u64) -> Option<Lack> {
        let mut fleet = sample_view("a", &[]);
        if let Some(silent) = fleet.masters.get("b").cloned() {
            let id = "silent".to_owned();
            let silent = aot_store::fleet::FleetMaster {
                id: id.clone(),
                is_alive: false,
                ..silent
            };
            fleet.masters.insert(id, silent);
        }
        let places = OutputPlaces {
            fleet: Some(&fleet),
            bucket: None,
        };
        places.lack(run, &read(bytes))
    }

    #[test]
    fn a_part_says_how_much_it_is_and_who_has_the_rest() {
        for (at, rest) in [
            (
                "b",
                "the master b has all of it, `aot-master masters move hello b` makes it readable",
            ),
            ("silent", "the master silent has all of it, and is away"),
            (
                "other",
                "the rest was on the disk of the master other, which is gone",
            ),
            ("a", "the rest is lost, it was on the disk of this master"),
            ("", "the rest is lost"),
        ] {
            let mut run = run(at);
            run.at.cluster = "hello".parse().expect("a name");
            let part = lack(&run, 1 << 20).expect("a part");
            assert_eq!(part.bytes, 4 << 20, "{at}");
            let want = format!("only 1.0 MiB of its 5.0 MiB of output is here: {rest}");
            assert_eq!(part.text, want);
        }
        let none = lack(&run("b"), 0).expect("nothing is here");
        let begins = "none of its 5.0 MiB of output is here: the master b";
        assert!(none.text.starts_with(begins), "{}", none.text);
        let bucket = OutputPlaces {
            fleet: None,
            bucket: Some("s3://b/p"),
        };
        let text = bucket.lack(&run(""), &read(1)).expect("a part").text;
        assert!(
            text.ends_with("the rest is not in s3://b/p and is lost"),
            "{text}"
        );
    }

    #[test]
    fn what_was_read_to_its_end_and_what_still_runs_lacks_nothing() {
        let mut whole = read(ALL);
        whole.has_end = true;
        let places = OutputPlaces {
            fleet: None,
            bucket: None,
        };
        assert_eq!(places.lack(&run("b"), &whole), None);
        let running = Run {
            verdict: None,
            ..run("b")
        };
        assert_eq!(lack(&running, 3), None);
        // Its agent was gone before it printed, or it was never given it.
        let nothing = Run {
            verdict: Some(Verdict::without_run(Outcome::Rejected, "no")),
            output: None,
            ..run("b")
        };
        assert_eq!(lack(&nothing, 0), None);
    }

    #[test]
    fn an_output_without_an_end_or_a_length_on_record_is_said_to_be_a_part() {
        let mut cut = run("b");
        for (ended, rest) in [
            (true, "the master b has"),
            (false, "the rest never arrived"),
        ] {
            cut.output.as_mut().expect("it is long").ended = ended;
            let lack = lack(&cut, ALL).expect("it has no end");
            assert_eq!(lack.bytes, 0);
            let want = format!("its output stops before its end: {rest}");
            assert!(lack.text.starts_with(&want), "{}", lack.text);
        }
        let before = Run {
            output: None,
            ..run("b")
        };
        for (bytes, want) in [(0, "is not here"), (9, "only the beginning")] {
            let part = lack(&before, bytes).expect("a part");
            assert!(part.text.contains(want), "{}", part.text);
        }
        let unreadable = ReadOutput {
            error: Some("the bucket is away".to_owned()),
            ..read(9)
        };
        let places = OutputPlaces {
            fleet: None,
            bucket: None,
        };
        let part = places.lack(&run(""), &unreadable).expect("a part");
        assert!(part.text.ends_with(": the bucket is away"), "{}", part.text);
    }

    #[test]
    fn an_end_is_marked_and_what_it_said_before_stays() {
        let part = Lack {
            bytes: 7,
            text: "a part".to_owned(),
        };
        let part = part.clone().and(Some(part)).and(None);
        let mut ended = v1::JobEnded {
            detail: "why".to_owned(),
            cut_bytes: 3,
            ..v1::JobEnded::default()
        };
        part.mark(&mut ended);
        assert_eq!((ended.truncated, ended.cut_bytes), (true, 17));
        assert_eq!(ended.detail, "why; a part");
        let mut lacks = Lacks::default();
        assert_eq!(lacks.text(), "");
        lacks.add("web1".to_owned(), part.clone());
        assert_eq!(lacks.text(), "the output of web1 is not whole: a part");
        lacks.add("web2".to_owned(), part);
        let begins = "2 outputs are not whole, the first is that of web1";
        assert!(lacks.text().starts_with(begins), "{}", lacks.text());
        let whole = v1::JobSummary::default();
        let marked = lacks.mark(whole.clone());
        assert_eq!((marked.exit_code, marked.incomplete), (1, lacks.text()));
        assert_eq!(Lacks::default().mark(whole.clone()), whole);
    }
}
