//! What is sent to those who follow a cluster or a job.

use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1;
use serde_json::{Map, Value};

use super::unix_ms::UnixMs;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// In which cluster it happened.
    pub cluster: ClusterName,
    /// To which instance; `None` = the cluster as a whole.
    pub instance: Option<InstanceName>,
    /// Past tense, kebab-case.
    pub kind: &'static str,
    /// For a person; no secret.
    pub message: String,
    /// The event's own fields.
    pub fields: Map<String, Value>,
    /// The instance as it is now, when this changed it; without its cloud properties.
    pub view: Option<v1::InstanceView>,
    /// Job that this belongs to and ends, with the exit status.
    pub ends: Option<(aot_proto::ids::JobId, u32)>,
    /// Job whose followers alone get it.
    pub aside: Option<aot_proto::ids::JobId>,
}

impl Event {
    /// One about the cluster as a whole.
    pub fn cluster(cluster: &ClusterName, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            cluster: cluster.clone(),
            instance: None,
            kind,
            message: message.into(),
            fields: Map::new(),
            view: None,
            ends: None,
            aside: None,
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// As it goes over the operator's socket.
    pub fn into_wire(self, now: UnixMs) -> v1::Event {
        v1::Event {
            unix_ms: now,
            cluster: self.cluster.to_string(),
            instance: self
                .instance
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            event: self.kind.to_owned(),
            message: self.message,
            fields_json: if self.fields.is_empty() {
                String::new()
            } else {
                Value::Object(self.fields).to_string()
            },
            view: self.view,
            last: self.ends.is_some(),
            exit_code: self.ends.map_or(0, |ends| ends.1),
            place: None,
        }
    }
}
