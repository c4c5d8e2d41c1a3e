//! A job as JSON: one object per target as it ends. The shapes of the interface's `--json` section.

use std::collections::HashMap;
use std::io::{self, Write as _};

use aot_proto::v1::{JobEnded, JobNotice, JobOutput, JobStarted, Outcome};
use serde_json::{Map, Value, json};

use super::{JobView, notice_line, result_of};
use crate::view::{Streams, text_or_base64};

/// Output of one stream of one instance that is kept until its end; what is past it is cut, and marked.
const MAX_BUFFERED_BYTES: usize = 16 << 20;

/// Output that is kept of all that have not ended.
const MAX_BUFFERED_ALL_BYTES: usize = 512 << 20;

/// One object per target as it ends.
#[derive(Debug, Default)]
pub(crate) struct JobJson {
    job: String,
    kept: HashMap<String, Buffered>,
    kept_bytes: usize,
}

#[derive(Debug, Default)]
struct Buffered {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    cut_bytes: u64,
}

impl JobView for JobJson {
    fn started(&mut self, started: &JobStarted, _io: &mut Streams) -> io::Result<()> {
        self.job.clone_from(&started.job_id);
        Ok(())
    }

    fn output(&mut self, output: &JobOutput, _io: &mut Streams) -> io::Result<()> {
        let kept = self.kept.entry(output.instance.clone()).or_default();
        let to = if output.stderr {
            &mut kept.stderr
        } else {
            &mut kept.stdout
        };
        let room = (MAX_BUFFERED_BYTES - to.len()).min(MAX_BUFFERED_ALL_BYTES - self.kept_bytes);
        let taken = &output.data[..output.data.len().min(room)];
        to.extend_from_slice(taken);
        self.kept_bytes += taken.len();
        kept.cut_bytes += (output.data.len() - taken.len()) as u64;
        Ok(())
    }

    fn ended(&mut self, ended: &JobEnded, io: &mut Streams) -> io::Result<()> {
        let kept = self.kept.remove(&ended.instance).unwrap_or_default();
        self.kept_bytes -= kept.stdout.len() + kept.stderr.len();
        writeln!(io.stdout, "{}", ended_json(&self.job, ended, &kept))?;
        io.stdout.flush()
    }

    fn notice(&mut self, notice: &JobNotice, io: &mut Streams) -> io::Result<()> {
        writeln!(io.stderr, "{}", notice_line(notice))
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        io.stdout.flush()
    }
}

fn ended_json(job: &str, ended: &JobEnded, kept: &Buffered) -> Value {
    let mut out = head_json(job, ended);
    text_or_base64(&mut out, "stdout", &kept.stdout);
    text_or_base64(&mut out, "stderr", &kept.stderr);
    tail_json(&mut out, ended, kept.cut_bytes);
    Value::Object(out)
}

/// How a target ended, with how much it printed in place of what it printed: a line of `outcomes.jsonl`.
pub(crate) fn outcome_json(
    job: &str,
    ended: &JobEnded,
    stdout_bytes: u64,
    stderr_bytes: u64,
) -> Value {
    let mut out = head_json(job, ended);
    out.insert("stdout_bytes".into(), stdout_bytes.into());
    out.insert("stderr_bytes".into(), stderr_bytes.into());
    tail_json(&mut out, ended, 0);
    Value::Object(out)
}

fn head_json(job: &str, ended: &JobEnded) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("job".into(), job.into());
    out.insert("instance".into(), ended.instance.as_str().into());
    out.insert("outcome".into(), Outcome::name_of(ended.outcome).into());
    out.insert("exit_code".into(), ended.exit_code.into());
    out
}

fn tail_json(out: &mut Map<String, Value>, ended: &JobEnded, cut_here_bytes: u64) {
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
pub(super) const MAX_BUFFERED: usize = MAX_BUFFERED_BYTES;
