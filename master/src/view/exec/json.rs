//! Exec as JSON: one object a target as it ends. The shapes of the interface's `--json` section.

use std::collections::HashMap;
use std::io;

use aot_proto::v1::{ExecEnded, ExecNote, ExecOutput, ExecStarted};
use serde_json::{Map, Value, json};

use super::{ExecView, note_line, result_of};
use crate::view::{Streams, text_or_base64};

/// Output of one stream of one instance that is kept until its end; what is past it is cut, and marked.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// Output that is kept of all that have not ended.
const MAX_KEPT_ALL_BYTES: usize = 512 << 20;

/// One object a target as it ends.
#[derive(Debug, Default)]
pub struct ExecJson {
    job: String,
    kept: HashMap<String, Kept>,
    kept_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    cut_bytes: u64,
}

impl ExecView for ExecJson {
    fn started(&mut self, started: &ExecStarted, _io: &mut Streams) -> io::Result<()> {
        self.job.clone_from(&started.job_id);
        Ok(())
    }

    fn output(&mut self, output: &ExecOutput, _io: &mut Streams) -> io::Result<()> {
        let kept = self.kept.entry(output.instance.clone()).or_default();
        let to = if output.stderr {
            &mut kept.stderr
        } else {
            &mut kept.stdout
        };
        let room = (MAX_KEPT_BYTES - to.len()).min(MAX_KEPT_ALL_BYTES - self.kept_bytes);
        let taken = &output.data[..output.data.len().min(room)];
        to.extend_from_slice(taken);
        self.kept_bytes += taken.len();
        kept.cut_bytes += (output.data.len() - taken.len()) as u64;
        Ok(())
    }

    fn ended(&mut self, ended: &ExecEnded, io: &mut Streams) -> io::Result<()> {
        let kept = self.kept.remove(&ended.instance).unwrap_or_default();
        self.kept_bytes -= kept.stdout.len() + kept.stderr.len();
        writeln!(io.stdout, "{}", ended_json(&self.job, ended, &kept))?;
        io.stdout.flush()
    }

    fn note(&mut self, note: &ExecNote, io: &mut Streams) -> io::Result<()> {
        writeln!(io.stderr, "{}", note_line(note))
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        io.stdout.flush()
    }
}

fn ended_json(job: &str, ended: &ExecEnded, kept: &Kept) -> Value {
    let mut out = head_json(job, ended);
    text_or_base64(&mut out, "stdout", &kept.stdout);
    text_or_base64(&mut out, "stderr", &kept.stderr);
    tail_json(&mut out, ended, kept.cut_bytes);
    Value::Object(out)
}

/// How a target ended, with how much it printed in place of what it printed: a line of `outcomes.jsonl`.
pub fn outcome_json(job: &str, ended: &ExecEnded, stdout_bytes: u64, stderr_bytes: u64) -> Value {
    let mut out = head_json(job, ended);
    out.insert("stdout_bytes".into(), stdout_bytes.into());
    out.insert("stderr_bytes".into(), stderr_bytes.into());
    tail_json(&mut out, ended, 0);
    Value::Object(out)
}

fn head_json(job: &str, ended: &ExecEnded) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("job".into(), job.into());
    out.insert("instance".into(), ended.instance.as_str().into());
    out.insert("outcome".into(), ended.outcome.as_str().into());
    let code = ended.has_exit_code.then_some(ended.exit_code);
    out.insert("exit_code".into(), code.map_or(Value::Null, Value::from));
    out
}

fn tail_json(out: &mut Map<String, Value>, ended: &ExecEnded, cut_here_bytes: u64) {
    out.insert("seconds".into(), json!(ended.seconds));
    if !ended.json.is_empty() {
        out.insert("result".into(), result_of(ended));
    }
    if !ended.detail.is_empty() {
        out.insert("detail".into(), ended.detail.as_str().into());
    }
    let cut_bytes = ended.cut_bytes + cut_here_bytes;
    if ended.truncated || cut_bytes > 0 {
        out.insert("truncated".into(), true.into());
        out.insert("cut_bytes".into(), cut_bytes.into());
    }
}

#[cfg(test)]
pub(super) const MAX_KEPT: usize = MAX_KEPT_BYTES;
