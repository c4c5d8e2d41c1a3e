//! The commands against a scripted master: what they print, and what they exit with.

mod again;
mod calls;
mod cp;
mod doctor;
mod end;
mod events;
mod exec;
mod jobs;
mod joined;
mod launch;
mod look;
mod manners;
mod marks;
mod masters;
mod orphans;
mod rolling;
mod start;
mod targets;

use std::io::{self, Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aot_proto::v1::job_event::Body;
use aot_proto::v1::{
    BuiltinName, ClusterView, Event, JobEnded, JobOutput, JobStarted, JobSummary, LogLine,
    MachineState, PlanAction, PlanLine, PlanThing, Problem, StatusReply, ThingAction, ThingKind,
    facts_reply,
};
use time::UtcOffset;

use super::fake::{Fake, Script, Then};
use super::{BackgroundDaemon, CliEnv, Exit, parse, run_on};
use crate::view::{Out, Streams, samples};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

/// What a command left.
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

pub(crate) fn env_in(dir: &Path) -> CliEnv {
    CliEnv {
        socket: dir.join("master.sock"),
        state_dir: dir.join("state"),
        background: None,
        interactive: false,
        stdout_terminal: false,
        stderr_terminal: false,
        redraws: false,
        colour: false,
        colour_always: false,
        offset: UtcOffset::UTC,
        build: String::new(),
        asks_again: Duration::from_millis(300),
        settings: None,
        serve: None,
        secrets: |_, _, _| Vec::new(),
    }
}

async fn run_in(env: &CliEnv, stdin: &str, words: &[&str]) -> Ran {
    let (out, err) = (Shared::default(), Shared::default());
    let mut io = Streams {
        stdin: Box::new(Cursor::new(stdin.as_bytes().to_vec())),
        stdout: Out::new(out.clone()),
        stderr: Out::new(err.clone()),
    };
    let cli =
        parse(["aot-master"].iter().chain(words).map(Into::into)).expect("a good command line");
    let exit = run_on(cli, env, &mut io).await;
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

async fn run(fake: &Fake, words: &[&str]) -> Ran {
    run_in(&env_in(fake.dir.path()), "", words).await
}

/// A cluster's file in the fake's folder.
fn file(fake: &Fake) -> String {
    let path = fake.dir.path().join("cluster.yml");
    std::fs::write(&path, "cluster: hadoop\n").expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

fn plan(action: &str, instance: &str) -> PlanLine {
    PlanLine {
        action: PlanAction::from_name(action).expect("an action").into(),
        instance: instance.into(),
        pool: "web".into(),
        detail: "because".into(),
        ..PlanLine::default()
    }
}

fn last(word: &str, exit_code: u32, message: &str, fields: &str) -> Event {
    Event {
        unix_ms: 1_767_225_784_000,
        cluster: "hadoop".into(),
        event: word.into(),
        message: message.into(),
        fields_json: fields.into(),
        last: true,
        exit_code,
        ..Event::default()
    }
}
