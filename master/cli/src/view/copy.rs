//! How far a copy is: a line per instance while there are few, else one for all. Only in a terminal.

use std::collections::BTreeMap;

use aot_proto::plural;
use aot_proto::v1::{JobEnded, Outcome};
use serde_json::{Map, Value, json};

use super::bars::{Bar, Bars, Shows};

/// Most instances with a line of their own.
const MAX_LINES: usize = 10;

/// The bars of one copy, on standard error; nothing is seen unless it is a terminal.
pub(crate) struct CopyView {
    bars: Bars,
    /// The upload, then all instances together when they have no lines of their own.
    whole: Option<Bar>,
    lines: BTreeMap<String, Bar>,
    came: BTreeMap<String, u64>,
    /// Sizes are not known before they come.
    out: bool,
}

impl CopyView {
    /// With bars, when someone looks; of a copy from instances, or to them.
    pub(crate) fn new(seen: bool, out: bool) -> Self {
        let bars = match seen {
            true => Bars::on_stderr(),
            false => Bars::hidden(),
        };
        Self::on(bars, out)
    }

    /// On any terminal.
    pub(crate) fn on(bars: Bars, out: bool) -> Self {
        Self {
            bars,
            whole: None,
            lines: BTreeMap::new(),
            came: BTreeMap::new(),
            out,
        }
    }

    /// How much has gone to the master.
    pub(crate) fn uploading(&mut self, bytes: u64) {
        if self.whole.is_none() {
            self.whole = Some(self.add("to the master", None));
        }
        if let Some(whole) = &self.whole {
            whole.set_bytes(bytes);
        }
    }

    /// All of it.
    pub(crate) fn uploaded(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.bars.remove(&whole);
        }
    }

    /// The instances are known, and what each gets.
    pub(crate) fn started(&mut self, instances: &[String], size: u64) {
        let size = (!self.out).then_some(size);
        if instances.len() > MAX_LINES {
            let all = plural::count(instances.len(), "instance");
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

    fn add(&self, prefix: &str, size: Option<u64>) -> Bar {
        let bar = self.bars.add(size.map_or(Shows::Bytes, Shows::Share));
        bar.set_prefix(prefix);
        bar
    }

    /// How much is there, of one instance.
    pub(crate) fn progress(&mut self, instance: &str, bytes: u64) {
        if let Some(line) = self.lines.get(instance) {
            line.set_bytes(bytes);
        } else if let Some(whole) = &self.whole {
            let before = self.came.insert(instance.to_owned(), bytes).unwrap_or(0);
            whole.add_bytes(bytes.saturating_sub(before));
        }
    }

    /// An instance is done, well or not.
    pub(crate) fn ended(&mut self, instance: &str, outcome: i32) {
        if let Some(line) = self.lines.get(instance) {
            let well = outcome == i32::from(Outcome::Succeeded);
            if let Some(size) = line.all_bytes().filter(|_| well) {
                line.set_bytes(size);
            }
            line.end(Some(&Outcome::name_of(outcome).replace('_', " ")));
        }
    }

    /// Clocks and spinners continue.
    pub(crate) fn tick(&self) {
        for bar in self.lines.values().chain(&self.whole) {
            if !bar.has_ended() {
                bar.tick();
            }
        }
    }

    /// Prints lines above the bars.
    pub(crate) fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }

    /// Takes the bars away until they are brought up again; a failing terminal shows no bars anyway.
    pub(crate) fn clear(&self) {
        self.bars.clear();
    }

    /// Leaves the lines of the instances as they are; what was one for all goes.
    pub(crate) fn close(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.bars.remove(&whole);
        }
        for line in self.lines.values().filter(|line| !line.has_ended()) {
            line.end(None);
        }
        self.bars.leave();
        self.lines.clear();
    }
}

impl Drop for CopyView {
    fn drop(&mut self) {
        self.close();
    }
}

/// One target's end as an object; `said` is what the instance said, `bytes` the length of the archive.
pub(crate) fn copy_json(job: &str, ended: &JobEnded, said: &str, bytes: u64) -> Value {
    let mut out = Map::new();
    out.insert("job".into(), job.into());
    out.insert("instance".into(), ended.instance.as_str().into());
    out.insert("outcome".into(), Outcome::name_of(ended.outcome).into());
    out.insert("exit_code".into(), ended.exit_code.into());
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

    fn shown(out: bool, count: usize, act: impl FnOnce(&mut CopyView)) -> String {
        let (bars, term) = Bars::in_memory(20, 100);
        let mut view = CopyView::on(bars, out);
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
            view.ended("web1", Outcome::Succeeded.into());
            view.ended("web2", Outcome::LostContact.into());
            view.tick();
        });
        assert!(few.contains("web1 [="), "{few}");
        assert!(few.contains("1000 B/1000 B"), "{few}");
        assert!(few.contains("lost contact"), "{few}");
        let many = shown(true, 11, |view| {
            view.progress("web1", 5);
            view.progress("web1", 7);
            view.progress("web2", 3);
            assert_eq!(view.whole.as_ref().map(Bar::bytes), Some(10));
        });
        assert!(!many.contains("web1"), "{many}");
    }

    #[test]
    fn an_end_as_json_is_like_that_of_exec() {
        let ended = JobEnded {
            instance: "web1".into(),
            outcome: Outcome::Failed.into(),
            exit_code: Some(1),
            seconds: 1.5,
            detail: "/x: No such file or directory".into(),
            ..JobEnded::default()
        };
        assert_eq!(
            copy_json("job-1", &ended, "left out", 0).to_string(),
            r#"{"job":"job-1","instance":"web1","outcome":"failed","exit_code":1,"stdout":"","stderr":"left out","seconds":1.5,"bytes":0,"detail":"/x: No such file or directory"}"#
        );
    }
}
