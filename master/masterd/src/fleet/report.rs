//! What was done for a fleet, as lines for a person or documents for a program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aot_cli::program::{message, print};
use aot_postgres::{ImportedCluster, LevelRaise};
use aot_settings::FleetKeySetting;
use aot_store::sqlite::export::PutFiles;
use serde_json::{Value, json};

/// What the keys of a fleet are sealed with, and what was done for it.
pub(super) struct SealedWith {
    setting: FleetKeySetting,
    is_new: bool,
}

impl SealedWith {
    pub(super) fn file(path: &Path, is_new: bool) -> Self {
        let setting = FleetKeySetting::File(path.to_owned());
        Self { setting, is_new }
    }

    pub(super) fn kms(key: &str) -> Self {
        let setting = FleetKeySetting::Kms(key.to_owned());
        let is_new = false;
        Self { setting, is_new }
    }

    /// A folder for what the keys are made from: beside what is as secret, if anything is.
    pub(super) fn scratch(&self) -> PathBuf {
        let beside = match &self.setting {
            FleetKeySetting::File(path) => path.parent().map(Path::to_owned),
            FleetKeySetting::Kms(_) => None,
        };
        beside.unwrap_or_else(std::env::temp_dir)
    }
}

/// Prints as things are done.
pub(super) struct FleetReport {
    json: bool,
    /// Whether all of it could be printed: what was done stays done.
    exit: ExitCode,
}

impl FleetReport {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            exit: ExitCode::SUCCESS,
        }
    }

    pub(super) fn exit(self) -> ExitCode {
        self.exit
    }

    fn say(&mut self, text: &str, document: &Value) {
        let printed = match self.json {
            true => print(&document.to_string(), true),
            false => print(text, false),
        };
        if printed != ExitCode::SUCCESS {
            self.exit = printed;
        }
    }

    /// What is no result.
    fn add(&self, text: &str) {
        if !self.json {
            message(text);
        }
    }

    pub(super) fn init(&mut self, place: &str, with: &SealedWith, is_new: bool) {
        let key = with.setting.to_string();
        let text = match is_new {
            true => format!("{place}: a fleet's keys were made, sealed with {key}"),
            false => format!("{place}: has its keys, sealed with {key}; nothing was changed"),
        };
        let document = json!({
            "store": place,
            "made": is_new,
            "fleet_key": key,
            "fleet_key_made": with.is_new,
        });
        self.say(&text, &document);
        self.keys(with);
        let needs = match &with.setting {
            FleetKeySetting::File(_) => format!("a copy of {key} (mode 0600)"),
            FleetKeySetting::Kms(_) => "kms:Decrypt on that key".to_owned(),
        };
        self.add(&format!(
            "each master needs {needs}, and AOT_STORE, AOT_FLEET_KEY, AOT_BLOBS and AOT_ADVERTISE"
        ));
    }

    pub(super) fn keys(&self, with: &SealedWith) {
        if with.is_new {
            self.add(&format!(
                "{} is new: keep a copy of it, nothing else opens the keys in the database",
                with.setting
            ));
        }
    }

    pub(super) fn rekeyed(&mut self, place: &str, key: &FleetKeySetting, is_done: bool) {
        let text = match is_done {
            true => format!("{place}: the fleet's keys are sealed with {key} now"),
            false => format!("{place}: the fleet's keys are sealed with {key} already"),
        };
        let document = json!({
            "store": place,
            "fleet_key": key.to_string(),
            "changed": is_done,
        });
        self.say(&text, &document);
        self.add("each master needs it in AOT_FLEET_KEY at its next start");
    }

    pub(super) fn cluster(&mut self, cluster: &ImportedCluster) {
        let name = &cluster.name;
        let text = match cluster.was_there {
            true => format!("{name}: was imported before"),
            false => format!("{name}: {} rows, compared", cluster.rows),
        };
        let document = json!({
            "cluster": name,
            "rows": cluster.rows,
            "was_there": cluster.was_there,
        });
        self.say(&text, &document);
    }

    pub(super) fn moved(
        &mut self,
        place: &str,
        dir: &Path,
        put: PutFiles,
        left: PutFiles,
        rows_of_nobody: u64,
    ) {
        let folder = dir.display();
        let text = format!(
            "{folder}: moved to {place}, with {} files ({} bytes); no master serves the folder again",
            put.files, put.bytes
        );
        let document = json!({
            "moved": dir,
            "store": place,
            "files": put.files,
            "bytes": put.bytes,
            "files_left": left.files,
            "bytes_left": left.bytes,
            "rows_of_nobody": rows_of_nobody,
        });
        self.say(&text, &document);
        if left.files > 0 {
            self.add(&format!(
                "left behind in {folder}: {} files ({} bytes), which are outputs over 64 KiB, bundles, agents and uploads; stages whose bundle is among them need a new launch",
                left.files, left.bytes
            ));
        }
        if rows_of_nobody > 0 {
            self.add(&format!(
                "left behind: {rows_of_nobody} rows of jobs and runs that were dropped before"
            ));
        }
        self.add(
            "agents keep their keys and certificates, and know the old address alone: it must stay, with a master of the fleet or a load balancer behind it, until each has connected once",
        );
    }

    pub(super) fn level(&mut self, raise: &LevelRaise) {
        let (was, is) = (raise.was, raise.is);
        let text = match was == is {
            true => format!("level {is}: nothing to do, not all masters that live know more"),
            false => format!("level {is}, it was {was}"),
        };
        let master = |master: &aot_postgres::MasterLevel| json!({"id": master.id, "level": master.level, "alive": master.is_alive});
        let masters: Vec<Value> = raise.masters.iter().map(master).collect();
        self.say(&text, &json!({"was": was, "level": is, "masters": masters}));
        for master in &raise.masters {
            let not_counted = match master.is_alive {
                true => "",
                false => ", not seen to beat: it was not asked",
            };
            self.add(&format!(
                "{} knows level {}{not_counted}",
                master.id, master.level
            ));
        }
    }
}
