//! T1: an owner is stopped at any point of its writing, taken over, and continued.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::killed::rounds;
use super::*;

/// Owners that are paused; `AOT_TEST_ROUNDS` asks for more.
const ROUNDS: u64 = 8;

/// Tells a process of this program to be an owner, on the database of this URL.
const OWNER: &str = "AOT_TEST_OWNER";

/// The first number that it writes.
const FROM: &str = "AOT_TEST_FROM";

/// What an owner says when it is fenced.
const FENCED: &str = "fenced: ";

/// Writes until it is fenced, and says what was acknowledged. Only as a process of its own.
#[tokio::test]
async fn an_owner_that_writes() {
    let Ok(url) = std::env::var(OWNER) else {
        return;
    };
    let from = std::env::var(FROM).expect("a number");
    let master = Master::of(&url);
    let open = master.open().await;
    let mut out = std::io::stdout().lock();
    for number in from.parse::<u64>().expect("a number").. {
        let said = match open.write(number).await {
            Ok(()) => format!("\nacknowledged {number}\n"),
            Err(error) => {
                let error = aot_host::chain::Chain(&error).to_string();
                format!("\n{FENCED}{error}\n")
            }
        };
        out.write_all(said.as_bytes()).expect("it is read");
        out.flush().expect("it is read");
        if said.contains(FENCED) {
            return;
        }
    }
}

struct Owner {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    acknowledged: Vec<u64>,
    last_words: Option<String>,
}

impl Owner {
    fn start(url: &str, from: u64) -> Self {
        let mut child = Command::new(program())
            .args([
                "--exact",
                "tests::paused::an_owner_that_writes",
                "--nocapture",
            ])
            .env(OWNER, url)
            .env(FROM, from.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("its own program");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self {
            child,
            lines,
            acknowledged: Vec::new(),
            last_words: None,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it is ours");
    }

    /// Reads until it has so many acknowledged, or has ended.
    fn read(&mut self, until: usize) {
        while self.acknowledged.len() < until
            && let Some(Ok(line)) = self.lines.next()
        {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                self.acknowledged.push(number.parse().expect("a number"));
            }
            if let Some(why) = line.strip_prefix(FENCED) {
                self.last_words = Some(why.to_owned());
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended, unless a test failed
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_paused_anywhere_and_taken_over_writes_nothing_more() {
    let Some(server) = server("a paused owner") else {
        return;
    };
    let mut state = seed();
    let url = server.url(&server.database());
    let (mut from, mut expected) = (1_u64, Vec::new());
    for round in 0..rounds(ROUNDS) {
        let mut owner = Owner::start(&url, from);
        owner.read(1 + usize::try_from(dice(&mut state, 30)).expect("few"));
        tokio::time::sleep(Duration::from_micros(dice(&mut state, 5_000))).await;
        owner.signal(Signal::STOP);
        let next = Master::of(&url);
        let taken = next.open().await;
        let at_once = taken.jobs().await;
        let mine = from + 1_000_000;
        taken.write(mine).await.expect("commits");
        owner.signal(Signal::CONT);
        owner.read(usize::MAX); // to its end
        let why = owner.last_words.clone().expect("it says why it ends");
        assert!(why.contains("has taken over"), "{why}");
        assert!(owner.child.wait().expect("it is ours").success());
        taken.write(mine + 1).await.expect("commits");

        let mut found = taken.jobs().await;
        found.retain(|job| *job < id(mine));
        assert_eq!(found, at_once, "round {round}: rows after the take-over");
        expected.extend(owner.acknowledged.iter().copied().map(id));
        let lost: Vec<_> = expected
            .iter()
            .filter(|job| !at_once.contains(job))
            .collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        let unsaid = at_once.len() - expected.len();
        assert!(
            unsaid <= 1 + usize::try_from(round).expect("few"),
            "{unsaid} at most one a round"
        );
        from += 10_000;
        let whole = taken.store.jobs(None, u32::MAX).await.expect("reads");
        assert!(whole.iter().all(|job| job.targets.len() == 2), "in part");
        taken.close().await;
        // What the one that took over wrote goes, so that the next round counts the owners' alone.
        let sweep = aot_model::retention::Sweep {
            jobs: vec![id(mine), id(mine + 1)],
            ..Default::default()
        };
        let swept = next.open().await;
        swept.store.sweep(&swept.hold, sweep).await.expect("sweeps");
        swept.close().await;
    }
}
