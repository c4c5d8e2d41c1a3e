//! Jobs as their operators see them: listed, shown, waited for. For the tests of `exec` and `jobs`; asks the command line
//! alone.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::process::Output;
use crate::rig::Rig;
use crate::wait;

/// A job as `jobs show --json` tells it.
#[derive(Debug)]
pub struct Shown {
    /// Every line about a target, in their order.
    pub ends: Vec<Value>,
    /// How many targets ended how.
    pub summary: BTreeMap<String, u64>,
    /// All that was printed, for messages.
    pub output: Output,
}

impl Shown {
    /// The last word about a target.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn of(&self, instance: &str) -> &Value {
        let mut ends = self.ends.iter().rev();
        ends.find(|end| end["instance"] == instance)
            .unwrap_or_else(|| panic!("nothing about {instance}\n{}", self.output.shown()))
    }

    /// Outcomes by target.
    pub fn outcomes(&self) -> BTreeMap<String, String> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ends = self.ends.iter();
        ends.map(|end| (word(&end["instance"]), word(&end["outcome"])))
            .collect()
    }
}

/// Bytes of an output in an end's document, whichever way they are written.
///
/// # Panics
/// When there is neither a text nor base64.
#[track_caller]
pub fn bytes(end: &Value, stream: &str) -> Vec<u8> {
    if let Some(text) = end[stream].as_str() {
        return text.as_bytes().to_vec();
    }
    let encoded = end[format!("{stream}_base64")].as_str();
    let encoded = encoded.unwrap_or_else(|| panic!("no {stream} in {end}"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
    decoded.expect("base64")
}

/// The id of a job that was begun with `--json`: every line has it.
///
/// # Panics
/// When no line has one.
#[track_caller]
pub fn id(output: &Output) -> String {
    let lines = output.json();
    let found = lines.iter().find_map(|line| line["job"].as_str());
    found
        .unwrap_or_else(|| panic!("no job in it\n{}", output.shown()))
        .to_owned()
}

/// Every job there is, the newest first.
///
/// # Panics
/// When they can't be asked for.
#[track_caller]
pub fn list(rig: &Rig) -> Vec<Value> {
    let output = rig.cli(["jobs", "--json", "-n", "10000"]);
    output.expect(0);
    output.json()
}

/// The one entry of the list.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn entry(rig: &Rig, id: &str) -> Value {
    let mut all = list(rig);
    all.retain(|job| job["job"] == id);
    assert_eq!(all.len(), 1, "entries of {id}");
    all.remove(0)
}

/// What is on record of a job.
///
/// # Panics
/// When it can't be shown.
#[track_caller]
pub fn show(rig: &Rig, id: &str) -> Shown {
    let output = rig.cli(["jobs", "show", "--json", id]);
    assert!(matches!(output.code, Some(0 | 1)), "{}", output.shown());
    shown(output)
}

/// What any command has printed about a job with `--json`.
#[track_caller]
pub fn shown(output: Output) -> Shown {
    let lines = output.json();
    let (ends, others): (Vec<Value>, Vec<Value>) = lines
        .into_iter()
        .partition(|line| line["outcome"].is_string());
    let summary = others.iter().find_map(|line| line["summary"].as_object());
    let counts = summary.into_iter().flatten();
    let counts = counts.map(|(word, count)| (word.clone(), count.as_u64().unwrap_or_default()));
    Shown {
        summary: counts.collect(),
        ends,
        output,
    }
}

/// Waits until a job is over, and shows it.
///
/// # Panics
/// When `limit` passes first.
#[track_caller]
pub fn over(rig: &Rig, id: &str, limit: Duration) -> Shown {
    wait::until(
        || !entry(rig, id)["ended"].is_null(),
        limit,
        &format!("the end of {id}"),
    );
    show(rig, id)
}
