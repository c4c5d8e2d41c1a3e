//! What the cloud's metadata service says of the machine.

use serde_json::{Map, Value};

use crate::imds::{self, Imds};

/// What IMDS says of the machine, by its own names.
const CLOUD: [&str; 15] = [
    "ami-id",
    "ami-launch-index",
    "hostname",
    "instance-id",
    "instance-life-cycle",
    "instance-type",
    "local-hostname",
    "local-ipv4",
    "mac",
    "placement/availability-zone",
    "placement/availability-zone-id",
    "placement/region",
    "public-hostname",
    "public-ipv4",
    "reservation-id",
];

/// The machine's facts from IMDS, keys with `_` for `-` and the last part of a path.
///
/// # Errors
/// When IMDS does not answer.
pub(crate) async fn cloud(base: &str) -> Result<Value, imds::Error> {
    let imds = Imds::open(base).await?;
    let mut facts = Map::new();
    for path in CLOUD {
        if let Some(text) = imds.find(&format!("/latest/meta-data/{path}")).await? {
            let key = path.rsplit('/').next().unwrap_or(path).replace('-', "_");
            facts.insert(key, Value::String(text.trim().to_owned()));
        }
    }
    Ok(Value::Object(facts))
}
