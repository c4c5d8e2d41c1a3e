//! What is on disk about a clone, and how one reads it. Written by the provider (`machine.json`) and by the clone's
//! supervisor (`state.json`), each its own file, so that neither overwrites the other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use aot_proto::ids::{InstanceName, MachineId};
use aot_provider::{ClientToken, Machine, MachineState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How long a terminated clone is still shown, as EC2 does (EC2 User Guide, "Terminate Amazon EC2 instances").
pub(crate) const KEEP_TERMINATED: Duration = Duration::from_secs(3600);

/// Where the files of one clone lie.
#[derive(Debug, Clone)]
pub(crate) struct Dirs(pub PathBuf);

impl Dirs {
    /// What the provider says about it.
    pub(crate) fn machine(&self) -> PathBuf {
        self.0.join("machine.json")
    }
    /// What its supervisor says about it.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }
    /// Locked by its supervisor for as long as that lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("run.lock")
    }
    /// Console output, newest part.
    pub(crate) fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }
    /// Identifies this boot.
    pub(crate) fn boot_id(&self) -> PathBuf {
        self.0.join("boot_id")
    }
    /// Settings of the agent inside.
    pub(crate) fn agent_toml(&self) -> PathBuf {
        self.0.join("agent.toml")
    }
    /// The agent inside.
    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("aot-agent")
    }
    /// Everything the clone wrote.
    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }
    /// Where its root is mounted, in its own mount namespace only.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }
    /// There once the first boot has put the clone's own files in place.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.0.join("prepared")
    }
}

/// A clone as the provider made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineFile {
    /// Its id.
    pub id: MachineId,
    /// Uuid of its cluster.
    pub cluster_uuid: String,
    /// Token of its launch.
    pub token: ClientToken,
    /// Place in its launch.
    pub launch_index: u32,
    /// Its member.
    pub name: InstanceName,
    /// Its host name.
    pub hostname: String,
    /// Its own address in 127.0.0.0/8.
    pub address: Ipv4Addr,
    /// Host folders that it must not see.
    pub masked: Vec<PathBuf>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub launched_ms: u64,
    /// Set once it is to be gone for good.
    pub ending: Option<Ending>,
}

/// How far its end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Asked for; processes or files may still be there.
    Begun,
    /// All gone since this time, in milliseconds since 1970.
    Done(u64),
}

/// A clone as its supervisor last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    /// Pending, running, stopping or stopped.
    pub state: MachineState,
    /// Why, for a person.
    pub reason: String,
    /// Id of the boot that this is about.
    pub boot_id: String,
    /// Boots so far.
    pub boots: u64,
    /// Process id of its pid 1, as this machine sees it.
    pub init_pid: Option<u32>,
    /// Process id of its supervisor.
    pub supervisor_pid: u32,
    /// Start time of the supervisor in clock ticks after the host's boot (proc_pid_stat(5), field 22).
    pub supervisor_start: u64,
}

/// State and reason to show, from what both files and the lock say.
pub(crate) fn state_now(
    file: &MachineFile,
    state: Option<&StateFile>,
    supervised: bool,
) -> (MachineState, String) {
    match (file.ending, state, supervised) {
        (Some(Ending::Done(_)), _, _) => (
            MachineState::Terminated,
            "terminated by the operator".into(),
        ),
        (Some(Ending::Begun), _, _) => (MachineState::ShuttingDown, "being terminated".into()),
        (None, None, _) => (MachineState::Pending, "not started yet".into()),
        (None, Some(state), true) => (state.state, state.reason.clone()),
        (None, Some(state), false) if state.state == MachineState::Stopped => {
            (state.state, state.reason.clone())
        }
        (None, Some(_), false) => (
            MachineState::Stopped,
            "lost power: its supervisor is gone (it was killed, or this host was restarted)".into(),
        ),
    }
}

/// Whether a terminated clone's record may go.
pub(crate) fn expired(file: &MachineFile, now_ms: u64) -> bool {
    matches!(file.ending, Some(Ending::Done(at)) if now_ms.saturating_sub(at) > KEEP_TERMINATED.as_millis() as u64)
}

impl MachineFile {
    /// As the trait shows it.
    pub(crate) fn to_machine(&self, state: MachineState, reason: String) -> Machine {
        let here = Some("local".to_owned());
        Machine {
            id: self.id.clone(),
            client_token: Some(self.token.clone()),
            launch_index: self.launch_index,
            name: Some(self.name.clone()),
            state,
            state_reason: reason,
            private_ip: Some(self.address.to_string()),
            public_ip: None,
            private_dns: Some(self.hostname.clone()),
            public_dns: None,
            instance_type: here.clone(),
            availability_zone: here.clone(),
            region: here,
            subnet: None,
            image: None,
            launched_at: Some(UNIX_EPOCH + Duration::from_millis(self.launched_ms)),
            tags: self.tags.clone(),
            volumes: Vec::new(),
            account: None,
        }
    }
}

/// Writes a value as JSON, atomically, readable by its owner only.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    aot_host::files::write_atomic(path, &serde_json::to_vec_pretty(value)?, 0o600)
}

/// Reads what `save` wrote; `None` when there is no such file.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ending: Option<Ending>) -> MachineFile {
        MachineFile {
            id: "local-1".parse().unwrap(),
            cluster_uuid: "u".into(),
            token: ClientToken("t".into()),
            launch_index: 0,
            name: "web1".parse().unwrap(),
            hostname: "web1".into(),
            address: Ipv4Addr::new(127, 77, 1, 2),
            masked: vec![],
            tags: BTreeMap::new(),
            launched_ms: 5,
            ending,
        }
    }

    fn state(state: MachineState) -> StateFile {
        StateFile {
            state,
            reason: "because".into(),
            boot_id: "b".into(),
            boots: 1,
            init_pid: None,
            supervisor_pid: 1,
            supervisor_start: 1,
        }
    }

    #[test]
    fn a_state_without_a_supervisor_is_a_power_loss() {
        use MachineState::*;
        let alive = file(None);
        for (seen, supervised, shown) in [
            (Running, true, Running),
            (Stopping, true, Stopping),
            (Running, false, Stopped),
            (Pending, false, Stopped),
            (Stopped, false, Stopped),
        ] {
            assert_eq!(
                state_now(&alive, Some(&state(seen)), supervised).0,
                shown,
                "{seen} {supervised}"
            );
        }
        assert!(
            state_now(&alive, Some(&state(Running)), false)
                .1
                .contains("lost power")
        );
        assert_eq!(state_now(&alive, Some(&state(Stopped)), false).1, "because");
        assert_eq!(state_now(&alive, None, false).0, Pending);
        assert_eq!(
            state_now(&file(Some(Ending::Begun)), Some(&state(Running)), true).0,
            ShuttingDown
        );
        assert_eq!(
            state_now(&file(Some(Ending::Done(1))), None, false).0,
            Terminated
        );
    }

    #[test]
    fn a_terminated_record_goes_after_an_hour() {
        assert!(!expired(&file(Some(Ending::Done(1000))), 1000 + 3_600_000));
        assert!(expired(&file(Some(Ending::Done(1000))), 1001 + 3_600_000));
        assert!(!expired(&file(Some(Ending::Begun)), u64::MAX));
        assert!(!expired(&file(None), u64::MAX));
    }

    #[test]
    fn what_is_saved_is_loaded_and_absence_is_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        assert_eq!(load::<MachineFile>(&path).unwrap(), None);
        save(&path, &file(None)).unwrap();
        assert_eq!(load::<MachineFile>(&path).unwrap(), Some(file(None)));
        fs::write(&path, "{").unwrap();
        load::<MachineFile>(&path).unwrap_err();
    }
}
