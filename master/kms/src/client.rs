//! The client of KMS, made at the first call.

use std::time::Duration;

use aot_aws::Patience;
use aws_config::Region;
use aws_sdk_kms::Client;

/// Some hundred bytes each way. A master that starts says soon what it waits for, and its service starts it again.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(10),
    call: Some(Duration::from_secs(30)),
    attempts: 4,
    longest_backoff: Duration::from_secs(5),
};

/// For this region, or that of the SDK's settings.
pub(super) async fn made(region: Option<String>) -> Client {
    let mut settings = aot_aws::settings(&PATIENCE);
    if let Some(region) = region {
        settings = settings.region(Region::new(region));
    }
    Client::new(&settings.load().await)
}
