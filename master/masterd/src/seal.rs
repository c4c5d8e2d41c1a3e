//! What the settings say that a fleet's keys are sealed with.

use std::sync::Arc;

use aot_cli::program::absolute;
use aot_daemon::enrol::fleet_key::{FleetKey, FleetKeyError};
use aot_daemon::enrol::fleet_seal::FleetSeal;
use aot_kms::Kms;
use aot_settings::FleetKeySetting;

/// The key of a file, which has to be there, or KMS, which is asked later.
pub(crate) fn fleet_seal(setting: &FleetKeySetting) -> Result<FleetSeal, FleetKeyError> {
    Ok(match setting {
        FleetKeySetting::File(path) => FleetSeal::File(Arc::new(FleetKey::read(&absolute(path))?)),
        FleetKeySetting::Kms(key) => FleetSeal::Service(Arc::new(Kms::new(key))),
    })
}
