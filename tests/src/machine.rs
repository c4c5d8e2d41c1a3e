//! Looks into local clones from outside, by the files that their provider keeps. For faults that no command makes:
//! a killed agent, a lost power supply.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::wait::LIMIT;
use crate::{process, wait};

/// A clone of the local provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMachine {
    /// Its machine id.
    pub id: String,
    /// Its instance.
    pub name: String,
    /// It was terminated; only its record is left.
    pub ended: bool,
    /// Its folder.
    pub dir: PathBuf,
}

/// Every clone below a state dir that has a record, by instance name and id.
///
/// # Panics
/// When a record can't be read.
pub fn all(state_dir: &Path) -> Vec<LocalMachine> {
    let Ok(entries) = fs::read_dir(state_dir.join("local/machines")) else {
        return Vec::new();
    };
    let mut machines = Vec::new();
    for entry in entries.flatten() {
        let dir = entry.path();
        let Some(record) = json(&dir.join("machine.json")) else {
            continue;
        };
        let text = |key: &str| record[key].as_str().expect("a text").to_owned();
        let ended = !record["ending"].is_null();
        machines.push(LocalMachine {
            id: text("id"),
            name: text("name"),
            ended,
            dir,
        });
    }
    machines.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    machines
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

impl LocalMachine {
    /// Process id of its pid 1, as the host sees it; `None` while it is down.
    pub fn init_pid(&self) -> Option<u32> {
        let pid = json(&self.dir.join("state.json"))?["init_pid"].as_u64()?;
        u32::try_from(pid).ok().filter(|pid| process::alive(*pid))
    }

    /// Process id of its supervisor; `None` while it is down.
    pub fn supervisor_pid(&self) -> Option<u32> {
        let pid = json(&self.dir.join("state.json"))?["supervisor_pid"].as_u64()?;
        u32::try_from(pid).ok().filter(|pid| process::alive(*pid))
    }

    /// Id of its current boot.
    pub fn boot_id(&self) -> String {
        let text = fs::read_to_string(self.dir.join("boot_id")).unwrap_or_default();
        text.trim().to_owned()
    }

    /// Process id of its agent; `None` while there is none. Shims of the same program are not meant.
    pub fn agent_pid(&self) -> Option<u32> {
        let init = self.init_pid()?;
        let children = process::all()
            .into_iter()
            .filter(|(_, parent)| *parent == init);
        let mut agents = children.map(|(pid, _)| pid).filter(|pid| {
            let line = process::command_line(*pid);
            line.split(' ')
                .next()
                .is_some_and(|program| program.ends_with("aot-agent"))
                && !line.contains("shim")
        });
        agents.next()
    }

    /// Kills its agent, and only that.
    ///
    /// # Panics
    /// When it has none within [`LIMIT`].
    #[track_caller]
    pub fn kill_agent(&self) -> u32 {
        let pid = wait::some(|| self.agent_pid(), LIMIT, "an agent to kill");
        process::kill_hard(pid);
        pid
    }

    /// Stops its agent (SIGSTOP), so that it neither acts nor comes back. Its machine can still be terminated.
    ///
    /// # Panics
    /// When it has none within [`LIMIT`].
    #[track_caller]
    pub fn stop_agent(&self) -> u32 {
        let pid = wait::some(|| self.agent_pid(), LIMIT, "an agent to stop");
        process::send(pid, nix::sys::signal::Signal::SIGSTOP);
        pid
    }

    /// Takes its power away: its pid 1, and so all in it, ends at once; its supervisor notes that it is stopped.
    ///
    /// # Panics
    /// When it is down already.
    #[track_caller]
    pub fn lose_power(&self) {
        let supervisor = self.supervisor_pid();
        process::kill_hard(self.init_pid().expect("it is up"));
        if let Some(pid) = supervisor {
            wait::until(
                || !process::alive(pid),
                LIMIT,
                "the end of the supervisor of a machine without power",
            );
        }
    }

    /// A file in it, read through its pid 1; `None` when it is down or has no such file.
    pub fn read(&self, path: &str) -> Option<String> {
        let pid = self.init_pid()?;
        fs::read_to_string(format!("/proc/{pid}/root{path}")).ok()
    }
}
