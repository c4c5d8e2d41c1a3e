//! How far a copy is: a line an instance while there are few, else one for all. Only in a terminal.

use std::collections::BTreeMap;

use aot_proto::v1::ExecEnded;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

/// Most instances with a line of their own.
const MAX_LINES: usize = 10;

/// The bars of one copy, on standard error; nothing is seen unless it is a terminal.
pub struct CopyView {
    bars: MultiProgress,
    /// The upload, then all instances together when they have no lines of their own.
    whole: Option<ProgressBar>,
    lines: BTreeMap<String, ProgressBar>,
    came: BTreeMap<String, u64>,
    /// Sizes are not known before they come.
    out: bool,
}

impl CopyView {
    /// With bars, when someone looks; of a copy from instances, or to them.
    pub fn new(seen: bool, out: bool) -> Self {
        let target = match seen {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self::on(target, out)
    }

    /// On any terminal.
    pub fn on(target: ProgressDrawTarget, out: bool) -> Self {
        Self {
            bars: MultiProgress::with_draw_target(target),
            whole: None,
            lines: BTreeMap::new(),
            came: BTreeMap::new(),
            out,
        }
    }

    /// So much has gone to the master.
    pub fn uploading(&mut self, bytes: u64) {
        if self.whole.is_none() {
            self.whole = Some(self.add("to the master", None));
        }
        if let Some(whole) = &self.whole {
            whole.set_position(bytes);
        }
    }

    /// All of it.
    pub fn uploaded(&mut self) {
        if let Some(whole) = self.whole.take() {
            whole.finish_and_clear();
        }
    }

    /// The instances are known, and what each gets.
    pub fn started(&mut self, instances: &[String], size: u64) {
        let size = (!self.out).then_some(size);
        if instances.len() > MAX_LINES {
            let all = format!("{} instances", instances.len());
            let count = instances.len() as u64;
            self.whole = Some(self.add(&all, size.map(|size| size * count)));
            return;
        }
        let width = instances.iter().map(String::len).max().unwrap_or(0);
        for name in instances {
            let bar = self.add(&format!("{name:<width$}"), size);
            self.lines.insert(name.clone(), bar);
        }
    }

    fn add(&self, prefix: &str, size: Option<u64>) -> ProgressBar {
        let (template, bar) = match size {
            Some(size) => (
                "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {msg}",
                ProgressBar::new(size),
            ),
            None => (
                "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}",
                ProgressBar::no_length(),
            ),
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        bar.set_style(style);
        bar.set_prefix(prefix.to_owned());
        self.bars.add(bar)
    }

    /// So much is there, of one instance.
    pub fn progress(&mut self, instance: &str, bytes: u64) {
        if let Some(line) = self.lines.get(instance) {
            line.set_position(bytes);
        } else if let Some(whole) = &self.whole {
            let before = self.came.insert(instance.to_owned(), bytes).unwrap_or(0);
            whole.inc(bytes.saturating_sub(before));
        }
    }

    /// An instance is done, well or not.
    pub fn ended(&mut self, instance: &str, outcome: &str) {
        if let Some(line) = self.lines.get(instance) {
            if let Some(size) = line.length().filter(|_| outcome == "succeeded") {
                line.set_position(size);
            }
            line.abandon_with_message(outcome.replace('_', " "));
        }
    }

    /// Clocks and spinners go on.
    pub fn tick(&self) {
        for bar in self.lines.values().chain(&self.whole) {
            if !bar.is_finished() {
                bar.tick();
            }
        }
    }

    /// Prints lines above the bars.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }

    /// Takes the bars away until they are brought up again; a failing terminal shows no bars anyway.
    pub fn clear(&self) {
        let _ = self.bars.clear();
    }

    /// Leaves the lines of the instances as they are; what was one for all goes.
    pub fn close(&mut self) {
        if let Some(whole) = self.whole.take() {
            whole.finish_and_clear();
        }
        for line in self.lines.values().filter(|line| !line.is_finished()) {
            line.abandon();
        }
        self.bars.set_move_cursor(false);
        self.lines.clear();
    }
}

impl Drop for CopyView {
    fn drop(&mut self) {
        self.close();
    }
}

/// One target's end as an object; `said` is what the instance said, `bytes` the length of the archive.
pub fn copy_json(job: &str, ended: &ExecEnded, said: &str, bytes: u64) -> Value {
    let mut out = Map::new();
    out.insert("job".into(), job.into());
    out.insert("instance".into(), ended.instance.as_str().into());
    out.insert("outcome".into(), ended.outcome.as_str().into());
    let code = ended.has_exit_code.then_some(ended.exit_code);
    out.insert("exit_code".into(), code.map_or(Value::Null, Value::from));
    out.insert("stdout".into(), "".into());
    out.insert("stderr".into(), said.into());
    out.insert("seconds".into(), json!(ended.seconds));
    out.insert("bytes".into(), bytes.into());
    if !ended.detail.is_empty() {
        out.insert("detail".into(), ended.detail.as_str().into());
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    fn shown(out: bool, count: usize, act: impl FnOnce(&mut CopyView)) -> String {
        let term = InMemoryTerm::new(20, 100);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 250);
        let mut view = CopyView::on(target, out);
        let names: Vec<String> = (1..=count).map(|n| format!("web{n}")).collect();
        view.started(&names, 1000);
        act(&mut view);
        view.close();
        term.contents()
    }

    #[test]
    fn few_have_a_line_each_and_many_have_one() {
        let few = shown(false, 3, |view| {
            view.progress("web1", 500);
            view.ended("web1", "succeeded");
            view.ended("web2", "lost_contact");
            view.tick();
        });
        assert!(few.contains("web1 [="), "{few}");
        assert!(few.contains("1000 B/1000 B"), "{few}");
        assert!(few.contains("lost contact"), "{few}");
        let many = shown(true, 11, |view| {
            view.progress("web1", 5);
            view.progress("web1", 7);
            view.progress("web2", 3);
            assert_eq!(view.whole.as_ref().map(ProgressBar::position), Some(10));
        });
        assert!(!many.contains("web1"), "{many}");
    }

    #[test]
    fn an_end_as_json_is_like_that_of_exec() {
        let ended = ExecEnded {
            instance: "web1".into(),
            outcome: "failed".into(),
            exit_code: 1,
            has_exit_code: true,
            seconds: 1.5,
            detail: "/x: No such file or directory".into(),
            ..ExecEnded::default()
        };
        assert_eq!(
            copy_json("job-1", &ended, "left out", 0).to_string(),
            r#"{"job":"job-1","instance":"web1","outcome":"failed","exit_code":1,"stdout":"","stderr":"left out","seconds":1.5,"bytes":0,"detail":"/x: No such file or directory"}"#
        );
    }
}
