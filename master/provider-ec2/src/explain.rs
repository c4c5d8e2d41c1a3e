//! Why machines may be silent: EC2's status checks and the end of their consoles, for a person. Called when machines
//! don't dial in; reads only, and leaves out what it can't learn.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::MachineId;
use aot_provider::ProviderError;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{InstanceStatus, InstanceStatusSummary, SummaryStatus};
use aws_smithy_types::date_time::Format;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;

use super::client::call;
use super::lifecycle::{is_unknown, named};

/// Machines whose console is read; each is a call, and a person reads no more.
const MAX_CONSOLES: usize = 10;
/// Consoles that are read at the same time.
const AT_ONCE: usize = 5;
/// Ids in one DescribeInstanceStatus call.
const BATCH: usize = 100;
/// Most that is shown of a console.
const CONSOLE_LINES: usize = 30;
const CONSOLE_BYTES: usize = 4 << 10;

/// A text for each machine about which something is known.
pub(super) async fn explain(client: &Client, ids: &[MachineId]) -> BTreeMap<MachineId, String> {
    let checks = checks(client, ids).await;
    let consoles = ids.iter().take(MAX_CONSOLES).cloned();
    let consoles = consoles.map(|id| async move {
        let text = console(client, &id).await.unwrap_or_default();
        (id, text)
    });
    let consoles: BTreeMap<MachineId, String> = futures::stream::iter(consoles)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    ids.iter()
        .filter_map(|id| {
            let mut parts: Vec<String> = checks.get(id).cloned().into_iter().collect();
            let console = consoles.get(id).filter(|text| !text.is_empty());
            parts.extend(console.map(|text| format!("end of its console:\n{text}")));
            (!parts.is_empty()).then(|| (id.clone(), parts.join("\n")))
        })
        .collect()
}

async fn checks(client: &Client, ids: &[MachineId]) -> BTreeMap<MachineId, String> {
    let mut known = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        for status in statuses(client, batch.to_vec()).await {
            let id = status.instance_id().and_then(|id| id.parse().ok());
            known.extend(id.zip(check(&status)));
        }
    }
    known
}

/// Those of the batch; ids that EC2 does not know are left out of it.
async fn statuses(client: &Client, mut ids: Vec<MachineId>) -> Vec<InstanceStatus> {
    while !ids.is_empty() {
        let request = client
            .describe_instance_status()
            .include_all_instances(true)
            .set_instance_ids(Some(ids.iter().map(ToString::to_string).collect()));
        match call("DescribeInstanceStatus", request.send()).await {
            Ok(answer) => return answer.instance_statuses.unwrap_or_default(),
            Err(error) => {
                let bad: BTreeSet<MachineId> = named(&error.message, &ids);
                if !is_unknown(&error) || bad.is_empty() {
                    return Vec::new();
                }
                ids.retain(|id| !bad.contains(id));
            }
        }
    }
    Vec::new()
}

/// One line for the checks, one for each scheduled event that is not over; `None` when EC2 says nothing.
fn check(status: &InstanceStatus) -> Option<String> {
    let system = status.system_status().and_then(check_result);
    let instance = status.instance_status().and_then(check_result);
    let both = [("system", system), ("instance", instance)];
    let both: Vec<String> = both
        .into_iter()
        .filter_map(|(name, result)| result.map(|result| format!("{name} {result}")))
        .collect();
    let mut lines = Vec::new();
    if !both.is_empty() {
        lines.push(format!("state checks: {}", both.join(", ")));
    }
    for event in status.events() {
        let text = event.description().unwrap_or("");
        if text.starts_with("[Completed]") || text.starts_with("[Canceled]") {
            continue;
        }
        let code = event.code().map_or("event", |code| code.as_str());
        let when = event
            .not_before()
            .and_then(|time| time.fmt(Format::DateTime).ok());
        let when = when.map_or_else(String::new, |when| format!(" from {when}"));
        lines.push(format!("scheduled: {code}{when}: {text}"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// `ok`, `impaired`, `initializing`; a machine that is not running has no checks.
fn check_result(summary: &InstanceStatusSummary) -> Option<&str> {
    summary
        .status()
        .map(SummaryStatus::as_str)
        .filter(|result| *result != "not-applicable")
}

async fn console(client: &Client, id: &MachineId) -> Result<String, ProviderError> {
    let ask = |latest: bool| {
        let request = client.get_console_output().instance_id(id.as_str());
        call("GetConsoleOutput", request.latest(latest).send())
    };
    // Only Nitro types show the latest output; the others what EC2 last kept.
    let answer = match ask(true).await {
        Err(error) if error.code.as_deref() == Some("UnsupportedOperation") => ask(false).await?,
        other => other?,
    };
    let coded: String = answer
        .output()
        .unwrap_or("")
        .split_ascii_whitespace()
        .collect();
    Ok(STANDARD
        .decode(coded)
        .map_or_else(|_| String::new(), |bytes| tail(&bytes)))
}

/// The last lines that may say something, as plain text: terminals must not be steered by what a machine prints.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .lines()
        .map(plain)
        .filter(|line| !line.is_empty() && !is_about_keys(line))
        .collect();
    let last = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
    let start = last.ceil_char_boundary(last.len().saturating_sub(CONSOLE_BYTES));
    last[start..].to_owned()
}

/// cloud-init ends each first boot with some twenty lines about ssh host keys (its module keys_to_console): they would push
/// out what went wrong before.
fn is_about_keys(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    line.contains("-----BEGIN SSH HOST KEY ")
        || line.contains("-----END SSH HOST KEY ")
        || line.ends_with("####################")
        || words.iter().any(|word| word.starts_with("SHA256:"))
        || matches!(words[..], [kind, key, ..] if key.starts_with("AAAA") && kind.contains('-'))
}

/// Without control characters and the escape sequences that they begin (ECMA-48: `ESC [` parameters, one final byte).
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            while chars.next_if(|char| matches!(char, ' '..='?')).is_some() {}
            chars.next_if(|char| matches!(char, '@'..='~'));
        } else if char == '\t' {
            text.push(' ');
        } else if !char.is_control() {
            text.push(char);
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
