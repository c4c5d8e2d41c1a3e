//! What was done for a fleet, as lines for a person or documents for a program.

use std::path::Path;
use std::process::ExitCode;

use aot_cli::program::{message, print};
use aot_postgres::{ImportedCluster, LevelRaise};
use aot_store::sqlite::export::PutFiles;
use serde_json::{Value, json};

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

    pub(super) fn init(&mut self, place: &str, key: &Path, is_new: bool, is_key_new: bool) {
        let file = key.display();
        let text = match is_new {
            true => format!("{place}: a fleet's keys were made, sealed with {file}"),
            false => format!("{place}: has its keys, sealed with {file}; nothing was changed"),
        };
        let document = json!({
            "store": place,
            "made": is_new,
            "fleet_key": key,
            "fleet_key_made": is_key_new,
        });
        self.say(&text, &document);
        self.keys(key, is_key_new);
        self.add(&format!(
            "each master needs a copy of {file} (mode 0600), and AOT_STORE, AOT_FLEET_KEY, AOT_BLOBS and AOT_ADVERTISE"
        ));
    }

    pub(super) fn keys(&self, key: &Path, is_key_new: bool) {
        if is_key_new {
            self.add(&format!(
                "{} is new: keep a copy of it, nothing else opens the keys in the database",
                key.display()
            ));
        }
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
