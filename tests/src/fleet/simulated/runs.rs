//! What a simulated agent runs: commands that print what is known beforehand and end after a while. Their spools are in memory,
//! until the master has them.

use std::collections::{BTreeMap, HashMap, HashSet};

use aot_proto::frame;
use aot_proto::ids::RunId;
use aot_proto::v1::{
    EndKind, Ended, Frame, RunState, StartRun, Started, frame::Body as Said, start_run::What,
};
use tokio::time::{Duration, Instant};

/// The command that is known: `print LINES MILLISECONDS`. Half of the lines come at once, the rest with the end. Any other
/// one ends at once.
pub const PRINT: &str = "print";

/// What is printed at once at most: a frame has its limit.
const PIECE_BYTES: usize = 16 << 10;

/// What it prints on an instance.
pub fn printed(instance: &str, lines: usize) -> String {
    let line = |n| format!("{instance} prints its line {n} of {lines}\n");
    (1..=lines).map(line).collect()
}

/// What became of a command to start a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    New,
    /// The same run was started before: a real agent answers and does nothing.
    Repeated,
    /// Another run of the same job: the command runs twice.
    Double,
}

/// All runs of one agent.
pub(super) struct Runs {
    instance: String,
    runs: BTreeMap<RunId, SimulatedRun>,
    /// The run of each job.
    jobs: HashMap<String, RunId>,
    forgotten: HashSet<RunId>,
    /// How often all have been ended before their time.
    ends: u64,
}

#[derive(Default)]
struct SimulatedRun {
    spool: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// When it ends, and what it prints then.
    rest: Option<(Instant, String)>,
}

impl SimulatedRun {
    fn say(&mut self, said: Said) {
        let frame = Frame {
            unix_ms: 1,
            body: Some(said),
        };
        frame::encode(&frame, &mut self.spool);
        self.ends.push(self.spool.len());
    }

    fn print(&mut self, text: &str) {
        for piece in text.as_bytes().chunks(PIECE_BYTES) {
            self.say(Said::Stdout(piece.to_vec().into()));
        }
    }

    fn end(&mut self, kind: EndKind) {
        self.rest = None;
        self.say(Said::Ended(Ended {
            kind: kind as i32,
            ..Ended::default()
        }));
    }
}

impl Runs {
    /// None yet.
    pub(super) fn new(instance: String) -> Self {
        Self {
            instance,
            runs: BTreeMap::new(),
            jobs: HashMap::new(),
            forgotten: HashSet::new(),
            ends: 0,
        }
    }

    /// Those that are there have come to their time, unless that many ends were heard of already.
    pub(super) fn end_by(&mut self, ends: u64) {
        if self.ends == ends {
            return;
        }
        self.ends = ends;
        let open = self.runs.values_mut();
        for (at, _) in open.filter_map(|run| run.rest.as_mut()) {
            *at = Instant::now();
        }
    }

    /// Starts one.
    pub(super) fn start(&mut self, start: &StartRun, now: Instant) -> Result<Start, String> {
        let id: RunId = start.run_id.parse().map_err(|_| "not a run")?;
        if self.runs.contains_key(&id) || self.forgotten.contains(&id) {
            return Ok(Start::Repeated);
        }
        let mut run = SimulatedRun::default();
        run.say(Said::Started(Started {
            run_id: start.run_id.clone(),
            pid: 1,
            boot_id: "b".to_owned(),
        }));
        match self.asked_to_print(start) {
            None => run.end(EndKind::Exited),
            Some((lines, after)) => {
                let text = printed(&self.instance, lines);
                let half = text.match_indices('\n').nth(lines / 2);
                let (first, rest) = text.split_at(half.map_or(0, |(at, _)| at + 1));
                run.print(first);
                run.rest = Some((now + after, rest.to_owned()));
            }
        }
        self.runs.insert(id, run);
        match self.jobs.insert(start.job_id.clone(), id) {
            None => Ok(Start::New),
            Some(_) => Ok(Start::Double),
        }
    }

    fn asked_to_print(&self, start: &StartRun) -> Option<(usize, Duration)> {
        let Some(What::Exec(exec)) = &start.what else {
            return None;
        };
        match &exec.argv[..] {
            [print, lines, ms] if print == PRINT => {
                Some((lines.parse().ok()?, Duration::from_millis(ms.parse().ok()?)))
            }
            _ => None,
        }
    }

    /// What the time has brought: the runs that have grown, and their lengths.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<(RunId, u64)> {
        let mut grown = Vec::new();
        for (id, run) in &mut self.runs {
            if let Some((at, rest)) = run.rest.take_if(|(at, _)| *at <= now) {
                debug_assert!(at <= now);
                run.print(&rest);
                run.end(EndKind::Exited);
                grown.push((*id, run.spool.len() as u64));
            }
        }
        grown
    }

    /// When the next one ends.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let ends = self.runs.values().filter_map(|run| run.rest.as_ref());
        ends.map(|(at, _)| *at).min()
    }

    /// How long one's spool is.
    pub(super) fn bytes(&self, id: RunId) -> u64 {
        self.runs.get(&id).map_or(0, |run| run.spool.len() as u64)
    }

    /// Ends one that was cancelled.
    pub(super) fn cancel(&mut self, id: RunId) -> Option<u64> {
        let run = self.runs.get_mut(&id).filter(|run| run.rest.is_some())?;
        run.end(EndKind::Cancelled);
        Some(run.spool.len() as u64)
    }

    /// The master has all of it.
    pub(super) fn forget(&mut self, id: RunId) {
        if self.runs.remove(&id).is_some() {
            self.forgotten.insert(id);
        }
    }

    /// For Hello.
    pub(super) fn states(&self) -> Vec<RunState> {
        let state = |(id, run): (&RunId, &SimulatedRun)| RunState {
            run_id: id.to_string(),
            spool_bytes: run.spool.len() as u64,
            ended: run.rest.is_none(),
        };
        self.runs.iter().map(state).collect()
    }

    /// Whole frames from there on, at most this many bytes; and whether they are the last ones.
    pub(super) fn read(&self, id: RunId, offset: u64, most: usize) -> (Vec<u8>, bool) {
        let Some(run) = self.runs.get(&id) else {
            return (Vec::new(), false);
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let fits = |end: &&usize| **end > from && **end - from <= most;
        let Some(to) = run.ends.iter().rfind(fits) else {
            return (Vec::new(), false);
        };
        let is_last = *to == run.spool.len() && run.rest.is_none();
        (run.spool[from..*to].to_vec(), is_last)
    }
}

#[cfg(test)]
mod tests {
    use aot_proto::v1::ExecSpec;

    use super::*;

    const RUNS: [&str; 2] = [
        "run-01J00000000000000000000001",
        "run-01J00000000000000000000002",
    ];

    fn start(run: &str, job: &str, argv: &[&str]) -> StartRun {
        StartRun {
            run_id: run.to_owned(),
            job_id: job.to_owned(),
            what: Some(What::Exec(ExecSpec {
                argv: argv.iter().map(|word| (*word).to_owned()).collect(),
                ..ExecSpec::default()
            })),
            ..StartRun::default()
        }
    }

    fn said(bytes: &[u8]) -> (String, bool) {
        let (mut text, mut has_ended, mut rest) = (Vec::new(), false, bytes);
        while let Some((frame, length)) = frame::decode(rest).expect("frames") {
            match frame.body {
                Some(Said::Stdout(bytes)) => text.extend_from_slice(&bytes),
                Some(Said::Ended(_)) => has_ended = true,
                _ => {}
            }
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "whole frames");
        (String::from_utf8(text).expect("text"), has_ended)
    }

    #[test]
    fn it_prints_what_is_known_beforehand_and_is_read_from_any_frame() {
        let (now, mut runs) = (Instant::now(), Runs::new("n1".to_owned()));
        let id: RunId = RUNS[0].parse().expect("an id");
        let begun = runs.start(&start(RUNS[0], "job", &[PRINT, "5", "100"]), now);
        assert_eq!(begun, Ok(Start::New));
        let (first, is_last) = runs.read(id, 0, 1 << 20);
        assert_eq!((said(&first).1, is_last), (false, false));
        assert_eq!(runs.advance(now + Duration::from_millis(99)), []);
        let later = now + Duration::from_millis(100);
        assert_eq!(runs.next_at(), Some(later));
        assert_eq!(runs.advance(later), [(id, runs.bytes(id))]);
        let (rest, is_last) = runs.read(id, first.len() as u64, 1 << 20);
        assert!(is_last);
        let (all, _) = runs.read(id, 0, 1 << 20);
        assert_eq!(all, [first.clone(), rest].concat());
        assert_eq!(said(&all), (printed("n1", 5), true));
        let (part, is_last) = runs.read(id, 0, first.len() + 1);
        assert_eq!((part, is_last), (first, false), "no part of a frame");
        runs.forget(id);
        assert_eq!(runs.states(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_ended_before_its_time_once() {
        let (now, mut runs) = (Instant::now(), Runs::new("n1".to_owned()));
        for (run, job) in RUNS.iter().zip(["a", "b"]) {
            let begun = runs.start(&start(run, job, &[PRINT, "5", "60000"]), now);
            assert_eq!(begun, Ok(Start::New));
            runs.end_by(1);
        }
        let id: RunId = RUNS[0].parse().expect("an id");
        assert_eq!(runs.advance(now), [(id, runs.bytes(id))]);
        assert_eq!(runs.next_at(), Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn what_is_long_is_printed_in_frames_that_are_allowed() {
        let (now, mut runs) = (Instant::now(), Runs::new("n1".to_owned()));
        let id: RunId = RUNS[0].parse().expect("an id");
        let begun = runs.start(&start(RUNS[0], "job", &[PRINT, "9000", "0"]), now);
        assert_eq!(begun, Ok(Start::New));
        assert_eq!(runs.advance(now), [(id, runs.bytes(id))]);
        let mut all = Vec::new();
        while let (piece, is_last) = runs.read(id, all.len() as u64, 60 << 10)
            && !piece.is_empty()
        {
            all.extend(piece);
            assert_eq!(is_last, all.len() as u64 == runs.bytes(id));
        }
        assert_eq!(said(&all), (printed("n1", 9_000), true));
    }

    #[test]
    fn what_is_started_twice_is_seen() {
        let (now, mut runs) = (Instant::now(), Runs::new("n1".to_owned()));
        let first = start(RUNS[0], "job", &["true"]);
        assert_eq!(runs.start(&first, now), Ok(Start::New));
        assert_eq!(runs.start(&first, now), Ok(Start::Repeated));
        runs.forget(RUNS[0].parse().expect("an id"));
        assert_eq!(runs.start(&first, now), Ok(Start::Repeated), "a tombstone");
        let other = start(RUNS[1], "job", &["true"]);
        assert_eq!(runs.start(&other, now), Ok(Start::Double));
    }
}
